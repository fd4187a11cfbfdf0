"""Analysis of a judge check: does a judge detect known changes to images, and nothing else?

Each sample is scored once unchanged (`nothing`) and once with each change. A dimension moves if its value differs by at
least `MIN_MOVE` from the judge's own value for the unchanged image of the same sample; for `nothing`, from full marks.
Over the images of a change:

    sensitivity = share of images in which every dimension that must fall moved down
    specificity = share of images in which no dimension that must stay moved, up or down

A dimension whose value is already 0 for the unchanged image cannot fall. Such an image counts as one whose change was
not detected, and is counted under `floored` as well. Failed scores count for neither share and have a limit of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

from knowgen.core.records import ParsedScore, ScoreStatus
from knowgen.core.text import count
from knowgen.judge_check.records import ChangeResult, Expected, Movement, Rate, Verdict

MIN_MOVE = 0.25
"""Minimum difference that counts as a move: half a step of the rubric's grid 0, 0.5, 1."""

MIN_SENSITIVITY = 0.9
"""Minimum sensitivity. A difference between two systems shrinks by the share of changes that is not detected: at 0.9, a
system that is right 10 points more often is still 9 points ahead."""

MIN_SPECIFICITY = 0.9
"""Minimum specificity. At 0.9, at most one point in ten of a dimension can come from errors of another dimension."""

MAX_FAILED = 0.1
"""Maximum share of failed scores. Failures are rarely spread evenly over images, so more of them bias the result."""

MIN_IMAGES = 10
"""Minimum number of scored images to find a change fit. The 95 % interval of 10 of 10 reaches down to 0.72, that of 5
of 5 to 0.57."""

MIN_IMAGES_UNFIT = 2
"""Minimum number of images to find a change unfit: one in ten judges at the limit misses the first image."""

FULL_MARKS = 1.0
"""Expected value of every dimension for the unchanged image."""

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Expectation:
    """What a judge must detect of a change.

    Attributes:
        name: Name of the change.
        words: Description of the change.
        falls: Dimensions that must fall.
        may: Dimensions that may fall.
        why_may: Why they may fall.
        unchanged: Whether this is the unchanged image, the baseline of the others.
    """

    name: str
    words: str
    falls: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    why_may: str = ""
    unchanged: bool = False


@dataclass(frozen=True)
class CheckedImage:
    """Scores of one changed image.

    Attributes:
        sample: Id of the original sample.
        change: Name of the change.
        scores: Parsed scores, one for each judge repeat.
    """

    sample: str
    change: str
    scores: tuple[ParsedScore, ...]


def wilson(hits: int, n: int) -> Rate:
    """Return a share with its 95 % score interval.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22: with
    z = 1.96 and p = hits / n, the ends are (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Args:
        hits: Number of hits.
        n: Number of trials.

    Raises:
        ValueError: `hits` is not between 0 and `n`.

    Example:
        >>> rate = wilson(10, 10)
        >>> rate.value, round(rate.low or 0, 2)
        (1.0, 0.72)
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n, got {hits} of {n}")
    if n == 0:
        return Rate()
    p, square = hits / n, _Z * _Z
    middle, half = p + square / (2 * n), _Z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    scale = 1 + square / n
    # At the ends of the scale the formula gives exactly 0 and 1 except for rounding.
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == n else (middle + half) / scale
    return Rate(hits=hits, n=n, value=p, low=low, high=high)


def mean_values(scores: Iterable[ParsedScore]) -> dict[str, float] | None:
    """Return the mean of each dimension over the scores that are ok; None if none is.

    A dimension is included if every score that is ok has a value for it.
    """
    good = [score.values for score in scores if score.status is ScoreStatus.OK]
    if not good:
        return None
    return {name: fmean(values[name] for values in good) for name in good[0] if all(name in one for one in good)}


def move(before: float, after: float) -> int:
    """Return -1 for a move down, 1 for a move up, 0 for none."""
    # A difference of exactly MIN_MOVE counts despite rounding errors.
    return 0 if abs(after - before) < MIN_MOVE - 1e-9 else 1 if after > before else -1


@dataclass(frozen=True)
class CheckedPair:
    """Values of an image before and after a change; for the unchanged image, the values before are full marks."""

    before: Mapping[str, float]
    after: Mapping[str, float]

    def detected(self, falls: Iterable[str]) -> bool:
        """Return whether every dimension that must fall moved down; one without a value before or after did not."""
        both = self.before.keys() & self.after.keys()
        return all(name in both and move(self.before[name], self.after[name]) == -1 for name in falls)

    def unmoved(self, stays: Iterable[str]) -> bool:
        """Return whether no dimension that must stay moved; one that gained or lost its value did move."""
        return all(self._unmoved(name) for name in stays)

    def _unmoved(self, name: str) -> bool:
        if name not in self.before or name not in self.after:
            return name not in self.before and name not in self.after
        return move(self.before[name], self.after[name]) == 0


def pair_of(expectation: Expectation, image: CheckedImage, baseline: CheckedImage | None) -> CheckedPair | None:
    """Return an image's values before and after its change; None if it or its unchanged image has none."""
    after = mean_values(image.scores)
    if after is None:
        return None
    if expectation.unchanged:
        return CheckedPair(dict.fromkeys(after, FULL_MARKS), after)
    before = mean_values(baseline.scores) if baseline is not None else None
    return None if before is None else CheckedPair(before, after)


