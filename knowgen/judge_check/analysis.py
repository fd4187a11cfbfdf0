"""Is a judge fit for use? The arithmetic of what it made of known changes to known images.

Each sample is judged once unchanged (`nothing`) and once with each change. A dimension moved when its value lies at
least `MOVED` from the judge's own reading of the unchanged image of the same sample; for `nothing` itself, from full
marks. Over the images of a change:

    sensitivity = share in which every dimension that must fall moved down
    specificity = share in which no dimension that must stay moved, neither down nor up

A dimension that the judge gives 0 already in the unchanged image cannot fall further. Such a image counts as one in
which the change was not seen, and is counted under `floored` too: a judge that marks the truth itself down to nothing
shows nothing of a change. Scores that failed are in neither share and have a limit of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

from knowgen.core.records import ParsedScore, ScoreStatus
from knowgen.judge_check.records import ChangeResult, Expected, Movement, Rate, Verdict
from knowgen.stats.words import count

MOVED = 0.25
"""Least difference that counts as a move: half a step of the grid 0, 0.5, 1 that the rubric's values stand on."""

SENSITIVITY_LEAST = 0.9
"""Least share of seen changes. A difference between two systems shrinks by the share that is not seen: at 0.9, a system
that is right 10 points more often is still seen 9 points ahead."""

SPECIFICITY_LEAST = 0.9
"""Least share of images in which nothing else moved: at 0.9, at most one point in ten of a dimension's figure can
come from faults of another dimension."""

FAILED_MOST = 0.1
"""Largest share of failed scores; failures are seldom spread evenly over images, so that more of them bend the
figures of what is left."""

LEAST_PICTURES = 10
"""Fewest judged images a change is found fit on. Even without a miss the 95 % interval then reaches down to 0.72, and
with five it would reach down to 0.57."""

LEAST_AGAINST = 2
"""Fewest images that a change is found unfit on: of judges at the limit, one in ten misses the first."""

FULL = 1.0

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Expectation:
    """What a judge must make of a change.

    Attributes:
        name: Of the change.
        words: What is done.
        falls: Dimensions that must fall.
        may: Dimensions that may.
        why_may: Why they may.
        unchanged: Is it the unchanged image, with which the others are compared?
    """

    name: str
    words: str
    falls: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    why_may: str = ""
    unchanged: bool = False


@dataclass(frozen=True)
class CheckedImage:
    """What a judge made of one changed image.

    Attributes:
        sample: The sample that was changed.
        change: Name of the change.
        readings: One a score.
    """

    sample: str
    change: str
    readings: tuple[ParsedScore, ...]


def wilson(hits: int, n: int) -> Rate:
    """Return a share with its 95 % score interval.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22: with
    z = 1.96 and p = hits / n, the ends are (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Raises:
        ValueError: There are more hits than trials, or fewer than none.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n}")
    if n == 0:
        return Rate()
    p, square = hits / n, _Z * _Z
    middle, half = p + square / (2 * n), _Z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    scale = 1 + square / n
    # at the ends of the scale the formula gives 0 and 1 but for rounding
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == n else (middle + half) / scale
    return Rate(hits=hits, n=n, value=p, low=low, high=high)


def mean_values(readings: Iterable[ParsedScore]) -> dict[str, float] | None:
    """Return the mean of each dimension over the readings that succeeded; None where none did.

    A dimension counts when every reading that succeeded has a value for it.
    """
    good = [reading.values for reading in readings if reading.status is ScoreStatus.OK]
    if not good:
        return None
    return {name: fmean(values[name] for values in good) for name in good[0] if all(name in one for one in good)}


def move(before: float, after: float) -> int:
    """Return -1 for a move down, 1 for one up, 0 for none."""
    # a difference of exactly MOVED counts, whatever rounding makes of it
    return 0 if abs(after - before) < MOVED - 1e-9 else 1 if after > before else -1


@dataclass(frozen=True)
class CheckedPair:
    """A image's values before and after; the values before are full marks for the unchanged image itself."""

    before: Mapping[str, float]
    after: Mapping[str, float]

    def seen(self, falls: Iterable[str]) -> bool:
        """Did every dimension that must fall move down? One without a value before or after did not."""
        both = self.before.keys() & self.after.keys()
        return all(name in both and move(self.before[name], self.after[name]) == -1 for name in falls)

    def kept(self, stays: Iterable[str]) -> bool:
        """Did every dimension that must stay do so? One whose value came or went did not."""
        return all(self._kept(name) for name in stays)

    def _kept(self, name: str) -> bool:
        if name not in self.before or name not in self.after:
            return name not in self.before and name not in self.after
        return move(self.before[name], self.after[name]) == 0


def pair_of(expectation: Expectation, judged: CheckedImage, baseline: CheckedImage | None) -> CheckedPair | None:
    """Return a image's values before and after; None where it or its unchanged image has none."""
    after = mean_values(judged.readings)
    if after is None:
        return None
    if expectation.unchanged:
        return CheckedPair(dict.fromkeys(after, FULL), after)
    before = mean_values(baseline.readings) if baseline is not None else None
    return None if before is None else CheckedPair(before, after)


def stays_of(expectation: Expectation, dimensions: Iterable[str]) -> list[str]:
    """Return the dimensions that must stay under a change."""
    return [name for name in dimensions if name not in expectation.falls | expectation.may]


Outcome = Literal["right", "wrong", "failed", "not judged"]


@dataclass(frozen=True)
class CheckResult:
    """What a judge made of one changed image, for readers.

    Attributes:
        outcome: Right when what must fall fell and what must stay stayed.
        faults: Each dimension that did otherwise, with what it did.
        before: Values of the unchanged image; full marks for the unchanged image itself; None where there are none.
        after: Values of the changed image; None where there are none.
    """

    outcome: Outcome
    faults: tuple[tuple[str, str], ...] = ()
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None


