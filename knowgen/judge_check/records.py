"""Records of a judge check: how each dimension moved under each change, and whether the judge is fit."""

from __future__ import annotations

from typing import Literal

from knowgen.core.records import Record

Verdict = Literal["fit", "unfit", "n too small", "not applicable"]
Expected = Literal["falls", "may fall", "stays"]


class Rate(Record):
    """A share with its Wilson 95 % interval.

    Attributes:
        hits: Number of hits.
        n: Number of trials.
        value: Share of hits; None if n is 0.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    hits: int = 0
    n: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Movement(Record):
    """How one dimension moved under one change.

    Attributes:
        dimension: Name of the dimension.
        expected: Whether it must fall, may fall or must stay.
        n: Number of images with a value before and after.
        down: Share that moved down; None without images.
        up: Share that moved up.
        unchanged: Share that did not move.
        mean: Mean change, after minus before.
        floored: Number of images whose value before was 0, so that it could not fall.
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
    """Result of one change.

    Attributes:
        name: Name of the change.
        words: Description of the change.
        falls: Dimensions of the judge that must fall.
        may: Dimensions of the judge that may fall.
        why_may: Why they may fall.
        images: Number of changed images.
        n: Number of images with scores both unchanged and changed.
        failed: Number of failed scores.
        scores: Number of scores that ran, including failed ones.
        no_baseline: Number of scored images whose unchanged image has no score.
        not_run: Number of images without any score.
        movements: Movement of each dimension.
        sensitivity: Share of images whose change was detected; None if no dimension must fall.
        specificity: Share of images in which nothing else moved; None if no dimension must stay.
        verdict: Whether the judge is fit for this change.
        reason: Why it is not fit; empty if it is.
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
        scorer_version: Version of the judge.
        scorer_note: Note on the judge.
        judges: Model names returned by its endpoint.
        task: Name of the changed task.
        task_version: Version of the changed task.
        protocol: Scoring protocol that decides which parsed score counts.
        seed: Seed of the changes.
        samples: Number of changed samples.
        judge_repeats: Number of scores per image; their mean is compared.
        dimensions: Dimensions of the judge.
        changes: Result of each change.
        fit: Whether the judge is fit for every change that applies to it.
        because: Reason in a few words.
        cost: Cost in US dollars; None if a price is not known.
        seconds: Time in seconds.
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

    @property
    def found_unfit(self) -> bool:
        """Whether it is unfit for a change; an undecided judge is neither fit nor unfit."""
        return any(change.verdict == "unfit" for change in self.changes)
