"""Pair the values of two systems by sample."""

from __future__ import annotations

import numpy as np

from knowgen.core.errors import DataError
from knowgen.core.text import count
from knowgen.stats.aggregate import present
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.values import Floats, Unit, Values


class PairedValues:
    """Values of two systems over the same samples in the same order.

    Attributes:
        values: All values of a and of b.
        units: The N samples for which both have a score.
        tables: Values of a and of b, shape (slices, N, dimensions) each; the number of slices may differ.
        only: Ids of samples that only a has, and that only b has.
        unscored: Ids of common samples without a score in a or b.
    """

    def __init__(self, a: Values, b: Values, protocol: ScoringProtocol, dimensions: tuple[str, ...]) -> None:
        self.values, self.protocol, self.dimensions = (a, b), protocol, dimensions
        places = [{unit.id: index for index, unit in enumerate(one.units)} for one in self.values]
        self.only = tuple(tuple(key for key in places[i] if key not in places[1 - i]) for i in (0, 1))
        common = [unit for unit in a.units if unit.id in places[1]]
        for unit in common:
            check_same(unit, b.units[places[1][unit.id]])
        rated = [np.isfinite(present(one.table)[:, -1]) for one in self.values]
        both = [unit for unit in common if all(rated[i][places[i][unit.id]] for i in (0, 1))]
        paired_ids = {unit.id for unit in both}
        self.unscored = tuple(unit.id for unit in common if unit.id not in paired_ids)
        self.units = tuple(both)
        self.tables: tuple[Floats, ...] = tuple(
            one.table[:, [places[i][unit.id] for unit in both], :] for i, one in enumerate(self.values)
        )


def check_same(first: Unit, second: Unit) -> None:
    if first != second:
        raise DataError(
            "the two runs have different categories, difficulties or values of text_required",
            where=f"sample {first.id!r}",
            fix="compare runs of the same task version",
        )


def pair_caveats(pair: PairedValues) -> list[str]:
    """Return the caveats of a comparison, one line each."""
    notes = [pair.protocol.not_for_board] if pair.protocol.not_for_board else []
    for ids, side in zip(pair.only, ("first", "second"), strict=True):
        if ids:
            notes.append(f"{count(len(ids), 'sample')} only in the {side} run: left out")
    if pair.unscored:
        notes.append(f"{count(len(pair.unscored), 'sample')} without a score in one of the runs: left out of both")
    judges = [set(values.judges) for values in pair.values]
    if judges[0] != judges[1]:
        names = " and ".join(", ".join(sorted(one)) or "no model name" for one in judges)
        notes.append(f"the judge models of the runs differ: {names}")
    shape = [(values.repeats, values.judge_repeats) for values in pair.values]
    if shape[0] != shape[1]:
        notes.append("the runs differ in repeats or judge repeats; each run is averaged over its own repeats")
    return notes
