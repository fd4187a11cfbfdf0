"""Check a scorer against the contract before a long run: what fails, what may surprise, what a run will take.

A few samples of a task are scored with three test images each: the ground truth's own (or a stand-in if there is none),
a blank one and noise. Paid calls are made only if a budget is given.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from knowgen.core import registry
from knowgen.core.errors import BudgetReachedError, KnowgenError, UnscorableError
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Item, Sample, Score, ScoreStatus, image_ref
from knowgen.core.scratch import ScratchFolder
from knowgen.engine.components import ScorerHandle
from knowgen.engine.devices import own_device
from knowgen.engine.executors.invoke import build_plugin
from knowgen.engine.retry import CallTimeoutError, ContractError, describe
from knowgen.engine.scoring import validated_score
from knowgen.engine.work_plan import WorkItem
from knowgen.scorers.contract import missing_needs, scorer_capabilities
from knowgen.scorers.short_form import InvalidScoreError
from knowgen.validation.checked_scorer import BLANK, KINDS, NOISE, TRUE, CheckedScorer, CheckMeter, ScoredItem
from knowgen.validation.findings import CheckStoppedError, Finding, ValueLevel, error_and_fix
from knowgen.validation.forecast import duration
from knowgen.validation.probe import ProbeRunner

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.tasks.contract import Task

SAMPLES = 3
"""Samples that are scored, with three images each."""

SAMPLES_READ = 200
"""Samples whose ground truths are read to count which needs they meet."""

SIDE = 256
SAME_VALUE = 1e-6
"""Difference up to which two values count as the same."""

UNSCORED_FIX = "fix what fails, or expect such images to have no score"


def check_scorer(
    handle: ScorerHandle,
    task: Task,
    *,
    samples: int = 630,
    budget: float | None = None,
    timeout: float = 600.0,
    device: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Check a scorer against the contract.

    Args:
        handle: The scorer.
        task: Task whose samples are scored, with test images.
        samples: Number of images for which time and cost are forecast.
        budget: US dollars that paid calls may cost; None makes no paid call.
        timeout: Time limit per score in seconds.
        device: Device for `setup`; by default the one that the engine would choose.
        on_progress: Called with the name of each check before it starts.

    Returns:
        The findings in the order of the checks; `findings.worst` tells whether a run may be started.
    """
    with ScratchFolder("knowgen.check.") as folder:
        checked = CheckedScorer(
            handle,
            task,
            folder,
            CheckMeter(budget),
            ProbeRunner(timeout),
            own_device() if device is None else device,
        )
        steps: tuple[tuple[str, Callable[[CheckedScorer], None]], ...] = (
            ("declarations", _check_declarations),
            ("needs", _check_needs),
            ("build", _check_build),
            ("scores", _check_scores),
            ("values", _check_values),
            ("repeats", _check_repeats),
            ("undeclared needs", _check_undeclared_needs),
        )
        try:
            for name, step in steps:
                if on_progress is not None:
                    on_progress(name)
                step(checked)
        except CheckStoppedError:
            checked.notes.warn("the rest", "was not checked", "fix what failed and check again")
        _check_close(checked)
        _forecast(checked, samples)
        return checked.notes.findings


def _check_declarations(checked: CheckedScorer) -> None:
    """Check what the scorer declares about itself."""
    capabilities, notes = checked.handle.capabilities, checked.notes
    form = "computes, in worker processes" if checked.is_measure else "waits, in an event loop"
    needs = ", ".join(sorted(capabilities.needs)) or "nothing"
    notes.ok("contract", f"{form}; needs {needs}; gives {', '.join(capabilities.dimensions)}")
    if capabilities.concurrency < 1:
        notes.fail("contract", f"concurrency is {capabilities.concurrency}", "set it to 1 or more")
    notes.ok("version", checked.handle.spec.version)


