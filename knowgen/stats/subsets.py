"""Subsets of the samples that have figures, and their order."""

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

_DIFFICULTIES = ("easy", "medium", "hard")
CATEGORIES = tuple(category for members in GROUPS.values() for category in members)


@dataclass(frozen=True)
class SampleSubset:
    """A subset of the samples.

    Attributes:
        kind: all, group, category or difficulty.
        name: Name of the subset; empty for all.
        members: Samples in the subset, counted by its coverage, shape (N,).
        counted: Members that its figures are computed from, shape (N,).
    """

    kind: str
    name: str
    members: Mask
    counted: Mask


def group_names(units: Sequence[Unit]) -> NDArray[np.str_]:
    """Return the group of each sample, shape (N,)."""
    return np.array([unit.group for unit in units], dtype=np.str_)


def sample_subsets(units: Sequence[Unit], protocol: ScoringProtocol) -> list[SampleSubset]:
    """Return the subsets in the order of a table: the whole, groups, categories, difficulties.

    Samples of an unknown category count for the whole only if the protocol's `unknown` is `count`. If it is `omit` they
    count nowhere and have no rows. Otherwise they have rows as a group and as categories, and count for their
    difficulty.
    """
    groups = group_names(units)
    known = groups != UNKNOWN_GROUP
    everyone = np.ones(len(units), dtype=bool)
    shown = known if protocol.unknown == "omit" else everyone
    parts = [SampleSubset("all", "", everyone, everyone if protocol.unknown == "count" else known)]
    for group in (*GROUPS, UNKNOWN_GROUP):
        members = groups == group
        always_shown = group in GROUPS and protocol.empty_group == "zero"
        if (members & shown).any() or always_shown:
            parts.append(SampleSubset("group", group, members, members & shown))
    for kind, names, order in (
        ("category", [unit.category for unit in units], CATEGORIES),
        ("difficulty", [unit.difficulty for unit in units], _DIFFICULTIES),
    ):
        column = np.array(names, dtype=np.str_)
        for name in in_order({name for name, show in zip(names, shown, strict=True) if show}, order):
            members = column == name
            parts.append(SampleSubset(kind, name, members, members & shown))
    return [part for part in parts if part.name or part.kind != "difficulty"]


def counted_states(values: Values, part: SampleSubset) -> Coverage:
    """Return the coverage of the samples that the figures of a subset are computed from."""
    counts = dict(zip(STATES, values.coverage[part.counted].sum(axis=0).tolist(), strict=False))
    return Coverage(expected=sum(counts.values()), **counts)


def in_order(names: set[str], order: Sequence[str]) -> list[str]:
    """Return names sorted: first those in `order`, then all others alphabetically."""
    return [name for name in order if name in names] + sorted(names - set(order))
