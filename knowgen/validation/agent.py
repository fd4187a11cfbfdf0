"""Check an agent against the contract before a long run: one trial answer, its references, and what a run will take."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

from knowgen.core.errors import KnowgenError
from knowgen.core.images import UnreadableImageError, read_image_file
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest, ImageRef
from knowgen.engine.components import AgentHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.invoke import answer, build_plugin
from knowgen.engine.retry import CallTimeoutError, describe
from knowgen.generators.contract import capabilities_of
from knowgen.validation.findings import CheckStoppedError, Finding, FindingLog, error_and_fix
from knowgen.validation.forecast import duration
from knowgen.validation.probe import ProbeRunner


def check_agent(
    handle: AgentHandle,
    request: GenerationRequest,
    *,
    samples: int,
    timeout: float,
    device: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Check an agent against the contract. It answers one request, which may cost what an answer costs.

    Args:
        handle: The agent.
        request: The request of the trial, of a sample that its search backend can answer.
        samples: Number of answers for which time and cost are forecast.
        timeout: Time limit of the answer in seconds.
        device: Device for `setup`; by default the one that the engine would choose.
        on_progress: Called with the name of each check before it starts.

    Returns:
        The findings in the order of the checks; `findings.worst` tells whether a run may be started.
    """
    checked = _CheckedAgent(handle, request, timeout, own_device() if device is None else device)
    steps = (
        ("declarations", checked.check_declarations), ("build", checked.build), ("trial answer", checked.try_answer),
        ("references", checked.check_references), ("records", checked.check_records), ("close", checked.close),
    )  # fmt: skip
    try:
        for name, step in steps:
            if on_progress is not None:
                on_progress(name)
            step()
    except CheckStoppedError:
        checked.notes.warn("the rest", "was not checked", "fix what failed and check again")
    else:
        checked.forecast(samples)
    return checked.notes.findings


