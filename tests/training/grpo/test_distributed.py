"""Several processes on a CPU: the same steps as in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowgen.training.backends.trl import TrlBackend
from tests.helpers import grpo_process
from tests.helpers.grpo import tiny_policy_model
from tests.helpers.grpo_loss import first_step, move
from tests.helpers.hand_grpo import gradients, largest_difference
from tests.training.grpo.test_training import weights

pytestmark = pytest.mark.slow


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """A group lies in both of them, one of them has no pictures, and one episode is masked."""
    alone = grpo_process.training(tmp_path / "alone", micro_batch=6)
    alone.evaluate = lambda step, folder: float(step)
    TrlBackend(alone.config).train_model(alone.tools(), tiny_policy_model())
    folder = tmp_path / "both"
    folder.mkdir()
    grpo_process.run("ddp", folder)
    main, other = (json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert not other["figures"]  # the main process alone logs
    assert alone.rollouts is not None
    for step, keys, ours, theirs in zip(
        (1, 2), [k for _, k, _ in alone.rollouts.steps], main["keys"], other["keys"], strict=True
    ):
        assert ours + theirs == keys
        figures = main["figures"][str(step)]
        for name in ("loss", "grad_norm", "without_spread", "clipped"):
            assert figures[name] == pytest.approx(alone.figures[step][name], rel=1e-4, abs=1e-5), name
        assert figures["gap_max"] < 1e-4
        advantages = [episode.advantage for episode in alone.episodes[step]]
        assert main["advantages"][str(step)] == pytest.approx(advantages, abs=1e-5)
        assert main["numbers"][str(step)] == [0, 1, 2, 3] * 3
        assert all(
            (gap is None) == (advantage is None)
            for gap, advantage in zip(main["gaps"][str(step)], advantages, strict=True)
        )
    assert json.loads((folder / "best.json").read_text())["step"] == 2
    before = tiny_policy_model().model.state_dict()
    ours, theirs = weights(alone.folder / "model"), weights(folder / "model")
    moved = sum(float((ours[name] - before[name]).abs().sum()) for name in ours)
    apart = sum(float((ours[name] - theirs[name]).abs().sum()) for name in ours)
    assert moved > 0.1 and apart < 0.02 * moved


def test_a_failure_in_one_process_stops_all_of_them(tmp_path: Path) -> None:
    grpo_process.run("ddp_stop", tmp_path)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"rank-{rank}.json").read_text()) == [1, "budget"]
    assert (tmp_path / "checkpoints" / "checkpoint-1" / "trainer_state.json").is_file()


def test_sharded_weights_give_the_gradient_of_whole_ones(tmp_path: Path) -> None:
    """The layers of the language model and the vision tower are sharded, and one process has no pictures."""
    from safetensors.torch import load_file

    step = first_step(grpo_process.shard_training(tmp_path / "alone"), tiny_policy_model())
    move(step.model, 0.02)
    loss = step.loss()
    value = float(loss.detach())
    whole = gradients(step.model, loss)
    grpo_process.run("sharded", tmp_path)
    shards = load_file(tmp_path / "gradient.safetensors")
    assert float(shards.pop("loss")) == pytest.approx(value, abs=1e-5)
    assert largest_difference(whole, shards) < 1e-5
