"""`knowgen check generator` on GPUs, which are simulated: device, batches, time on all of them, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core import registry
from knowgen.core.spec import GeneratorSpec
from knowgen.engine import devices
from knowgen.engine.components import ComponentRef, GeneratorHandle
from knowgen.generators.contract import capabilities_of
from knowgen.local_models.device_memory import DeviceMemory
from knowgen.validation import forecast, generator, probe
from knowgen.validation.checked_generator import CheckedGenerator
from knowgen.validation.findings import Finding, ValueLevel
from tests.validation.test_generator import the

SOURCE = """
import hashlib, random
from PIL import Image
from knowgen.plugin import GeneratedImage

class OnGpu:
    batch_size = 8
    revision = "1"

    def setup(self, device):
        self.device = device

    def generate_batch(self, requests):
        for request in requests:
            pixels = random.Random(f"{request.prompt} {request.seed}").randbytes(32 * 32 * 3)
            yield GeneratedImage(Image.frombytes("RGB", (32, 32), pixels), request_id=request.id, settings=SETTINGS)

class Moves(OnGpu):
    def generate_batch(self, requests):
        for result in super().generate_batch(requests):
            moved = result.image.point(lambda level: min(255, level + 9 * (len(requests) > 1)))
            yield GeneratedImage(moved, request_id=result.request_id, settings=SETTINGS)

class InFloat(OnGpu):
    def generate_batch(self, requests):
        for result in super().generate_batch(requests):
            yield GeneratedImage(result.image, request_id=result.request_id)
"""

H200 = {
    "device": "cuda:0", "device_name": "NVIDIA H200", "dtype": "bfloat16", "batch": 4,
    "batch_seconds": {"1": 2.0, "2": 1.25, "4": 0.8, "8": 0.9},
}  # fmt: skip


class Card:
    """Stands for `torch.cuda` with a card of 80 GiB.

    Args:
        peak: GiB that tensors have had at most.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 0, 80 * 2**30

    def max_memory_allocated(self, device: str) -> int:
        return int(self.peak * 2**30)


def on_gpus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpus: int,
    settings: dict[str, Any],
    name: str = "OnGpu",
    peak: float = 60.0,
    machine: float = 512_000.0,
) -> GeneratorHandle:
    """Simulate a machine with GPUs, and return a generator for it that records some settings."""
    path = tmp_path / "on_gpu.py"
    path.write_text(f"SETTINGS = {settings!r}\n{SOURCE}")
    target = registry.load(registry.resolve("generators", f"{path}:{name}"))
    monkeypatch.setattr(devices, "accelerators", lambda: devices.Accelerators("cuda" if gpus else "cpu", gpus))
    memory = DeviceMemory("cuda:0", Card(peak)) if gpus else None
    for module in (forecast, probe):
        monkeypatch.setattr(module, "memory_of", lambda device: memory)
    monkeypatch.setattr(forecast, "device_name", lambda device: "NVIDIA H100" if gpus else "")
    monkeypatch.setattr(forecast, "machine_megabytes", lambda: machine)
    monkeypatch.setattr(forecast, "peak_megabytes", lambda: 24_000.0)
    component_ref = ComponentRef("generators", f"{path}:{name}")
    return GeneratorHandle(GeneratorSpec(name=name, revision="1"), capabilities_of(target), target, component_ref)


def check_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **machine: Any) -> list[Finding]:
    handle = on_gpus(tmp_path, monkeypatch, **machine)
    monkeypatch.setattr(generator, "check_fresh_process", lambda checked: None)  # it takes a second
    return generator.check_generator(handle, samples=630, timeout=60.0)


def test_a_check_on_eight_gpus_says_what_a_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=8, settings=H200)
    assert the(findings, "device", "ok").what == "cuda:0 (NVIDIA H200), bfloat16"
    assert the(findings, "build", "ok").what.startswith("built and set up on cuda:0 in ")
    batches = the(findings, "batches", "ok").what
    assert batches.startswith("seconds per image by batch size are 1: 2.00 s, 2: 1.25 s, 4: 800 ms, 8: 900 ms; ")
    assert batches.endswith("batches of 4 pay (2.5 times as fast)")
    card = the(findings, "GPU memory", "ok").what
    assert card == "up to 60.0 of the 80.0 GiB of cuda:0 (75%)"
    host = the(findings, "main memory", "ok").what
    assert host == "a process takes up to 24,000 MB of main memory, the 8 of a run 192,000 MB of 512,000 MB"
    time = the(findings, "time", "ok").what
    assert " on one GPU, " in time and " on the 8 GPUs of this machine" in time


def test_the_forecast_is_divided_by_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed by hand: 630 images at 0.8 s are 504 s; each of eight GPUs makes 79 in 63 s, after 57 s of loading."""
    handle = on_gpus(tmp_path, monkeypatch, gpus=8, settings={})
    checked = CheckedGenerator(handle, generator.neutral_requests(), 5.0, "cuda:0")
    image = probe.probed_image(Image.new("RGB", (32, 32)))
    assert isinstance(image, probe.ProbedImage)
    checked.images, checked.seconds, checked.seconds_together = [image], [80.0, 2.0, 2.0], 0.8
    checked.load_seconds = 57.0
    forecast.forecast(checked, 630)
    assert the(checked.notes.findings, "time", "ok").what == (
        "630 images of 32x32 take about 8 min on one GPU, 2 min on the 8 GPUs of this machine "
        "(first 80 s, then 800 ms each)"
    )


def test_a_card_or_a_machine_that_is_nearly_full_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=8, settings=H200, peak=78.0, machine=128_000.0)
    card, host = the(findings, "GPU memory", "warn"), the(findings, "main memory", "warn")
    assert "78.0 of the 80.0 GiB" in card.what and "a smaller batch or size, or offload" in card.fix
    assert "192,000 MB of 128,000 MB" in host.what and host.fix.endswith("--workers 4")


def test_a_check_on_a_cpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = {"device": "cpu", "dtype": "float32", "batch_seconds": {"1": 1.0, "2": 1.2}}
    findings = check_on(tmp_path, monkeypatch, gpus=0, settings=slower)
    assert the(findings, "device", "ok").what == "cpu, float32, no GPU is used"
    assert the(findings, "batches", "ok").what.endswith("1: 1.00 s, 2: 1.20 s; batches do not pay here")
    assert " in one process (first " in the(findings, "time", "ok").what
    assert "GPU memory" not in {finding.check for finding in findings}
    assert the(findings, "main memory", "ok").what == "a process takes up to 24,000 MB of main memory of 512,000 MB"


def test_a_generator_that_records_nothing_is_measured_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="InFloat")
    assert the(findings, "device", "ok").what == "cuda:0 (NVIDIA H100)"
    assert the(findings, "batches", "ok").what.startswith("8 at once take ")
    assert " on one GPU (first " in the(findings, "time", "ok").what


@pytest.mark.parametrize(("dtype", "level"), [("bfloat16", "warn"), ("float32", "fail")])
def test_in_a_short_format_a_batch_may_change_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, level: ValueLevel
) -> None:
    """In float32 such a difference shows a state that requests share; in bfloat16 it may be the format."""
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={"dtype": dtype}, name="Moves")
    several = the(findings, "several", level)
    assert "at most 9 of 255 levels" in several.what and "mean difference 8." in several.what
    assert (dtype in several.what, "-g batch=1" in several.fix) == ((level == "warn",) * 2)
