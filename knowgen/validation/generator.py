"""Trying a generator against the contract before a long run: what fails, what may surprise, what a run will take.

A handful of neutral prompts is drawn, about twenty pictures in all, through the same calls the engine makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.records import GenerationRequest, request_id
from knowgen.core.run_config import GENERATION_TIMEOUT
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.invoke import make
from knowgen.engine.retry import describe
from knowgen.generators.contract import capabilities_of
from knowgen.validation.findings import Finding
from knowgen.validation.generator_behaviour import (
    check_close_twice,
    check_fresh_process,
    check_odd_prompts,
    check_references,
    check_setup_twice,
)
from knowgen.validation.generator_images import check_first, check_random_state, check_seeds, check_several
from knowgen.validation.session import CheckedGenerator, CheckStoppedError

PROMPTS = (
    "A red kite above a green hill, with two white clouds.",
    "A lighthouse on a rocky coast at dusk, a small boat in front of it.",
    "A wooden sign that reads OPEN TODAY beside a vase of yellow tulips.",
)
"""Neutral prompts that any generator can draw."""

SEED = 1234
GROWTH = 20.0
"""Megabytes a picture by which a process may grow before it is called a leak."""

Step = tuple[str, Callable[[CheckedGenerator], None]]


def check_generator(
    handle: GeneratorHandle,
    *,
    samples: int = 630,
    timeout: float = GENERATION_TIMEOUT,
    device: str | None = None,
    requests: Sequence[GenerationRequest] | None = None,
    told: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Checks a generator against the contract.

    Args:
        handle: The generator.
        samples: Pictures for which time, memory and space are forecast.
        timeout: Seconds a drawing may take.
        device: For `setup`; by default what the engine would say.
        requests: Three or more requests with different prompts and one seed, instead of the built-in ones; needed for
            a generator that asks for the ground truth.
        told: Told what is being looked at, in a few words.

    Returns:
        What was found, in the order it was looked at; `findings.worst` says whether a run may be started.

    Raises:
        UsageError: The requests are too few or too much alike.
    """
    chosen = list(requests) if requests is not None else neutral_requests()
    if len(chosen) < 3 or len({request.prompt for request in chosen}) < len(chosen):
        raise UsageError("a check needs three or more requests with different prompts")
    subject = CheckedGenerator(handle, chosen, timeout, own_device() if device is None else device)
    privileged = handle.traits.privileged
    if privileged and any(request.truth is None for request in chosen):
        _declared(subject)
        what = "it asks for the ground truth, and neutral prompts have none, so nothing was drawn"
        subject.notes.warn("the rest", what, "check it with the samples of a task")
        return subject.notes.findings
    try:
        for what, step in _steps(privileged=privileged):
            if told is not None:
                told(what)
            step(subject)
    except CheckStoppedError:
        subject.notes.warn("the rest", "was not checked", "mend what failed and check again")
    else:
        _forecast(subject, samples)
    return subject.notes.findings


def neutral_requests() -> list[GenerationRequest]:
    """Returns the requests a check draws by default."""
    return [
        GenerationRequest(id=request_id(f"check {number}", 0), prompt=prompt, seed=SEED)
        for number, prompt in enumerate(PROMPTS)
    ]


def _steps(*, privileged: bool) -> list[Step]:
    """Returns the checks in order; what needs prompts without a truth is left out for a privileged generator."""
    steps: list[Step] = [
        ("what it declares", _declared),
        ("building it", _built),
        ("a first drawing", check_first),
        ("seeds", check_seeds),
        ("random state", check_random_state),
        ("several at once", check_several),
    ]
    if not privileged:
        steps.append(("odd prompts", check_odd_prompts))
    steps += [
        ("references", check_references),
        ("setting up twice", check_setup_twice),
        ("closing twice", check_close_twice),
    ]
    if not privileged:
        steps.append(("a fresh process", check_fresh_process))
    return steps


def _declared(subject: CheckedGenerator) -> None:
    """Looks at what the generator says of itself."""
    traits, notes = subject.handle.traits, subject.notes
    revision = subject.handle.spec.revision or traits.revision
    taken = "takes references" if traits.references else "takes no references"
    notes.ok("contract", f"{traits.shape}, {taken}, batch size {traits.batch_size}, concurrency {traits.concurrency}")
    for name, value in (("batch_size", traits.batch_size), ("concurrency", traits.concurrency)):
        if value < 1:
            subject.stop("contract", f"{name} is {value}", f"set {name} to 1 or more")
    if revision:
        notes.ok("revision", revision)
    else:
        what = "none is declared, so results of two versions of the model cannot be told apart"
        notes.warn("revision", what, "give the class an attribute `revision`")
    if traits.privileged:
        what = "it asks for the ground truth, and boards refuse it"
        notes.warn("privileged", what, "drop `privileged` unless it is a reference system")


def _built(subject: CheckedGenerator) -> None:
    """Builds the generator and sets it up."""
    handle, fix = subject.handle, "mend the constructor or `setup`"
    try:
        subject.plugin = subject.call("build", lambda: make(handle.build, lambda: subject.device, "the generator"), fix)
        shape = capabilities_of(subject.plugin).shape
    except KnowgenError as error:
        subject.stop("build", describe(error), fix)
    if shape != handle.traits.shape:
        what = f"the object has `{shape}`, but its class declares `{handle.traits.shape}`"
        subject.stop("build", what, "define the same method on the class and the object")
    subject.notes.ok("build", f"built and set up on {subject.device}")


def _forecast(subject: CheckedGenerator, samples: int) -> None:
    """Says what a run of real length will take, at the size that was drawn."""
    alone = median(subject.seconds[1:] or subject.seconds)
    each = alone if subject.together is None else min(alone, subject.together)
    size = subject.alone[0].size
    what = f"{samples} pictures of {size} take about {duration(each * samples)} in one process"
    subject.notes.ok("time", f"{what} (first {duration(subject.seconds[0])}, then {duration(each)} each)")
    disk = sum(picture.stored for picture in subject.alone) / len(subject.alone) * samples / 2**20
    accelerator = f", {subject.accelerator:,.0f} MB on the accelerator" if subject.accelerator else ""
    held = f"drawing adds up to {subject.added:,.0f} MB{accelerator}"
    subject.notes.ok("memory", f"{held}; {samples} pictures take {disk:,.0f} MB of disk")
    later = subject.held[len(subject.requests) :]
    growth = (later[-1] - later[0]) / (len(later) - 1) if len(later) > 1 else 0.0
    if growth > GROWTH:
        what = f"the process grew by {growth:,.0f} MB with each picture"
        subject.notes.warn("memory", what, "keep no pictures or tensors between requests")


def duration(seconds: float) -> str:
    """Writes a duration: `40 ms`, `2.50 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 0.995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
