"""A training from its first step to its weights: logs, checkpoints, resumption, stops, evaluations."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import AccountError, BudgetReachedError, KnowgenError, ServiceUnavailableError
from knowgen.training.backends.contract import TrainingResult
from knowgen.training.backends.trl import TrlBackend
from knowgen.training.grpo.trainer import GrpoOnEpisodes
from knowgen.training.models import PolicyModel
from knowgen.training.rewards import EpisodeReward
from tests.helpers.grpo import Training, tiny_policy_model

MakeTraining = Callable[..., Training]


def train(training: Training, policy_model: PolicyModel | None = None, *, resume: bool = False) -> TrainingResult:
    """Train a tiny model, a new one by default."""
    model = policy_model or tiny_policy_model()
    return TrlBackend(training.config).train_model(training.tools(resume=resume), model)


def weights(folder: Path) -> dict[str, Any]:
    """Return exported weights."""
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def distance(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Return the largest difference of two sets of weights."""
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def evaluated(training: Training) -> dict[int, dict[str, Any]]:
    """Evaluate each step of a training as worse than the one before, and return its weights."""
    seen: dict[int, dict[str, Any]] = {}

    def evaluate(step: int, folder: Path) -> float | None:
        seen[step] = weights(folder)
        return -float(step)

    training.evaluate = evaluate
    return seen


def test_each_step_is_logged_with_its_figures_and_episodes(make_training: MakeTraining) -> None:
    training = make_training(max_steps=3)
    result = train(training)
    assert (result.steps, result.stopped) == (3, "")
    assert sorted(training.figures) == [1, 2, 3]
    for step, figures in training.figures.items():
        assert {
            "loss", "grad_norm", "learning_rate", "clipped", "entropy", "gap_mean", "gap_max", "without_spread",
            "replaced", "seconds", "share/rollout", "share/train",
        } == set(figures)  # fmt: skip
        assert figures["share/rollout"] + figures["share/train"] == pytest.approx(1)
        assert figures["grad_norm"] > 0 and figures["gap_max"] < 1e-4
        episodes = training.episodes[step]
        assert [episode.number for episode in episodes] == [0, 1, 2, 3] * 2
        assert training.sampled_with(step) == {f"step-{step - 1}"}
    rollouts = training.rollouts
    assert rollouts is not None and rollouts.closed
    assert [keys for _, keys, _ in rollouts.steps] == [
        [f"test/0-{2 * step + place}" for place in (0, 1) for _ in range(4)] for step in range(3)
    ]
    seeds = [seed for _, _, step in rollouts.steps for seed in step]
    assert len(set(seeds)) == len(seeds)


def test_the_weights_change_and_are_exported_with_all_that_the_model_came_with(
    make_training: MakeTraining, tmp_path: Path
) -> None:
    training = make_training(max_steps=1)
    before = {name: value.clone() for name, value in tiny_policy_model().model.state_dict().items()}
    result = train(training)
    assert distance(before, weights(result.weights)) > 1e-4
    generation = json.loads((result.weights / "generation_config.json").read_text())
    assert (generation["top_k"], generation["do_sample"]) == (20, True)
    assert not [path for path in result.weights.parent.iterdir() if path.name.startswith((".", "candidate"))]


def test_several_steps_on_the_same_episodes(make_training: MakeTraining) -> None:
    training = make_training(max_steps=4, iterations=2)
    train(training)
    assert [step for step, _, _ in training.runs] == [1, 3]
    assert [len(training.episodes[step]) for step in (1, 2, 3, 4)] == [8, 0, 8, 0]
    assert "gap_max" not in training.figures[2]
    assert training.figures[1]["clipped"] == 0 and training.figures[2]["clipped"] > 0


def test_a_step_in_which_every_episode_is_masked_leaves_the_weights_alone(make_training: MakeTraining) -> None:
    """Momentum and weight decay would change them even without a gradient."""
    failed: list[int] = []

    def outage(step: int) -> None:
        failed[:] = [step] if step == 2 else []

    training = make_training(
        options={"before": outage, "fails": lambda key, number: "the judge is not there" if failed else ""},
        max_steps=3,
        evaluation={"every": 1, "keep": "last"},
        optimizer={"weight_decay": 0.1, "learning_rate": 1e-3},
    )
    seen = evaluated(training)
    train(training)
    assert distance(seen[1], seen[2]) == 0 and distance(seen[2], seen[3]) > 0
    episodes = training.episodes[2]
    assert [episode.reward.masked for episode in episodes] == [True] * 8
    assert {episode.advantage for episode in episodes} == {None}
    assert training.figures[2]["loss"] == 0 and "gap_max" not in training.figures[2]