def account(
    expectation: Expectation, judged: CheckedImage, baseline: CheckedImage | None, dimensions: Sequence[str]
) -> CheckResult:
    """Say what a judge made of one changed image, as `judge_changes` counts it."""
    after = mean_values(judged.readings)
    if after is None:
        failed = any(reading.status is ScoreStatus.FAILED for reading in judged.readings)
        return CheckResult("failed" if failed else "not judged")
    pair = pair_of(expectation, judged, baseline)
    if pair is None:
        return CheckResult("not judged", (("", "its unchanged image was not judged"),), after=after)
    faults = [(name, _why_unseen(pair, name)) for name in dimensions if name in expectation.falls]
    faults = [(name, why) for name, why in faults if not pair.seen((name,))]
    faults += [(name, _why_moved(pair, name)) for name in stays_of(expectation, dimensions) if not pair.kept((name,))]
    return CheckResult("wrong" if faults else "right", tuple(faults), pair.before, pair.after)


def _why_unseen(pair: CheckedPair, name: str) -> str:
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
    expectations: Sequence[Expectation], judged: Sequence[CheckedImage], dimensions: Sequence[str]
) -> tuple[ChangeResult, ...]:
    """Work out what a judge made of every change.

    Args:
        expectations: The changes; exactly one is the unchanged image.
        judged: One a sample and change.
        dimensions: That the judge gives.

    Raises:
        ValueError: There is not exactly one unchanged image among the changes.
    """
    unchanged = [expectation.name for expectation in expectations if expectation.unchanged]
    if len(unchanged) != 1:
        raise ValueError(f"{len(unchanged)} changes are the unchanged image")
    baselines = {one.sample: one for one in judged if one.change == unchanged[0]}
    return tuple(
        _change_result(
            expectation, [one for one in judged if one.change == expectation.name], baselines, tuple(dimensions)
        )
        for expectation in expectations
    )


def _change_result(
    expectation: Expectation,
    judged: Sequence[CheckedImage],
    baselines: Mapping[str, CheckedImage],
    dimensions: tuple[str, ...],
) -> ChangeResult:
    falls = tuple(name for name in dimensions if name in expectation.falls)
    stays = stays_of(expectation, dimensions)
    pairs = [pair for one in judged if (pair := pair_of(expectation, one, baselines.get(one.sample)))]
    made = [reading for one in judged for reading in one.readings if reading.status in _MADE]
    told = sum(mean_values(one.readings) is not None for one in judged)
    result = ChangeResult(
        name=expectation.name,
        words=expectation.words,
        falls=falls,
        may=tuple(name for name in dimensions if name in expectation.may),
        why_may=expectation.why_may,
        images=len(judged),
        n=len(pairs),
        failed=sum(reading.status is ScoreStatus.FAILED for reading in made),
        scores=len(made),
        no_baseline=told - len(pairs),
        not_run=sum(not any(reading.status in _MADE for reading in one.readings) for one in judged),
        movements=tuple(_movement(name, expectation, pairs) for name in dimensions),
        sensitivity=wilson(sum(pair.seen(falls) for pair in pairs), len(pairs)) if falls else None,
        specificity=wilson(sum(pair.kept(stays) for pair in pairs), len(pairs)) if stays else None,
    )
    applies = bool(falls) or not expectation.falls
    verdict, reason = _verdict(result) if applies else ("not applicable", "the judge gives no dimension it must move")
    return result.model_copy(update={"verdict": verdict, "reason": reason})


_MADE = (ScoreStatus.OK, ScoreStatus.FAILED)


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
    """Hold a change's figures against the limits.

    Unfit is what lies beyond a limit with its whole interval, however few images there are. Fit is what keeps every
    limit on enough images. What lies between cannot be told from so few.
    """
    unfit: list[str] = []
    unsure: list[str] = []
    rates = (
        ("sensitivity", result.sensitivity, SENSITIVITY_LEAST),
        ("specificity", result.specificity, SPECIFICITY_LEAST),
    )
    for name, rate, least in rates:
        if rate is not None and rate.value is not None and rate.high is not None and rate.value < least:
            words = f"{name} {rate.value:.3f} on {count(rate.n, 'image')} is below {least}"
            surely = rate.high < least and rate.n >= LEAST_AGAINST
            (unfit if surely else unsure).append(words)
    failing = wilson(result.failed, result.scores)
    if failing.low is not None and result.failed > FAILED_MOST * result.scores:
        words = f"{result.failed} of {result.scores} scores failed, more than one in ten"
        surely = failing.low > FAILED_MOST and failing.n >= LEAST_AGAINST
        (unfit if surely else unsure).append(words)
    if unfit:
        return "unfit", "; ".join([*unfit, *unsure])
    if unsure:
        return "n too small", "; ".join(f"{words}, but perhaps by chance" for words in unsure)
    if result.n < LEAST_PICTURES:
        return "n too small", f"{result.n} judged, {LEAST_PICTURES} are needed"
    return "fit", ""


def overall(changes: Sequence[ChangeResult]) -> tuple[bool, str]:
    """Return whether a judge is fit for use, and why: every change that applies to it must be found fit."""
    applying = [change for change in changes if change.verdict != "not applicable"]
    for verdict, words in (("unfit", "it is unfit for"), ("n too small", "there are too few images to tell for")):
        found = [change for change in applying if change.verdict == verdict]
        if found:
            return False, f"{words} {', '.join(change.name for change in found)}"
    if not any(change.falls for change in applying):
        return False, "it gives no dimension that any change must move"
    return True, f"it is fit for all {len(applying)} changes"
