"""`knowgen check generator` on GPUs, which are simulated: device, batches, time on all of them, memory."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
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
import hashlib, random, time
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

class Sleeps(OnGpu):
    def generate_batch(self, requests):
        time.sleep(2.0 * len(requests) ** 2)  # two take four times as long as one
        return super().generate_batch(requests)

class Blinks(OnGpu):
    def generate_batch(self, requests):
        time.sleep(0.001 * len(requests) ** 2)
        return super().generate_batch(requests)

class Warms(OnGpu):
    first = True

    def generate_batch(self, requests):
        if len(requests) == self.batch_size and self.first:
            self.first = False
            time.sleep(50.0)
        time.sleep(1.0)
        return super().generate_batch(requests)

class Spread(OnGpu):
    gpus_per_worker = 2

class Measures(OnGpu):
    sizes, calls = 1, 0

    def generate_batch(self, requests):
        Measures.calls += len(requests) == self.batch_size
        Measures.sizes = min(4, Measures.sizes + (len(requests) == self.batch_size))
        table = {str(2**size): 1.0 / 2**size for size in range(Measures.sizes)}
        for result in super().generate_batch(requests):
            yield GeneratedImage(result.image, request_id=result.request_id, settings={"batch_seconds": table})

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
        others: GiB that other programs have.
    """

    def __init__(self, peak: float, others: float = 0.4) -> None:
        self.peak, self.others = peak, others

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return int((80 - 2 - self.others) * 2**30), 80 * 2**30

    def memory_reserved(self, device: str) -> int:
        return 2 * 2**30

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
    others: float = 0.4,
    known: bool = True,
    machine: float = 512_000.0,
) -> GeneratorHandle:
    """Simulate a machine with GPUs, and return a generator for it that records some settings."""
    path = tmp_path / "on_gpu.py"
    path.write_text(f"SETTINGS = {settings!r}\n{SOURCE}")
    target = registry.load(registry.resolve("generators", f"{path}:{name}"))
    monkeypatch.setattr(devices, "accelerators", lambda: devices.Accelerators("cuda" if gpus else "cpu", gpus))
    card = Card(peak, others)
    for module in (forecast, probe):
        monkeypatch.setattr(module, "memory_of", lambda device: DeviceMemory(device, card) if known and gpus else None)
    monkeypatch.setattr(forecast, "device_name", lambda device: "NVIDIA H100" if gpus else "")
    monkeypatch.setattr(forecast, "machine_megabytes", lambda: machine)
    monkeypatch.setattr(forecast, "peak_megabytes", lambda: 24_000.0)
    component_ref = ComponentRef("generators", f"{path}:{name}")
    return GeneratorHandle(GeneratorSpec(name=name, revision="1"), capabilities_of(target), target, component_ref)


def check_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **machine: Any) -> list[Finding]:
    handle = on_gpus(tmp_path, monkeypatch, **machine)
    monkeypatch.setattr(generator, "check_fresh_process", lambda checked: None)  # it takes a second
    return generator.check_generator(handle, samples=630, timeout=60.0)


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sleep take no time and yet be measured."""
    slept: list[float] = []
    clock = time.perf_counter
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: clock() + sum(slept)))


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
    assert " on one GPU, " in time and " on the 8 GPUs of this machine (loading " in time


def test_the_forecast_is_divided_by_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed by hand: 630 images at 0.8 s are 504 s; each of eight GPUs makes 79 in 63 s; loading takes 57 s more."""
    handle = on_gpus(tmp_path, monkeypatch, gpus=8, settings={})
    checked = CheckedGenerator(handle, generator.neutral_requests(), 5.0, "cuda:0")
    image = probe.probed_image(Image.new("RGB", (32, 32)))
    assert isinstance(image, probe.ProbedImage)
    checked.images, checked.seconds, checked.seconds_together = [image], [80.0, 2.0, 2.0], 0.8
    checked.load_seconds = 57.0
    forecast.forecast(checked, 630)
    assert the(checked.notes.findings, "time", "ok").what == (
        "630 images of 32x32 take about 9 min on one GPU, 2 min on the 8 GPUs of this machine "
        "(loading 57 s, first image 80 s, then 800 ms each)"
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
    assert " in one process (loading " in the(findings, "time", "ok").what
    assert "GPU memory" not in {finding.check for finding in findings}
    assert the(findings, "main memory", "ok").what == "a process takes up to 24,000 MB of main memory of 512,000 MB"


def test_a_generator_that_records_nothing_is_measured_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="InFloat")
    assert the(findings, "device", "ok").what == "cuda:0 (NVIDIA H100)"
    assert the(findings, "batches", "ok").what.startswith("8 at once take ")
    assert " on one GPU (loading " in the(findings, "time", "ok").what


