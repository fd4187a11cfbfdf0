"""The backend verl: what runs without verl, and the tests of `inside_verl.py` in verl's own environment."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from knowgen.core.errors import AccountError, KnowgenError, MissingDependencyError
from knowgen.training.backends.contract import Episode, TrainingPrompt, TrainingResult, TrainingTools
from knowgen.training.backends.verl import backend
from knowgen.training.backends.verl.backend import VerlBackend, unusable_settings
from knowgen.training.backends.verl.figures import figures_of
from knowgen.training.backends.verl.files import VerlFiles
from knowgen.training.backends.verl.worker import part_of
from knowgen.training.config import load_config
from knowgen.training.rewards import EpisodeReward, masked
from tests.helpers.episodes import answered, grpo_config, prompt_of

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-verl" / "bin" / "python"


@pytest.mark.slow
def test_the_backend_works_inside_verl() -> None:
    if not PYTHON.exists():
        reason = f"no environment of verl at {PYTHON.parents[1].name}: `make verl` makes it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "PYTEST_ADDOPTS": ""}
    tests = ROOT / "tests" / "training" / "inside_verl.py"
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tests)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


TRAINER = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--config-path") + 1])
plan = json.loads((folder / "plan.json").read_text())
print("settings", (folder / "verl.yaml").stat().st_size > 0, flush=True)
with open(os.environ["VERL_FILE_LOGGER_PATH"], "w") as file:
    for step in plan["steps"]:
        for path in (folder / "planned").glob(f"{step:06d}/*"):
            target = folder / "episodes" / f"{step:06d}"
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)
        actor = folder.parent / "checkpoints" / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        actor.joinpath("weights").write_text(str(step))
        (folder.parent / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
        file.write(json.dumps({"step": step, "data": {"actor/pg_loss": step / 10, "timing_s/step": 2.0}}) + "\\n")
        file.flush()
if plan["stop"]:
    (folder / "stop.json").write_text(json.dumps(plan["stop"]))
    time.sleep(600)
if plan["error"]:
    print("Traceback (most recent call last):")
    print(plan["error"])
    sys.exit(1)
"""

MERGER = """
import pathlib, sys
source, target = (pathlib.Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--local_dir", "--target_dir"))
(target / "weights").write_text((source / "weights").read_text())
"""


