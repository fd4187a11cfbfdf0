"""The device of each plugin and worker process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.setting import noise_image
from knowgen.engine import devices
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
