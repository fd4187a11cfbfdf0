"""The benchmark of training compares schedulers on the same work."""

from __future__ import annotations

import pytest

from benchmarks.training import in_lock_step, scheduled, work_of


def test_rewards_in_flight_end_a_step_before_lock_step_does() -> None:
    work = work_of(0)
    own = scheduled(work, 32)
    together, apart = (in_lock_step(work, 32, tools_at_once=at_once) for at_once in (True, False))
    longest = max(sum(turn.seconds for turn in each.turns[:-1]) + each.image + each.judge for each in work)
    assert longest < own < together < apart
    assert own == pytest.approx(scheduled(work, 32))  # virtual time: the same every time


def test_fewer_image_models_make_a_step_longer() -> None:
    assert scheduled(work_of(0), 2) > scheduled(work_of(0), 32)
