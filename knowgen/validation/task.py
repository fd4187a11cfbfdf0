"""Check a task before a long run: samples, ground truths, images, default scorers and search, each actually opened."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from knowgen.core import registry
from knowgen.core.errors import KnowgenError
from knowgen.core.images import UnreadableImageError, inspect_image
from knowgen.core.records import UNKNOWN_GROUP, Generation, GenerationStatus, GroundTruth, ImageRef, Sample, group_of
from knowgen.core.steps import counted
from knowgen.engine.retry import describe
from knowgen.scorers.contract import missing_needs, scorer_capabilities
from knowgen.tasks.folder import ImageMismatchError
from knowgen.tasks.private import has_private_truths
from knowgen.validation.findings import Finding, FindingLog, error_and_fix

if TYPE_CHECKING:
    from knowgen.tasks.contract import Task

SEARCH_SECONDS = 60.0
"""Time limit for all calls of the search backend."""
TRUTH_NEEDS = frozenset({"truth_image", "required_text", "subjects"})
"""Needs of scorers that a task meets; the others depend on the generator."""

QUERIES = 3
"""Prompts that the search backend is tried with."""

_TRUTH_FIXES = {
    "truths": "write one ground truth per sample",
    "text": "make sample and truth agree",
    "images": "fetch or build the task again",
}
"""Kinds of problems of ground truths in the order in which they are reported, each with a fix for errors without
one.
"""


class ProblemCounter:
    """Counts problems by kind over many samples, and keeps the first of each kind as an example, with its fix."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.fixes: dict[str, str] = {}

    def add(self, kind: str, example: str, fix: str) -> None:
        """Count a problem."""
        self.counts[kind] += 1
        self.first.setdefault(kind, example)
        self.fixes.setdefault(kind, fix)

    def summary(self, kind: str) -> str:
        """Return a text such as `3 times, first: sample x …`."""
        count = self.counts[kind]
        return f"{count} times, first: {self.first[kind]}" if count > 1 else self.first[kind]


def check_task(
    task: Task, *, on_progress: Callable[[str], None] | None = None, search_timeout: float = SEARCH_SECONDS
) -> list[Finding]:
    """Check a task. Every ground truth is read and every image opened.

    Args:
        task: The task.
        on_progress: Called with the name of each part before it is checked.
        search_timeout: Time limit for the search backend in seconds.

    Returns:
        The findings in the order of the checks; `findings.worst` tells whether a run may be started.
    """
    notes = FindingLog()
    report = on_progress or _ignore
    report("samples")
    samples = _read_samples(task, notes)
    if not samples:
        return notes.findings
    _check_samples(samples, notes)
    if has_private_truths(task):
        notes.ok("truths", "private until they are revealed: images are generated, and scored by those who hold them")
        _check_version(task, notes)
    else:
        report("ground truths")
        lacking = _check_truths(task, samples, notes)
        _check_version(task, notes)
        report("default scorers")
        _check_scorers(task, len(samples), lacking, notes)
    report("search")
    _check_search(task, [sample.prompt for sample in islice(samples, QUERIES)], notes, search_timeout)
    return notes.findings


def _ignore(what: str) -> None:
    """Report no progress."""


def _read_samples(task: Task, notes: FindingLog) -> list[Sample]:
    """Return the samples; an empty list if they cannot be read, which is logged."""
    try:
        samples = list(task.samples())
        count = len(task)
    except (KnowgenError, OSError) as error:
        notes.fail("samples", *error_and_fix(error, "fix the files of the task"))
        return []
    if not samples:
        notes.fail("samples", "there are none", "fill the task, or name another folder")
    elif count != len(samples):
        notes.fail(
            "samples",
            f"len() is {count}, but samples() yields {len(samples)}",
            "let len() return the number of samples",
        )
    else:
        notes.ok("samples", f"{count}")
    return samples


def _check_samples(samples: list[Sample], notes: FindingLog) -> None:
    seen = Counter(sample.id for sample in samples)
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        notes.fail("ids", f"{len(twice)} ids are duplicated, first {twice[0]!r}", "make ids unique")
    elif "" in seen:
        notes.fail("ids", "an id is empty", "give every sample an id")
    else:
        notes.ok("ids", "unique")
    empty = [sample.id for sample in samples if not sample.prompt.strip()]
    prompts = Counter(sample.prompt for sample in samples)
    repeated = [prompt for prompt, count in prompts.items() if count > 1 and prompt.strip()]
    if empty:
        notes.fail(
            "prompts", f"{len(empty)} are empty, first of sample {empty[0]!r}", "write them, or remove the samples"
        )
    elif repeated:
        what = f"{len(repeated)} are duplicated, first {repeated[0][:60]!r}"
        notes.warn("prompts", what, "remove duplicate prompts; they make intervals too narrow")
    else:
        notes.ok("prompts", "none empty, none duplicated")
    _check_categories(samples, notes)
    _check_text(samples, notes)