class Trained:
    """A training whose verl does as planned.

    Args:
        folder: Directory of the training.
        steps: Steps that verl completes.
        stop: What a worker asks for afterwards: class and message of an error.
        error: Last line of what verl prints when it fails.
        settings: Further settings.
    """

    def __init__(
        self,
        folder: Path,
        steps: Sequence[int] = (1, 2),
        *,
        stop: tuple[str, str] | None = None,
        error: str = "",
        resume: bool = False,
        evaluate: Callable[[int, Path], float | None] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.logged: list[tuple[int, dict[str, float], list[Episode]]] = []
        self.backend = VerlBackend(grpo_config(max_steps=2, rollout={"prompts": 2, "group": 2}, **settings))
        files = VerlFiles(folder)
        files.folder.mkdir(parents=True, exist_ok=True)
        plan = {"steps": steps, "stop": stop and {"kind": stop[0], "reason": stop[1]}, "error": error}
        (files.folder / "plan.json").write_text(json.dumps(plan))
        planned = VerlFiles(folder)
        planned.episodes = files.folder / "planned"
        for step in steps:
            for row, prompt in enumerate((prompt_of("a"), prompt_of("b"))):
                planned.put_group(step, row, [episode(prompt, 0, 1.0), episode(prompt, 1, 0.0 if row else None)])
        self.tools = TrainingTools(
            folder=folder,
            prompts=lambda epoch: [prompt_of("a"), prompt_of("b"), prompt_of("c")],
            rollouts=lambda policy: pytest.fail("sampled by verl's workers"),
            log=lambda step, figures, episodes: self.logged.append((step, figures, list(episodes))),
            evaluate=evaluate,
            resume=resume,
            worker_rollouts="package:function",
        )

    def run(self) -> TrainingResult:
        return self.backend.train(self.tools)


def episode(prompt: TrainingPrompt, number: int, reward: float | None) -> Episode:
    """Return an episode with its trajectory; one without a reward is masked."""
    scored = masked("the judge is away") if reward is None else EpisodeReward(reward, text=reward)
    return Episode(prompt, number, answered(), None, scored, {"agent": 1.5})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a training, on a machine where verl is a program that does as planned."""
    for module, source in {"trainer/main_ppo.py": TRAINER, "model_merger.py": MERGER}.items():
        path = tmp_path / "packages" / "verl" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setattr(backend, "missing_packages", lambda: [])
    monkeypatch.setattr(backend, "unusable_settings", lambda config: [])
    monkeypatch.setattr(backend, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(VerlBackend, "_model", lambda self, files: "model")
    return tmp_path / "run"


def test_each_step_is_logged_with_its_figures_and_its_episodes(folder: Path) -> None:
    training = Trained(folder)
    result = training.run()
    assert (result.steps, result.stopped) == (2, "")
    assert (result.weights / "weights").read_text() == "2"
    assert [(step, figures["loss"], figures["seconds"]) for step, figures, _ in training.logged] == [
        (1, 0.1, 2.0), (2, 0.2, 2.0)
    ]  # fmt: skip
    episodes = training.logged[0][2]
    assert [(each.prompt.key, each.number) for each in episodes] == [("t/a", 0), ("t/a", 1), ("t/b", 0), ("t/b", 1)]
    assert episodes[0].trajectory is not None and episodes[0].trajectory.segments == answered().segments
    assert episodes[1].reward.masked and episodes[1].reward.reason == "the judge is away"
    advantages = [each.advantage for each in episodes]
    assert advantages[:2] == [0.0, None] and advantages[2:] == pytest.approx([0.707, -0.707], abs=1e-3)
    assert not list(VerlFiles(folder).episodes.iterdir())


def test_a_loss_that_is_not_a_number_is_shown_as_that() -> None:
    assert math.isnan(figures_of({"actor/pg_loss": math.nan, "actor/grad_norm": None})["loss"])


def test_the_best_checkpoint_by_evaluation_becomes_the_result(folder: Path) -> None:
    headlines = {1: 0.6, 2: 0.4}
    seen = []

    def evaluate(step: int, weights: Path) -> float:
        seen.append((weights / "weights").read_text())
        return headlines[step]

    result = Trained(folder, evaluate=evaluate).run()
    assert seen == ["1", "2"] and (result.weights / "weights").read_text() == "1"


def test_a_budget_that_is_spent_ends_verl_and_keeps_the_last_checkpoint(folder: Path) -> None:
    result = Trained(folder, [1], stop=("BudgetReachedError", "no call is allowed")).run()
    assert (result.steps, result.stopped) == (1, "budget") and (result.weights / "weights").read_text() == "1"


def test_an_error_of_a_worker_ends_verl_and_is_raised(folder: Path) -> None:
    with pytest.raises(AccountError, match="the key is not valid"):
        Trained(folder, [1], stop=("AccountError", "the key is not valid")).run()


def test_an_error_of_verl_is_one_line_that_names_its_log(folder: Path) -> None:
    with pytest.raises(KnowgenError, match="status 1: ValueError: no such layer") as caught:
        Trained(folder, [], error="ValueError: no such layer").run()
    assert caught.value.where.endswith("verl.log")


def test_a_training_that_made_no_checkpoint_says_so(folder: Path) -> None:
    with pytest.raises(KnowgenError, match="before its first checkpoint"):
        Trained(folder, []).run()


def test_a_training_that_goes_on_keeps_its_checkpoints_and_one_that_is_complete_is_not_run_again(folder: Path) -> None:
    assert Trained(folder, [1]).run().steps == 1
    again = Trained(folder, [2], resume=True)
    assert again.run().steps == 2 and [step for step, *_ in again.logged] == [2]
    complete = Trained(folder, [], error="ValueError: run again", resume=True)
    assert complete.run().steps == 2 and not complete.logged
    settings = yaml.safe_load(VerlFiles(folder).settings.read_text())
    assert settings["trainer"]["resume_mode"] == "auto" and settings["trainer"]["total_training_steps"] == 2


def test_prompts_of_all_epochs_are_written_once_in_the_order_of_the_training(folder: Path) -> None:
    Trained(folder).run()
    files = VerlFiles(folder)
    rows = pq.read_table(files.order).to_pylist()
    keys = [row["extra_info"]["key"] for row in rows]
    assert keys == ["t/a", "t/b", "t/c", "t/a"]  # two steps of two prompts
    assert len(files.prompts.read_text().splitlines()) == 3
    assert [files.prompt_at(row["extra_info"]["place"]).key for row in rows] == keys


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("grpo.rollout.prompts=7", "7 prompts x 6 trajectories cannot be divided among 8 GPUs"),
        ("verl.tensor_parallel=3", "8 GPUs cannot be divided into engines"),
        ("verl.tokens_per_gpu=1000", "is less than a trajectory of 34096 tokens"),
        ("grpo.painter.concurrency=2", "grpo.painter.concurrency=2 cannot be divided among verl.workers=8"),
        ("optimizer.schedule=linear", "has constant and cosine"),
        ("verl.strategy=fsdp", "model.freeze needs verl.strategy=fsdp2"),
        ("model.revision=main", "model.revision is not one of verl"),
        ("grpo.images_in_gradient=false", "is not one of verl"),
    ],
)
def test_settings_that_verl_cannot_use_are_named_before_it_starts(override: str, line: str) -> None:
    assert unusable_settings(load_config("grpo/verl-1x8")) == []
    [problem] = unusable_settings(load_config("grpo/verl-1x8", [override]))
    assert line in problem


def test_an_installation_without_verl_is_one_line_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "version", lambda name: "5.24.0" if name == "trl" else missing(name))
    with pytest.raises(MissingDependencyError, match="verl is not installed beside TRL.*environment of its own"):
        Trained(tmp_path).run()
    assert VerlBackend(load_config("grpo/verl-1x8")).check()[0].startswith("verl is not installed")


def missing(name: str) -> str:
    raise PackageNotFoundError(name)


def test_limits_on_services_are_shared_among_the_workers() -> None:
    config = part_of(load_config("grpo/verl-1x8", []))
    assert config.grpo is not None and config.grpo.services.judge_concurrency == 2
    assert (config.grpo.painter.concurrency, config.grpo.rollout.concurrency) == (1, 16)
