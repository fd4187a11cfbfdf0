"""Summary of a run: every figure with its interval, sample count and coverage. Read by reports and boards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from pydantic import Field

from knowgen.core.records import Record

OVERALL = "overall"

TOO_SMALL = "n too small"
"""Note of a figure without an interval because a group has too few samples or values."""

ALL_EQUAL = "all values equal"
"""Note of a figure without an interval because its values do not vary, so that their spread is not known."""

TOO_FEW_DIFFERENT = "too few different values"
"""Note of a figure without an interval because nearly all of its samples have the same value."""


def is_part(selection: str) -> bool:
    """Return whether the label of a selection is that of only a part of a task.

    Example:
        >>> is_part("limit 8 (3f2a5b6c7d8e)"), is_part("all 48")
        (True, False)
    """
    return bool(selection) and not selection.startswith("all")


class Figure(Record):
    """A figure with its interval.

    Attributes:
        value: Value in [0, 1]; None if there are no scores, or too few for a result.
        low: Lower end of the 95 % interval; None without an interval.
        high: Upper end of the interval.
        n: Number of samples the figure is computed from.
        note: Reason for having no value or no interval, such as "n too small".
        partial: Mean over the scores that exist, if they are too few for a value. It is not a result.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""
    partial: float | None = None


class Coverage(Record):
    """State of every expected score; the states from `scored` to `not_applicable` add up to `expected`.

    Attributes:
        expected: Number of expected scores: samples x repeats x judge repeats.
        scored: Scores with values.
        generation_failed: Scores without an image because the generation failed by itself.
        generation_refused: Scores without an image because the generation was refused.
        generation_unavailable: Scores without an image because the generation failed for reasons outside the system: a
            service, account, network or machine. They are missing, and say nothing about the system.
        generation_not_run: Scores without an image because the generation has not run.
        score_failed: Scores that failed although there is an image.
        score_refused: Scores that the judge or its content filter refused although there is an image.
        score_not_run: Scores that have not run although there is an image.
        not_applicable: Scores that the scorer cannot give because the sample lacks what it needs.
        scored_text: Scores with a value for text accuracy.
    """

    expected: int = 0
    scored: int = 0
    generation_failed: int = 0
    generation_refused: int = 0
    generation_unavailable: int = 0
    generation_not_run: int = 0
    score_failed: int = 0
    score_refused: int = 0
    score_not_run: int = 0
    not_applicable: int = 0
    scored_text: int = 0


class AgentCounts(Record):
    """What became of the answers of an agent, one for each sample and repeat.

    The states from `answered` to `not_run` add up to `expected`. They say nothing about the images: an image may fail
    where there is an answer.

    Attributes:
        expected: Number of expected answers: samples x repeats.
        answered: Answers.
        none: Searches that ended without an answer, which is a result of the agent.
        failed: Answers that failed because of the agent.
        unavailable: Answers that failed for reasons outside the system.
        not_run: Answers that are still to come.
        endings: Number of answers by how the agent ended, in the terms of its own protocol.
        fallbacks: Images whose answer was not used: generated from the sample's own prompt, or not at all.
    """

    expected: int = 0
    answered: int = 0
    none: int = 0
    failed: int = 0
    unavailable: int = 0
    not_run: int = 0
    endings: dict[str, int] = Field(default_factory=dict)
    fallbacks: int = 0


class RefusedScores(Record):
    """Scores that the judge refused, and how far they could move the headline.

    A judge that withholds the worst images raises the figure, so the figure is given with its bounds.

    Attributes:
        scores: Number of refused scores.
        lowest: The headline if each of them counted 0 in every dimension; the worst case.
        highest: The headline if each of them counted 1.
    """

    scores: int
    lowest: float
    highest: float


class Slice(Record):
    """Figures of a subset of the samples.

    Attributes:
        kind: all, group, category, difficulty, judge if more than one judge model answered, or answer if an agent's
            answers were used for some images (`used`) and not for others (`fallback`).
        name: Name of the subset, such as `science_and_knowledge`; empty for all.
        samples: Number of samples in the subset.
        figures: Figure of each dimension, and `overall`.
        coverage: Coverage of the subset.
    """

    kind: str
    name: str = ""
    samples: int = 0
    figures: dict[str, Figure]
    coverage: Coverage = Coverage()


class _Subset(Protocol):
    """A record of a subset of the samples."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...


_SubsetT = TypeVar("_SubsetT", bound=_Subset)


def find_subset(parts: Iterable[_SubsetT], kind: str, name: str) -> _SubsetT:
    """Return the record of a subset.

    Raises:
        KeyError: No such subset.
    """
    for part in parts:
        if part.kind == kind and part.name == name:
            return part
    raise KeyError(f"{kind} {name}".strip())


class Summary(Record):
    """All figures of one run for one scorer under one protocol.

    Attributes:
        system: Name of the generator in tables.
        task: Name of the task.
        task_version: Version of the task.
        scorer: Label of the scorer.
        scorer_version: Version of the scorer's rubric, arithmetic and parser.
        scorer_note: Note on the scorer, shown beside its figures.
        judges: Model names returned by the judge's endpoint; more than one causes a warning.
        protocol: Name of the scoring protocol.
        protocol_version: Version of the protocol's arithmetic.
        selection: Label of the selected samples, such as `all 48`.
        repeats: Number of images per sample.
        judge_repeats: Number of scores per image.
        dimensions: Dimensions in the order of the table.
        slices: Figures of the whole first, then of groups, categories and difficulties.
        no_result: Reason for having no result, such as `43 of 48 scores failed`; empty if the coverage suffices.
            If it is set, figures are partial under `strict`, and kept with a note under the published arithmetic.
        answers: What became of the answers of an agent; None in a run without an agent.
        refused: Scores that the judge refused, with the bounds of the headline; None if it refused none.
        fit_for_board: Whether the summary may appear on a board; if not, `notes` gives the reasons.
        notes: Caveats: N/A decided per image, an empty group, unknown categories, several judge models.
        cost: Cost of generation and scoring in US dollars; None if a price is not known.
        seconds: Wall time of the run in seconds; None if not known.
    """

    system: str = ""
    task: str = ""
    task_version: str = ""
    scorer: str = ""
    scorer_version: str = ""
    scorer_note: str = ""
    judges: tuple[str, ...] = ()
    protocol: str
    protocol_version: str = ""
    selection: str = ""
    repeats: int = 1
    judge_repeats: int = 1
    dimensions: tuple[str, ...]
    slices: tuple[Slice, ...]
    no_result: str = ""
    answers: AgentCounts | None = None
    refused: RefusedScores | None = None
    fit_for_board: bool = True
    notes: tuple[str, ...] = ()
    cost: float | None = None
    seconds: float | None = None

    def slice(self, kind: str = "all", name: str = "") -> Slice:
        """Return the slice of a subset.

        Raises:
            KeyError: No such subset.
        """
        return find_subset(self.slices, kind, name)

    @property
    def headline(self) -> Figure:
        """The `overall` of the whole, which is the K-Score for the four KnowGen dimensions.

        Below the minimum coverage of `strict` it has no value and a note with the reason. Under `official` it keeps its
        value, and `no_result` gives the reason.
        """
        return self.slice().figures[OVERALL]