def _check_categories(samples: list[Sample], notes: FindingLog) -> None:
    wrong = [sample for sample in samples if sample.group != group_of(sample.category)]
    unknown = Counter(sample.category for sample in samples if group_of(sample.category) == UNKNOWN_GROUP)
    groups = Counter(sample.group for sample in samples)
    if wrong:
        what = f"{len(wrong)} samples have a group that is not their category's, first {wrong[0].id!r}"
        notes.fail("categories", what, f"set group to {group_of(wrong[0].category)!r}")
    if unknown:
        names = ", ".join(repr(name) for name in sorted(unknown)[:4])
        what = f"{unknown.total()} samples are in no group ({names}), and get their own row in tables"
        notes.warn("categories", what, "use the categories of the benchmark, in lower case")
    known = sorted(group for group in groups if group != UNKNOWN_GROUP)
    if len(known) == 1:
        notes.warn("categories", f"all known ones are in {known[0]}", "expect no K-Score over both groups")
    if not wrong and not unknown and len(known) > 1:
        sizes = ", ".join(f"{groups[group]} {group}" for group in known)
        notes.ok("categories", f"{len({sample.category for sample in samples})} ({sizes})")


def _check_text(samples: list[Sample], notes: FindingLog) -> None:
    undecided = sum(sample.text_required is None for sample in samples)
    required = sum(sample.text_required is True for sample in samples)
    if undecided:
        what = f"{undecided} of {len(samples)} samples do not say whether text is required; judges decide it per image"
        notes.warn("text", what, "set text_required for every sample; without it no result may enter a leaderboard")
    else:
        notes.ok("text", f"required in {required} of {len(samples)} samples")


def _check_truths(task: Task, samples: list[Sample], notes: FindingLog) -> Counter[str]:
    """Read every ground truth and open its image; return the number of samples for which each need is unmet."""
    problems, lacking, images = ProblemCounter(), Counter[str](), 0
    for sample in counted(samples, "checking ground truths"):
        try:
            truth = task.truth(sample.id)
        except ImageMismatchError as error:
            truth = error.truth  # the problem of the image is counted below
        except (KnowgenError, OSError, KeyError) as error:
            what, fix = error_and_fix(error, _TRUTH_FIXES["truths"])
            problems.add("truths", f"sample {sample.id!r}: {what}", fix)
            lacking.update(TRUTH_NEEDS)
            continue
        if truth.sample_id != sample.id:
            what = f"sample {sample.id!r} gets the truth of {truth.sample_id!r}"
            problems.add("truths", what, _TRUTH_FIXES["truths"])
        if contradiction := _text_contradiction(sample, truth):
            problems.add("text", f"sample {sample.id!r}: {contradiction}", _TRUTH_FIXES["text"])
        if truth.image is not None:
            images += 1
            if problem := image_problem(truth.image):
                problems.add("images", f"sample {sample.id!r}: {problem}", _TRUTH_FIXES["images"])
        generation = Generation(sample_id=sample.id, status=GenerationStatus.OK)
        lacking.update(missing_needs(TRUTH_NEEDS, truth, generation))
    for kind in _TRUTH_FIXES:
        if problems.counts[kind]:
            notes.fail(kind, problems.summary(kind), problems.fixes[kind])
    if not problems.counts["truths"]:
        notes.ok("truths", "one for each sample")
    if not problems.counts["images"] and images:
        notes.ok("images", f"{images} open, and are as recorded")
    if not images:
        notes.warn("images", "no ground truth has one", "add images, or use scorers that need none")
    return lacking


def _text_contradiction(sample: Sample, truth: GroundTruth) -> str:
    """Return how sample and ground truth contradict each other about written text; empty if they agree."""
    if truth.text_required is not None and truth.text_required is not sample.text_required:
        return f"text_required is {sample.text_required} in the sample and {truth.text_required} in the truth"
    if sample.text_required is False and truth.required_text:
        return f"no text is required, but the truth requires {truth.required_text[0][:40]!r}"
    return ""


