"""Two systems brought to the same samples in the same order."""

from __future__ import annotations

import numpy as np

from knowgen.core.errors import DataError
from knowgen.core.text import count
from knowgen.stats.aggregate import present
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.values import Floats, Unit, Values


class PairedValues:
    """Two sets of values brought to the same samples in the same order.

    Attributes:
        values: As they were read, a and b.
        units: The samples that both have a figure for.
        tables: Shape (slices, N, dimensions) each; the number of slices may differ.
        only: Ids that only a or only b has.
        unscored: Common ids without a figure in one of them.
    """

    def __init__(self, a: Values, b: Values, protocol: ScoringProtocol, dimensions: tuple[str, ...]) -> None:
        self.values, self.protocol, self.dimensions = (a, b), protocol, dimensions
        places = [{unit.id: index for index, unit in enumerate(one.units)} for one in self.values]
        self.only = tuple(tuple(key for key in places[i] if key not in places[1 - i]) for i in (0, 1))
        common = [unit for unit in a.units if unit.id in places[1]]
        for unit in common:
            _check_same(unit, b.units[places[1][unit.id]])
        rated = [np.isfinite(present(one.table)[:, -1]) for one in self.values]
        both = [unit for unit in common if all(rated[i][places[i][unit.id]] for i in (0, 1))]
        kept = {unit.id for unit in both}
        self.unscored = tuple(unit.id for unit in common if unit.id not in kept)
        self.units = tuple(both)
        self.tables: tuple[Floats, ...] = tuple(
            one.table[:, [places[i][unit.id] for unit in both], :] for i, one in enumerate(self.values)
        )


def _check_same(first: Unit, second: Unit) -> None:
    if first != second:
        raise DataError(
            "the two runs disagree on its category, difficulty or text_required",
            where=f"sample {first.id!r}",
            fix="compare runs of the same task version",
        )


def notes_of_pair(pair: PairedValues) -> list[str]:
    """Returns what a reader of a comparison must know, each a line."""
    notes = [pair.protocol.not_for_board] if pair.protocol.not_for_board else []
    for ids, side in zip(pair.only, ("first", "second"), strict=True):
        if ids:
            notes.append(f"{count(len(ids), 'sample')} only in the {side} run: left out")
    if pair.unscored:
        notes.append(f"{count(len(pair.unscored), 'sample')} without a figure in one of the runs: left out of both")
    judges = [set(values.judges) for values in pair.values]
    if judges[0] != judges[1]:
        named = " and ".join(", ".join(sorted(one)) or "none named" for one in judges)
        notes.append(f"the runs were not judged by the same models: {named}")
    shape = [(values.repeats, values.judge_repeats) for values in pair.values]
    if shape[0] != shape[1]:
        notes.append("the runs differ in repeats or judge repeats; each is averaged over its own")
    return notes
