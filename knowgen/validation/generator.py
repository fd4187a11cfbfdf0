"""Check a generator against the contract before a long run: what fails, what may surprise, what a run will take.

About twenty images of a few neutral prompts are generated, through the same calls that the engine makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.records import GenerationRequest, request_id
from knowgen.core.run_config import GENERATION_TIMEOUT
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.invoke import build_plugin
from knowgen.generators.contract import capabilities_of
from knowgen.validation.checked_generator import CheckedGenerator
from knowgen.validation.findings import CheckStoppedError, Finding, error_and_fix
from knowgen.validation.forecast import check_batches, check_device, duration, forecast
from knowgen.validation.generator_behaviour import (
    check_close_twice,
    check_fresh_process,
    check_odd_prompts,
    check_references,
    check_setup_twice,
)
from knowgen.validation.generator_images import check_first, check_random_state, check_seeds, check_several

PROMPTS = (
    "A red kite above a green hill, with two white clouds.",
    "A lighthouse on a rocky coast at dusk, a small boat in front of it.",
    "A wooden sign that reads OPEN TODAY beside a vase of yellow tulips.",
)
"""Neutral prompts that any generator can handle."""

SEED = 1234

Step = tuple[str, Callable[[CheckedGenerator], None]]


def check_generator(
    handle: GeneratorHandle,
    *,
    samples: int = 630,
    timeout: float = GENERATION_TIMEOUT,
    device: str | None = None,
    requests: Sequence[GenerationRequest] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Check a generator against the contract.

    Args:
        handle: The generator.
        samples: Number of images for which time, memory and disk space are forecast.
        timeout: Time limit per image in seconds.
        device: Device for `setup`; by default the one that the engine would choose.
        requests: Three or more requests with different prompts and one seed, instead of the built-in ones. Needed for a
            generator that reads the ground truth.
        on_progress: Called with the name of each check before it starts.

    Returns:
        The findings in the order of the checks; `findings.worst` tells whether a run may be started.

    Raises:
        UsageError: There are fewer than three requests, or two have the same prompt.
    """
    chosen = list(requests) if requests is not None else neutral_requests()
    if len(chosen) < 3 or len({request.prompt for request in chosen}) < len(chosen):
        raise UsageError("a check needs three or more requests with different prompts")
    checked = CheckedGenerator(handle, chosen, timeout, own_device() if device is None else device)
    privileged = handle.capabilities.privileged
    if privileged and any(request.truth is None for request in chosen):
        _check_declarations(checked)
        what = "it reads the ground truth, and neutral prompts have none, so no image was generated"
        checked.notes.warn("the rest", what, "check it with the samples of a task")
        return checked.notes.findings
    try:
        for name, step in _steps(handle):
            if on_progress is not None:
                on_progress(name)
            step(checked)
    except CheckStoppedError:
        checked.notes.warn("the rest", "was not checked", "fix what failed and check again")
    else:
        forecast(checked, samples)
    return checked.notes.findings


def neutral_requests() -> list[GenerationRequest]:
    """Return the built-in requests of a check."""
    return [
        GenerationRequest(id=request_id(f"check {number}", 0), prompt=prompt, seed=SEED)
        for number, prompt in enumerate(PROMPTS)
    ]


def _steps(handle: GeneratorHandle) -> list[Step]:
    """Return the checks in order, without those that do not apply.

    Where a privileged generator has no ground truth, odd prompts and a fresh process are left out.
    """
    capabilities = handle.capabilities
    privileged = capabilities.privileged
    steps: list[Step] = [
        ("declarations", _check_declarations),
        ("build", _build),
        *([("service", _check_service)] if capabilities.checks_service else []),
        ("first images", check_first),
        ("device", check_device),
        ("seeds", check_seeds),
        ("random state", check_random_state),
        ("several at once", check_several),
    ]
    if capabilities.shape == "generate_batch" and capabilities.batch_size > 1:
        steps.append(("batches", check_batches))
    if not privileged:
        steps.append(("odd prompts", check_odd_prompts))
    steps += [
        ("references", check_references),
        ("second setup", check_setup_twice),
        ("second close", check_close_twice),
    ]
    if not privileged:
        steps.append(("a fresh process", check_fresh_process))
    return steps


def _check_declarations(checked: CheckedGenerator) -> None:
    """Check what the generator declares about itself."""
    capabilities, notes = checked.handle.capabilities, checked.notes
    revision = checked.handle.spec.revision or capabilities.revision
    references = "takes references" if capabilities.references else "takes no references"
    limits = f"batch size {capabilities.batch_size}, concurrency {capabilities.concurrency}"
    notes.ok("contract", f"{capabilities.shape}, {references}, {limits}")
    for name, value in (("batch_size", capabilities.batch_size), ("concurrency", capabilities.concurrency)):
        if value < 1:
            checked.stop("contract", f"{name} is {value}", f"set {name} to 1 or more")
    if revision:
        notes.ok("revision", revision)
    else:
        what = "none is declared, so results of two versions of the model cannot be distinguished"
        notes.warn("revision", what, "give the class an attribute `revision`")
    if capabilities.privileged:
        what = "it reads the ground truth, so leaderboards reject it"
        notes.warn("privileged", what, "remove `privileged` unless it is a baseline that needs the ground truth")


def _build(checked: CheckedGenerator) -> None:
    """Build the generator and set it up."""
    handle, fix = checked.handle, "fix the constructor or `setup`"
    started = time.perf_counter()
    try:
        checked.plugin = checked.call(
            "build", lambda: build_plugin(handle.build, lambda: checked.device, "the generator"), fix
        )
        shape = capabilities_of(checked.plugin).shape
    except KnowgenError as error:
        checked.stop("build", *error_and_fix(error, fix))
    if shape != handle.capabilities.shape:
        what = f"the object has `{shape}`, but its class declares `{handle.capabilities.shape}`"
        checked.stop("build", what, "define the same method on the class and the object")
    checked.load_seconds = time.perf_counter() - started
    checked.notes.ok("build", f"built and set up on {checked.device} in {duration(checked.load_seconds)}")


def _check_service(checked: CheckedGenerator) -> None:
    """Check with free calls that its service would take calls, and say what the service is."""
    notes = checked.notes
    try:
        warning = checked.call("service", checked.plugin.check_service, "find out what it waits for")
    except KnowgenError as error:
        checked.stop("service", *error_and_fix(error, "correct the key, the address or the model"))
    described = getattr(checked.plugin, "service_facts", None)
    facts = described() if callable(described) else ""
    if facts:
        notes.ok("service", str(facts))
    if warning:
        notes.warn("service", str(warning), "correct the name, unless the service has models that it does not list")
    elif not facts:
        notes.ok("service", "it answers")
