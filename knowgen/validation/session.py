"""A generator under examination: what it has drawn so far, and what was noted about it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from knowgen.core.records import GenerationRequest
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.retry import CallTimeoutError, ContractError, describe, is_decline
from knowgen.generators.contract import GeneratedImage
from knowgen.validation.findings import FindingLog
from knowgen.validation.probe import (
    PeakMemory,
    ProbedImage,
    ProbeResult,
    ProbeRunner,
    difference,
    picture_of,
    resident_megabytes,
)

SLIGHT = 3.0
"""Levels (of 255) of mean difference that may come from the order of floating-point sums."""

DECLINE_FIX = "draw plain prompts, or expect samples without a picture"


class CheckStoppedError(Exception):
    """Nothing more can be checked."""


class CheckedGenerator:
    """A generator under examination.

    Args:
        handle: The generator.
        requests: Neutral requests with different prompts and one seed.
        timeout: Seconds a drawing may take.
        device: For `setup`.

    Attributes:
        notes: What was found so far.
        plugin: The generator object, None before it is built and after it is closed.
        alone: What each request gave alone.
        seconds: Time of each drawing alone, the first included.
        together: Seconds a picture takes when several are asked for at once, None when not measured.
        steady: Does the same request give the same picture, but for rounding?
        added: Megabytes a drawing added, at most.
        declined: Why plain prompts gave no picture where that keeps the contract, in order.
        accelerator: Megabytes on the accelerator, at most.
        held: Megabytes the process held after each drawing.
        disturbed: Global random states that drawing has changed.
    """

    def __init__(
        self, handle: GeneratorHandle, requests: Sequence[GenerationRequest], timeout: float, device: str
    ) -> None:
        self.handle, self.requests, self.timeout, self.device = handle, list(requests), timeout, device
        self.notes = FindingLog()
        self.runner = ProbeRunner(timeout)
        self.plugin: Any = None
        self.alone: list[ProbedImage] = []
        self.seconds: list[float] = []
        self.together: float | None = None
        self.declined: list[str] = []
        self.steady = False
        self.added = 0.0
        self.accelerator = 0.0
        self.held: list[float] = []
        self.disturbed: set[str] = set()

    def stop(self, check: str, what: str, fix: str) -> NoReturn:
        """Notes a failure after which nothing more can be checked."""
        self.notes.fail(check, what, fix)
        raise CheckStoppedError

    def call(self, check: str, job: Callable[[], Any], fix: str) -> Any:
        """Calls something of the generator.

        Raises:
            CheckStoppedError: It hangs.
            BaseException: What it raised.
        """
        try:
            return self.runner.call(job)
        except CallTimeoutError as error:
            self.stop(check, describe(error), fix)

    def give(self, check: str, requests: Sequence[GenerationRequest], *, threads: bool = False) -> ProbeResult:
        """Gives requests to the generator and measures memory on the way.

        Raises:
            CheckStoppedError: It hangs.
        """
        with PeakMemory() as memory:
            try:
                trial = self.runner.run(self.plugin, requests, threads=threads)
            except CallTimeoutError as error:
                self.stop(check, describe(error), "find out what it waits for, or raise the time limit")
        self.added = max(self.added, memory.added)
        self.accelerator = max(self.accelerator, memory.accelerator)
        self.held.append(resident_megabytes())
        return trial

    def draw(self, check: str, request: GenerationRequest) -> ProbedImage | None:
        """Draws one request; None when there is no picture, which is noted.

        Raises:
            CheckStoppedError: It hangs.
        """
        before = random_states()
        trial = self.give(check, [request])
        after = random_states()
        self.disturbed |= {name for name, state in before.items() if after[name] != state}
        picture = self.read(check, trial, request.id)
        if picture is not None:
            self.seconds.append(trial.seconds)  # to decline takes no time worth forecasting
        return picture

    def leave_out(self, request: GenerationRequest) -> None:
        """Leaves a request that was just declined out of what is compared and measured from now on."""
        self.requests.remove(request)
        self.held.pop()

    def read(self, check: str, trial: ProbeResult, name: str) -> ProbedImage | None:
        """Reads the answer to a neutral request; None when there is no picture, which is noted."""
        try:
            found = picture_of(trial.answer(name))
        except SystemExit:
            self.notes.fail(check, "it calls sys.exit", "raise an error instead")
        except ContractError as error:
            self.notes.fail(check, describe(error), "give a PIL image, the bytes of a picture file, or its path")
        except Exception as error:  # noqa: BLE001 - a generator may raise anything
            if is_decline(error):
                self.decline(check, describe(error))
            else:
                self.notes.fail(check, f"it raises {describe(error)}", "mend what raises it")
        else:
            if isinstance(found, ProbedImage):
                return found
            self.decline(check, _told(found))
        return None

    def decline(self, check: str, words: str) -> None:
        """Notes that a plain prompt gave no picture, in a way the contract knows."""
        self.declined.append(words)
        self.notes.warn(check, f"a plain prompt gave no picture: {words}", DECLINE_FIX)

    def same(self, picture: ProbedImage, number: int = 0) -> bool:
        """Tells whether a picture is what a request gave alone; True where pictures do not repeat anyway."""
        return not self.steady or difference(self.alone[number], picture) <= SLIGHT


def _told(drawing: GeneratedImage) -> str:
    return f"{drawing.status}, {drawing.reason or 'without a reason'}"


def random_states() -> dict[str, object]:
    """Returns the global random states of Python, and of numpy and torch where they are loaded."""
    states: dict[str, object] = {"random": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy.random"] = (name, keys.tobytes(), *rest)
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = torch.random.get_rng_state().numpy().tobytes()
    return states
