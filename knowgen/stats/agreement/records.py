"""Records of the agreement of raters: every coefficient with its interval and sample count."""

from __future__ import annotations

from pydantic import Field

from knowgen.core.records import Record
from knowgen.stats.summary import Figure


class DimensionAgreement(Record):
    """Agreement of two raters on one dimension.

    Attributes:
        exact: Share of images on which both have the same value.
        kappa: Cohen's kappa with quadratic weights, in [-1, 1].
        alpha: Krippendorff's alpha of the two with the interval metric, at most 1.
        only_first: Number of images that only the first rated; for the second they are N/A, failed or blank.
        only_second: Number of images that only the second rated.
    """

    exact: Figure
    kappa: Figure
    alpha: Figure
    only_first: int = 0
    only_second: int = 0


class PairAgreement(Record):
    """Agreement of two raters.

    Attributes:
        first: Label of a scorer or panel, or `human` with the rater's name.
        second: Label of the other rater.
        dimensions: Agreement on each dimension that both rate.
    """

    first: str
    second: str
    dimensions: dict[str, DimensionAgreement]


class RankAgreement(Record):
    """Agreement of two scorers on the order of the systems.

    Attributes:
        first: Label of a scorer.
        second: Label of the other scorer.
        samples: Number of samples for which every system has a score by both.
        kendall: Kendall's tau-b of the systems' headline figures; its n is the number of systems.
        spearman: Spearman's rank correlation of the same figures.
    """

    first: str
    second: str
    samples: int
    kendall: Figure
    spearman: Figure


class Agreement(Record):
    """Agreement of the raters of one or more runs.

    Attributes:
        systems: Names of the runs.
        task: Name of the task.
        task_version: Version of the task.
        protocol: Name of the scoring protocol that decides which parsed score counts and how systems are ranked.
        raters: Labels of the scorers, then of people.
        pairs: Agreement of each pair of raters that share a dimension.
        together: Krippendorff's alpha of all raters by dimension; empty for two raters.
        ranks: Rank agreement of each pair of scorers, if there are several systems.
        notes: Caveats of the figures.
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
