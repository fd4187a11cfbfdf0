"""A device that fails repeatedly is disabled, and its requests go to another one; with real worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.records import GenerationStatus
from knowgen.engine.components import ComponentRef
from knowgen.engine.devices import Device
from knowgen.engine.executors import subprocess as workers
from knowgen.generators.contract import GPU_FAULT_CODE
from tests.helpers.engine import Bench, generator_handle, quick

STARTS = "KNOWGEN_TEST_STARTS"


class Failing:
    """Generates images; on the device called bad, its process ends like one whose GPU failed."""

    revision = "1"

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.device = ""

    def setup(self, device: str) -> None:
        self.device = device
        with Path(os.environ[STARTS]).open("a") as file:
            file.write(f"{device}\n")
        if self.at_once and device.startswith("bad"):
            os._exit(GPU_FAULT_CODE)

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        if self.device.startswith("bad"):
            os._exit(GPU_FAULT_CODE)
        return noise_image(prompt)


def generate_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str], count: int, at_once: bool = False
) -> tuple[dict[str, tuple[GenerationStatus, str]], list[str]]:
    starts = tmp_path / "births"
    monkeypatch.setenv(STARTS, str(starts))
    monkeypatch.setattr(
        workers, "worker_devices", lambda number, *_, **__: [Device(name, "") for name in devices][:number]
    )
    component_ref = ComponentRef("generators", "tests.engine.test_disabled_devices:Failing", {"at_once": at_once})
    bench = Bench(tmp_path / "run")
    bench.run(
        count, generator_handle(Failing(), component_ref=component_ref), options=quick(workers=len(devices), tries=4)
    )
    results = {name: (one.status, one.reason) for (name, _), one in bench.generations().items()}
    return results, starts.read_text().split()


@pytest.mark.parametrize("at_once", [False, True])
def test_requests_of_a_failing_device_are_generated_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    results, starts = generate_on(tmp_path, monkeypatch, ["bad:0", "good:1"], 12, at_once)
    assert len(results) == 12 and {status for status, _ in results.values()} == {GenerationStatus.OK}
    assert starts.count("bad:0") <= workers.MAX_DEVICE_FAILURES and starts.count("good:1") == 1


def test_without_any_device_left_the_rest_fails_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, starts = generate_on(tmp_path, monkeypatch, ["bad:0", "bad:1"], 8)
    assert {status for status, _ in results.values()} == {GenerationStatus.FAILED} and len(results) == 8
    assert starts.count("bad:0") == starts.count("bad:1") == workers.MAX_DEVICE_FAILURES
    assert any("is disabled" in reason for _, reason in results.values())
