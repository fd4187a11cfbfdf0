"""The state of a check of a generator: its images, measurements and findings so far."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.retry import CallTimeoutError, ContractError, describe, is_decline
from knowgen.generators.contract import GeneratedImage
from knowgen.validation.findings import CheckStoppedError, FindingLog, error_and_fix
from knowgen.validation.probe import (
    PeakMemory,
    ProbedImage,
    ProbeResult,
    ProbeRunner,
    mean_difference,
    probed_image,
    resident_megabytes,
)

ROUNDING_LEVELS = 3.0
"""Mean difference of two images, in levels of 255, that may come from the order of floating-point sums."""

DECLINE_FIX = "generate plain prompts, or expect samples without an image"


class CheckedGenerator:
    """A generator that is being checked.

    Args:
        handle: The generator.
        requests: Neutral requests with different prompts and one seed.
        timeout: Time limit per image in seconds.
        device: Device for `setup`.

    Attributes:
        notes: Findings so far.
        plugin: The generator object; None before it is built and after it is closed.
        images: The image of each request, generated alone.
        seconds: Time of each image generated alone, the first included.
        seconds_together: Seconds per image if several are requested at once; None if not measured.
        repeatable: Whether the same request gives the same image, except for rounding.
        declined: Reasons why plain prompts gave no image in a way that the contract allows, in order.
        added_memory: Maximum number of megabytes that generating an image added.
        accelerator_memory: Maximum number of megabytes on the accelerator.
        resident_memory: Megabytes of the process after each image.
        changed_states: Global random states that generating an image has changed.
        load_seconds: Time in which the generator was built and set up.
        settings: What the generator recorded with its last image.
    """

    def __init__(
        self, handle: GeneratorHandle, requests: Sequence[GenerationRequest], timeout: float, device: str
    ) -> None:
        self.handle, self.requests, self.timeout, self.device = handle, list(requests), timeout, device
        self.notes = FindingLog()
        self.runner = ProbeRunner(timeout)
        self.plugin: Any = None
        self.images: list[ProbedImage] = []
        self.seconds: list[float] = []
        self.seconds_together: float | None = None
        self.declined: list[str] = []
        self.repeatable = False
        self.added_memory = 0.0
        self.accelerator_memory = 0.0
        self.resident_memory: list[float] = []
        self.changed_states: set[str] = set()
        self.load_seconds = 0.0
        self.settings: dict[str, Any] = {}

    def stop(self, check: str, what: str, fix: str) -> NoReturn:
        """Add a failure after which nothing more can be checked.

        Raises:
            CheckStoppedError: Always.
        """
        self.notes.fail(check, what, fix)
        raise CheckStoppedError

    def call(self, check: str, function: Callable[[], Any], fix: str) -> Any:
        """Call a function of the generator.

        Raises:
            CheckStoppedError: It hangs.
            BaseException: What it raised.
        """
        try:
            return self.runner.call(function)
        except CallTimeoutError as error:
            self.stop(check, describe(error), fix)

    def run(self, check: str, requests: Sequence[GenerationRequest], *, threads: bool = False) -> ProbeResult:
        """Give requests to the generator and measure its memory.

        Raises:
            CheckStoppedError: It hangs.
        """
        with PeakMemory(self.device) as memory:
            try:
                result = self.runner.run(self.plugin, requests, threads=threads)
            except CallTimeoutError as error:
                self.stop(check, describe(error), "find out what it waits for, or raise the time limit")
        self.added_memory = max(self.added_memory, memory.added)
        self.accelerator_memory = max(self.accelerator_memory, memory.accelerator)
        self.resident_memory.append(resident_megabytes())
        return result

    def generate(self, check: str, request: GenerationRequest) -> ProbedImage | None:
        """Return the image of one request; None if there is none, which is logged.

        Raises:
            CheckStoppedError: It hangs.
        """
        before = random_states()
        result = self.run(check, [request])
        after = random_states()
        self.changed_states |= {name for name, state in before.items() if after[name] != state}
        image = self.image(check, result, request.id)
        if image is not None:
            self.seconds.append(result.seconds)  # the time of a refusal says nothing about that of an image
        return image

    def image(self, check: str, result: ProbeResult, id: str) -> ProbedImage | None:
        """Return the image of a neutral request; None if there is none, which is logged."""
        self.note_settings(value for _, value, _ in result.results)
        try:
            image = probed_image(result.result_of(id))
        except SystemExit:
            self.notes.fail(check, "it calls sys.exit", "raise an error instead")
        except ContractError as error:
            self.notes.fail(check, describe(error), "return a PIL image, the bytes of an image file, or its path")
        except Exception as error:  # noqa: BLE001 - a generator may raise anything
            if check == "references" and isinstance(error, ConfigError):
                self.notes.warn(check, f"a request with a reference image ends a run: {describe(error)}", "")
            elif is_decline(error):
                self.decline(check, describe(error))
            else:
                what, fix = error_and_fix(error, "fix what raises it")
                self.notes.fail(check, what if isinstance(error, KnowgenError) else f"it raises {what}", fix)
        else:
            if isinstance(image, ProbedImage):
                return image
            self.decline(check, f"{image.status}, {image.reason or 'without a reason'}")
        return None

    def note_settings(self, results: Iterable[Any]) -> None:
        """Keep what was recorded with the last of some results that has any settings."""
        for value in results:
            if isinstance(value, GeneratedImage) and isinstance(value.settings, dict) and value.settings:
                self.settings = dict(value.settings)

    def leave_out(self, request: GenerationRequest) -> None:
        """Exclude a request that was just declined from later comparisons and measurements."""
        self.requests.remove(request)
        self.resident_memory.pop()

    def decline(self, check: str, reason: str) -> None:
        """Log that a plain prompt gave no image, in a way that the contract allows."""
        self.declined.append(reason)
        self.notes.warn(check, f"a plain prompt gave no image: {reason}", DECLINE_FIX)

    def same(self, image: ProbedImage, number: int = 0) -> bool:
        """Return whether an image equals that of request `number`; True if images are not repeatable anyway."""
        return not self.repeatable or mean_difference(self.images[number], image) <= ROUNDING_LEVELS


def random_states() -> dict[str, object]:
    """Return the global random states of Python, and of numpy and torch if they are loaded."""
    states: dict[str, object] = {"random": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy.random"] = (name, keys.tobytes(), *rest)
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = torch.random.get_rng_state().numpy().tobytes()
    return states
