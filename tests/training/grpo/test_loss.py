"""The loss and its gradient, compared with GRPO written by hand on the episodes of a step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from knowgen.training.backends.contract import Episode
from knowgen.training.grpo.trainer import trimmed
from knowgen.training.models import PolicyModel
from knowgen.training.rewards import EpisodeReward, masked
from tests.helpers.grpo import Training, by_length, tiny_policy_model
from tests.helpers.grpo_loss import first_step, micro_batches, move
from tests.helpers.hand_grpo import gradients, largest_difference

MakeTraining = Callable[..., Training]


@pytest.mark.parametrize("old", ["engine", "trainer"])
def test_on_policy_loss_and_gradient_are_those_written_by_hand(
    old: str, make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(old_logprobs=old), policy_model)
    loss, gradient = step.differences(on_policy=True)
    limit = 2e-5 if old == "engine" else 2e-6  # the engine's log-probabilities differ by their rounding
    assert loss < 1e-5 and gradient < limit, (loss, gradient)


def test_off_policy_the_clip_acts_on_the_ratio_to_the_engine(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(), policy_model)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)
    clipped = step.trainer._metrics["train"]["clip_ratio/region_mean"][-1]
    assert clipped > 0.05
    assert abs(step.by_hand(clip=(1e9, 1e9)).value - step.value()) > 1e-3


def test_with_logprobs_of_the_trainer_the_ratio_starts_at_1_and_is_kept_for_later_steps(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(old_logprobs="trainer", iterations=2), policy_model)
    loss, gradient = step.differences(on_policy=True)
    assert loss < 1e-5 and gradient < 2e-5, (loss, gradient)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()
    assert loss < 1e-5 and gradient < 2e-5, (loss, gradient)


def test_engine_and_trainer_agree_on_every_sampled_token(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(), policy_model)
    step.value()
    figures = step.trainer._gaps.figures(lambda values: values)
    assert 0 < figures["gap_max"] < 1e-4 and figures["gap_mean"] <= figures["gap_max"]
    episodes = step.trainer._collected.episodes
    step.trainer._gaps.note(episodes)
    by_hand = step.by_hand().logprobs
    for episode, values in zip(episodes, by_hand, strict=True):
        engine = [v for s in episode.trajectory.segments if s.sampled for v in s.logprobs]
        gap = max(abs(one - two) for one, two in zip(engine, values, strict=True))
        assert episode.gap == pytest.approx(gap, abs=5e-6)


def test_images_are_in_the_gradient(make_training: MakeTraining, policy_model: PolicyModel) -> None:
    step = first_step(make_training(), policy_model)
    ours = gradients(policy_model.model, step.loss())
    blind = gradients(policy_model.model, step.by_hand(blind=True).loss)
    assert largest_difference(ours, blind) > 1e-3
    pixels = step.batch["pixel_values"].clone()
    step.batch["pixel_values"][:] = 0.0
    assert largest_difference(ours, gradients(policy_model.model, step.loss())) > 1e-3
    step.batch["pixel_values"][:] = pixels
    assert largest_difference(ours, gradients(policy_model.model, step.loss())) == 0


@pytest.mark.parametrize("shown", ["none", "some"])
def test_rows_without_an_image_are_exact(shown: str, make_training: MakeTraining, policy_model: PolicyModel) -> None:
    shows = {"none": lambda key, number: False, "some": lambda key, number: number % 2 == 0}[shown]
    step = first_step(make_training(options={"shows": shows}), policy_model)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)


def test_a_trained_vision_tower_gets_the_same_gradient(make_training: MakeTraining) -> None:
    policy_model = tiny_policy_model(frozen=())
    step = first_step(make_training(options={"shows": lambda key, number: number % 2 == 0}), policy_model)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)


def test_padding_of_longer_rows_is_taken_off_without_a_difference(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(micro_batch=1), policy_model)
    move(policy_model.model, 0.02)
    from trl import GRPOTrainer

    trainer, widths, losses, found = step.trainer, set(), [], []
    for cut in (True, False):
        total: Any = 0.0
        for batch in micro_batches(step.batch, 8):
            widths.add(trimmed(batch)["completion_ids"].size(1))
            total = (
                total + (step.loss_of(batch) if cut else GRPOTrainer._compute_loss(trainer, trainer.model, batch)) / 8
            )
        losses.append(float(total.detach()))
        found.append(gradients(policy_model.model, total))
    assert len(widths) > 1  # the rows have several lengths
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert largest_difference(*found) < 5e-6


def test_the_divergence_from_the_first_model_is_added(make_training: MakeTraining, policy_model: PolicyModel) -> None:
    first = copy.deepcopy(policy_model.model)
    step = first_step(make_training(kl=0.1), policy_model)
    loss, gradient = step.differences(kl=0.1, first=first)
    assert loss < 1e-5 and gradient < 2e-5, (loss, gradient)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences(kl=0.1, first=first)
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)
    without = step.by_hand().value
    assert abs(without - step.value()) > 1e-3


def failing(*numbers: int) -> Callable[[str, int], str]:
    """Return that a service fails for some episodes of the first group."""
    return lambda key, number: "the judge is not there" if key == "test/0-0" and number in numbers else ""


def test_a_masked_episode_counts_neither_in_the_group_nor_in_the_mean(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    step = first_step(make_training(options={"fails": failing(1)}), policy_model)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()  # by hand the episode is left out
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)
    episodes = step.trainer._collected.episodes
    assert [episode.advantage is None for episode in episodes] == [number == 1 for number in range(8)]
    known = [episode.advantage for episode in episodes[:4] if episode.advantage is not None]
    assert sum(known) == pytest.approx(0, abs=1e-4) and max(map(abs, known)) > 0.5


def test_an_episode_whose_reward_failed_after_its_end_is_masked_as_well(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    def reward(episode: Episode) -> EpisodeReward:
        return masked("the judge is not there") if episode.number == 2 else by_length(episode)

    step = first_step(make_training(options={"reward": reward}), policy_model)
    assert all(episode.trajectory is not None for episode in step.trainer._collected.episodes)
    move(policy_model.model, 0.02)
    loss, gradient = step.differences()
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)


def test_an_episode_alone_in_its_group_has_no_advantage(make_training: MakeTraining, policy_model: PolicyModel) -> None:
    step = first_step(make_training(options={"fails": failing(0, 1, 3)}, kl=0.1), policy_model)
    assert [episode.advantage for episode in step.trainer._collected.episodes[:4]] == [None] * 4
    move(policy_model.model, 0.02)
    loss, gradient = step.differences(kl=0.1, first=step.trainer.ref_model)
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)


def test_a_group_without_spread_has_advantages_of_exactly_0(
    make_training: MakeTraining, policy_model: PolicyModel
) -> None:
    """Rounded, they would be 0.0006 at a reward of .7, and the optimizer would scale them up."""
    options = {"reward": lambda episode: EpisodeReward(0.7)}
    step = first_step(make_training(options=options, micro_batch=12, rollout={"group": 6}), policy_model)
    assert [episode.advantage for episode in step.trainer._collected.episodes] == [0.0] * 12
    assert set(gradients(policy_model.model, step.loss())) and step.value() == 0


def test_masked_endings_stay_in_the_baseline(make_training: MakeTraining, policy_model: PolicyModel) -> None:
    step = first_step(make_training(masked_endings=["no_answer"]), policy_model)
    move(policy_model.model, 0.02)
    endings = [episode.trajectory.ending for episode in step.trainer._collected.episodes]
    assert set(endings) == {"no_answer", "answer"}
    loss, gradient = step.differences(left_out=["no_answer"])
    assert loss < 1e-5 and gradient < 1e-5, (loss, gradient)
    assert all(episode.advantage is not None for episode in step.trainer._collected.episodes)
