"""Which parts of the samples get figures of their own, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import GROUPS, UNKNOWN_GROUP
from knowgen.stats.combine import Mask
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import Coverage
from knowgen.stats.values import STATES, Unit, Values

_USUAL = ("easy", "medium", "hard")
CATEGORIES = tuple(category for members in GROUPS.values() for category in members)


@dataclass(frozen=True)
class SampleSubset:
    """A part of the samples.

    Attributes:
        kind: all, group, category or difficulty.
        name: Empty for all.
        members: Shape (N,): the samples in it, which its coverage counts.
        counted: Shape (N,): those of them that its figures may rest on.
    """

    kind: str
    name: str
    members: Mask
    counted: Mask


def group_names(units: Sequence[Unit]) -> NDArray[np.str_]:
    """Returns the group of each sample, shape (N,)."""
    return np.array([unit.group for unit in units], dtype=np.str_)


def parts_of(units: Sequence[Unit], protocol: ScoringProtocol) -> list[SampleSubset]:
    """Lists the parts in the order of a table: the whole, groups, categories, difficulties.

    Samples of an unknown category count for the whole only where the protocol says that they count like any other.
    Where it omits them they count nowhere and have no rows; else they have a row as a group and as categories, and
    count for their difficulty.
    """
    groups = group_names(units)
    known = groups != UNKNOWN_GROUP
    everyone = np.ones(len(units), dtype=bool)
    shown = known if protocol.unknown == "omit" else everyone
    parts = [SampleSubset("all", "", everyone, everyone if protocol.unknown == "count" else known)]
    for group in (*GROUPS, UNKNOWN_GROUP):
        members = groups == group
        wanted = protocol.empty_group == "zero" if group in GROUPS else False
        if (members & shown).any() or wanted:
            parts.append(SampleSubset("group", group, members, members & shown))
    for kind, names, order in (
        ("category", [unit.category for unit in units], CATEGORIES),
        ("difficulty", [unit.difficulty for unit in units], _USUAL),
    ):
        column = np.array(names, dtype=np.str_)
        for name in in_order({name for name, show in zip(names, shown, strict=True) if show}, order):
            members = column == name
            parts.append(SampleSubset(kind, name, members, members & shown))
    return [part for part in parts if part.name or part.kind != "difficulty"]


def counted_states(values: Values, part: SampleSubset) -> Coverage:
    """Return what became of the scores of those samples that count for the figures of a part."""
    counts = dict(zip(STATES, values.coverage[part.counted].sum(axis=0).tolist(), strict=False))
    return Coverage(expected=sum(counts.values()), **counts)


def in_order(names: set[str], order: Sequence[str]) -> list[str]:
    """Sorts names: those of a fixed order first, all others after them by name."""
    return [name for name in order if name in names] + sorted(names - set(order))
