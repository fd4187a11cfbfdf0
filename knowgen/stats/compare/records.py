"""Records of a paired comparison: every difference with its interval, p-values and sample count."""

from __future__ import annotations

from knowgen.core.records import Record
from knowgen.stats.agent_figures import AgentFigures
from knowgen.stats.summary import OVERALL, find_subset

SIGNIFICANCE = 0.05
"""Significance level of the test."""


class FigureDifference(Record):
    """A figure of two systems over the same samples, and its difference b - a.

    Attributes:
        a: Figure of the first system; None without a value.
        b: Figure of the second system; None without a value.
        value: Difference b - a, in [-1, 1].
        low: Lower end of the 95 % interval of the difference; None without an interval.
        high: Upper end of the interval.
        p: Two-sided p-value of the paired permutation test, in (0, 1].
        p_holm: The same, corrected for the number of subsets of its kind (Holm); only for the overall of a group,
            category or difficulty.
        effect: Standardised mean difference of the pairs, d_z; None if all differences are equal.
        standard_error: Standard error of the difference; None without an interval.
        detectable: Smallest true difference that a test at 5 % detects with 80 % power at this sample size.
        n: Number of samples the difference is computed from.
        note: Reason for having no value or no interval.
    """

    a: float | None = None
    b: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect: float | None = None
    standard_error: float | None = None
    detectable: float | None = None
    n: int = 0
    note: str = ""


class ComparedSlice(Record):
    """Differences over a subset of the samples.

    Attributes:
        kind: all, group, category or difficulty.
        name: Name of the subset; empty for all.
        samples: Number of paired samples in the subset.
        figures: Difference of each dimension, and of `overall`.
    """

    kind: str
    name: str = ""
    samples: int = 0
    figures: dict[str, FigureDifference]


class Comparison(Record):
    """Comparison of two systems over the samples for which both have a score.

    Attributes:
        a: Name of the first system, the baseline.
        b: Name of the second system; differences are b - a.
        task: Name of the task.
        task_version: Version of the task.
        scorer: Label of the scorer.
        scorer_note: Note on the scorer, shown beside its figures.
        protocol: Name of the scoring protocol.
        protocol_version: Version of the protocol's arithmetic.
        judges: Model names returned by the judges' endpoints, over both systems.
        dimensions: Dimensions in the order of the table.
        slices: Differences of the whole first, then of groups, categories and difficulties.
        paired: Number of paired samples that count for the headline.
        better: Number of paired samples on which b is above a; 0 without a result.
        equal: Number of paired samples on which both are equal; 0 without a result.
        worse: Number of paired samples on which b is below a; 0 without a result.
        better_on: Ids of the samples on which b is above a, the largest difference first.
        worse_on: Ids of the samples on which b is below a, the largest difference first.
        relabellings: Number of exchanges evaluated by the permutation test of the headline; 0 for no test.
        exact: Whether these are all possible exchanges.
        p_holm: p-value of the headline, corrected for all comparisons of the family (Holm).
        family: Number of comparisons in the family.
        only_a: Ids of samples that only the first system has.
        only_b: Ids of samples that only the second system has.
        selection_a: Label of the samples of the first run, such as `all 48` or `limit 8 (3f2a…)`.
        selection_b: Label of the samples of the second run.
        unscored: Ids of common samples without a score in one of the systems; left out of both.
        no_result: Reason for having no result, such as `first: 43 of 48 scores failed`, if a system has too few scores;
            no figure has a value then. Empty if both have enough.
        notes: Caveats of the comparison.
        agent_a: What the agent of the first system did; None without an agent.
        agent_b: What the agent of the second system did; None without an agent.
    """

    a: str = ""
    b: str = ""
    task: str = ""
    task_version: str = ""
    scorer: str = ""
    scorer_note: str = ""
    protocol: str
    protocol_version: str = ""
    judges: tuple[str, ...] = ()
    dimensions: tuple[str, ...]
    slices: tuple[ComparedSlice, ...]
    paired: int = 0
    better: int = 0
    equal: int = 0
    worse: int = 0
    better_on: tuple[str, ...] = ()
    worse_on: tuple[str, ...] = ()
    relabellings: int = 0
    exact: bool = False
    p_holm: float | None = None
    family: int = 1
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    selection_a: str = ""
    selection_b: str = ""
    unscored: tuple[str, ...] = ()
    no_result: str = ""
    notes: tuple[str, ...] = ()
    agent_a: AgentFigures | None = None
    agent_b: AgentFigures | None = None

    def slice(self, kind: str = "all", name: str = "") -> ComparedSlice:
        """Return the differences of a subset.

        Raises:
            KeyError: No such subset.
        """
        return find_subset(self.slices, kind, name)

    @property
    def headline(self) -> FigureDifference:
        """Difference of the `overall` of the whole; the K-Score for the four KnowGen dimensions."""
        return self.slice().figures[OVERALL]
