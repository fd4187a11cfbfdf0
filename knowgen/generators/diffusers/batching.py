"""Which requests share a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

R = TypeVar("R")

Shape = Hashable


def grouped(requests: Sequence[R], shape: Callable[[R], Shape]) -> Iterator[tuple[Shape, list[R]]]:
    """Yield the requests of each shape, in the order in which shapes first come."""
    groups: dict[Shape, list[R]] = {}
    for request in requests:
        groups.setdefault(shape(request), []).append(request)
    yield from groups.items()
