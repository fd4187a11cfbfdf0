"""How often a judge is asked while no reply can be read: as the protocol says, unless the user does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowgen.core.records import ScoreStatus
from knowgen.stats.protocol import OFFICIAL, STRICT
from knowgen.workflows import resolve
from tests.helpers.judge_server import JudgeServer, Step, good
from tests.scorers.test_vlm_in_a_run import evaluate, scores_in

UNREADABLE = Step(reply="I look at both images first.")


def requested(protocol_attempts: int, **args: Any) -> dict[str, Any]:
    """Return the arguments that a judge gets in a run."""
    args = {"base_url": "http://127.0.0.1:9/v1", **args}
    (handle,) = resolve.resolve_scorers(resolve.scorer_requests(["vlm:any"], args, protocol_attempts))
    assert handle.component_ref is not None
    return dict(handle.component_ref.args)


def test_the_protocol_decides_how_often_a_judge_is_asked_unless_the_user_does() -> None:
    assert (OFFICIAL.judge_attempts, STRICT.judge_attempts) == (20, 0)
    assert requested(OFFICIAL.judge_attempts)["unreadable_attempts"] == 20
    assert "unreadable_attempts" not in requested(STRICT.judge_attempts)
    assert "unreadable_attempts" not in requested(OFFICIAL.judge_attempts, attempts=2)
    assert requested(OFFICIAL.judge_attempts, unreadable_attempts=7)["unreadable_attempts"] == 7


def test_it_does_not_change_which_results_are_reused() -> None:
    one, other = (
        resolve.resolve_scorer("vlm:any", {"base_url": "http://127.0.0.1:9/v1", **more}).spec
        for more in ({}, {"unreadable_attempts": 20})
    )
    assert one == other


def test_a_scorer_that_takes_no_such_argument_gets_none() -> None:
    (handle,) = resolve.resolve_scorers(resolve.scorer_requests(["world_check"], {}, OFFICIAL.judge_attempts))
    assert handle.component_ref is not None and dict(handle.component_ref.args) == {}


@pytest.mark.parametrize(("attempts", "status"), [(0, ScoreStatus.FAILED), (20, ScoreStatus.OK)])
def test_the_eighth_reply_counts_where_twenty_calls_are_made(
    attempts: int, status: ScoreStatus, tmp_path: Path
) -> None:
    with JudgeServer([UNREADABLE] * 7 + [Step(reply=good())]) as server:
        evaluate(tmp_path, server.url, 1, unreadable_attempts=attempts)
        score = scores_in(tmp_path)["s0"]
    assert score.status is status
    assert len(score.attempts) == (8 if attempts else 4)
    assert score.lenient is not None and score.lenient.status is status


def test_a_reply_that_is_readable_but_breaks_the_contract_is_asked_again_four_times_only(tmp_path: Path) -> None:
    """The official evaluator takes the first readable reply, so that more calls serve the strict reading alone."""
    with JudgeServer([Step(reply=good(aesthetics=0.75))] * 30) as server:
        evaluate(tmp_path, server.url, 1, unreadable_attempts=20)
        score = scores_in(tmp_path)["s0"]
    assert len(score.attempts) == 4 and score.status is ScoreStatus.FAILED
    assert score.lenient is not None and score.lenient.values["aesthetics"] == 0.75
