"""What a check of a judge comes to: how each dimension moved under each change, and whether the judge is fit."""

from __future__ import annotations

from typing import Literal

from knowgen.core.records import Record

Verdict = Literal["fit", "unfit", "n too small", "not applicable"]
Expected = Literal["falls", "may fall", "stays"]


class Rate(Record):
    """A share with its Wilson 95 % interval.

    Attributes:
        hits: Images that count.
        n: Out of so many.
        value: The share; None without images.
        low: Lower end of the interval.
        high: Upper end.
    """

    hits: int = 0
    n: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Movement(Record):
    """How one dimension moved under one change.

    Attributes:
        dimension: Its name.
        expected: Must it fall, may it, or must it stay?
        n: Images with a value both before and after.
        down: Share that moved down; None without images.
        up: Share that moved up.
        unchanged: Share that did neither.
        mean: Mean change, after less before.
        floored: Images whose value was 0 before, so that it could not fall.
    """

    dimension: str
    expected: Expected
    n: int = 0
    down: float | None = None
    up: float | None = None
    unchanged: float | None = None
    mean: float | None = None
    floored: int = 0


class ChangeResult(Record):
    """What a judge made of one change.

    Attributes:
        name: Of the change.
        words: What is done.
        falls: Dimensions that must fall, out of those the judge has.
        may: Dimensions that may.
        why_may: Why they may.
        images: Changed images.
        n: Images that were judged, and judged unchanged as well.
        failed: Scores that failed.
        scores: Scores that were made, failed ones among them.
        no_baseline: Images that were judged, but whose unchanged image was not.
        not_run: Images that were not judged at all.
        movements: One a dimension.
        sensitivity: Of the dimensions that must fall; None where none must.
        specificity: Of those that must stay; None where none must.
        verdict: Fit, unfit, or not to be told.
        reason: Why, when it is not fit.
    """

    name: str
    words: str
    falls: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    why_may: str = ""
    images: int = 0
    n: int = 0
    failed: int = 0
    scores: int = 0
    no_baseline: int = 0
    not_run: int = 0
    movements: tuple[Movement, ...] = ()
    sensitivity: Rate | None = None
    specificity: Rate | None = None
    verdict: Verdict = "n too small"
    reason: str = ""


class JudgeCheck(Record):
    """Whether a judge is fit for use, and why.

    Attributes:
        scorer: Label of the judge.
        scorer_version: Its version.
        scorer_note: What it says of itself.
        judges: Model names its endpoint returned.
        task: The world.
        task_version: Of the changed images.
        protocol: Which reading of the replies was taken.
        seed: Of the changes.
        samples: Samples that were changed.
        judge_repeats: Scores of each image; their mean is what moves.
        dimensions: That the judge gives.
        changes: One a change.
        fit: Is every change that applies found fit?
        because: Why, in a few words.
        cost: US dollars spent; None where a price is not known.
        seconds: Time spent.
    """

    scorer: str
    scorer_version: str = ""
    scorer_note: str = ""
    judges: tuple[str, ...] = ()
    task: str = ""
    task_version: str = ""
    protocol: str = "strict"
    seed: int = 0
    samples: int = 0
    judge_repeats: int = 1
    dimensions: tuple[str, ...] = ()
    changes: tuple[ChangeResult, ...] = ()
    fit: bool = False
    because: str = ""
    cost: float | None = None
    seconds: float | None = None