def test_a_killed_training_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    make_training: MakeTraining,
) -> None:
    whole = make_training("whole", max_steps=4, checkpoints={"every": 2})
    train(whole)

    def kill(step: int) -> None:
        if step == 4:
            raise KnowgenError("killed in mid-step")

    killed = make_training("killed", {"before": kill}, max_steps=4, checkpoints={"every": 2})
    with pytest.raises(KnowgenError, match="mid-step"):
        train(killed)
    assert sorted(killed.figures) == [1, 2, 3] and killed.rollouts is not None and killed.rollouts.closed
    killed.options.clear()
    killed.figures.clear()
    result = train(killed, resume=True)
    assert result.steps == 4 and sorted(killed.figures) == [3, 4]
    assert killed.runs == whole.runs[2:]
    for step in (3, 4):
        for name in ("loss", "grad_norm", "learning_rate", "clipped", "entropy", "without_spread"):
            expected = whole.figures[step][name]
            assert killed.figures[step][name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    assert distance(weights(whole.folder / "model"), weights(result.weights)) < 5e-5  # sums of threads are rounded


@pytest.mark.slow
def test_an_incomplete_checkpoint_is_passed_over(make_training: MakeTraining) -> None:
    training = make_training(max_steps=2, checkpoints={"every": 1})
    train(training)
    state = training.folder / "checkpoints" / "checkpoint-2" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    training.figures.clear()
    assert train(training, resume=True).steps == 2
    assert sorted(training.figures) == [2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BudgetReachedError("the budget is spent"), "budget"),
        pytest.param(
            AccountError("the key is rejected", where="vlm"), "vlm: the key is rejected", marks=pytest.mark.slow
        ),
        pytest.param(
            ServiceUnavailableError("no answer for 30 min", service="painter"),
            "painter: no answer for 30 min",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_service_that_is_gone_stops_the_training_with_a_checkpoint(
    make_training: MakeTraining, error: Exception, reason: str
) -> None:
    def fail(step: int) -> None:
        if step == 2:
            raise error

    training = make_training(options={"before": fail}, max_steps=2)
    result = train(training)
    assert result.steps == 1 and reason in result.stopped
    assert (result.weights / "config.json").is_file()
    training.options.clear()
    assert train(training, resume=True).steps == 2
    assert sorted(training.figures) == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_drops_the_step_that_samples(make_training: MakeTraining, number: int) -> None:
    def interrupt(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), number)

    training = make_training(options={"before": interrupt}, max_steps=3)
    result = train(training)
    assert (result.steps, result.stopped) == (1, "interrupted")
    assert sorted(training.figures) == [1]
    training.options.clear()
    assert train(training, resume=True).steps == 3
    assert sorted(training.figures) == [1, 2, 3]


def test_a_signal_during_the_gradient_lets_the_step_end(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowgen.training.grpo.trainer import GrpoOnEpisodes

    computed = GrpoOnEpisodes._compute_loss

    def interrupted(self: Any, model: Any, inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return computed(self, model, inputs)

    monkeypatch.setattr(GrpoOnEpisodes, "_compute_loss", interrupted)
    training = make_training(max_steps=3)
    result = train(training)
    assert (result.steps, result.stopped) == (1, "interrupted")
    assert sorted(training.figures) == [1]
    assert (training.folder / "checkpoints" / "checkpoint-1").is_dir()


def test_the_best_evaluated_weights_are_the_result(make_training: MakeTraining) -> None:
    training = make_training(max_steps=3, evaluation={"every": 1}, checkpoints={"every": 1})
    headlines = {0: 0.1, 1: 0.5, 2: None, 3: 0.5}
    seen: dict[int, dict[str, Any]] = {}

    def evaluate(step: int, folder: Path) -> float | None:
        seen[step] = weights(folder)
        assert (folder / "tokenizer.json").is_file()
        return headlines[step]

    training.evaluate = evaluate
    result = train(training)
    assert sorted(seen) == [0, 1, 2, 3]
    assert distance(seen[1], weights(result.weights)) == 0 and distance(seen[0], seen[1]) > 0
    best = json.loads((training.folder / "best.json").read_text())
    assert (best["step"], best["headline"]) == (1, 0.5)
    assert not (training.folder / "candidate").exists()
    seen.clear()
    assert train(training, resume=True).steps == 3
    assert not seen  # every step has been evaluated


@pytest.mark.slow
def test_the_last_weights_are_the_result_where_asked(make_training: MakeTraining) -> None:
    training = make_training(max_steps=2, evaluation={"every": 1, "keep": "last"})
    seen = evaluated(training)
    result = train(training)
    assert distance(weights(result.weights), seen[2]) == 0 and distance(seen[0], seen[2]) > 0


def test_an_evaluation_that_is_interrupted_stops_the_training(make_training: MakeTraining) -> None:
    training = make_training(max_steps=2, evaluation={"every": 1})

    def evaluate(step: int, folder: Path) -> float | None:
        if step == 1:
            raise KeyboardInterrupt
        return 0.5

    training.evaluate = evaluate
    result = train(training)
    assert (result.steps, result.stopped) == (1, "interrupted")
    assert json.loads((training.folder / "best.json").read_text())["headlines"] == {"0": 0.5}


def test_no_step_follows_the_last_one_where_its_evaluation_was_interrupted(make_training: MakeTraining) -> None:
    """The prompts of the last batch would give one more step."""
    training = make_training(max_steps=1, iterations=2)
    asked: list[int] = []

    def evaluate(step: int, folder: Path) -> float | None:
        asked.append(step)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 0.1 * len(asked)

    training.evaluate = evaluate
    assert train(training).stopped == "interrupted"
    result = train(training, resume=True)
    assert (result.steps, result.stopped, asked) == (1, "", [0, 1, 1]) and sorted(training.figures) == [1]
    assert json.loads((training.folder / "best.json").read_text())["step"] == 1


def test_a_loss_that_is_not_a_number_is_shown_as_that(
    make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = GrpoOnEpisodes._compute_loss

    def diverged(self: GrpoOnEpisodes, model: Any, inputs: Any) -> Any:
        return own(self, model, inputs) * (math.nan if self.state.global_step == 1 else 1.0)

    monkeypatch.setattr(GrpoOnEpisodes, "_compute_loss", diverged)
    training = make_training(max_steps=2)
    train(training)
    assert math.isfinite(training.figures[1]["loss"]) and math.isnan(training.figures[2]["loss"])


def test_groups_without_spread_give_way_to_other_prompts(make_training: MakeTraining) -> None:
    """The prompts 0 and 2 always get the same reward; all others do not."""

    def reward(episode: Any) -> EpisodeReward:
        equal = episode.prompt.key in ("test/0-0", "test/0-2")
        return EpisodeReward(0.5 if equal else 0.25 * episode.number)

    training = make_training(options={"reward": reward}, max_steps=2, skip_equal_groups=True)
    train(training)
    for step, kept, gone in ((1, "test/0-1", "test/0-0"), (2, "test/0-3", "test/0-2")):
        figures, episodes = training.figures[step], training.episodes[step]
        assert figures["without_spread"] == 0 and figures["replaced"] >= 1
        keys = [episode.prompt.key for episode in episodes]
        assert keys[4:] == [kept] * 4 and keys[0] != gone and len(set(keys[:4])) == 1
        assert [episode.number for episode in episodes] == [0, 1, 2, 3] * 2
    runs = [len(keys) for _, keys, _ in training.runs]
    assert runs[0] == 8 and set(runs) == {4, 8}  # only the group is run again


@pytest.mark.slow
def test_groups_that_stay_without_spread_are_replaced_a_few_times(make_training: MakeTraining) -> None:
    training = make_training(
        options={"reward": lambda episode: EpisodeReward(0.5)}, max_steps=1, skip_equal_groups=True
    )
    train(training)
    assert training.figures[1]["replaced"] == 6 and training.figures[1]["without_spread"] == 1
    assert len(training.runs) == 4
    assert len({tuple(seeds) for _, _, seeds in training.runs}) == 4


def test_rows_that_cannot_be_divided_are_refused(make_training: MakeTraining) -> None:
    training = make_training(micro_batch=3)
    with pytest.raises(KnowgenError, match="the 8 trajectories of a step cannot be divided"):
        train(training)
