"""Looking through a task before a long run: samples, truths, pictures, scorers and search, each really opened."""

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
from knowgen.engine.retry import describe
from knowgen.scorers.contract import missing_needs, scorer_capabilities
from knowgen.tasks.folder import ImageMismatchError
from knowgen.validation.findings import Finding, FindingLog

if TYPE_CHECKING:
    from knowgen.tasks.contract import Task

SEARCH_SECONDS = 60.0
TRUTH_NEEDS = frozenset({"truth_image", "required_text", "subjects"})
"""Needs that a task meets; the others depend on the generator."""

QUERIES = 3

_TRUTH_FIXES = {
    "truths": "write one ground truth a sample",
    "text": "let sample and truth say the same",
    "pictures": "fetch or build the task again",
}
"""Kinds of faults of truths in the order they are told, each with what to do where the error itself does not say it."""


class FaultCounter:
    """Counts faults of one kind over many samples, and keeps the first as an example, with its own remedy."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.fixes: dict[str, str] = {}

    def add(self, kind: str, example: str, fix: str) -> None:
        """Counts one."""
        self.counts[kind] += 1
        self.first.setdefault(kind, example)
        self.fixes.setdefault(kind, fix)

    def words(self, kind: str) -> str:
        """Returns `3 times, first in sample x`."""
        count = self.counts[kind]
        return f"{count} times, first: {self.first[kind]}" if count > 1 else self.first[kind]


def check_task(
    task: Task, *, told: Callable[[str], None] | None = None, search_timeout: float = SEARCH_SECONDS
) -> list[Finding]:
    """Checks a task; every truth is read and every picture opened, one after the other.

    Args:
        task: The task.
        told: Told what is being looked at, in a few words.
        search_timeout: Seconds in which the search backend must have answered.

    Returns:
        What was found, in the order it was looked at; `findings.worst` says whether a run may be started.
    """
    notes = FindingLog()
    tell = told or _silent
    tell("samples")
    samples = _read_samples(task, notes)
    if not samples:
        return notes.findings
    _check_samples(samples, notes)
    tell("ground truths")
    lacking = _check_truths(task, samples, notes)
    _check_version(task, notes)
    tell("default scorers")
    _check_scorers(task, len(samples), lacking, notes)
    tell("search")
    _check_search(task, [sample.prompt for sample in islice(samples, QUERIES)], notes, search_timeout)
    return notes.findings


def _told(error: BaseException, fix: str) -> tuple[str, str]:
    """Returns what an error says and how to mend it: the error's own words where it has some, else `fix`."""
    if isinstance(error, KnowgenError) and error.fix:
        return describe(KnowgenError(error.what, where=error.where)), error.fix
    return describe(error), fix


def _silent(what: str) -> None:
    """Tells nobody."""


def _read_samples(task: Task, notes: FindingLog) -> list[Sample]:
    """Reads the samples; an empty list when that failed, which is noted."""
    try:
        samples = list(task.samples())
        count = len(task)
    except (KnowgenError, OSError) as error:
        notes.fail("samples", *_told(error, "mend the task's files"))
        return []
    if not samples:
        notes.fail("samples", "there are none", "fill the task, or name another folder")
    elif count != len(samples):
        notes.fail("samples", f"it says {count} and holds {len(samples)}", "let len() count what samples() yields")
    else:
        notes.ok("samples", f"{count}")
    return samples


def _check_samples(samples: list[Sample], notes: FindingLog) -> None:
    seen = Counter(sample.id for sample in samples)
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        notes.fail("ids", f"{len(twice)} ids come more than once, first {twice[0]!r}", "make ids unique")
    elif "" in seen:
        notes.fail("ids", "an id is empty", "give every sample an id")
    else:
        notes.ok("ids", "unique")
    empty = [sample.id for sample in samples if not sample.prompt.strip()]
    prompts = Counter(sample.prompt for sample in samples)
    repeated = [prompt for prompt, count in prompts.items() if count > 1 and prompt.strip()]
    if empty:
        notes.fail(
            "prompts", f"{len(empty)} are empty, first of sample {empty[0]!r}", "write them, or drop the samples"
        )
    elif repeated:
        what = f"{len(repeated)} come more than once, first {repeated[0][:60]!r}"
        notes.warn("prompts", what, "drop repeated prompts, or intervals come out too narrow")
    else:
        notes.ok("prompts", "none empty, none twice")
    _check_categories(samples, notes)
    _check_text(samples, notes)