def _check_needs(checked: CheckedScorer) -> None:
    """Count samples that have what the scorer needs, and choose those that are scored.

    Raises:
        CheckStoppedError: No sample has it.
    """
    needs, notes = checked.handle.capabilities.needs, checked.notes
    complete: list[tuple[Sample, GroundTruth]] = []
    lacking: dict[str, int] = {}
    count = 0
    for sample in islice(checked.task.samples(), SAMPLES_READ):
        truth = checked.task.truth(sample.id)
        count += 1
        missing = missing_needs(needs - {"image", "references", "evidence"}, truth, _generation(sample, 0, None))
        for need in missing:
            lacking[need] = lacking.get(need, 0) + 1
        if not missing:
            complete.append((sample, truth))
    if not complete:
        what = f"none of {count} samples of {checked.task.name} has {' and '.join(sorted(lacking))}"
        notes.fail("needs", f"{what}, so nothing could be scored", "check it with --task of a task that has")
        raise CheckStoppedError
    if lacking:
        what = f"{count - len(complete)} of {count} samples lack {', '.join(sorted(lacking))}"
        notes.ok("needs", f"{what}; they become not_applicable")
    else:
        notes.ok("needs", f"{count} of {count} samples of {checked.task.name} have them")
    for sample, truth in complete[:SAMPLES]:
        for kind in KINDS:
            checked.items.append((sample, truth, _test_generation(checked.folder, sample, truth, kind)))


def _generation(sample: Sample, repeat: int, image: Path | None, **fields: Any) -> Generation:
    return Generation(
        sample_id=sample.id,
        repeat=repeat,
        status=GenerationStatus.OK,
        image=image_ref(image) if image is not None else None,
        **fields,
    )


def _test_generation(folder: Path, sample: Sample, truth: GroundTruth, kind: str) -> Generation:
    """Return a generation with a test image, a reference and a piece of evidence."""
    number = len(list(folder.iterdir()))
    path = folder / f"{number}.png"
    _test_image(sample, truth, kind).save(path)
    reference = {"title": "a reference", "url": "https://example.org/image", "note": "", "path": str(path)}
    evidence = {"title": "a page", "url": "https://example.org/page", "text": f"About: {sample.prompt}"}
    return _generation(sample, KINDS.index(kind), path, references=(reference,), evidence=(evidence,))


def _test_image(sample: Sample, truth: GroundTruth, kind: str) -> Image:
    """Return an image of a kind. The stand-in for a missing ground-truth image is a gradient."""
    from PIL import Image

    true = truth.image.open() if truth.image is not None and truth.image.path is not None else None
    size = true.size if true is not None else (SIDE, SIDE)
    if kind == BLANK:
        return Image.new("RGB", size, (128, 128, 128))
    if kind == NOISE:
        return Image.frombytes("RGB", size, random.Random(sample.id).randbytes(3 * size[0] * size[1]))
    return true if true is not None else Image.linear_gradient("L").resize(size).convert("RGB")


def _check_build(checked: CheckedScorer) -> None:
    """Build the scorer and set it up.

    Raises:
        CheckStoppedError: It cannot be built, or has another form than its class.
    """
    handle = checked.handle
    try:
        checked.scorer = checked.runner.call(lambda: build_plugin(handle.build, lambda: checked.device, "the scorer"))
        shape = scorer_capabilities(checked.scorer).shape
    except (KnowgenError, CallTimeoutError) as error:
        checked.notes.fail("build", *error_and_fix(error, "fix the constructor or `setup`"))
        raise CheckStoppedError from error
    if shape != handle.capabilities.shape:
        what = f"the object has `{shape}`, but its class declares `{handle.capabilities.shape}`"
        checked.notes.fail("build", what, "define one method")
        raise CheckStoppedError
    checked.notes.ok("build", f"built on {checked.device}")


def _check_scores(checked: CheckedScorer) -> None:
    """Score every test image.

    Raises:
        CheckStoppedError: A paid call was not made, or nothing could be scored.
    """
    for group in _by_sample(checked.items):
        for result in checked.score(group):
            if isinstance(result.error, BudgetReachedError):
                checked.note_problems()
                _note_cost(checked)
                raise CheckStoppedError
            score = _valid(checked, result)
            if score is not None and score.status is ScoreStatus.OK:
                checked.scores.append((result, score))
                checked.seconds.append(result.seconds)
    failed = checked.note_problems()
    if not checked.scores:
        raise CheckStoppedError
    if not failed:
        checked.notes.ok("scores", f"{len(checked.scores)} of {len(checked.items)} images scored within [0, 1]")


