"""In a run, whatever a generator does, and wherever it runs, it is kept from the task's ground truths."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen import evaluate
from knowgen.core.leaks import blocked_image, blocked_url, current_leak_guard
from knowgen.core.records import GroundTruth, Sample, image_ref
from knowgen.plugin import GeneratedImage
from knowgen.store.run import RunStore
from knowgen.tasks.in_memory import InMemoryTask

TASK = Path(__file__).resolve().parents[2] / "tasks" / "knowgen_mini"
TRUTHS = sorted((TASK / "truth").iterdir())[:3]
FOUND = sorted((TASK / "search" / "pictures").iterdir())[0]
OWN_DATA = "https://huggingface.co/datasets/GenSearcher/KnowGen-Bench"


def asked() -> tuple[dict[str, str], ...]:
    """Return what the guard says of an address and of two images, as evidence."""
    small = Image.open(TRUTHS[-1]).convert("RGB").resize((200, 130))
    texts = [blocked_url(OWN_DATA), blocked_url("https://example.org/"), blocked_image(small), blocked_image(FOUND)]
    return tuple({"title": "", "url": "", "text": text} for text in texts)


def image_with(evidence: tuple[dict[str, str], ...]) -> Any:
    return GeneratedImage(Image.effect_noise((64, 64), 40).convert("RGB"), evidence=evidence)


class Waits:
    """A generator in an event loop; the images are looked at in threads, as downloads are."""

    revision = "1"

    async def generate(self, request: Any) -> Any:
        return image_with(await asyncio.to_thread(asked))


class Batches:
    """A generator in a thread."""

    revision = "1"

    def generate_batch(self, requests: Any) -> Any:
        for request in requests:
            yield replace(image_with(asked()), request_id=request.id)


@pytest.mark.parametrize(("kind", "workers"), [("Waits", 0), ("Batches", 0), ("Waits", 1)])
def test_the_guard_knows_the_ground_truths_of_the_task_wherever_a_generator_runs(
    kind: str, workers: int, tmp_path: Path
) -> None:
    task = InMemoryTask(
        "guarded",
        [Sample(id=path.stem, prompt="Draw it.", category="art") for path in TRUTHS],
        [GroundTruth(sample_id=path.stem, image=image_ref(path)) for path in TRUTHS],
    )
    evaluate(
        task=task,
        generator=f"tests.engine.test_leak_guard:{kind}",
        scorers=["pixels"],
        limit=2,  # the ground truth of the third sample is blocked too
        workers=workers,
        out=tmp_path / "run",
    )
    with RunStore.read(tmp_path / "run") as store:
        generations = [generation for _, generation in store.generations()]
    assert [generation.reason for generation in generations] == ["", ""]
    said = [[one["text"] for one in generation.evidence] for generation in generations]
    assert (
        said
        == [
            [
                "it is the published benchmark (GenSearcher/KnowGen-Bench), or a copy of it",
                "",
                "it looks like a ground-truth image of the task",
                "",
            ]
        ]
        * 2
    )
    assert current_leak_guard.get() is None