def stays_of(expectation: Expectation, dimensions: Iterable[str]) -> list[str]:
    """Return the dimensions that must not move under a change."""
    return [name for name in dimensions if name not in expectation.falls | expectation.may]


CheckOutcome = Literal["right", "wrong", "failed", "not scored"]


@dataclass(frozen=True)
class CheckResult:
    """Result for one changed image.

    Attributes:
        outcome: `right` if all dimensions that must fall fell and all that must stay stayed.
        faults: Each dimension that did not, with what it did instead.
        before: Values of the unchanged image; full marks for the unchanged image itself; None if there are none.
        after: Values of the changed image; None if there are none.
    """

    outcome: CheckOutcome
    faults: tuple[tuple[str, str], ...] = ()
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None


def check_image(
    expectation: Expectation, image: CheckedImage, baseline: CheckedImage | None, dimensions: Sequence[str]
) -> CheckResult:
    """Return the result for one changed image, by the same rules as `judge_changes`."""
    after = mean_values(image.scores)
    if after is None:
        failed = any(score.status is ScoreStatus.FAILED for score in image.scores)
        return CheckResult("failed" if failed else "not scored")
    pair = pair_of(expectation, image, baseline)
    if pair is None:
        return CheckResult("not scored", (("", "its unchanged image was not scored"),), after=after)
    faults = [(name, _why_undetected(pair, name)) for name in dimensions if name in expectation.falls]
    faults = [(name, why) for name, why in faults if not pair.detected((name,))]
    faults += [
        (name, _why_moved(pair, name)) for name in stays_of(expectation, dimensions) if not pair.unmoved((name,))
    ]
    return CheckResult("wrong" if faults else "right", tuple(faults), pair.before, pair.after)


def _why_undetected(pair: CheckedPair, name: str) -> str:
    if name not in pair.before or name not in pair.after:
        return "has no value to compare"
    if pair.before[name] == 0:
        return "was 0 already and could not fall"
    return "rose" if move(pair.before[name], pair.after[name]) > 0 else "did not fall"


def _why_moved(pair: CheckedPair, name: str) -> str:
    if name not in pair.before or name not in pair.after:
        return "lost its value" if name in pair.before else "got a value"
    return "fell" if move(pair.before[name], pair.after[name]) < 0 else "rose"


def judge_changes(
    expectations: Sequence[Expectation], images: Sequence[CheckedImage], dimensions: Sequence[str]
) -> tuple[ChangeResult, ...]:
    """Return the result of every change.

    Args:
        expectations: The changes; exactly one of them is the unchanged image.
        images: Scores of the changed images, one entry for each sample and change.
        dimensions: Dimensions that the judge gives.

    Raises:
        ValueError: The number of unchanged images among the changes is not 1.
    """
    unchanged = [expectation.name for expectation in expectations if expectation.unchanged]
    if len(unchanged) != 1:
        raise ValueError(f"{len(unchanged)} changes are the unchanged image, expected 1")
    baselines = {one.sample: one for one in images if one.change == unchanged[0]}
    return tuple(
        _change_result(
            expectation, [one for one in images if one.change == expectation.name], baselines, tuple(dimensions)
        )
        for expectation in expectations
    )


