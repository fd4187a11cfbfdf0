"""`diffusers:MODEL` in a run: two workers, a worker that is killed under its work, one whose GPU fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.records import Generation, GenerationStatus
from knowgen.store.run import RunStore
from tests.helpers import tiny_pipelines

pytestmark = pytest.mark.slow  # every worker imports torch and diffusers again

PATIENCE = 240.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_pipelines.sd3(tmp_path_factory.mktemp("model") / "sd3"))


def run(model: str, out: Path, *, limit: int, workers: int = 0, **args: Any) -> dict[str, Generation]:
    done = knowgen.evaluate(
        "knowgen_mini",
        f"diffusers:{model}",
        ["pixels"],
        out=out,
        limit=limit,
        workers=workers,
        generator_args={"size": "32x32", "steps": 2, **args},
    )
    return generations(done.path)


def generations(path: Path) -> dict[str, Generation]:
    with RunStore.read(path) as store:
        return {generation.sample_id: generation for _, generation in store.generations()}


def same_pictures(some: dict[str, Generation], others: dict[str, Generation], tolerance: int = 1) -> None:
    import numpy as np

    assert some.keys() == others.keys()
    for name, generation in some.items():
        first, second = generation.image, others[name].image
        assert first is not None and second is not None
        difference = np.asarray(first.open()).astype(int) - np.asarray(second.open()).astype(int)
        assert np.abs(difference).max() <= tolerance


def worker_processes() -> list[int]:
    """The worker processes that this process started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if int(parent) == os.getpid() and b"knowgen.engine.executors.worker_main" in command:
            found.append(int(entry.name))
    return found


def test_two_workers_generate_what_one_process_generates(model: str, tmp_path: Path) -> None:
    spread = run(model, tmp_path / "spread", limit=4, workers=2)
    assert [one.status for one in spread.values()] == [GenerationStatus.OK] * 4
    assert {one.settings["pipeline"] for one in spread.values()} == {"StableDiffusion3Pipeline"}
    same_pictures(spread, run(model, tmp_path / "whole", limit=4))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_what_a_killed_worker_had_is_generated_by_another(model: str, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not any(out.glob("images/*/*")):
            time.sleep(0.01)
        pid = worker_processes()[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    drawn = run(model, out, limit=24, workers=2, steps=20)
    killer.join()
    assert len(killed) == 1
    assert [one.status for one in drawn.values()] == [GenerationStatus.OK] * 24
    assert max(one.attempts for one in drawn.values()) == 2, "it was killed when it had nothing to do"
    same_pictures(drawn, run(model, tmp_path / "whole", limit=24, steps=20))


FAULTY = '''
import os
from pathlib import Path

from knowgen.generators.diffusers.generator import DiffusersGenerator


class Faulty(DiffusersGenerator):
    """Its GPU answers no more at the first pass of the first process that gets to one."""

    def setup(self, device):
        super().setup(device)
        pipeline = self._painter._held["text"]
        draw, mark = pipeline.draw, Path(__file__).with_name("failed")

        def fault(*arguments):
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                if self._painter._health.faults == 0:
                    return draw(*arguments)
            raise RuntimeError("CUDA error: device-side assert triggered")

        pipeline.draw = fault
'''


def test_a_worker_whose_gpu_fails_ends_and_its_requests_are_generated_elsewhere(model: str, tmp_path: Path) -> None:
    module = tmp_path / "faulty.py"
    module.write_text(FAULTY)
    done = knowgen.evaluate(
        "knowgen_mini",
        f"{module}:Faulty",
        ["pixels"],
        out=tmp_path / "run",
        limit=6,
        workers=2,
        generator_args={"model": model, "size": "32x32", "steps": 2},
    )
    drawn = generations(done.path)
    assert [one.status for one in drawn.values()] == [GenerationStatus.OK] * 6
    logs = "".join(path.read_text() for path in (tmp_path / "run" / "logs").iterdir())
    assert "the GPU failed" in logs
    same_pictures(drawn, run(model, tmp_path / "whole", limit=6))
