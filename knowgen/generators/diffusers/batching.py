"""Which requests are drawn in one pass, and how many: found by growing, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import TypeVar

R = TypeVar("R")

Shape = Hashable


class BatchSizes:
    """Remembers how many requests of each shape fit into one pass.

    A shape starts with one, doubles after every full pass that went well, and stays below what once did not fit.

    Args:
        largest: Never more than so many.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._sizes: dict[Shape, int] = {}
        self._limits: dict[Shape, int] = {}

    def size(self, shape: Shape) -> int:
        """Returns how many to draw in the next pass."""
        return self._sizes.get(shape, 1)

    def fitted(self, shape: Shape, count: int) -> None:
        """Takes note that so many went well."""
        if count >= self.size(shape):
            self._sizes[shape] = min(2 * count, self._limits.get(shape, self._largest), self._largest)

    def did_not_fit(self, shape: Shape, count: int) -> None:
        """Takes note that memory ran out at so many."""
        self._limits[shape] = self._sizes[shape] = max(1, count // 2)


def grouped(requests: Sequence[R], shape: Callable[[R], Shape]) -> Iterator[tuple[Shape, list[R]]]:
    """Yields the requests of each shape, in the order in which shapes first come."""
    groups: dict[Shape, list[R]] = {}
    for request in requests:
        groups.setdefault(shape(request), []).append(request)
    yield from groups.items()


def passes(
    sizes: BatchSizes, shape: Shape, requests: Sequence[R], most: int | None = None
) -> Generator[list[R], bool, None]:
    """Yields passes over requests of one shape; a pass that did not fit comes again in smaller ones.

    Send it, for each pass, whether that went well. A single request that does not fit is not yielded again.

    Args:
        sizes: What is known of sizes; learns from every pass.
        shape: Of all the requests.
        requests: To be drawn.
        most: Never more than so many in a pass, whatever fits.
    """
    waiting = list(requests)
    while waiting:
        size = sizes.size(shape)
        batch = waiting[: size if most is None else min(size, most)]
        if (yield batch):
            sizes.fitted(shape, len(batch))
        else:
            sizes.did_not_fit(shape, len(batch))
            if len(batch) > 1:
                continue
        del waiting[: len(batch)]