def _change_result(
    expectation: Expectation,
    images: Sequence[CheckedImage],
    baselines: Mapping[str, CheckedImage],
    dimensions: tuple[str, ...],
) -> ChangeResult:
    falls = tuple(name for name in dimensions if name in expectation.falls)
    stays = stays_of(expectation, dimensions)
    pairs = [pair for one in images if (pair := pair_of(expectation, one, baselines.get(one.sample)))]
    ran = [score for one in images for score in one.scores if score.status in _RAN]
    scored = sum(mean_values(one.scores) is not None for one in images)
    result = ChangeResult(
        name=expectation.name,
        words=expectation.words,
        falls=falls,
        may=tuple(name for name in dimensions if name in expectation.may),
        why_may=expectation.why_may,
        images=len(images),
        n=len(pairs),
        failed=sum(score.status is ScoreStatus.FAILED for score in ran),
        scores=len(ran),
        no_baseline=scored - len(pairs),
        not_run=sum(not any(score.status in _RAN for score in one.scores) for one in images),
        movements=tuple(_movement(name, expectation, pairs) for name in dimensions),
        sensitivity=wilson(sum(pair.detected(falls) for pair in pairs), len(pairs)) if falls else None,
        specificity=wilson(sum(pair.unmoved(stays) for pair in pairs), len(pairs)) if stays else None,
    )
    applies = bool(falls) or not expectation.falls
    verdict, reason = _verdict(result) if applies else ("not applicable", "the judge gives no dimension that must fall")
    return result.model_copy(update={"verdict": verdict, "reason": reason})


_RAN = (ScoreStatus.OK, ScoreStatus.FAILED)


def _movement(name: str, expectation: Expectation, pairs: Sequence[CheckedPair]) -> Movement:
    both = [(pair.before[name], pair.after[name]) for pair in pairs if name in pair.before and name in pair.after]
    expected: Expected = "falls" if name in expectation.falls else "may fall" if name in expectation.may else "stays"
    if not both:
        return Movement(dimension=name, expected=expected)
    moves = [move(before, after) for before, after in both]
    return Movement(
        dimension=name,
        expected=expected,
        n=len(both),
        down=moves.count(-1) / len(both),
        up=moves.count(1) / len(both),
        unchanged=moves.count(0) / len(both),
        mean=fmean(after - before for before, after in both),
        floored=sum(before == 0 for before, _ in both),
    )


def _verdict(result: ChangeResult) -> tuple[Verdict, str]:
    """Compare the figures of a change with the limits.

    A change is unfit if a whole interval is beyond a limit, however few images there are, and fit if all limits are met
    with enough images. Otherwise there are too few images to decide.
    """
    unfit: list[str] = []
    uncertain: list[str] = []
    rates = (
        ("sensitivity", result.sensitivity, MIN_SENSITIVITY),
        ("specificity", result.specificity, MIN_SPECIFICITY),
    )
    for name, rate, minimum in rates:
        if rate is not None and rate.value is not None and rate.high is not None and rate.value < minimum:
            words = f"{name} {rate.value:.3f} on {count(rate.n, 'image')} is below {minimum}"
            certain = rate.high < minimum and rate.n >= MIN_IMAGES_UNFIT
            (unfit if certain else uncertain).append(words)
    failing = wilson(result.failed, result.scores)
    if failing.low is not None and result.failed > MAX_FAILED * result.scores:
        words = f"{result.failed} of {result.scores} scores failed, more than one in ten"
        certain = failing.low > MAX_FAILED and failing.n >= MIN_IMAGES_UNFIT
        (unfit if certain else uncertain).append(words)
    if unfit:
        return "unfit", "; ".join([*unfit, *uncertain])
    if uncertain:
        return "n too small", "; ".join(f"{words}, possibly by chance" for words in uncertain)
    if result.n < MIN_IMAGES:
        return "n too small", f"{count(result.n, 'image')} scored, {MIN_IMAGES} needed"
    return "fit", ""


def plain_name(change: str) -> str:
    """Return the name of a change for a sentence."""
    return "unchanged images" if change == "nothing" else change


def overall(changes: Sequence[ChangeResult]) -> tuple[bool, str]:
    """Return whether a judge is fit for use, and why: it must be fit for every change that applies to it."""
    applying = [change for change in changes if change.verdict != "not applicable"]
    for verdict, words in (("unfit", "it fails on"), ("n too small", "there are too few images to decide about")):
        names = [change for change in applying if change.verdict == verdict]
        if names:
            return False, f"{words} {', '.join(plain_name(change.name) for change in names)}"
    if not any(change.falls for change in applying):
        return False, "it gives no dimension that a change must lower"
    return True, f"it is fit for all {len(applying)} changes"
