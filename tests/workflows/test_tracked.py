"""Runs and trainings that are logged to a tracker, here to files of TensorBoard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.run_config import RunConfig
from knowgen.engine.progress import RunCounts
from knowgen.training.config import load_config
from knowgen.workflows.tracked_run import LOG_SECONDS, TrackedProgress
from knowgen.workflows.training import train_grpo
from knowgen.workflows.training_plan import plan_training
from tests.helpers.judge_server import JudgeServer, Step


class Events:
    """What TensorBoard reads in a folder."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.events = EventAccumulator(str(folder)).Reload()
        self.names = set(self.events.Tags()["tensors"])

    def values(self, name: str) -> list[tuple[int, float]]:
        return [(each.step, float(each.tensor_proto.float_val[0])) for each in self.events.Tensors(name)]

    def text(self, name: str) -> str:
        return str(self.events.Tensors(name)[-1].tensor_proto.string_val[0].decode())


def grey(prompt: str, seed: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (seed % 256,) * 3)


grey.revision = "1"  # type: ignore[attr-defined]


def test_a_run_logs_its_specification_progress_and_figures(tmp_path: Path) -> None:
    run = knowgen.evaluate("knowgen_mini", grey, "pixels", limit=3, out=tmp_path / "run", log=["tensorboard,images=2"])
    events = Events(run.path / "tensorboard")
    config = events.text("config")
    for fact in ("| task | knowgen_mini |", f"| task_version | {run.spec.task_version} |", "| versions.knowgen |"):
        assert fact in config
    assert events.values("progress/generated")[-1] == events.values("progress/scored")[-1] == (3, 3.0)
    assert events.values("progress/failed")[-1] == (3, 0.0)
    strict = run.summarise("strict").headline
    ((_, overall),) = events.values("pixels/strict/overall")
    assert overall == pytest.approx(strict.value)
    assert events.values("pixels/official/coverage") == [(0, 1.0)] and "pixels/strict/ssim" in events.names
    assert any(name.startswith("pixels/strict/group/") for name in events.names)
    assert "pixels/strict/overall_low" not in events.names  # no interval of three samples
    assert "| system |" in events.text("tables/pixels-strict")
    assert len(events.events.Tags()["images"]) == 2
    assert json.loads((run.path / "trackers.json").read_text()) == {"tensorboard": {"folder": "tensorboard"}}


def test_keys_do_not_depend_on_a_tracker_and_a_complete_run_is_logged_too(tmp_path: Path) -> None:
    first = knowgen.evaluate("knowgen_mini", grey, "pixels", limit=3, out=tmp_path / "run")
    assert not (first.path / "tensorboard").exists() and not (first.path / "trackers.json").exists()
    again = knowgen.score(first.path, "pixels", log=[f"tensorboard:{tmp_path / 'curves'}"])
    assert again.spec == first.spec and again.outcome is not None and again.outcome.all_cached
    (folder,) = (tmp_path / "curves").iterdir()
    assert "pixels/strict/overall" in Events(folder).names


def test_a_tracker_that_is_not_set_up_is_an_error_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; name a folder in --log tensorboard:FOLDER"):
        knowgen.evaluate(
            "knowgen_mini", grey, "pixels", limit=1, out=tmp_path / "run", log=[f"tensorboard:{tmp_path}/file"]
        )
    assert not (tmp_path / "run").exists()


def test_progress_is_sent_now_and_then_and_at_the_end() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.steps: list[int] = []

        def log(self, values: dict[str, float], step: int) -> None:
            assert values["progress/cost"] == 0.5
            self.steps.append(step)

    recorder, now = Recorder(), [0.0]
    progress = TrackedProgress(False, recorder, clock=lambda: now[0])  # type: ignore[arg-type]
    counts = RunCounts(100, passes=1, pays_for_generations=True)
    progress.show(None, 0.5)
    for tenth in range(100):
        now[0] = tenth / 10
        counts.done = tenth
        progress.show(counts, 0.5)
    assert recorder.steps == [0, *range(int(10 * LOG_SECONDS), 100, int(10 * LOG_SECONDS))]
    progress.close()
    progress.close()
    assert recorder.steps[-1] == 99 and len(recorder.steps) == 6


SLOW = """
import time
from PIL import Image


def slow(prompt, seed, made=[]):
    made.append(prompt)
    if len(made) > 1:
        time.sleep(600)
    return Image.new("RGB", (32, 32))


slow.revision = "1"
"""


@pytest.mark.slow
def test_ctrl_c_closes_the_tracker(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["run", "--task", "knowgen_mini", "--generator", "slow.py:slow", "--scorer", "pixels", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "knowgen", *words, "--workers", "0", "--log", "tensorboard"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list((tmp_path / "run" / "images").glob("*/*")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    events = Events(tmp_path / "run" / "tensorboard")
    assert events.text("ending") == "interrupted" and events.values("progress/generated")[-1][1] == 1
    assert "warning" not in err


CONFIG = """
method: grpo
backend: tests.helpers.scripted_backend:ScriptedBackend
model: {path: "mini:0"}
agent: {prompt: short, tools: image_search, tool_calls: 1, date: "2026-01-01"}
grpo:
  prompts: [{task: "things:0", limit: 6}]
  max_steps: 2
  rollout: {prompts: 2, group: 2, max_prompt_tokens: 64, max_completion_tokens: 400, max_new_tokens: 32}
  reward: {text_weight: 1.0, text: "answer:any"}
  services: {tries: 2}
"""


def test_a_training_logs_every_figure_of_every_step(tmp_path: Path) -> None:
    (tmp_path / "training.yaml").write_text(CONFIG)
    reply = json.dumps({"rationale": "As scripted.", "answer": 1.0})
    with JudgeServer(lambda call: Step(reply=reply)) as server:
        own = [f"grpo.reward.text_args={{base_url: '{server.url}'}}"]
        plan = plan_training(load_config(tmp_path / "training.yaml", own), "training")
        trained = train_grpo(plan, tmp_path / "run", log=["tensorboard"])
    events = Events(tmp_path / "run" / "tensorboard")
    stored: dict[int, dict[str, Any]] = trained.run.metrics()
    assert list(stored) == [1, 2]
    for name in stored[1]:
        logged = dict(events.values(f"train/{name}"))
        assert list(logged) == [1, 2], name
        assert list(logged.values()) == pytest.approx([values[name] for values in stored.values()]), name
    assert "| config.grpo.max_steps | 2 |" in events.text("config") and events.text("ending") == "done"


def test_the_option_is_one_field_with_the_same_form_everywhere() -> None:
    with pytest.raises(UsageError, match="log must be a list of one or more names"):
        RunConfig(log="wandb")
