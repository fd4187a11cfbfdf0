"""Runs with hosted generators: costs, retries, budgets, and no trace of the key."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.clients import pricing
from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation, GenerationStatus
from knowgen.store.run import RunStore
from knowgen.workflows.run import Run
from tests.helpers.image_servers import (
    ARK,
    GEMINI,
    KEY,
    OPENAI,
    Call,
    ImageServer,
    ServiceProfile,
    Step,
    image_bytes,
    openai_response,
)

SCORER = '''
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class Half:
    """Give one half to everything."""
    needs = frozenset({"image"})
    version = "1"
    async def score(self, sample, truth, generation):
        parsed = ParsedScore(status=ScoreStatus.OK, values={name: 0.5 for name in DIMENSIONS})
        key = {"sample_id": sample.id, "repeat": generation.repeat}
        return Score(**key, scorer="half", status=ScoreStatus.OK, strict=parsed)
'''

GENERATORS: dict[str, tuple[str, ServiceProfile]] = {
    "openai": ("openai:gpt-image-1", OPENAI),
    "gemini": ("gemini:gemini-3-pro-image-preview", GEMINI),
    "ark": ("ark:doubao-seedream-4-5-251128", ARK),
}
PRICE = 0.25


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def evaluate(folder: Path, server: ImageServer, name: str = "openai", limit: int = 3, **options: Any) -> Run:
    scorer = folder / "half.py"
    scorer.write_text(SCORER)
    args = {"base_url": server.base, "key_env": "MY_KEY", "price": PRICE, **options.pop("args", {})}
    return knowgen.evaluate(
        "knowgen_mini", GENERATORS[name][0], f"{scorer}:Half", out=folder / "run", generator_args=args, limit=limit,
        progress=False, **options,
    )  # fmt: skip


def stored(folder: Path) -> list[Generation]:
    with RunStore.read(folder / "run") as store:
        return [generation for _, generation in store.generations()]


def by_prompt(step_of: Callable[[int, int], Step]) -> Callable[[Call], Step]:
    """Return a script: the step depends on the prompt's number in order of arrival and on its attempt."""
    lock, attempts = threading.Lock(), Counter[str]()

    def script(call: Call) -> Step:
        with lock:
            attempts[call.prompt] += 1
            return step_of(list(attempts).index(call.prompt), attempts[call.prompt])

    return script


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_run_with_each_service_stores_and_prints_no_key(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with ImageServer(GENERATORS[name][1]) as server:
        run = evaluate(tmp_path, server, name, budget=10.0)
    assert run.outcome is not None
    assert (run.outcome.generated, run.outcome.cost) == (3, 3 * PRICE)
    for generation in stored(tmp_path):
        assert generation.status is GenerationStatus.OK and generation.usage.cost == PRICE
        assert generation.settings["seed"] == "not taken" and generation.settings["endpoint"] == server.base
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err + caplog.text


def test_every_sample_ends_generated_refused_or_failed_with_its_reason(tmp_path: Path) -> None:
    refused = OPENAI.error(400, "moderation_blocked", "Your request was rejected by the safety system.")
    rejected = OPENAI.error(400, "invalid_value", f"Size is wrong for {KEY}.")
    steps: list[list[Step]] = [
        [Step()],
        [Step(status=429, body=b"{}", headers={"Retry-After": "0"}), Step()],
        [Step(status=500, body=b"{}"), Step()],
        [Step(close=True), Step()],
        [Step(status=400, error=refused)],
        [Step(status=400, error=rejected)],
        [Step(response=openai_response(image_bytes(size=(99, 99))[:-30]))],
        [Step(response=lambda url: openai_response(url=f"{url}/a.png"))],
    ]
    with ImageServer(
        OPENAI,
        by_prompt(lambda number, attempt: steps[number][min(attempt, len(steps[number])) - 1]),
        {"/a.png": image_bytes()},
    ) as server:
        run = evaluate(tmp_path, server, limit=8)
        requests = Counter(call.prompt for call in server.calls)
    assert run.outcome is not None
    assert sorted(requests.values()) == [1, 1, 1, 1, 1, 2, 2, 2]
    generations = stored(tmp_path)
    assert Counter(generation.status.value for generation in generations) == {"ok": 5, "refused": 1, "failed": 2}
    reasons = " | ".join(generation.reason for generation in generations)
    assert "declined: Your request was rejected by the safety system." in reasons
    assert "Size is wrong for [key]." in reasons and "does not open" in reasons
    assert all(bool(generation.reason) is (generation.status is not GenerationStatus.OK) for generation in generations)
    # six images were returned, one of them broken; the lost connection is charged the worst case
    assert run.outcome.cost == pytest.approx(7 * PRICE)


def test_a_run_stops_at_its_budget_and_a_larger_one_generates_only_what_is_missing(tmp_path: Path) -> None:
    with ImageServer(OPENAI) as server:
        first = evaluate(tmp_path, server, budget=2 * PRICE)
        assert first.outcome is not None
        assert (first.outcome.stopped, first.outcome.generated, len(server.calls)) == ("budget", 2, 2)
        second = evaluate(tmp_path, server, budget=10.0)
        assert second.outcome is not None
        assert (second.outcome.stopped, second.outcome.generated, second.outcome.generation_cached) == ("", 1, 2)
        assert len({call.prompt for call in server.calls}) == len(server.calls) == 3
        evaluate(tmp_path, server, args={"concurrency": 2, "timeout": 77, "price": 0.01, "rpm": 600})
        assert len(server.calls) == 3  # none of these decides what is generated


def test_a_second_run_generates_only_what_failed(tmp_path: Path) -> None:
    rejected = Step(status=400, error=OPENAI.error(400, "invalid_value", "No."))
    with ImageServer(
        OPENAI, by_prompt(lambda number, attempt: rejected if (number, attempt) == (1, 1) else Step())
    ) as server:
        evaluate(tmp_path, server)
        before = Counter(call.prompt for call in server.calls)
        assert sorted(before.values()) == [1, 1, 1]
        again = evaluate(tmp_path, server)
        requests = Counter(call.prompt for call in server.calls) - before
    assert again.outcome is not None and again.outcome.generated == 1
    assert list(requests.values()) == [1]
    assert {generation.status for generation in stored(tmp_path)} == {GenerationStatus.OK}


def test_a_budget_without_a_price_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with ImageServer(OPENAI) as server:
        with pytest.raises(ConfigError, match="price"):
            evaluate(tmp_path, server, budget=1.0, args={"price": None})
        assert not server.calls


def test_tokens_are_charged_at_the_published_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = pricing.price_list(pricing.IMAGE_PRICES)["hosts"]
    prices = listed["api.openai.com"]
    with_local = {"hosts": {**listed, "127.0.0.1": {"gpt-image-1": prices["gpt-image-1.5"]}}}
    monkeypatch.setattr(pricing, "price_list", lambda file: with_local)
    with ImageServer(OPENAI) as server:
        run = evaluate(tmp_path, server, budget=5.0, args={"price": None})
    assert run.outcome is not None
    per_image = (50 * 5 + 150 * 8 + 4160 * 32) / 1e6
    assert run.outcome.cost == pytest.approx(3 * per_image)
    assert [generation.usage.output_tokens for generation in stored(tmp_path)] == [4160] * 3


def test_another_size_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    with ImageServer(OPENAI) as server:
        evaluate(tmp_path, server, limit=1)
        with pytest.raises(ConfigError):
            evaluate(tmp_path, server, limit=1, args={"size": "1024x1024"})


def test_hosted_generators_run_in_worker_processes(tmp_path: Path) -> None:
    with ImageServer(GEMINI) as server:
        run = evaluate(tmp_path, server, "gemini", workers=1, budget=1.0)
    assert run.outcome is not None
    assert (run.outcome.generated, run.outcome.cost) == (3, 3 * PRICE)
    logs = "".join(path.read_text() for path in (tmp_path / "run").rglob("*.log"))
    assert KEY not in logs and "Unclosed" not in logs
