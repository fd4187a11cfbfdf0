"""Experiment trackers, through the offline modes of their libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.core.import_path import module_command
from knowgen.tracking import tracker_process
from knowgen.tracking.contract import TrackedImage, TrackedRun
from knowgen.tracking.requests import tracker_requests
from knowgen.tracking.session import Tracking, open_tracking
from tests.helpers.images import save_image
from tests.helpers.wandb_file import WandbFile


def run_of(folder: Path, **config: Any) -> TrackedRun:
    settings = {"task": "mini", "generator": {"name": "noise"}, "versions": {"knowgen": "1"}, **config}
    return TrackedRun("noise on mini", "run", str(folder), settings)


def filled(tracking: Tracking, folder: Path) -> None:
    """Log what a run logs, and close."""
    (folder / "table.md").write_text("| a | b |\n|---|---|\n| 1 | 2 |\n")
    save_image(folder / "image.png", (8, 8), "red")
    tracking.start(run_of(folder))
    for done in range(3):
        tracking.log(
            {"progress/generated": done, "progress/cost": done / 4, "nothing": None, "bad": float("nan")}, done
        )
    tracking.figures({"vlm:gpt-4.1/strict/overall": 0.5, "vlm:gpt-4.1/strict/overall_low": 0.25})
    tracking.files([folder / "table.md"])
    tracking.images([TrackedImage(str(folder / "image.png"), "s1: a robin")] * 3)
    tracking.close()


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that takes warnings; wandb works offline, mlflow in a folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return []


def test_wandb_gets_config_curves_figures_tables_and_images(silent: list[str], tmp_path: Path) -> None:
    filled(open_tracking(["wandb:my-project,images=2"], silent.append), tmp_path)
    run = WandbFile(tmp_path)
    assert silent == [] and run.exit_code == 0 and run.name == "noise on mini"
    assert run.config["generator"] == {"name": "noise"} and run.config["versions"] == {"knowgen": "1"}
    curve = [entry for entry in run.history if "progress/cost" in entry]
    assert [(entry["done"], entry["progress/cost"]) for entry in curve] == [(0, 0), (1, 0.25), (2, 0.5)]
    assert not any("bad" in entry or "nothing" in entry for entry in run.history)
    assert run.summary["vlm:gpt-4.1/strict/overall_low"] == 0.25 and run.artifacts == ["table.md"]
    assert [entry["images.count"] for entry in run.history if "images.count" in entry] == [2]
    record = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert record["project"] == "my-project" and record["offline"].endswith(record["id"])


@pytest.mark.slow
def test_mlflow_gets_them_too_and_a_second_call_goes_on_with_the_same_run(silent: list[str], tmp_path: Path) -> None:
    import mlflow

    filled(open_tracking(["mlflow:my experiment"], silent.append), tmp_path)
    record = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    with open_tracking(["mlflow:my experiment"], silent.append) as again:
        again.start(run_of(tmp_path, task="another"))
        again.log({"progress/cost": 1.0}, 3)
    assert json.loads((tmp_path / "trackers.json").read_text())["mlflow"] == record and silent == []
    client = mlflow.MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    run = client.get_run(record["id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "noise on mini"
    assert run.data.params == {"task": "mini", "generator.name": "noise", "versions.knowgen": "1"}
    assert [point.value for point in client.get_metric_history(record["id"], "progress/cost")] == [0, 0.25, 0.5, 1.0]
    assert run.data.metrics["vlm:gpt-4.1/strict/overall"] == 0.5
    assert [each.path for each in client.list_artifacts(record["id"], "tables")] == ["tables/table.md"]


def test_tensorboard_gets_them_in_the_run_directory(silent: list[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    filled(open_tracking(["tensorboard,images=1"], silent.append), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert silent == []
    assert [(each.step, each.tensor_proto.float_val[0]) for each in events.Tensors("progress/cost")] == [
        (0, 0), (1, 0.25), (2, 0.5),
    ]  # fmt: skip
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("config", "ending", "figures")}
    assert "| generator.name | noise |" in texts["config"] and texts["ending"] == "done"
    assert "| vlm:gpt-4.1/strict/overall | 0.5 |" in texts["figures"]
    assert b"| 1 | 2 |" in events.Tensors("tables/table")[0].tensor_proto.string_val[0]
    assert events.Images("images/s1: a robin")[0].encoded_image_string[:4] == b"\x89PNG"


def test_two_runs_in_one_folder_of_tensorboard_are_two_runs(silent: list[str], tmp_path: Path) -> None:
    curves = tmp_path / "curves"
    for run in (tmp_path / "a" / "mini", tmp_path / "b" / "mini", tmp_path / "a" / "mini"):
        run.mkdir(parents=True, exist_ok=True)
        filled(open_tracking([f"tensorboard:{curves}"], silent.append), run)
    assert silent == []
    assert sorted(len(list(each.glob("events.*"))) for each in curves.iterdir()) == [1, 2]
    assert all(each.name.startswith("mini-") for each in curves.iterdir())


def test_a_missing_login_is_one_line_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"--log wandb: no login; run `wandb login`, set WANDB_API_KEY, or .*WANDB_MODE=offline"
    ):
        open_tracking(["wandb"])
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    open_tracking(["wandb"]).close()  # no server is called before a run begins


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise ModuleNotFoundError('No module', name='tensorboard')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(
        MissingDependencyError, match=r"tensorboard is not installed; pip install 'knowgen\[trackers\]'"
    ):
        open_tracking(["tensorboard"])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["comet"], "unknown tracker 'comet' in --log; known are wandb, mlflow, tensorboard"),
        (["wandb", "wandb:other"], "--log names wandb twice"),
        (["wandb,images=1000"], "images must be at most 100"),
        (["mlflow:https://me:hunter22secret@host"], "user or password before the host"),
    ],
)
def test_a_wrong_request_is_one_line(texts: list[str], words: str) -> None:
    with pytest.raises((UsageError, ConfigError)) as caught:
        tracker_requests(texts)
    assert words in str(caught.value) and "hunter22" not in str(caught.value)


OWN = """
from pathlib import Path
from knowgen.tracking import requests, worker
from knowgen.tracking.contract import Tracker