def _by_sample(items: Iterable[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item[0].id, []).append(item)
    return list(groups.values())


def _valid(checked: CheckedScorer, result: ScoredItem) -> Score | None:
    """Return a score that meets the contract, None if there is none. Anything wrong becomes a problem."""
    sample, truth, generation = result.item
    if result.error is not None:
        checked.problem(*_problem_of(result.error, result))
        return None
    try:
        score = validated_score(result.value, WorkItem(sample, truth, "", generation.repeat, ""))
    except ContractError as error:
        checked.problem("fail", "scores", result, describe(error), "return numbers in [0, 1], or a Score")
        return None
    if score.status is ScoreStatus.OK:
        _check_dimensions(checked, result, score)
    elif score.status is ScoreStatus.NOT_APPLICABLE:
        what = f"not applicable ({score.strict.reason or 'without a reason'})"
        checked.problem("warn", "scores", result, what, "declare in `needs` what this sample lacks")
    else:
        what = f"failed ({score.strict.reason or 'without a reason'})"
        checked.problem(_severity(result), "scores", result, what, UNSCORED_FIX)
    return score


def _severity(result: ScoredItem) -> ValueLevel:
    """Return the level of a missing score: fail for the true image, else warn."""
    return "fail" if KINDS[result.item[2].repeat] == TRUE else "warn"


def _problem_of(error: BaseException, result: ScoredItem) -> tuple[ValueLevel, str, ScoredItem, str, str]:
    """Return level, check, item, text and fix of an error that a scorer raised."""
    if isinstance(error, SystemExit):
        return "fail", "scores", result, "it calls sys.exit", "raise an error instead"
    if isinstance(error, UnscorableError) and not isinstance(error, InvalidScoreError):
        return _severity(result), "scores", result, *error_and_fix(error, UNSCORED_FIX)
    if isinstance(error, KnowgenError | ContractError):
        return "fail", "scores", result, *error_and_fix(error, "return numbers in [0, 1], or a Score")
    return "fail", "scores", result, f"it raises {describe(error)}", "fix what raises it"


def _check_dimensions(checked: CheckedScorer, result: ScoredItem, score: Score) -> None:
    declared, given = set(checked.handle.capabilities.dimensions), set(score.strict.values)
    if extra := sorted(given - declared):
        what = f"it gives {', '.join(extra)}, which no table shows"
        checked.problem("fail", "dimensions", result, what, f"declare dimensions = {tuple(sorted(given | declared))}")
    if missing := sorted(declared - given - set(score.strict.na)):
        what = f"it gives no {', '.join(missing)}"
        checked.problem("warn", "dimensions", result, what, "give a value, or name it in `na`")


def _note_cost(checked: CheckedScorer) -> None:
    """Report that a call was not made, and what it would cost."""
    meter, notes = checked.meter, checked.notes
    price = "an unknown price" if meter.highest_worst_case is None else f"up to ${meter.highest_worst_case:.4f}"
    if meter.budget is None:
        what = f"a call has {price}, and none was made"
        notes.warn("cost", what, "give --budget USD to score images with it")
    else:
        what = f"${meter.spent:.4f} of ${meter.budget:g} is spent, and a call has {price}"
        notes.warn("cost", what, "raise --budget to check the rest")


def _check_values(checked: CheckedScorer) -> None:
    """Compare the values of the kinds of images."""
    for dimension in checked.handle.capabilities.dimensions:
        by_kind: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for result, score in checked.scores:
            if dimension in score.strict.values:
                by_kind[KINDS[result.item[2].repeat]].append(score.strict.values[dimension])
        values = [value for kind in KINDS for value in by_kind[kind]]
        if not values:
            checked.notes.warn("values", f"{dimension} has none", "see whether it applies to this task")
            continue
        words = ", ".join(f"{kind} {sum(each) / len(each):.3f}" for kind, each in by_kind.items() if each)
        if len(values) > 1 and max(values) - min(values) < SAME_VALUE:
            what = f"{dimension} is {values[0]:g} for every image"
            checked.notes.warn("values", what, "see that it tells images apart")
        elif _true_image_not_best(checked, by_kind):
            fix = "see that it compares with the ground truth, and that 1 is best"
            checked.notes.warn("values", f"{dimension}: {words}; the true image is not ahead", fix)
        else:
            checked.notes.ok("values", f"{dimension}: {words}")


def _true_image_not_best(checked: CheckedScorer, by_kind: dict[str, list[float]]) -> bool:
    """Return whether a scorer that compares with the true image values another kind of image as high or higher."""
    if "truth_image" not in checked.handle.capabilities.needs or not by_kind[TRUE]:
        return False
    true = sum(by_kind[TRUE]) / len(by_kind[TRUE])
    return any(by_kind[kind] and sum(by_kind[kind]) / len(by_kind[kind]) >= true for kind in (BLANK, NOISE))


def _check_repeats(checked: CheckedScorer) -> None:
    """Score the images of one sample again and compare the values."""
    first = checked.scores[0][0].item[0].id
    earlier = {result.item[2].repeat: score for result, score in checked.scores if result.item[0].id == first}
    items = [result.item for result, _ in checked.scores if result.item[0].id == first]
    largest, compared = 0.0, 0
    for result in checked.score(items):
        if isinstance(result.error, BudgetReachedError):
            _note_cost(checked)
            return
        score = _valid(checked, result)
        if score is None or score.status is not ScoreStatus.OK:
            continue
        before = earlier[result.item[2].repeat].strict.values
        compared += 1
        for name in before.keys() | score.strict.values.keys():
            largest = max(largest, abs(before.get(name, math.inf) - score.strict.values.get(name, math.inf)))
    checked.note_problems()
    if not compared:
        return
    if largest <= SAME_VALUE:
        checked.notes.ok("repeats", "the same image gets the same values again")
    elif checked.is_measure:
        what = f"the same image gets values that differ by up to {largest:.3g}, and a run scores it once"
        checked.notes.warn("repeats", what, "seed what is random, or make `score` async and use --judge-repeats")
    else:
        what = f"the same image gets values that differ by up to {largest:.3g}"
        checked.notes.warn("repeats", what, "use --judge-repeats, and report the spread")


def _check_undeclared_needs(checked: CheckedScorer) -> None:
    """Score a sample that has only what the scorer declares; an error means that it uses something undeclared."""
    needs = checked.handle.capabilities.needs
    sample, truth, generation = checked.scores[0][0].item
    fields = {"image": "truth_image", "required_text": "required_text", "subjects": "subjects"}
    bare = truth.model_copy(
        update={name: None if name == "image" else () for name, need in fields.items() if need not in needs}
    )
    if bare == truth:
        return
    removed = [need for name, need in fields.items() if need not in needs and getattr(truth, name)]
    stripped = {name: () for name in ("references", "evidence") if name not in needs}
    (result,) = checked.score([(sample, bare, generation.model_copy(update=stripped))])
    if isinstance(result.error, BudgetReachedError):
        _note_cost(checked)
    elif result.error is not None:
        what = f"a sample without {', '.join(removed)} breaks it: {describe(result.error)}"
        checked.notes.fail("needs", what, "declare in `needs` what it reads")
    else:
        checked.notes.ok("needs", "it scores a sample that has only what it declares")


def _check_close(checked: CheckedScorer) -> None:
    close = getattr(checked.scorer, "close", None)
    if not callable(close):
        return
    try:
        checked.runner.call(close)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
        checked.notes.warn("close", f"it raises {describe(error)}", "fix `close`")


def _forecast(checked: CheckedScorer, samples: int) -> None:
    """Report what a run of real length will take and cost."""
    notes, handle = checked.notes, checked.handle
    if checked.seconds:
        each = median(checked.seconds[1:] or checked.seconds)
        at_once = 1 if checked.is_measure else max(1, handle.capabilities.concurrency)
        place = "in one process" if checked.is_measure else f"at {at_once} at once"
        what = f"{samples} images take about {duration(each * samples / at_once)} {place}"
        notes.ok("time", f"{what} (first {duration(checked.seconds[0])}, then {duration(each)} each)")
    if checked.meter.calls:
        cost = checked.meter.spent / max(1, len(checked.meter.calls))
        notes.ok("cost", f"${checked.meter.spent:.4f} for {len(checked.meter.calls)} calls, ${cost:.4f} each")
    elif (estimate := _estimate(checked)) is not None:
        notes.ok("cost", f"about ${estimate:.4f} a call, ${estimate * samples:.2f} for {samples} images")


def _estimate(checked: CheckedScorer) -> float | None:
    """Return the scorer's own estimate of the cost of a call in US dollars, None if it has none."""
    component_ref = checked.handle.component_ref
    if component_ref is None or checked.is_measure:
        return None
    resolved = registry.resolve("scorers", component_ref.name)
    estimator: Any = getattr(registry.load(resolved), "estimate_cost", None)
    if estimator is None:
        return None
    model = {"model": resolved.model} if resolved.model is not None else {}
    estimate = estimator([item[:2] for item in checked.items[:: len(KINDS)]], **model, **component_ref.args)
    return None if estimate is None else estimate.cost
