"""Memory of an accelerator: errors that say it ran out, and batches that become smaller until they fit."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MEMORY_WORDS = (
    "out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the accelerator or of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def free_memory() -> None:
    """Return unused memory to the accelerator, so that a smaller batch finds it in one piece.

    Call it when no exception is being handled: an exception holds the tensors of its frames.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def run_if_fits(call: Callable[[], R]) -> R | None:
    """Return what a call gives; None where memory ran out, which is freed then.

    Raises:
        Exception: What the call raised, when it is another error.
    """
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory()  # here the exception is gone, and with it the tensors that it held
    return None


class BatchSizes:
    """How many items of each shape fit into one batch.

    The size doubles after every full batch that fitted, up to `largest`. Where memory ran out it is halved, and never
    grows beyond that again.

    Args:
        largest: Maximum size of a batch.
        first: Size of the first batch of a shape; `largest` when None.
    """

    def __init__(self, largest: int, first: int | None = None) -> None:
        self._largest = largest
        self._first = largest if first is None else first
        self._sizes: dict[Hashable, int] = {}
        self._limits: dict[Hashable, int] = {}

    def size(self, shape: Hashable = None) -> int:
        """Return the size of the next batch."""
        return self._sizes.get(shape, self._first)

    def fitted(self, count: int, shape: Hashable = None) -> None:
        """Record that a batch of this size fitted."""
        if count >= self.size(shape):
            self._sizes[shape] = min(2 * count, self._limits.get(shape, self._largest), self._largest)

    def did_not_fit(self, count: int, shape: Hashable = None) -> None:
        """Record that memory ran out at this size."""
        self._limits[shape] = self._sizes[shape] = max(1, count // 2)


def in_batches(
    items: Iterable[T],
    run: Callable[[list[T]], R | None],
    sizes: BatchSizes,
    *,
    shape: Hashable = None,
    most: int | None = None,
) -> Iterator[tuple[list[T], R | None]]:
    """Run a model on items in batches that fit into memory; yield each batch with its result, in order.

    A batch that does not fit is run again in smaller ones. A single item that does not fit is yielded with None.

    Args:
        items: Items of one shape. They are taken one batch at a time.
        run: Takes a batch; returns None where memory ran out, see `run_if_fits`.
        sizes: What is known of sizes; learns from every batch.
        shape: Shape of the items.
        most: Maximum size of a batch, whatever fits.
    """
    source = iter(items)
    waiting: list[T] = []
    while True:
        size = sizes.size(shape) if most is None else min(sizes.size(shape), most)
        waiting += islice(source, max(0, size - len(waiting)))
        batch = waiting[:size]
        if not batch:
            return
        result = run(batch)
        if result is not None:
            sizes.fitted(len(batch), shape)
        else:
            sizes.did_not_fit(len(batch), shape)
            if len(batch) > 1:
                continue
        del waiting[: len(batch)]
        yield batch, result
