"""Sizes of models and of memory, and the names of devices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from knowgen.core.errors import ConfigError
from knowgen.local_models import host_memory as host_module
from knowgen.local_models import on_cpu
from knowgen.local_models.devices import auto_dtype, device_name, is_gpu_fault, platform_name
from knowgen.local_models.host_memory import HostMemory, host_memory
from knowgen.local_models.memory import is_out_of_memory
from knowgen.local_models.weight_sizes import folder_parameters, parameter_count


def test_parameters_are_counted_in_the_headers_of_the_files_that_are_loaded(tmp_path: Path) -> None:
    save_file(
        {"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float32)}, tmp_path / "model-00001-of-2.safetensors"
    )
    save_file({"c": np.zeros((2, 2), np.float32)}, tmp_path / "model-00002-of-2.safetensors")
    save_file({"a": np.zeros((100,), np.float16)}, tmp_path / "model.fp16.safetensors")
    assert folder_parameters(tmp_path) == 12 + 5 + 4
    assert folder_parameters(tmp_path, "fp16") == 100
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="not a safetensors file"):
        parameter_count(tmp_path / "damaged.safetensors")


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, limit, used = tmp_path / "meminfo", tmp_path / "max", tmp_path / "current"
    meminfo.write_text("MemTotal:  8000 kB\nMemFree:  1000 kB\nMemAvailable:  6000 kB\n")
    monkeypatch.setattr(host_module, "_MEMINFO", meminfo)
    monkeypatch.setattr(host_module, "_LIMITS", ((limit, used),))
    assert host_memory() == HostMemory(8000 * 1024, 6000 * 1024)
    limit.write_text("max\n")
    used.write_text("5\n")
    assert host_memory() == HostMemory(8000 * 1024, 6000 * 1024)
    limit.write_text("4096000\n")
    used.write_text("4000000\n")
    assert host_memory() == HostMemory(4096000, 96000)


def test_a_model_of_20_billion_parameters_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_cpu, "host_memory", lambda: HostMemory(128 * 10**9, 100 * 10**9))
    on_cpu.report_on_cpu(20 * 10**9, "float32", "generator x")
    assert "20.0 billion parameters in float32 take 80 GB of memory; 100 GB are free" in caplog.text
    monkeypatch.setattr(on_cpu, "host_memory", lambda: HostMemory(64 * 10**9, 60 * 10**9))
    with pytest.raises(ConfigError, match=r"80 GB.*has 64 GB.*dtype=bfloat16 \(40 GB\)"):
        on_cpu.report_on_cpu(20 * 10**9, "float32", "generator x")
    on_cpu.report_on_cpu(20 * 10**9, "float32", "generator x", quantized=True)
    assert "before it is quantized" in caplog.text
    monkeypatch.setattr(on_cpu, "host_memory", lambda: None)
    on_cpu.report_on_cpu(20 * 10**9, "float32", "generator x")  # not known: said, not refused


def test_devices_of_every_maker_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "AMD Instinct MI300X")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert (device_name("cuda:1"), platform_name("cuda:1")) == ("AMD Instinct MI300X", "ROCm 7.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert platform_name("cuda:0") == "CUDA 13.0"
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4 Max")
    assert (device_name("mps"), platform_name("mps")) == ("Apple M4 Max", "MPS")
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: "Intel Arc B580")
    assert (device_name("xpu:0"), platform_name("xpu:0")) == ("Intel Arc B580", "XPU")
    assert (device_name("cpu"), platform_name("cpu")) == ("", "")


def test_number_formats_are_those_of_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert auto_dtype("xpu:0") == "float16"
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert auto_dtype("cuda:0") == "bfloat16", "every AMD GPU that torch supports computes in it"


@pytest.mark.parametrize(
    ("message", "memory", "fault"),
    [
        ("HIP error: invalid device function", False, True),
        ("HIP out of memory. Tried to allocate 2 GiB", True, False),
        ("UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", True, False),
        ("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)", False, True),
        ("MPS backend out of memory (MPS allocated: 18 GB)", True, False),
        ("shapes do not match", False, False),
    ],
)
def test_failures_of_every_maker_are_distinguished(message: str, memory: bool, fault: bool) -> None:
    error = RuntimeError(message)
    assert (is_out_of_memory(error), is_gpu_fault(error)) == (memory, fault)


def test_the_memory_of_each_kind_of_accelerator_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from knowgen.local_models.memory import free_memory

    released: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append("mps"))
    free_memory()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    xpu = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, empty_cache=lambda: released.append("xpu")
    )
    monkeypatch.setattr(torch, "xpu", xpu)
    free_memory()
    assert released == ["mps", "xpu"]
