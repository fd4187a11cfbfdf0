"""Similarity scorers in a run: worker processes, figures of the table, and errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.setting import NumberedTask
from knowgen.core.errors import MissingDependencyError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, GroundTruth, Sample, ScoreStatus
from knowgen.core.spec import RunSpec, select
from knowgen.engine import EngineOptions, RunOutcome, run
from knowgen.generators.contract import GeneratedImage
from knowgen.scorers.similarity.scorers import PromptSimilarity, ReferencesSimilarity, Similarity
from knowgen.stats.aggregate import aggregate
from knowgen.store.run import RunStore
from knowgen.workflows import resolve
from tests.helpers.similarity_models import save_blocks, save_clip_folder

pytest.importorskip("open_clip")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))


class ImageTask(NumberedTask):
    """A task of four samples with a ground-truth image each."""

    name = "images"

    def __init__(self, folder: Path) -> None:
        super().__init__(4)
        self.folder = folder

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            yield Sample(id=f"s{number}", prompt=f"Draw {number}.", category="sports")

    def truth(self, sample_id: str) -> GroundTruth:
        return GroundTruth(sample_id=sample_id, image=save_blocks(self.folder / "truth", 100 + int(sample_id[1:])))


class GenerationStep:
    """Generate one image per prompt and record two references; fail at the last sample."""

    revision = "1"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        number = int(request.prompt.split()[1][:-1])
        if number == 3:
            return GeneratedImage(status=GenerationStatus.FAILED, reason="it broke")
        image = save_blocks(Path(self.folder) / "generated", number)
        refs = [save_blocks(Path(self.folder) / "refs", 10 * number + each) for each in (7, 8)]
        recorded = tuple({"title": "reference", "path": str(ref.path), "sha256": ref.sha256} for ref in refs)
        assert image.path is not None
        return GeneratedImage(image=Image.open(image.path), references=recorded)


def evaluate(folder: Path, scorer: str, model: str) -> tuple[RunOutcome, RunSpec]:
    task = ImageTask(folder)
    generator = resolve.resolve_generator(GenerationStep, {"folder": str(folder)}, task)
    handle = resolve.resolve_scorer(scorer, {} if scorer.startswith("similarity:") else {"model": model})
    spec = RunSpec(
        task=task.name,
        task_version=task.version,
        selection=select([sample.id for sample in task.samples()], "all"),
        generator=generator.spec,
        scorers=(handle.spec,),
    )
    with RunStore.open(folder / "run", spec) as store:
        return run(spec, task, generator, [handle], store, EngineOptions(progress=False)), spec


@pytest.mark.slow  # a worker process imports torch
@pytest.mark.parametrize("kind", [Similarity, ReferencesSimilarity, PromptSimilarity])
def test_a_run_gives_the_scorers_values_and_their_mean(
    kind: type[Similarity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"local-dir:{save_clip_folder(tmp_path / 'model')}"
    name = f"similarity:{model}" if kind is Similarity else f"{kind.__module__}:{kind.__name__}"
    outcome, spec = evaluate(tmp_path, name, model)
    assert outcome.scored == 3
    task = ImageTask(tmp_path)
    with RunStore.read(tmp_path / "run") as store:
        scores = {score.sample_id: score for _, score in store.scores()}
        generations = {one.sample_id: one for _, one in store.generations()}
        rows = list(store.rows(name))
    batch = [(sample, task.truth(sample.id), generations[sample.id]) for sample in task.samples() if sample.id != "s3"]
    monkeypatch.setenv("KNOWGEN_CACHE", "off")  # otherwise the scores of the worker would be reused
    here = {score.sample_id: score for score in kind(model).score_batch(batch)}
    assert {name: score.strict.values for name, score in scores.items()} == {
        name: pytest.approx(score.strict.values, abs=1e-5) for name, score in here.items()
    }
    assert all(score.scorer == name and score.status is ScoreStatus.OK for score in scores.values())
    whole = aggregate(rows, "strict", dimensions=spec.scorers[0].dimensions).slice()
    for dimension in kind.dimensions:  # the generation that failed counts 0 in what the scorer measures, and only there
        expected = sum(score.strict.values[dimension] for score in scores.values()) / 4
        assert whole.figures[dimension].value == pytest.approx(expected)
    parts = [value for dimension in kind.dimensions if (value := whole.figures[dimension].value) is not None]
    assert len(parts) == len(kind.dimensions)
    assert whole.figures["overall"].value == pytest.approx(sum(parts) / len(parts))
    assert set(whole.figures) == {*kind.dimensions, "overall"}


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("similarity:local-dir:/no/such/folder", MissingDependencyError, "name a folder from which open_clip can load"),
        ("similarity:nonsense", UsageError, "names no weights"),
    ],
)
def test_a_wrong_model_ends_the_run_with_one_line(
    name: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words) as raised:
        evaluate(tmp_path, name, "")
    assert "\n" not in str(raised.value)
