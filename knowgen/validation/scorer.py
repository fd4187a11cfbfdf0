"""Check a scorer against the contract before a long run: what breaks it, what may surprise, what a run will take.

A few samples of a task are scored with three made-up images each: the ground truth's own (or a stand-in where there is
none), a blank one and noise. Nothing is called that costs money unless a budget is given.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from knowgen.core import registry
from knowgen.core.errors import BudgetReachedError, ConfigError, KnowgenError, UnscorableError
from knowgen.core.metering import current_meter
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Item, Sample, Score, ScoreStatus, image_ref
from knowgen.engine.components import ScorerHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import make, serve
from knowgen.engine.retry import CallTimeoutError, ContractError, describe
from knowgen.engine.scoring import checked
from knowgen.engine.work_plan import WorkItem
from knowgen.scorers.contract import missing_needs, scorer_capabilities
from knowgen.scorers.short_form import InvalidScoreError, score_item
from knowgen.validation.findings import Finding, FindingLog, ValueLevel
from knowgen.validation.generator import duration
from knowgen.validation.probe import ProbeRunner

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.tasks.contract import Task

SAMPLES = 3
"""Samples that are scored, three images each."""

LOOKED_AT = 200
"""Samples whose ground truths are read to count which needs they meet."""

SIDE = 256
SAME = 1e-6
"""Difference of two values that still counts as the same."""

TRUE, BLANK, NOISE = "true image", "blank image", "noise image"
UNSCORED_FIX = "fix what fails, or expect such images to have no score"
KINDS = (TRUE, BLANK, NOISE)
"""The images of a sample; a generation's repeat is its place in this list."""


class CheckMeter:
    """Admit paid calls up to a budget, and none without one.

    Args:
        budget: US dollars; None admits only calls that cost nothing.

    Attributes:
        dearest: The highest worst case that was asked for in US dollars, None before a paid call.
        unpriced: Whether a call of unknown price was asked for.
        spent: US dollars, unsettled calls at their worst case.
    """

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self.dearest: float | None = None
        self.unpriced = False
        self.calls: dict[int, float] = {}

    @property
    def spent(self) -> float:
        """Return US dollars spent, open calls at their worst case."""
        return math.fsum(self.calls.values())

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Reserve the worst case of a call; see `knowgen.core.metering.Meter`."""
        if worst_case == 0.0:
            return -1
        if worst_case is None:
            self.unpriced = True
            if self.budget is not None:
                raise ConfigError(
                    "the price of its calls is unknown, so a budget cannot hold", where=who, fix="give its prices"
                )
            raise BudgetReachedError("a call of unknown price was not made", where=who)
        self.dearest = max(worst_case, self.dearest or 0.0)
        if self.budget is None or self.spent + worst_case > self.budget:
            raise BudgetReachedError(f"a call of up to ${worst_case:.4f} was not made", where=who)
        number = len(self.calls)
        self.calls[number] = worst_case
        return number

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the true cost; None keeps the worst case."""
        if cost is not None and number in self.calls:
            self.calls[number] = cost


@dataclass
class ScoredItem:
    """What a scorer gave for an item.

    Attributes:
        item: Sample, ground truth and generation.
        value: What it returned, None where it raised.
        error: What it raised.
        seconds: Time it took.
    """

    item: Item
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def where(self) -> str:
        """Return `sample x, blank image`."""
        return f"sample {self.item[0].id!r}, {KINDS[self.item[2].repeat]}"


class StopCheckError(Exception):
    """Nothing more can be checked."""


