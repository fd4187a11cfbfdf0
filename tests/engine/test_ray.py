"""Plugins on the nodes of a Ray cluster: the same rows as in one process, whatever happens to a node."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.core.import_path import child_environment
from knowgen.store.run import RunStore
from tests.helpers.ray_cluster import can_hide, local_cluster, remote_node, short_folder

pytest.importorskip("ray")


def results(path: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what is stored of a run, without times and its own place: generations and scores by key."""
    with RunStore.read(path) as store:
        generations = {key: one.model_dump(mode="json", exclude={"seconds"}) for key, one in store.generations()}
        for generation in generations.values():
            for reference in generation["references"]:
                reference.pop("path", None)
        scores = {key: one.model_dump(mode="json", exclude={"seconds"}) for key, one in store.scores()}
    return generations, scores


HELD = """
import hashlib, os, pathlib, time
from PIL import Image

class Held:
    # Tells the ids of the processes that run it, and goes on only when the file `go` exists.
    concurrency = 2

    def draw(self, prompt, references, seed):
        folder = pathlib.Path(__file__).parent
        process = os.getpid()
        while process > 1 and not (folder / "go").exists():
            (folder / "ids" / str(process)).touch()
            process = int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        while not (folder / "go").exists():
            time.sleep(0.02)
        return Image.frombytes("RGB", (32, 32), hashlib.sha256(prompt.encode()).digest() * 96)
"""


@pytest.mark.slow
def test_a_run_that_loses_a_node_has_the_rows_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "held.py").write_text(HELD)
    (tmp_path / "ids").mkdir()
    monkeypatch.chdir(tmp_path)
    with local_cluster([{"num_cpus": 0}, {"num_cpus": 2}, {"num_cpus": 2}]) as cluster:  # the head cannot be removed
        lost = threading.Event()

        def lose_a_node_that_generates() -> None:
            while not lost.is_set():
                ids = {int(each.name) for each in (tmp_path / "ids").iterdir()}
                for node in list(cluster.worker_nodes):
                    raylet = next(each for each in node.live_processes() if each[0] == "raylet")[1].pid
                    if raylet in ids:
                        cluster.remove_node(node, allow_graceful=False)
                        lost.set()
                        break
                time.sleep(0.05)
            (tmp_path / "go").touch()

        thread = threading.Thread(target=lose_a_node_that_generates, daemon=True)
        thread.start()
        there = knowgen.evaluate(
            "knowgen_mini", "held.py:Held", out=tmp_path / "ray", executor=f"ray:{cluster.address}", limit=24
        )
        thread.join()
        assert "a worker on node" in caplog.text
    here = knowgen.evaluate("knowgen_mini", "held.py:Held", out=tmp_path / "here", workers=0, limit=24)
    assert there.outcome is not None and there.outcome.generated == there.outcome.scored == 24
    assert results(there.path) == results(here.path)


PLUGIN = """
import os, shapes

class Dots:
    references = 4

    def draw(self, prompt, references, seed):
        return shapes.dots(prompt, references)
"""

SHAPES = """
import hashlib
from PIL import Image

def dots(prompt, references):
    seen = b"".join(image.tobytes() for image in references)
    digest = hashlib.sha256(prompt.encode() + seen).digest()
    return Image.frombytes("RGB", (32, 32), digest * 96)
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_hide(), reason="may not create mount namespaces")
def test_nodes_need_no_common_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dots.py").write_text(PLUGIN)
    (tmp_path / "shapes.py").write_text(SHAPES)
    monkeypatch.chdir(tmp_path)
    system: dict[str, Any] = {"generator_args": {"painter": "dots.py:Dots"}, "limit": 12}
    here = knowgen.evaluate("knowgen_mini", "open_book", out=tmp_path / "here", **system)
    with local_cluster([{"num_cpus": 0}]) as cluster, remote_node(cluster, tmp_path, cpus=3):
        executor = f"ray:{cluster.address}"
        there = knowgen.evaluate("knowgen_mini", "open_book", out=tmp_path / "ray", executor=executor, **system)
    assert results(there.path) == results(here.path)
    generations, _ = results(there.path)
    assert any(one["references"] for one in generations.values())


MODEL = """
import os, time
from PIL import Image
from knowgen.plugin import GeneratedImage

class Model:
    def setup(self, device):
        self.device = device

    def generate_batch(self, requests):
        for request in requests:
            time.sleep(0.5)  # so that both workers have work
            seen = {name: os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "KEY_OF_A_NODE", "KEY_OF_HERE")}
            image = Image.new("RGB", (32, 32), (request.seed, 2, 3))
            yield GeneratedImage(image=image, request_id=request.id, settings={"device": self.device, **seen})
"""


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own_and_keys_of_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setenv("KEY_OF_A_NODE", "of the node")
    with local_cluster([{"num_cpus": 1}, {"num_cpus": 0, "num_gpus": 2}]) as cluster:
        monkeypatch.setenv("KEY_OF_HERE", "of this process")
        run = knowgen.evaluate(
            "knowgen_mini",
            f"{tmp_path / 'model.py'}:Model",
            ["world_check"],
            limit=8,
            out=tmp_path / "run",
            executor=f"ray:{cluster.address}",
        )
    generations, scores = results(run.path)
    settings = [one["settings"] for one in generations.values()]
    assert {one["device"] for one in settings} == {"cuda:0"}
    assert {one["CUDA_VISIBLE_DEVICES"] for one in settings} == {"0", "1"}
    assert {(one["KEY_OF_A_NODE"], one["KEY_OF_HERE"]) for one in settings} == {("of the node", "")}
    assert len(scores) == 8


SEVERAL = """
import os
from PIL import Image
from knowgen.plugin import GeneratedImage