class _CheckedAgent:
    def __init__(self, handle: AgentHandle, request: GenerationRequest, timeout: float, device: str) -> None:
        self.handle, self.request, self.device = handle, request, device
        self.notes = FindingLog()
        self.runner = ProbeRunner(timeout)
        self.plugin: Any = None
        self.answer = AgentAnswer()
        self.seconds = 0.0

    def check_declarations(self) -> None:
        """Check what the agent declares about itself."""
        capabilities, spec = self.handle.capabilities, self.handle.spec
        without = "used" if self.handle.spec.references_optional else "not used"
        what = f"answer, concurrency {capabilities.concurrency}, an answer without references is {without}"
        self.notes.ok("contract", f"{what}, without an answer: {spec.fallback}")
        if capabilities.concurrency < 1:
            self.notes.fail("contract", f"concurrency is {capabilities.concurrency}", "set concurrency to 1 or more")
            raise CheckStoppedError
        if spec.revision or capabilities.revision:
            self.notes.ok("revision", spec.revision or capabilities.revision)
        else:
            what = "none is declared, so answers of two versions of the agent cannot be distinguished"
            self.notes.warn("revision", what, "give the class an attribute `revision`")
        if capabilities.privileged:
            what = "it reads the ground truth, so leaderboards reject it"
            self.notes.warn("privileged", what, "remove `privileged` unless it is a baseline that needs it")

    def build(self) -> None:
        """Build the agent and set it up."""
        fix = "fix the constructor or `setup`"
        try:
            self.plugin = self.runner.call(lambda: build_plugin(self.handle.build, lambda: self.device, "the agent"))
            shape = capabilities_of(self.plugin).shape
        except (KnowgenError, CallTimeoutError) as error:
            self.notes.fail("build", *error_and_fix(error, fix))
            raise CheckStoppedError from error
        if shape != "answer":
            self.notes.fail("build", f"the object has `{shape}`, but its class has `answer`", "define `answer` on both")
            raise CheckStoppedError
        self.notes.ok("build", f"built and set up on {self.device}")

    def try_answer(self) -> None:
        """Have the agent answer the request, as the engine would."""
        started = time.perf_counter()
        try:
            self.answer = self.runner.call(lambda: answer(self.plugin, self.request))
        except (Exception, SystemExit) as error:
            self.notes.fail("answer", *error_and_fix(error, "fix what raises it"))
            raise CheckStoppedError from error
        self.seconds = time.perf_counter() - started
        given = self.answer
        if given.status in (AnswerStatus.FAILED, AnswerStatus.NOT_RUN):
            what = f"status {given.status.value}: {given.reason or 'without a reason'}"
            self.notes.fail("answer", what, "return what it found, or raise an error that says what failed")
            raise CheckStoppedError
        if given.status is AnswerStatus.NONE:
            reason = "; ".join(filter(None, (given.ending, given.reason))) or "without a reason"
            fix = f"the image would be made from the sample's own prompt (fallback={self.handle.spec.fallback})"
            self.notes.warn("answer", f"it ended without one: {reason}", fix)
        elif not given.prompt.strip():
            self.notes.warn("answer", "it has no prompt", "set `prompt` to what the image model is to generate from")
        else:
            self.notes.ok("answer", f"a prompt of {len(given.prompt)} characters after {duration(self.seconds)}")

    def check_references(self) -> None:
        """Check that the reference images exist, are what their records say, and carry notes."""
        references, notes = self.answer.references, self.answer.reference_notes
        problems = [problem for image in references if (problem := _problem_of(image))]
        for problem in problems:
            self.notes.fail("references", problem, "make the record with knowgen.plugin.image_ref(path)")
        if not references:
            if not self.handle.spec.references_optional and self.answer.status is AnswerStatus.OK:
                fix = "return references, or declare `references_optional = True`"
                self.notes.warn("references", "the answer has none, so it would not be used", fix)
            else:
                self.notes.ok("references", "none in this answer")
            return
        if len(notes) != len(references):
            what = f"{len(notes)} notes for {len(references)} references, so notes are dropped"
            self.notes.warn("references", what, "give `reference_notes` one entry for each reference, or none")
        if unseen := {image.sha256 for image in references} - {image.sha256 for image in self.answer.images}:
            what = f"{len(unseen)} of them are not among `images`, which lists every image that was seen"
            self.notes.warn("references", what, "add them to `images`")
        if not problems:
            self.notes.ok("references", f"{len(references)} that open and match their records")

    def check_records(self) -> None:
        """Check what pages and statistics count."""
        if self.answer.ending:
            self.notes.ok("ending", self.answer.ending)
        else:
            self.notes.warn("ending", "none, so statistics cannot count it", "set `ending`, such as `answer`")
        if self.answer.trajectory:
            self.notes.ok("trajectory", f"{len(self.answer.trajectory)} steps")
        else:
            self.notes.warn("trajectory", "none, so reports show no steps", "set `trajectory` to its steps")

    def close(self) -> None:
        """Close the agent, twice: a phased run closes it early."""
        close = getattr(self.plugin, "close", None)
        if not callable(close):
            return
        for number in ("first", "second"):
            try:
                self.runner.call(close)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an agent may raise anything
                self.notes.fail("close", f"the {number} call raises {describe(error)}", "let it do nothing twice")
                return
        self.notes.ok("close", "can be called twice")

    def forecast(self, samples: int) -> None:
        """Report what a run of real length will take."""
        at_once = max(1, self.handle.capabilities.concurrency)
        total = self.seconds * math.ceil(samples / at_once)
        costs = [part.usage.cost for part in self.answer.usage]
        known = None if None in costs else sum(cost for cost in costs if cost is not None) * samples
        cost = "at an unknown price" if known is None else f"and ${known:,.2f}"
        self.notes.ok("time", f"{samples} answers take about {duration(total)} with {at_once} at once {cost}")


def _problem_of(image: ImageRef) -> str:
    """Return what is wrong with a reference image; nothing when it can be used."""
    name = image.sha256[:12]
    if image.path is None:
        return f"image {name} has no path"
    try:
        data = read_image_file(image.path)
        image.open()
    except UnreadableImageError as error:
        return f"image {name} cannot be read: {error.what}"
    return "" if hashlib.sha256(data).hexdigest() == image.sha256 else f"image {name} has another content than it says"