def _check_categories(samples: list[Sample], notes: FindingLog) -> None:
    wrong = [sample for sample in samples if sample.group != group_of(sample.category)]
    unknown = Counter(sample.category for sample in samples if group_of(sample.category) == UNKNOWN_GROUP)
    groups = Counter(sample.group for sample in samples)
    if wrong:
        what = f"{len(wrong)} samples name another group than their category's, first {wrong[0].id!r}"
        notes.fail("categories", what, f"set group to {group_of(wrong[0].category)!r}")
    if unknown:
        names = ", ".join(repr(name) for name in sorted(unknown)[:4])
        what = f"{unknown.total()} samples are in no group ({names}), and get a row of their own"
        notes.warn("categories", what, "use the categories of the benchmark, in lower case")
    known = sorted(group for group in groups if group != UNKNOWN_GROUP)
    if len(known) == 1:
        notes.warn("categories", f"all known ones are in {known[0]}", "expect no K-Score over both groups")
    if not wrong and not unknown and len(known) > 1:
        sizes = ", ".join(f"{groups[group]} {group}" for group in known)
        notes.ok("categories", f"{len({sample.category for sample in samples})} ({sizes})")


def _check_text(samples: list[Sample], notes: FindingLog) -> None:
    unsettled = sum(sample.text_required is None for sample in samples)
    required = sum(sample.text_required is True for sample in samples)
    if unsettled:
        what = f"{unsettled} of {len(samples)} samples do not say whether text is required; judges decide it per image"
        notes.warn("text", what, "settle text_required, or no result is fit for a board")
    else:
        notes.ok("text", f"required in {required} of {len(samples)} samples")


def _check_truths(task: Task, samples: list[Sample], notes: FindingLog) -> Counter[str]:
    """Reads every truth and opens its picture; returns how many samples leave each need unmet."""
    faults, lacking, pictures = FaultCounter(), Counter[str](), 0
    for sample in samples:
        try:
            truth = task.truth(sample.id)
        except ImageMismatchError as error:
            truth = error.truth  # what is wrong with the picture is told below, with the others
        except (KnowgenError, OSError, KeyError) as error:
            what, fix = _told(error, _TRUTH_FIXES["truths"])
            faults.add("truths", f"sample {sample.id!r}: {what}", fix)
            lacking.update(TRUTH_NEEDS)
            continue
        if truth.sample_id != sample.id:
            what = f"sample {sample.id!r} is given the truth of {truth.sample_id!r}"
            faults.add("truths", what, _TRUTH_FIXES["truths"])
        if contradiction := _text_contradiction(sample, truth):
            faults.add("text", f"sample {sample.id!r}: {contradiction}", _TRUTH_FIXES["text"])
        if truth.image is not None:
            pictures += 1
            if fault := picture_fault(truth.image):
                faults.add("pictures", f"sample {sample.id!r}: {fault}", _TRUTH_FIXES["pictures"])
        drawn = Generation(sample_id=sample.id, status=GenerationStatus.OK)
        lacking.update(missing_needs(TRUTH_NEEDS, truth, drawn))
    for kind in _TRUTH_FIXES:
        if faults.counts[kind]:
            notes.fail(kind, faults.words(kind), faults.fixes[kind])
    if not faults.counts["truths"]:
        notes.ok("truths", "one for each sample")
    if not faults.counts["pictures"] and pictures:
        notes.ok("pictures", f"{pictures} open, and are what is recorded")
    if not pictures:
        notes.warn("pictures", "no ground truth has one", "add pictures, or use scorers that need none")
    return lacking


def _text_contradiction(sample: Sample, truth: GroundTruth) -> str:
    """Returns what sample and truth say differently of written text, empty when they agree."""
    if truth.text_required is not None and truth.text_required is not sample.text_required:
        return f"text_required is {sample.text_required} in the sample and {truth.text_required} in the truth"
    if sample.text_required is False and truth.required_text:
        return f"no text is required, but the truth requires {truth.required_text[0][:40]!r}"
    return ""