class Own(Tracker):
    def check(self): pass
    def start(self, run): return {"id": "1", "url": "https://me:secret@host/x?key=1"}
    def log(self, values, step):
        if self.target == "fails": raise OSError("the server is down")
        if self.target == "dies": __import__("os")._exit(3)
        if self.target == "hangs": __import__("time").sleep(600)
    def figures(self, values): pass
    def files(self, paths): pass
    def images(self, images): pass
    def close(self, ending): Path(self.target).write_text(ending) if "/" in self.target else None


requests.TRACKERS["own"] = "own_worker:Own"
if __name__ == "__main__":
    worker.main(__import__("sys").argv[1:])
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[str], None]], Tracking]:
    """Return a function that opens a tracker that fails in one way."""
    (tmp_path / "own_worker.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr("knowgen.tracking.requests.TRACKERS", {"own": "own_worker:Own"})
    monkeypatch.setattr(tracker_process, "module_command", lambda _, *words: module_command("own_worker", *words))
    return lambda target, warn: open_tracking([f"own:{target}"], warn)


@pytest.mark.parametrize(
    ("how", "words"), [("fails", "the server is down"), ("dies", "its process has ended"), ("hangs", "in time")]
)
def test_a_tracker_that_fails_is_given_up_with_one_line(
    own: Callable[[str, Callable[[str], None]], Tracking],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    words: str,
) -> None:
    monkeypatch.setattr("knowgen.tracking.session.CLOSE_SECONDS", 1.0 if how == "hangs" else 30.0)
    warnings: list[str] = []
    tracking = own(how, warnings.append)
    tracking.start(run_of(tmp_path))
    tracking.log({"x": 1}, 1)
    until = time.monotonic() + 30
    while how != "hangs" and not warnings and time.monotonic() < until:
        time.sleep(0.01)
    for step in range(2 * tracker_process.QUEUE_LENGTH if how != "hangs" else 3):
        tracking.log({"x": 1}, step)
    tracking.close()
    assert len(warnings) == 1 and words in warnings[0] and "the run goes on without it" in warnings[0]


def test_a_tracker_that_cannot_keep_up_is_given_up(
    own: Callable[[str, Callable[[str], None]], Tracking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_process, "QUEUE_LENGTH", 5)
    warnings: list[str] = []
    tracking = own("hangs", warnings.append)
    tracking.start(run_of(tmp_path))
    values = {f"a long name of a value {number}": number for number in range(2000)}  # more than a pipe holds
    for step in range(100):
        tracking.log(values, step)
    tracking.close()
    assert warnings == ["own: is 5 requests behind; the run goes on without it"]


def test_what_identifies_a_run_is_recorded_without_secrets(
    own: Callable[[str, Callable[[str], None]], Tracking], tmp_path: Path
) -> None:
    with own(str(tmp_path / "ended"), print) as tracking:
        tracking.start(run_of(tmp_path))
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"own": {"id": "1", "url": "https://host/x"}}
    assert (tmp_path / "ended").read_text() == "done"


def test_an_error_and_a_killed_run_end_as_failed(
    own: Callable[[str, Callable[[str], None]], Tracking], tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), own(str(tmp_path / "error"), print) as tracking:
        tracking.start(run_of(tmp_path))
        raise ZeroDivisionError
    assert (tmp_path / "error").read_text() == "failed"
    tracking = own(str(tmp_path / "killed"), print)
    tracking.start(run_of(tmp_path))
    ((tracker, _),) = tracking._trackers
    assert tracker._process.stdin is not None
    tracker._closed = True
    tracker._process.stdin.close()  # as when this process is killed
    tracker._process.wait(30)
    assert (tmp_path / "killed").read_text() == "failed"


def test_nothing_is_imported_without_a_tracker() -> None:
    code = (
        "import sys; from knowgen.cli.main import run; run(['run', '--help']);"
        "from knowgen.workflows import execute;"
        "print([name for name in ('wandb', 'mlflow', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and "--log" in done.stdout


@pytest.mark.slow
def test_a_server_that_is_down_costs_a_warning_and_a_limited_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracker_process, "BEGIN_SECONDS", 1.0)
    warnings: list[str] = []
    tracking = open_tracking(["wandb", "mlflow:http://127.0.0.1:9"], warnings.append)
    tracking.start(run_of(tmp_path))
    tracking.log({"x": 1}, 1)
    tracking.close()
    assert sorted(line.split(":")[0] for line in warnings) == ["mlflow", "wandb"]
    assert not (tmp_path / "trackers.json").exists()
