"""What a score, a failed generation and a failed score count as: the words of a protocol, and the values of one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.errors import UsageError
from knowgen.core.records import Row
from knowgen.stats.combine import sample_overall
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.values import STATES, read_values

EXCLUDED = "excluded"
"""What a score counts as that is left out of every figure."""


def counts_as(state: str, protocol: ScoringProtocol) -> str:
    """Return what an expected score without values counts as under a protocol: `0` or `excluded`.

    Args:
        state: One of `knowgen.stats.values.STATES`, not `scored`.
        protocol: Scoring protocol.
    """
    own = state in ("generation_failed", "generation_refused")
    return "0" if own and protocol.failed_generation == "zero" else EXCLUDED


def counting_words(protocol: ScoringProtocol | str) -> str:
    """Return in one line what everything counts as that has no score; the name of an unknown protocol gives no line.

    Example:
        >>> counting_words("official")[:60]
        'counting: a failed or refused generation is left out, as in '
    """
    try:
        rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    except UsageError:
        return ""
    own = "counts 0" if rule.failed_generation == "zero" else "is left out, as in the published arithmetic"
    return (
        f"counting: a failed or refused generation {own}; one that failed for reasons outside the system, and a failed "
        f"or refused score, are missing and left out; below {100 * rule.min_coverage:g} % of the scores a run has no "
        f"{'result' if rule.below_coverage == 'withhold' else 'complete result'}"
    )


@dataclass(frozen=True)
class CountedScore:
    """What one score of one image counts as.

    Attributes:
        values: Value of each dimension that counts.
        overall: Weighted mean of the values, the K-Score of the sample for the four KnowGen dimensions; None if the
            score is left out.
        counts_as: `excluded`, `0` for a failure of the system that counts 0, or the overall with up to four decimals.
    """

    values: dict[str, float]
    overall: float | None
    counts_as: str


def counted_score(row: Row, protocol: ScoringProtocol, dimensions: Sequence[str]) -> CountedScore:
    """Return what one row counts as under a protocol.

    The mean of the values of each dimension over the rows of a group is the figure of the group, if every sample has
    one image and one score.
    """
    read = read_values([row], protocol, dimensions)
    state = STATES[int(read.coverage[0, : len(STATES)].argmax())]
    cells = zip(dimensions, read.table[0, 0].tolist(), strict=True)
    values = {name: value for name, value in cells if not math.isnan(value)}
    overall = sample_overall(values, dimensions, protocol) if values else None
    if overall is None:
        return CountedScore({}, None, EXCLUDED)
    return CountedScore(values, overall, str(round(overall, 4)) if state == "scored" else counts_as(state, protocol))