@dataclass
class CheckedScorer:
    """A scorer under examination.

    Attributes:
        handle: The scorer.
        task: Whose samples are scored.
        folder: Where made-up images lie.
        meter: Admits paid calls.
        runner: Calls the scorer, with a time limit.
        device: For `setup`.
        scorer: The object, None before it is built.
        scores: Valid scores of the first pass, in order.
        seconds: Time of each.
        problems: What is wrong with scores, by level, check, words and fix, with the images that it happens to.
    """

    handle: ScorerHandle
    task: Task
    folder: Path
    meter: CheckMeter
    runner: ProbeRunner
    device: str
    notes: FindingLog = field(default_factory=FindingLog)
    scorer: Any = None
    items: list[Item] = field(default_factory=list)
    scores: list[tuple[ScoredItem, Score]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: dict[tuple[ValueLevel, str, str, str], list[str]] = field(default_factory=dict)

    def problem(self, level: ValueLevel, check: str, result: ScoredItem, what: str, fix: str) -> None:
        """Collect what is wrong with a score, to be noted once for all images that it happens to."""
        self.problems.setdefault((level, check, what, fix), []).append(result.where)

    def note_problems(self) -> bool:
        """Note the problems that were collected, each with its first image; tell whether one is a failure."""
        failed = False
        for (level, check, what, fix), places in self.problems.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            (self.notes.fail if level == "fail" else self.notes.warn)(check, f"{places[0]}{more}: {what}", fix)
            failed = failed or level == "fail"
        self.problems.clear()
        return failed

    @property
    def is_measure(self) -> bool:
        """Tell whether it computes, and does not wait for a service."""
        return self.handle.traits.shape == "score_batch"

    def score(self, items: Sequence[Item]) -> list[ScoredItem]:
        """Score items as the engine would: a batch form in batches, an `async` one call by call.

        Raises:
            StopCheckError: It takes longer than the time limit; that is noted.
        """
        results = {item[2].repeat: ScoredItem(item) for item in items}
        try:
            if self.is_measure:
                self._compute(items, results)
            else:
                self.runner.call(lambda: self._wait(items, results), len(items))
        except CallTimeoutError as error:
            self.notes.fail("time", describe(error), "find out what it waits for, or raise --timeout")
            raise StopCheckError from error
        return [results[item[2].repeat] for item in items]

    def _compute(self, items: Sequence[Item], results: dict[int, ScoredItem]) -> None:
        size = max(1, self.handle.traits.concurrency)
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            events: list[InvocationEvent] = []
            started = time.perf_counter()
            self.runner.call(lambda batch=batch, events=events: self._serve(batch, events), len(batch))  # type: ignore[misc]
            each = (time.perf_counter() - started) / len(batch)
            answers = {event.id: event.value for event in events if event.kind == "answer"}
            faults = {event.id: event.value for event in events if event.kind == "fault"}
            for item in batch:
                result, name = results[item[2].repeat], f"{item[2].repeat}\0{item[0].id}"
                result.seconds, result.value = each, answers.get(name)
                if name not in answers:
                    missing = ContractError("it gave no score for this item")
                    result.error = faults.get(name) or faults.get("") or missing

    def _serve(self, batch: Sequence[Item], events: list[InvocationEvent]) -> None:
        current_meter.set(self.meter)
        serve("score_batch", self.scorer, batch, events.append)

    async def _wait(self, items: Sequence[Item], results: dict[int, ScoredItem]) -> None:
        current_meter.set(self.meter)
        for item in items:
            result, started = results[item[2].repeat], time.perf_counter()
            try:
                result.value = await score_item(self.scorer, item)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
                result.error = error
            result.seconds = time.perf_counter() - started
            if isinstance(result.error, BudgetReachedError):
                break


def check_scorer(
    handle: ScorerHandle,
    task: Task,
    *,
    samples: int = 630,
    budget: float | None = None,
    timeout: float = 600.0,
    device: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Check a scorer against the contract.

    Args:
        handle: The scorer.
        task: Whose samples are scored, with made-up images.
        samples: Number of images that time and cost are forecast for.
        budget: US dollars that paid calls may cost; None makes none of them.
        timeout: Seconds that a score may take.
        device: For `setup`; by default the one that the engine would choose.
        on_step: Called with a few words before each step.

    Returns:
        The findings in order; `findings.worst` says whether a run may be started.
    """
    with tempfile.TemporaryDirectory(prefix="knowgen-check-") as folder:
        subject = CheckedScorer(
            handle,
            task,
            Path(folder),
            CheckMeter(budget),
            ProbeRunner(timeout),
            own_device() if device is None else device,
        )
        steps: tuple[tuple[str, Callable[[CheckedScorer], None]], ...] = (
            ("what it declares", _check_declared),
            ("needs", _check_needs),
            ("building it", _check_build),
            ("scores", _check_scores),
            ("range of values", _check_values),
            ("the same again", _check_repeated),
            ("undeclared needs", _check_undeclared_needs),
        )
        try:
            for name, step in steps:
                if on_step is not None:
                    on_step(name)
                step(subject)
        except StopCheckError:
            subject.notes.warn("the rest", "was not checked", "fix what failed and check again")
        _check_close(subject)
        _forecast(subject, samples)
        return subject.notes.findings


def _check_declared(subject: CheckedScorer) -> None:
    """Look at what the scorer declares."""
    capabilities, notes = subject.handle.traits, subject.notes
    form = "computes, in worker processes" if subject.is_measure else "waits, in an event loop"
    needs = ", ".join(sorted(capabilities.needs)) or "nothing"
    notes.ok("contract", f"{form}; needs {needs}; gives {', '.join(capabilities.dimensions)}")
    if capabilities.concurrency < 1:
        notes.fail("contract", f"concurrency is {capabilities.concurrency}", "set it to 1 or more")
    notes.ok("version", subject.handle.spec.version)


def _check_needs(subject: CheckedScorer) -> None:
    """Count samples that have what the scorer needs, and choose those that are scored.

    Raises:
        StopCheckError: No sample has it.
    """
    needs, notes = subject.handle.traits.needs, subject.notes
    complete: list[tuple[Sample, GroundTruth]] = []
    lacking: dict[str, int] = {}
    count = 0
    for sample in islice(subject.task.samples(), LOOKED_AT):
        truth = subject.task.truth(sample.id)
        count += 1
        missing = missing_needs(needs - {"image", "references", "evidence"}, truth, _generation(sample, 0, None))
        for need in missing:
            lacking[need] = lacking.get(need, 0) + 1
        if not missing:
            complete.append((sample, truth))
    if not complete:
        what = f"none of {count} samples of {subject.task.name} has {' and '.join(sorted(lacking))}"
        notes.fail("needs", f"{what}, so nothing could be scored", "check it with --task of a task that has")
        raise StopCheckError
    if lacking:
        what = f"{count - len(complete)} of {count} samples lack {', '.join(sorted(lacking))}"
        notes.ok("needs", f"{what}; they become not_applicable")
    else:
        notes.ok("needs", f"{count} of {count} samples of {subject.task.name} have them")
    place = 0
    for sample, truth in complete[:SAMPLES]:
        for kind in KINDS:
            subject.items.append((sample, truth, _made_up(subject.folder, sample, truth, kind)))
            place += 1


def _generation(sample: Sample, repeat: int, image: Path | None, **fields: Any) -> Generation:
    return Generation(
        sample_id=sample.id,
        repeat=repeat,
        status=GenerationStatus.OK,
        image=image_ref(image) if image is not None else None,
        **fields,
    )


def _made_up(folder: Path, sample: Sample, truth: GroundTruth, kind: str) -> Generation:
    """Return a generation with a made-up image, a reference and a piece of evidence."""
    number = len(list(folder.iterdir()))
    path = folder / f"{number}.png"
    _image(sample, truth, kind).save(path)
    reference = {"title": "a reference", "url": "https://example.org/image", "note": "", "path": str(path)}
    evidence = {"title": "a page", "url": "https://example.org/page", "text": f"About: {sample.prompt}"}
    return _generation(sample, KINDS.index(kind), path, references=(reference,), evidence=(evidence,))


def _image(sample: Sample, truth: GroundTruth, kind: str) -> Image:
    """Return an image of the kind; the stand-in of a missing true image is a gradient."""
    from PIL import Image

    true = truth.image.open().convert("RGB") if truth.image is not None and truth.image.path is not None else None
    size = true.size if true is not None else (SIDE, SIDE)
    if kind == BLANK:
        return Image.new("RGB", size, (128, 128, 128))
    if kind == NOISE:
        return Image.frombytes("RGB", size, random.Random(sample.id).randbytes(3 * size[0] * size[1]))
    return true if true is not None else Image.linear_gradient("L").resize(size).convert("RGB")


def _check_build(subject: CheckedScorer) -> None:
    """Build the scorer and set it up.

    Raises:
        StopCheckError: It breaks, or has another form than its class.
    """
    handle = subject.handle
    try:
        subject.scorer = subject.runner.call(lambda: make(handle.build, lambda: subject.device, "the scorer"))
        shape = scorer_capabilities(subject.scorer).shape
    except (KnowgenError, CallTimeoutError) as error:
        subject.notes.fail("build", *_words(error, "fix the constructor or `setup`"))
        raise StopCheckError from error
    if shape != handle.traits.shape:
        subject.notes.fail("build", f"the object is a {shape}, its class a {handle.traits.shape}", "define one method")
        raise StopCheckError
    subject.notes.ok("build", f"built on {subject.device}")


def _check_scores(subject: CheckedScorer) -> None:
    """Score every made-up image.

    Raises:
        StopCheckError: A call that costs money was not made, or nothing could be scored.
    """
    for group in _by_sample(subject.items):
        for result in subject.score(group):
            if isinstance(result.error, BudgetReachedError):
                subject.note_problems()
                _note_cost(subject)
                raise StopCheckError
            score = _valid(subject, result)
            if score is not None and score.status is ScoreStatus.OK:
                subject.scores.append((result, score))
                subject.seconds.append(result.seconds)
    failed = subject.note_problems()
    if not subject.scores:
        raise StopCheckError
    if not failed:
        subject.notes.ok("scores", f"{len(subject.scores)} of {len(subject.items)} images scored within [0, 1]")


def _by_sample(items: Iterable[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item[0].id, []).append(item)
    return list(groups.values())


def _valid(subject: CheckedScorer, result: ScoredItem) -> Score | None:
    """Return a score that keeps the contract, None where there is none; anything wrong becomes a problem."""
    sample, truth, generation = result.item
    if result.error is not None:
        subject.problem(*_problem_of(result.error, result))
        return None
    try:
        score = checked(result.value, WorkItem(sample, truth, "", generation.repeat, ""))
    except ContractError as error:
        subject.problem("fail", "scores", result, describe(error), "return numbers in [0, 1], or a Score")
        return None
    if score.status is ScoreStatus.OK:
        _check_dimensions(subject, result, score)
    elif score.status is ScoreStatus.NOT_APPLICABLE:
        what = f"not applicable ({score.strict.reason or 'without a reason'})"
        subject.problem("warn", "scores", result, what, "declare in `needs` what this sample lacks")
    else:
        what = f"failed ({score.strict.reason or 'without a reason'})"
        subject.problem(_gravity(result), "scores", result, what, UNSCORED_FIX)
    return score


def _gravity(result: ScoredItem) -> ValueLevel:
    """Return how grave it is that an image has no score: grave where it is the true image."""
    return "fail" if KINDS[result.item[2].repeat] == TRUE else "warn"


def _words(error: BaseException, fix: str) -> tuple[str, str]:
    """Return what an error says and how to fix it: its own advice where it gives some, else `fix`."""
    if isinstance(error, KnowgenError) and error.fix:
        return describe(KnowgenError(error.what, where=error.where)), error.fix
    return describe(error), fix


def _problem_of(error: BaseException, result: ScoredItem) -> tuple[ValueLevel, str, ScoredItem, str, str]:
    """Return level, check, item, words and fix of what a scorer raised."""
    if isinstance(error, SystemExit):
        return "fail", "scores", result, "it calls sys.exit", "raise an error instead"
    if isinstance(error, UnscorableError) and not isinstance(error, InvalidScoreError):
        return _gravity(result), "scores", result, *_words(error, UNSCORED_FIX)
    if isinstance(error, KnowgenError | ContractError):
        return "fail", "scores", result, *_words(error, "return numbers in [0, 1], or a Score")
    return "fail", "scores", result, f"it raises {describe(error)}", "fix what raises it"


def _check_dimensions(subject: CheckedScorer, result: ScoredItem, score: Score) -> None:
    declared, given = set(subject.handle.traits.dimensions), set(score.strict.values)
    if extra := sorted(given - declared):
        what = f"it gives {', '.join(extra)}, which no table shows"
        subject.problem("fail", "dimensions", result, what, f"declare dimensions = {tuple(sorted(given | declared))}")
    if missing := sorted(declared - given - set(score.strict.na)):
        what = f"it gives no {', '.join(missing)}"
        subject.problem("warn", "dimensions", result, what, "give a value, or name it in `na`")


def _note_cost(subject: CheckedScorer) -> None:
    """Note that a call was not made, and what it would cost."""
    meter, notes = subject.meter, subject.notes
    price = "an unknown price" if meter.dearest is None else f"up to ${meter.dearest:.4f}"
    if meter.budget is None:
        what = f"a call has {price}, and none was made"
        notes.warn("cost", what, "give --budget USD to score images with it")
    else:
        what = f"${meter.spent:.4f} of ${meter.budget:g} is spent, and a call has {price}"
        notes.warn("cost", what, "raise --budget to check the rest")


def _check_values(subject: CheckedScorer) -> None:
    """Look at how values spread over the kinds of images."""
    for dimension in subject.handle.traits.dimensions:
        by_kind: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for result, score in subject.scores:
            if dimension in score.strict.values:
                by_kind[KINDS[result.item[2].repeat]].append(score.strict.values[dimension])
        values = [value for kind in KINDS for value in by_kind[kind]]
        if not values:
            subject.notes.warn("values", f"{dimension} has none", "see whether it applies to this task")
            continue
        words = ", ".join(f"{kind} {sum(each) / len(each):.3f}" for kind, each in by_kind.items() if each)
        if len(values) > 1 and max(values) - min(values) < SAME:
            what = f"{dimension} is {values[0]:g} for every image"
            subject.notes.warn("values", what, "see that it tells images apart")
        elif _prefers_noise(subject, by_kind):
            fix = "see that it compares with the ground truth, and that 1 is best"
            subject.notes.warn("values", f"{dimension}: {words}; the true image is not ahead", fix)
        else:
            subject.notes.ok("values", f"{dimension}: {words}")


def _prefers_noise(subject: CheckedScorer, by_kind: dict[str, list[float]]) -> bool:
    """Tell whether a scorer that compares with the true image puts another kind of image level with it, or ahead."""
    if "truth_image" not in subject.handle.traits.needs or not by_kind[TRUE]:
        return False
    true = sum(by_kind[TRUE]) / len(by_kind[TRUE])
    return any(by_kind[kind] and sum(by_kind[kind]) / len(by_kind[kind]) >= true for kind in (BLANK, NOISE))


def _check_repeated(subject: CheckedScorer) -> None:
    """Score the images of one sample again."""
    first = subject.scores[0][0].item[0].id
    earlier = {result.item[2].repeat: score for result, score in subject.scores if result.item[0].id == first}
    items = [result.item for result, _ in subject.scores if result.item[0].id == first]
    largest, compared = 0.0, 0
    for result in subject.score(items):
        if isinstance(result.error, BudgetReachedError):
            _note_cost(subject)
            return
        score = _valid(subject, result)
        if score is None or score.status is not ScoreStatus.OK:
            continue
        before = earlier[result.item[2].repeat].strict.values
        compared += 1
        for name in before.keys() | score.strict.values.keys():
            largest = max(largest, abs(before.get(name, math.inf) - score.strict.values.get(name, math.inf)))
    subject.note_problems()
    if not compared:
        return
    if largest <= SAME:
        subject.notes.ok("repeats", "the same image gets the same values again")
    elif subject.is_measure:
        what = f"the same image gets values that differ by up to {largest:.3g}, and a run scores it once"
        subject.notes.warn("repeats", what, "seed what is random, or make `score` async and use --judge-repeats")
    else:
        what = f"the same image gets values that differ by up to {largest:.3g}"
        subject.notes.warn("repeats", what, "use --judge-repeats, and report the spread")


def _check_undeclared_needs(subject: CheckedScorer) -> None:
    """Score a sample whose truth holds only what was declared; what fails there uses what it does not declare."""
    needs = subject.handle.traits.needs
    sample, truth, generation = subject.scores[0][0].item
    fields = {"image": "truth_image", "required_text": "required_text", "subjects": "subjects"}
    bare = truth.model_copy(
        update={name: None if name == "image" else () for name, need in fields.items() if need not in needs}
    )
    if bare == truth:
        return
    removed = [need for name, need in fields.items() if need not in needs and getattr(truth, name)]
    stripped = {name: () for name in ("references", "evidence") if name not in needs}
    (result,) = subject.score([(sample, bare, generation.model_copy(update=stripped))])
    if isinstance(result.error, BudgetReachedError):
        _note_cost(subject)
    elif result.error is not None:
        what = f"a sample without {', '.join(removed)} breaks it: {describe(result.error)}"
        subject.notes.fail("needs", what, "declare in `needs` what it reads")
    else:
        subject.notes.ok("needs", "it scores a sample that has only what it declares")


def _check_close(subject: CheckedScorer) -> None:
    close = getattr(subject.scorer, "close", None)
    if not callable(close):
        return
    try:
        subject.runner.call(close)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
        subject.notes.warn("close", f"it raises {describe(error)}", "fix `close`")


def _forecast(subject: CheckedScorer, samples: int) -> None:
    """Say what a run of real length takes and costs."""
    notes, handle = subject.notes, subject.handle
    if subject.seconds:
        each = median(subject.seconds[1:] or subject.seconds)
        at_once = 1 if subject.is_measure else max(1, handle.traits.concurrency)
        place = "in one process" if subject.is_measure else f"at {at_once} at once"
        what = f"{samples} images take about {duration(each * samples / at_once)} {place}"
        notes.ok("time", f"{what} (first {duration(subject.seconds[0])}, then {duration(each)} each)")
    if subject.meter.calls:
        cost = subject.meter.spent / max(1, len(subject.meter.calls))
        notes.ok("cost", f"${subject.meter.spent:.4f} for {len(subject.meter.calls)} calls, ${cost:.4f} each")
    elif (estimate := _estimate(subject)) is not None:
        notes.ok("cost", f"about ${estimate:.4f} a call, ${estimate * samples:.2f} for {samples} images")


def _estimate(subject: CheckedScorer) -> float | None:
    """Return what the scorer says that a call costs in US dollars, None where it does not say."""
    remake = subject.handle.remake
    if remake is None or subject.is_measure:
        return None
    resolved = registry.resolve("scorers", remake.name)
    estimator: Any = getattr(registry.load(resolved), "estimate_cost", None)
    if estimator is None:
        return None
    model = {"model": resolved.model} if resolved.model is not None else {}
    estimate = estimator([item[:2] for item in subject.items[:: len(KINDS)]], **model, **remake.args)
    return None if estimate is None else estimate.cost
