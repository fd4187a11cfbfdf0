"""Which prompts belong to which step."""

from __future__ import annotations

import pytest

from knowgen.core.errors import DataError
from knowgen.training.grpo.prompt_schedule import PromptSchedule
from tests.helpers.grpo import prompts


def test_epochs_follow_each_other_and_may_differ_in_length() -> None:
    plan = PromptSchedule(lambda epoch: prompts(2 + epoch, epoch), seed=0)
    keys = [plan.at(position).key for position in range(9)]
    assert keys == ["test/0-0", "test/0-1", *(f"test/1-{n}" for n in range(3)), *(f"test/2-{n}" for n in range(4))]
    assert plan.at(1).key == "test/0-1"  # an epoch that is no longer kept


def test_a_prompt_is_the_same_whichever_are_asked_for_before() -> None:
    first = PromptSchedule(lambda epoch: prompts(3, epoch), seed=0)
    assert first.at(7).key == "test/2-1"
    assert [first.seed_of(7, number) for number in range(3)] == [
        PromptSchedule(lambda epoch: prompts(3, epoch), seed=0).seed_of(7, number) for number in range(3)
    ]


def test_seeds_differ_by_training_prompt_number_and_attempt() -> None:
    plans = [PromptSchedule(lambda epoch: prompts(3, epoch), seed=seed) for seed in (0, 1)]
    seeds = {
        plan.seed_of(position, number, attempt)
        for plan in plans
        for position in range(3)
        for number in range(3)
        for attempt in range(2)
    }
    assert len(seeds) == 36 and all(0 <= seed < 2**31 for seed in seeds)


def test_prompts_that_take_the_places_of_others_are_new_ones_while_there_are_any() -> None:
    plan = PromptSchedule(lambda epoch: prompts(4, epoch), seed=0)
    used = ["test/0-0", "test/0-1"]
    found = {prompt.key for prompt in plan.others(0, 2, 1, used)}
    assert found == {"test/0-2", "test/0-3"}
    assert len(plan.others(0, 3, 1, used)) == 3
    assert plan.others(0, 2, 1, used) == plan.others(0, 2, 1, used)
    every = [prompt.key for prompt in prompts(4)]
    assert len(plan.others(0, 2, 1, every)) == 2  # none is new: one is sampled again


def test_the_number_of_steps_follows_from_the_first_epoch() -> None:
    plan = PromptSchedule(lambda epoch: prompts(10, epoch), seed=0)
    assert (plan.batches(2, 4), plan.batches(0.1, 4), plan.batches(5.0, 8)) == (5, 1, 6)


def test_an_epoch_without_prompts_is_an_error() -> None:
    with pytest.raises(DataError, match="epoch 0 has no prompts"):
        PromptSchedule(lambda epoch: [], seed=0)
    plan = PromptSchedule(lambda epoch: prompts(2 - epoch, epoch), seed=0)
    with pytest.raises(DataError, match="epoch 2 has no prompts"):
        plan.at(3)
