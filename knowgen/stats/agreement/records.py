"""How far raters agree: every coefficient with its interval and its count."""

from __future__ import annotations

from pydantic import Field

from knowgen.core.records import Record
from knowgen.stats.summary import Figure


class DimensionAgreement(Record):
    """Two raters on one dimension.

    Attributes:
        exact: Share of pictures on which both gave the same value.
        kappa: Cohen's kappa with quadratic weights, in [-1, 1].
        alpha: Krippendorff's alpha of the two, interval metric, at most 1.
        only_first: Pictures that the first rated and the second did not: not applicable, failed or left blank.
        only_second: The other way round.
    """

    exact: Figure
    kappa: Figure
    alpha: Figure
    only_first: int = 0
    only_second: int = 0


class PairAgreement(Record):
    """Two raters.

    Attributes:
        first: A scorer's label, a panel's, or `human` with the rater's name.
        second: The other.
        dimensions: Those that both rate.
    """

    first: str
    second: str
    dimensions: dict[str, DimensionAgreement]


class RankAgreement(Record):
    """Do two scorers put the systems in the same order?

    Attributes:
        first: A scorer's label.
        second: The other.
        samples: Samples that every system has a figure for under both.
        kendall: Kendall's tau-b of the systems' headline figures; its n counts systems.
        spearman: Spearman's rank correlation of the same.
    """

    first: str
    second: str
    samples: int
    kendall: Figure
    spearman: Figure


class Agreement(Record):
    """How far the raters of one or more runs agree.

    Attributes:
        systems: Names of the runs.
        task: Name of their task.
        task_version: Its version.
        protocol: Says which reading of a judgement counts, and how systems are ranked.
        raters: Scorers first, then people.
        pairs: Every two raters that share a dimension.
        together: Krippendorff's alpha of all raters, by dimension; empty for two raters.
        ranks: Every two scorers, when there are several systems.
        notes: What a reader must know.
    """

    systems: tuple[str, ...]
    task: str = ""
    task_version: str = ""
    protocol: str
    raters: tuple[str, ...]
    pairs: tuple[PairAgreement, ...]
    together: dict[str, Figure] = Field(default_factory=dict)
    ranks: tuple[RankAgreement, ...] = ()
    notes: tuple[str, ...] = ()
