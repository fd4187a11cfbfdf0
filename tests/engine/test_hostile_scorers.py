"""Every image ends with a score that has a status, however a scorer misbehaves."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from knowgen.core.records import Score, ScoreStatus
from knowgen.engine import ComponentRef, RunOutcome, ScorerHandle, attempts
from tests.helpers.engine import Bench, Plain, quick, scorer_handle

COUNT = 6


def handle(name: str, *, component_ref: bool = False) -> ScorerHandle:
    kind = getattr(importlib.import_module("knowgen_hostile.scorers"), name)
    ref = ComponentRef("scorers", f"knowgen_hostile.scorers:{name}") if component_ref else None
    return scorer_handle(kind, build=kind, component_ref=ref)


def judge(
    path: Path, name: str, *, component_ref: bool = False, **options: object
) -> tuple[RunOutcome, dict[str, Score]]:
    bench = Bench(path / "run")
    scorer = handle(name, component_ref=component_ref)
    outcome = bench.run(COUNT, Plain(), [scorer], quick(**{"score_timeout": 5.0, **options}))
    scores = {sample: score for (sample, _, _, _), score in bench.scores().items()}
    assert len(scores) == COUNT
    assert all(score.status is ScoreStatus.OK for sample, score in scores.items() if sample != "s2")
    return outcome, scores


WRONG_ON_TWO = {
    "OtherSample": "sample 's0'",
    "NotANumber": "nan for faithfulness",
    "TooGood": "1.5 for faithfulness",
    "GivesNone": "score() returned None",
    "Contradicts": "that of its strict part failed",
    "NotesJunk": "not plain data",
    "Raises": "ZeroDivisionError: nothing to divide by",
    "CannotJudge": "there is nothing to see",
    "Exits": "sys.exit",
    "BatchRaises": "ZeroDivisionError: nothing to divide by",
    "BatchJunk": "returned",
    "BatchNotANumber": "nan for faithfulness",
}


@pytest.mark.parametrize("name", WRONG_ON_TWO)
def test_an_error_on_one_image_affects_no_other(hostile: Path, tmp_path: Path, name: str) -> None:
    outcome, scores = judge(tmp_path, name)
    assert scores["s2"].status is scores["s2"].strict.status is ScoreStatus.FAILED
    assert WRONG_ON_TWO[name] in scores["s2"].strict.reason
    assert (outcome.scored, outcome.score_failed) == (5, 1)


@pytest.mark.parametrize("name", ["BatchRaises", "BatchJunk", "BatchNotANumber"])
def test_the_result_is_the_same_in_worker_processes(hostile: Path, tmp_path: Path, name: str) -> None:
    _, scores = judge(tmp_path, name, component_ref=True)
    assert WRONG_ON_TWO[name] in scores["s2"].strict.reason


def test_a_dead_scoring_worker_is_replaced(hostile: Path, tmp_path: Path) -> None:
    outcome, scores = judge(tmp_path, "BatchDies", component_ref=True)
    assert "was killed by SIGKILL" in scores["s2"].strict.reason
    assert scores["s2"].tries == 3
    assert [attempt.error for attempt in scores["s2"].attempts if "SIGKILL" in attempt.error]
    assert outcome.scored == 5


@pytest.mark.parametrize(("name", "component_ref"), [("Hangs", False), ("Stubborn", False), ("BlocksLoop", False)])
def test_a_score_that_never_arrives_fails_at_the_time_limit(
    hostile: Path, tmp_path: Path, name: str, component_ref: bool
) -> None:
    outcome, scores = judge(tmp_path, name, component_ref=component_ref, score_timeout=0.5)
    assert scores["s2"].strict.reason == "no score within 0.5 s"
    assert outcome.scored == 5


def test_a_hanging_scoring_worker_is_killed(hostile: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, Plain(), [handle("BatchHangs", component_ref=True)], quick(score_timeout=0.7))
    scores = bench.scores()
    assert "no score within 0.7 s" in scores["s2", 0, "judge", 0].strict.reason
    assert len(scores) == COUNT


def test_attempts_add_up_over_runs_until_the_limit(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT_SECONDS", 0.01)
    seen = []
    for _ in range(4):
        _, scores = judge(tmp_path, "Flaky", tries=2, max_attempts=5)
        seen.append((scores["s2"].tries, len(scores["s2"].attempts)))
    # each run makes two attempts and stores each; the third run may make only one more, the fourth none
    assert seen == [(2, 2), (4, 4), (5, 5), (5, 5)]
    assert scores["s2"].strict.reason == "a passing fault"