def image_problem(image: ImageRef) -> str:
    """Open an image and return what is wrong with it; empty if it is as recorded.

    Args:
        image: The recorded image, with its path on this machine.
    """
    if image.path is None:
        return "its image has no file"
    try:
        facts = inspect_image(image.path)
    except UnreadableImageError as error:
        return f"{image.path.name} does not open: {error.what}"
    if facts.sha256 != image.sha256:
        return f"{image.path.name} is not the recorded image"
    if (facts.width, facts.height, facts.format) != (image.width, image.height, image.format):
        recorded = f"{image.width}x{image.height} {image.format}"
        return f"{image.path.name} is {facts.width}x{facts.height} {facts.format}, recorded as {recorded}"
    return ""


def _check_version(task: Task, notes: FindingLog) -> None:
    """Check that the version exists and ends in a hash of the content."""
    try:
        version = task.version
    except (KnowgenError, OSError) as error:
        notes.fail("version", *error_and_fix(error, "fix the files of the task"))
        return
    tail = version.rpartition("-")[2]
    if len(tail) >= 8 and all(letter in "0123456789abcdef" for letter in tail):
        notes.ok("version", version)
    else:
        what = f"{version!r} does not end in a hash, so old results would be reused for changed content"
        notes.fail("version", what, "end it in a hash over samples and truths")


def _check_scorers(task: Task, count: int, lacking: Counter[str], notes: FindingLog) -> None:
    """Check that each default scorer can be loaded and that the ground truths have what it needs."""
    if not task.default_scorers:
        notes.warn("scorers", "none is set, so every run must name one", "set default_scorers")
    for name in task.default_scorers:
        try:
            capabilities = scorer_capabilities(registry.load(registry.resolve("scorers", name)))
        except KnowgenError as error:
            what, fix = error_and_fix(error, "name a scorer that `knowgen list scorers` shows")
            notes.fail("scorers", f"{name}: {what}", fix)
            continue
        unmet = {need: lacking[need] for need in sorted(capabilities.needs & TRUTH_NEEDS) if lacking[need]}
        if not unmet:
            notes.ok("scorers", f"{name} finds what it needs in every truth")
            continue
        lacks = ", ".join(f"{need} in {missing} of {count} samples" for need, missing in unmet.items())
        add = notes.fail if max(unmet.values()) == count else notes.warn
        add("scorers", f"{name} lacks {lacks}", "complete the truths, or set another default scorer")


def _check_search(task: Task, queries: Iterable[str], notes: FindingLog, timeout: float) -> None:
    """Build the task's search backend, search with it, and open what it finds."""
    if not task.search:
        notes.ok("search", "the task has none")
        return
    name = task.search.partition(":")[0]
    try:
        backend = registry.create(registry.resolve("search", task.search), {})
    except KnowgenError as error:
        notes.fail("search", *error_and_fix(error, "name a backend that `knowgen list search` shows"))
        return
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        notes.fail("search", f"{name} broke while it was built: {describe(error)}", "fix the backend or its files")
        return
    missing = [method for method in ("search", "image_search", "open") if not _is_coroutine(backend, method)]
    if missing or not getattr(backend, "version", ""):
        lacks = [f"`async def {method}`" for method in missing] or ["`version`"]
        notes.fail("search", f"{name} lacks {', '.join(lacks)}", "complete the backend")
        return
    try:
        pages, images = asyncio.run(asyncio.wait_for(_try_search(backend, queries), timeout))
    except TimeoutError:
        notes.fail("search", f"{name} gave no answer within {timeout:g} s", "fix the backend")
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        notes.fail("search", f"{name} raises {describe(error)}", "fix the backend or its files")
    else:
        if pages and images:
            notes.ok("search", f"{name} finds pages and images, and opens them")
        else:
            none = " and no ".join([*([] if pages else ["pages"]), *([] if images else ["images"])])
            notes.warn("search", f"{name} finds no {none} for {QUERIES} prompts", "check the content of the backend")


def _is_coroutine(backend: Any, method: str) -> bool:
    return inspect.iscoroutinefunction(getattr(backend, method, None))


async def _try_search(backend: Any, queries: Iterable[str]) -> tuple[int, int]:
    """Search for prompts and open the first results; return the number of pages and images found."""
    pages = images = 0
    for query in queries:
        hits = await backend.search(query, 3)
        pages += len(hits)
        if hits:
            await backend.open(hits[0].url)
        found = [hit.image for hit in await backend.image_search(query, 3) if hit.image is not None]
        images += len(found)
        if found:
            await asyncio.to_thread(found[0].open)
    return pages, images