def picture_fault(picture: ImageRef) -> str:
    """Opens a picture and returns what is wrong with it, empty when it is what is recorded.

    Args:
        picture: With its path on this machine.
    """
    if picture.path is None:
        return "its picture has no file"
    try:
        facts = inspect_image(picture.path)
    except UnreadableImageError as error:
        return f"{picture.path.name} does not open: {error.what}"
    if facts.sha256 != picture.sha256:
        return f"{picture.path.name} is another picture than the one recorded"
    if (facts.width, facts.height, facts.format) != (picture.width, picture.height, picture.format):
        recorded = f"{picture.width}x{picture.height} {picture.format}"
        return f"{picture.path.name} is {facts.width}x{facts.height} {facts.format}, recorded as {recorded}"
    return ""


def _check_version(task: Task, notes: FindingLog) -> None:
    """Looks whether the version is there, and names the content."""
    try:
        version = task.version
    except (KnowgenError, OSError) as error:
        notes.fail("version", *_told(error, "mend the task's files"))
        return
    tail = version.rpartition("-")[2]
    if len(tail) >= 8 and all(letter in "0123456789abcdef" for letter in tail):
        notes.ok("version", version)
    else:
        what = f"{version!r} does not end in a hash, so changed content would be answered with old results"
        notes.fail("version", what, "end it in a hash over samples and truths")


def _check_scorers(task: Task, count: int, lacking: Counter[str], notes: FindingLog) -> None:
    """Looks whether each default scorer can be loaded, and finds in the truths what it needs."""
    if not task.default_scorers:
        notes.warn("scorers", "none is set, so every run must name one", "set default_scorers")
    for name in task.default_scorers:
        try:
            traits = scorer_capabilities(registry.load(registry.resolve("scorers", name)))
        except KnowgenError as error:
            what, fix = _told(error, "name a scorer that `knowgen list scorers` shows")
            notes.fail("scorers", f"{name}: {what}", fix)
            continue
        unmet = {need: lacking[need] for need in sorted(traits.needs & TRUTH_NEEDS) if lacking[need]}
        if not unmet:
            notes.ok("scorers", f"{name} finds what it needs in every truth")
            continue
        told = ", ".join(f"{need} in {missing} of {count} samples" for need, missing in unmet.items())
        note = notes.fail if max(unmet.values()) == count else notes.warn
        note("scorers", f"{name} misses {told}", "complete the truths, or set another default scorer")


def _check_search(task: Task, queries: Iterable[str], notes: FindingLog, timeout: float) -> None:
    """Builds the task's search backend, and searches and opens with it."""
    if not task.search:
        notes.ok("search", "the task brings none")
        return
    name = task.search.partition(":")[0]
    try:
        backend = registry.create(registry.resolve("search", task.search), {})
    except KnowgenError as error:
        notes.fail("search", *_told(error, "name a backend that `knowgen list search` shows"))
        return
    except Exception as error:  # noqa: BLE001 - a backend may be anybody's code
        notes.fail("search", f"{name} broke while it was built: {describe(error)}", "mend the backend or its files")
        return
    missing = [method for method in ("search", "image_search", "open") if not _is_coroutine(backend, method)]
    if missing or not getattr(backend, "version", ""):
        lacks = [f"`async def {method}`" for method in missing] or ["`version`"]
        notes.fail("search", f"{name} lacks {', '.join(lacks)}", "complete the backend")
        return
    try:
        pages, pictures = asyncio.run(asyncio.wait_for(_try_search(backend, queries), timeout))
    except TimeoutError:
        notes.fail("search", f"{name} gave no answer within {timeout:g} s", "mend the backend")
    except Exception as error:  # noqa: BLE001 - a backend may be anybody's code
        notes.fail("search", f"{name} raises {describe(error)}", "mend the backend or its files")
    else:
        if pages and pictures:
            notes.ok("search", f"{name} finds pages and pictures, and opens them")
        else:
            none = " and no ".join([*([] if pages else ["pages"]), *([] if pictures else ["pictures"])])
            notes.warn("search", f"{name} finds no {none} for {QUERIES} prompts", "look at what it serves")


def _is_coroutine(backend: Any, method: str) -> bool:
    return inspect.iscoroutinefunction(getattr(backend, method, None))


async def _try_search(backend: Any, queries: Iterable[str]) -> tuple[int, int]:
    """Searches for prompts and opens the first of what is found; returns how many pages and pictures there were."""
    pages = pictures = 0
    for query in queries:
        hits = await backend.search(query, 3)
        pages += len(hits)
        if hits:
            await backend.open(hits[0].url)
        found = await backend.image_search(query, 3)
        pictures += len(found)
        if found:
            await asyncio.to_thread(found[0].image.open)
    return pages, pictures
