"""What the score of one row counts as under a protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.records import Row
from knowgen.stats.combine import sample_overall
from knowgen.stats.protocol import EXCLUDED, ScoringProtocol, counts_as
from knowgen.stats.values import STATES, read_values


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