def test_memory_that_other_programs_have_is_not_there_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings=H200, peak=60.0, others=15.0)
    assert the(findings, "GPU memory", "warn").what.endswith("(75%), of which other programs have 15.0")


def test_a_device_that_does_not_say_what_is_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, known=False)
    assert the(findings, "GPU memory", "ok").what == "not known: cuda:0 does not say how much of it is used"


def test_a_model_on_two_gpus_says_what_each_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers of two GPUs each make 158 images each."""
    findings = check_on(tmp_path, monkeypatch, gpus=8, settings=H200, name="Spread")
    assert the(findings, "device", "ok").what == "cuda:0 (NVIDIA H200), 2 GPUs for one model, bfloat16"
    cards = [finding.what for finding in findings if finding.check == "GPU memory"]
    assert [card.rpartition(" of ")[2] for card in cards] == ["cuda:0 (75%)", "cuda:1 (75%)"]
    assert " on 2 GPUs, " in the(findings, "time", "ok").what
    assert "the 4 of a run 96,000 MB" in the(findings, "main memory", "ok").what


@pytest.mark.usefixtures("virtual_time")
def test_batches_that_cost_time_are_a_warning_and_decide_the_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="Sleeps")
    slow = the(findings, "batches", "warn")
    assert "batches cost time here" in slow.what and "declare a smaller batch_size" in slow.fix
    assert seconds_of(the(findings, "time", "ok").what) >= 630 * 2.0 * 8 - 3600


@pytest.mark.usefixtures("virtual_time")
def test_what_a_first_batch_prepares_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="Warms")
    assert "batches of 8 pay" in the(findings, "batches", "ok").what


@pytest.mark.usefixtures("virtual_time")
def test_a_few_milliseconds_that_batches_cost_are_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with other programs such times are noise, and no run gets shorter by them."""
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="Blinks")
    assert the(findings, "batches", "ok").what.endswith(" ms; batches do not pay here")


def test_sizes_are_measured_until_the_generator_has_no_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={}, name="Measures")
    assert " 4: 250 ms, 8: 125 ms; batches of 8 pay (8.0 times as fast)" in the(findings, "batches", "ok").what


def seconds_of(time: str) -> float:
    """Return the seconds that a finding says a run takes."""
    number, unit = time.partition(" take about ")[2].split()[:2]
    return float(number) * {"s": 1.0, "min": 60.0, "h": 3600.0}[unit]


@pytest.mark.parametrize(("dtype", "level"), [("bfloat16", "warn"), ("float32", "fail")])
def test_in_a_short_format_a_batch_may_change_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, level: ValueLevel
) -> None:
    """In float32 such a difference shows a state that requests share; in bfloat16 it may be the format."""
    findings = check_on(tmp_path, monkeypatch, gpus=1, settings={"dtype": dtype}, name="Moves")
    several = the(findings, "several", level)
    assert "at most 9 of 255 levels" in several.what and "mean difference 8." in several.what
    assert (dtype in several.what, "-g batch=1" in several.fix) == ((level == "warn",) * 2)
