"""Runs with `diffusers:MODEL`: two workers, a worker that is killed while generating, a worker whose GPU fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.core.errors import KnowgenError
from knowgen.core.records import Generation, GenerationStatus
from knowgen.store.run import RunStore
from tests.helpers import tiny_pipelines

pytestmark = pytest.mark.slow  # every worker imports torch and diffusers

WAIT_SECONDS = 240.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_pipelines.sd3(tmp_path_factory.mktemp("model") / "sd3"))


def run(model: str, out: Path, *, limit: int, workers: int = 0, **args: Any) -> dict[str, Generation]:
    result = knowgen.evaluate(
        "knowgen_mini",
        f"diffusers:{model}",
        ["pixels"],
        out=out,
        limit=limit,
        workers=workers,
        generator_args={"size": "32x32", "steps": 2, **args},
    )
    return generations(result.path)


def generations(path: Path) -> dict[str, Generation]:
    with RunStore.read(path) as store:
        return {generation.sample_id: generation for _, generation in store.generations()}


def assert_same_images(first: dict[str, Generation], second: dict[str, Generation], tolerance: int = 1) -> None:
    import numpy as np

    assert first.keys() == second.keys()
    for name, generation in first.items():
        image, expected = generation.image, second[name].image
        assert image is not None and expected is not None
        difference = np.asarray(image.open()).astype(int) - np.asarray(expected.open()).astype(int)
        assert np.abs(difference).max() <= tolerance


def busiest_worker() -> int:
    """Return the id of the worker process of this process that has used the most CPU time."""
    cpu_time = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # the process has just ended
        if int(fields[1]) == os.getpid() and b"knowgen.engine.executors.worker_main" in command:
            cpu_time[int(entry.name)] = int(fields[11]) + int(fields[12])
    return max(cpu_time, key=lambda pid: cpu_time[pid])


def test_two_workers_generate_what_one_process_generates(model: str, tmp_path: Path) -> None:
    two_workers = run(model, tmp_path / "spread", limit=4, workers=2)
    assert [generation.status for generation in two_workers.values()] == [GenerationStatus.OK] * 4
    assert {generation.settings["pipeline"] for generation in two_workers.values()} == {"StableDiffusion3Pipeline"}
    assert_same_images(two_workers, run(model, tmp_path / "whole", limit=4))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_images_are_taken_over_only_where_an_option_keeps_them(model: str, tmp_path: Path) -> None:
    """The directory of a run is bound to what decides its images."""
    out = tmp_path / "run"
    settings: dict[str, Any] = {"dtype": "float32", "batch": 1}
    first = run(model, out, limit=2, **settings)
    for same in ({"slicing": True}, {"compile": False}, {"batch": 2}, {"device_map": "cpu"}, {"attention": ""}):
        again = run(model, out, limit=2, **{**settings, **same})
        assert {name: one.seconds for name, one in again.items()} == {name: one.seconds for name, one in first.items()}
    for other in ({"dtype": "bfloat16"}, {"cache": "first_block"}, {"attention": "native"}, {"tiling": True}):
        with pytest.raises(KnowgenError, match="generator"):
            run(model, out, limit=2, **{**settings, **other})


def test_requests_of_a_killed_worker_are_generated_by_another(model: str, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    killed: list[int] = []

    def kill_worker() -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not any(out.glob("images/*/*")):
            time.sleep(0.01)
        pid = busiest_worker()  # another one may still be loading its pipeline, without any request
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    generated = run(model, out, limit=24, workers=2, steps=20)
    killer.join()
    assert len(killed) == 1
    assert [generation.status for generation in generated.values()] == [GenerationStatus.OK] * 24
    assert max(generation.attempts for generation in generated.values()) == 2, "the worker was killed while it was idle"
    assert_same_images(generated, run(model, tmp_path / "whole", limit=24, steps=20))


FAULTY = '''
import os
from pathlib import Path

from knowgen.generators.diffusers.generator import DiffusersGenerator


class Faulty(DiffusersGenerator):
    """The GPU of the first process that generates fails in its first batch."""

    def setup(self, device):
        super().setup(device)
        pipeline = self._runner._pipelines["text"]
        generate, marker = pipeline.generate, Path(__file__).with_name("failed")

        def fail(*arguments):
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                if self._runner._health.faults == 0:
                    return generate(*arguments)
            raise RuntimeError("CUDA error: device-side assert triggered")

        pipeline.generate = fail
'''


def test_a_worker_whose_gpu_fails_exits_and_its_requests_are_generated_by_another(model: str, tmp_path: Path) -> None:
    module = tmp_path / "faulty.py"
    module.write_text(FAULTY)
    result = knowgen.evaluate(
        "knowgen_mini",
        f"{module}:Faulty",
        ["pixels"],
        out=tmp_path / "run",
        limit=6,
        workers=2,
        generator_args={"model": model, "size": "32x32", "steps": 2},
    )
    generated = generations(result.path)
    assert [generation.status for generation in generated.values()] == [GenerationStatus.OK] * 6
    logs = "".join(path.read_text() for path in (tmp_path / "run" / "logs").iterdir())
    assert "the GPU failed" in logs
    assert_same_images(generated, run(model, tmp_path / "whole", limit=6))
