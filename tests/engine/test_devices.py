"""The device of each plugin and worker process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.setting import noise_image
from knowgen.core.errors import ConfigError
from knowgen.engine import devices
from knowgen.engine.executors.links import worker_environment
from tests.helpers.engine import Bench


def test_without_torch_everything_is_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: devices.NONE)
    assert devices.worker_devices(3) == [devices.CPU] * 3
    assert devices.own_device() == "cpu"


def test_each_worker_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: devices.Accelerators("cuda", 2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [device.visible for device in devices.worker_devices(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [device.visible for device in devices.worker_devices(3)] == ["4", "7", "4"]
    assert {device.name for device in devices.worker_devices(3)} == {"cuda:0"}


@pytest.mark.parametrize(
    ("kind", "count", "own", "workers"),
    [
        ("xpu", 2, "xpu:0", ["xpu:0", "xpu:1", "xpu:0"]),
        ("mps", 1, "mps", ["mps", "mps", "mps"]),
        ("cuda", 1, "cuda:0", ["cuda:0", "cuda:0", "cuda:0"]),
    ],
)
def test_every_kind_of_accelerator_is_used(
    kind: str, count: int, own: str, workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: devices.Accelerators(kind, count))
    assert devices.own_device() == own
    assert [device.name for device in devices.worker_devices(3)] == workers


def test_a_gpu_that_torch_cannot_use_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    devices.accelerators.cache_clear()
    found = devices.accelerators()
    devices.accelerators.cache_clear()
    if found.number:
        pytest.skip("torch finds a GPU")
    assert found == devices.NONE
    assert "torch cannot use" in caplog.text


def test_a_run_never_loads_torch_to_choose_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)  # other tests in this process may have imported it

    class WithSetup:
        device = ""

        def setup(self, device: str) -> None:
            self.device = device

        def draw(self, prompt: str, references: object, seed: int) -> Any:
            return noise_image(prompt)

    generator = WithSetup()
    Bench(tmp_path / "run").run(1, generator)
    assert generator.device in {"cpu", "cuda:0"}
    assert "torch" not in sys.modules


def simulate(monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    """Have a machine without GPUs report some."""
    monkeypatch.setattr(devices, "accelerators", lambda: devices.Accelerators(kind, count))
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_a_worker_may_see_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, "cuda", 8)
    assert [device.visible for device in devices.worker_devices(4, 2)] == ["0,1", "2,3", "4,5", "6,7"]
    assert [device.visible for device in devices.worker_devices(3, 3)] == ["0,1,2", "3,4,5", "0,1,2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,5,7")
    simulated = devices.Accelerators("cuda", 4)
    monkeypatch.setattr(devices, "accelerators", lambda: simulated)
    assert [device.visible for device in devices.worker_devices(2, 2)] == ["1,3", "5,7"]


@pytest.mark.parametrize(
    ("kind", "count", "found"), [("cuda", 3, "3 GPUs"), ("xpu", 8, "the kind xpu"), ("cpu", 0, "no GPU")]
)
def test_more_gpus_for_a_worker_than_there_are_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: str, count: int, found: str
) -> None:
    simulate(monkeypatch, kind, count)
    with pytest.raises(ConfigError, match=f"gpus_per_worker=4, and this machine has .*{found}"):
        devices.worker_devices(1, 4)


def test_a_plugin_beside_others_is_given_the_emptiest_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, "cuda", 4)
    monkeypatch.setattr(devices, "free_memories", lambda kind: [10, 40, 20, 30])
    assert [device.visible for device in devices.worker_devices(1, emptiest=True)] == ["1"]
    assert [device.visible for device in devices.worker_devices(1, 2, emptiest=True)] == ["1,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [device.visible for device in devices.worker_devices(1, emptiest=True)] == ["5"]
    monkeypatch.setattr(devices, "free_memories", lambda kind: [])  # its driver does not say it
    assert [device.visible for device in devices.worker_devices(1, emptiest=True)] == ["4"]
    simulate(monkeypatch, "xpu", 2)
    monkeypatch.setattr(devices, "free_memories", lambda kind: [1, 2])
    assert [device.name for device in devices.worker_devices(1, emptiest=True)] == ["xpu:1"]


def test_the_gpus_of_amd_are_chosen_by_their_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, "cuda", 2)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,6")
    chosen = devices.worker_devices(2)
    assert [device.visible for device in chosen] == ["2", "6"]
    environment = worker_environment(chosen[1], 1)
    assert environment["HIP_VISIBLE_DEVICES"] == "6" and environment["KNOWGEN_DEVICE"] == "cuda:0"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_free_memory_that_cannot_be_asked_for_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert devices.free_memories("cuda") == []