class Wide:
    gpus_per_worker = 2

    def setup(self, device):
        self.settings = {"device": device, "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}

    def generate_batch(self, requests):
        for request in requests:
            image = Image.new("RGB", (16, 16), (request.seed % 256, len(request.prompt) % 256, 0))
            yield GeneratedImage(image, request_id=request.id, settings=self.settings)

class Judge:
    local = True
    workers = 1
    dimensions = ("gpus",)

    def setup(self, device):
        self.gpus = len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")) / 10

    def score(self, sample, truth, generation):
        return self.gpus
"""


@pytest.mark.slow
def test_a_model_on_two_gpus_runs_beside_a_judge_wherever_the_nodes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "several.py").write_text(SEVERAL)
    monkeypatch.chdir(tmp_path)
    nodes = [{"num_cpus": 1, "num_gpus": gpus} for gpus in (1, 2)]
    arguments: dict[str, Any] = {"task": "knowgen_mini", "generator": "several.py:Wide", "limit": 6}
    with local_cluster(nodes) as cluster:
        run = knowgen.evaluate(
            **arguments, scorers=["several.py:Judge"], out=tmp_path / "run", executor=f"ray:{cluster.address}"
        )
    generations, scores = results(run.path)
    assert len(generations) == len(scores) == 6
    for one in generations.values():
        assert one["settings"] == {"device": "cuda:0", "gpus": "0,1"}
    assert [one["strict"]["values"] for one in scores.values()] == [{"gpus": 0.1}] * 6
    with local_cluster(nodes[1:]) as cluster, pytest.raises(ConfigError, match="too few for all at the same time"):
        knowgen.evaluate(
            **arguments, scorers=["several.py:Judge"], out=tmp_path / "few", executor=f"ray:{cluster.address}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_and_the_cluster_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "token").write_text("a" * 64)  # otherwise Ray makes one in the home of the user
    with short_folder() as folder:
        command = [sys.executable, "-m", "knowgen", "run", "--task", "knowgen_mini", "--generator", "slow.py:Slow"]
        process = subprocess.Popen(
            [*command, "--executor", "ray", "--out", "run"],
            cwd=tmp_path,
            env={
                **child_environment(),
                "RAY_TMPDIR": str(folder),
                "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
                "MARK_OF_TEST": str(tmp_path),
            },
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and len(list(tmp_path.glob("run/images/**/*.png"))) < 2:
            time.sleep(0.1)
        os.killpg(process.pid, number) if number is signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "finished results are saved" in errors
        while marked(str(tmp_path)):  # what is left ends by itself, or the test does not
            time.sleep(0.2)


SLOW = """
import subprocess, time
from PIL import Image

class Slow:
    def __init__(self):
        self.helper = subprocess.Popen(["sleep", "300"])

    def draw(self, prompt, references, seed):
        time.sleep(0.5)
        return Image.new("RGB", (32, 32), (seed % 255, len(prompt) % 255, 3))
"""


def marked(mark: str) -> list[int]:
    """Return the processes whose environment has a mark, Ray's agents aside, which end within two minutes."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                folder.name.isdigit()
                and f"MARK_OF_TEST={mark}".encode() in (folder / "environ").read_bytes()
                and b"Agent" not in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_a_scorer_and_a_run_that_is_resumed_elsewhere(tmp_path: Path) -> None:
    here = knowgen.evaluate("knowgen_mini", "painter", ["world_check"], limit=6, out=tmp_path / "here", workers=0)
    begun = knowgen.evaluate("knowgen_mini", "painter", ["world_check"], limit=2, out=tmp_path / "run", workers=0)
    assert begun.outcome is not None and begun.outcome.generated == 2
    with local_cluster([{"num_cpus": 2}]) as cluster:
        executor = f"ray:{cluster.address}"
        options: dict[str, Any] = {"limit": 6, "out": tmp_path / "run", "executor": executor}
        resumed = knowgen.evaluate("knowgen_mini", "painter", ["world_check"], **options)
        scored = knowgen.score(tmp_path / "run", ["pixels"], executor=executor)
    assert resumed.outcome is not None and resumed.outcome.generated == 4 and resumed.outcome.generation_cached == 2
    assert scored.outcome is not None and scored.outcome.scored == 6
    generations, scores = results(tmp_path / "run")
    expected, expected_scores = results(here.path)
    assert generations == expected
    assert {key: one for key, one in scores.items() if one["scorer"] == "world_check"} == expected_scores


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError) as error:
        knowgen.evaluate("knowgen_mini", "painter", executor="ray", out=tmp_path / "run")
    assert error.value.fix == 'pip install "knowgen[ray]"' and not (tmp_path / "run").exists()


def test_an_address_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"the cluster at 127.0.0.1:{port} does not answer"):
        knowgen.evaluate("knowgen_mini", "painter", executor=f"ray:127.0.0.1:{port}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
