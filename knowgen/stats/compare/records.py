"""The outcome of a paired comparison: every difference with its interval, and what it rests on."""

from __future__ import annotations

from knowgen.core.records import Record
from knowgen.stats.summary import OVERALL


class FigureDifference(Record):
    """A figure of two systems over the same samples, and the difference b - a.

    Attributes:
        a: Figure of the first system, None where there is nothing to average.
        b: Figure of the second.
        value: b - a, in [-1, 1].
        low: Lower end of the 95 % interval of the difference, None where none is given.
        high: Upper end.
        p: Two-sided bootstrap p-value of no difference, in (0, 1]; it goes with the interval, None where there is none.
        p_permutation: Two-sided p-value of the paired permutation test, in (0, 1]: the one to quote.
        effect: Standardised mean difference of the pairs, d_z; None where all differ by the same.
        standard_error: Of the difference, None where there is no interval.
        detectable: Smallest true difference that a test at 5 % finds in 80 % of benchmarks of this size.
        n: Samples it rests on.
        note: Why there is no value or no interval.
    """

    a: float | None = None
    b: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_permutation: float | None = None
    effect: float | None = None
    standard_error: float | None = None
    detectable: float | None = None
    n: int = 0
    note: str = ""


class ComparedSlice(Record):
    """Differences over a part of the samples.

    Attributes:
        kind: all, group, category or difficulty.
        name: The part; empty for all.
        samples: Paired samples in it.
        figures: By dimension, and `overall`.
    """

    kind: str
    name: str = ""
    samples: int = 0
    figures: dict[str, FigureDifference]


class Comparison(Record):
    """Two systems compared over the samples that both have a figure for.

    Attributes:
        a: Name of the first system, the baseline.
        b: Name of the second; differences are b - a.
        task: Name of the task.
        task_version: Its version.
        scorer: Label of the scorer.
        scorer_note: What tables say beside its figures.
        protocol: Name of the protocol.
        protocol_version: Version of its arithmetic.
        judges: Model names that the judges' endpoints returned, over both systems.
        dimensions: In the order of the table.
        slices: The whole first, then groups, categories, difficulties.
        paired: Samples that the comparison rests on.
        better: Paired samples on which b is above a.
        equal: Paired samples on which they are level.
        worse: Paired samples on which b is below a.
        relabellings: Exchanges of labels that the headline's permutation test looked at; 0 for no test.
        exact: Were these all there are?
        p_holm: The headline's permutation p-value, corrected for all comparisons made together (Holm).
        family: How many these were.
        only_a: Ids of samples that only the first system was asked.
        only_b: Ids of samples that only the second system was asked.
        unscored: Ids of common samples without a figure in one of them, left out on both sides.
        no_result: Why there is no result, such as `first: 43 of 48 scores failed`: one of the systems lacks too many
            scores. No figure has a value then. Empty where both have enough.
        notes: What a reader must know.
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
    relabellings: int = 0
    exact: bool = False
    p_holm: float | None = None
    family: int = 1
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    no_result: str = ""
    notes: tuple[str, ...] = ()

    def slice(self, kind: str = "all", name: str = "") -> ComparedSlice:
        """Returns one part.

        Raises:
            KeyError: There is no such part.
        """
        for part in self.slices:
            if part.kind == kind and part.name == name:
                return part
        raise KeyError(f"{kind} {name}".strip())

    @property
    def headline(self) -> FigureDifference:
        """The difference of the K-Scores."""
        return self.slice().figures[OVERALL]
