"""A scorer may do anything: every image still ends with a score in some state."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from knowgen.core.records import Score, ScoreStatus
from knowgen.engine import ComponentRef, RunOutcome, ScorerHandle
from tests.helpers.engine import Bench, Plain, quick, scorer_handle

COUNT = 6


def handle(name: str, *, remake: bool = False) -> ScorerHandle:
    kind = getattr(importlib.import_module("knowgen_hostile.scorers"), name)
    made = ComponentRef("scorers", f"knowgen_hostile.scorers:{name}") if remake else None
    return scorer_handle(kind, build=kind, remake=made)


def judge(path: Path, name: str, *, remake: bool = False, **options: object) -> tuple[RunOutcome, dict[str, Score]]:
    bench = Bench(path / "run")
    scorer = handle(name, remake=remake)
    outcome = bench.run(COUNT, Plain(), [scorer], quick(**{"score_timeout": 5.0, **options}))
    found = {sample: score for (sample, _, _, _), score in bench.scores().items()}
    assert len(found) == COUNT
    assert all(score.status is ScoreStatus.OK for sample, score in found.items() if sample != "s2")
    return outcome, found


WRONG_ON_TWO = {
    "OtherSample": "sample 's0'",
    "NotANumber": "nan for faithfulness",
    "TooGood": "1.5 for faithfulness",
    "GivesNone": "score() returned None",
    "Contradicts": "its strict reading failed",
    "NotesJunk": "not plain data",
    "Raises": "ZeroDivisionError: nothing to divide by",
    "CannotJudge": "there is nothing to see",
    "Exits": "sys.exit",
    "BatchRaises": "ZeroDivisionError: nothing to divide by",
    "BatchJunk": "gave",
    "BatchNotANumber": "nan for faithfulness",
}


@pytest.mark.parametrize("name", WRONG_ON_TWO)
def test_a_fault_of_one_image_stays_with_it(hostile: Path, tmp_path: Path, name: str) -> None:
    outcome, found = judge(tmp_path, name)
    assert found["s2"].status is found["s2"].strict.status is ScoreStatus.FAILED
    assert WRONG_ON_TWO[name] in found["s2"].strict.reason
    assert (outcome.scored, outcome.score_failed) == (5, 1)


@pytest.mark.parametrize("name", ["BatchRaises", "BatchJunk", "BatchNotANumber"])
def test_the_same_holds_in_worker_processes(hostile: Path, tmp_path: Path, name: str) -> None:
    _, found = judge(tmp_path, name, remake=True)
    assert WRONG_ON_TWO[name] in found["s2"].strict.reason


def test_a_dead_scoring_worker_is_replaced(hostile: Path, tmp_path: Path) -> None:
    outcome, found = judge(tmp_path, "BatchDies", remake=True)
    assert "was killed by SIGKILL" in found["s2"].strict.reason
    assert found["s2"].tries == 3
    assert [attempt.error for attempt in found["s2"].attempts if "SIGKILL" in attempt.error]
    assert outcome.scored == 5


@pytest.mark.parametrize(("name", "remake"), [("Hangs", False), ("Stubborn", False), ("BlocksLoop", False)])
def test_a_score_that_never_comes_fails_in_time(hostile: Path, tmp_path: Path, name: str, remake: bool) -> None:
    outcome, found = judge(tmp_path, name, remake=remake, score_timeout=0.5)
    assert found["s2"].strict.reason == "no score within 0.5 s"
    assert outcome.scored == 5


def test_a_hanging_scoring_worker_is_killed(hostile: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(COUNT, Plain(), [handle("BatchHangs", remake=True)], quick(score_timeout=0.7))
    found = bench.scores()
    assert "no score within 0.7 s" in found["s2", 0, "judge", 0].strict.reason
    assert len(found) == COUNT


def test_tries_and_attempts_add_up_over_runs_until_the_cap(hostile: Path, tmp_path: Path) -> None:
    seen = []
    for _ in range(4):
        _, found = judge(tmp_path, "Flaky", tries=2, max_attempts=5)
        seen.append((found["s2"].tries, len(found["s2"].attempts)))
    # each run tries twice and keeps every fault; the third may try only once more, the fourth not at all
    assert seen == [(2, 2), (4, 4), (5, 5), (5, 5)]
    assert found["s2"].strict.reason == "busy"
