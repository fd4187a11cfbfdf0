"""Accelerator memory: recognise out-of-memory errors, and shrink batches until they fit."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MEMORY_MESSAGES = (
    "out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed", "hipblas_status_alloc_failed", "out_of_device_memory", "out_of_resources",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the accelerator or of the machine ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("CUDA error: out of memory")), is_out_of_memory(ValueError("out of range"))
        (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _MEMORY_MESSAGES)


def free_memory() -> None:
    """Release unused memory of the accelerator, so that a smaller batch finds contiguous memory.

    Call it when no exception is being handled: an exception keeps the tensors of its frames alive.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif hasattr(torch, "xpu") and torch.xpu.is_available() and torch.xpu.is_initialized():
        torch.xpu.empty_cache()


def run_if_fits(call: Callable[[], R]) -> R | None:
    """Return the result of a call; free memory and return None when memory ran out.

    Raises:
        Exception: The call raised another error.
    """
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory()  # here the exception is gone, and with it the tensors that it kept alive
    return None


class BatchSizes:
    """Batch sizes that fit into memory, by shape of the items.

    The size doubles after every full batch that fits, up to `largest`. When memory runs out, it is halved and does not
    grow again.

    Args:
        largest: Maximum size of a batch.
        first: Size of the first batch of a shape; `largest` when None.

    Example:
        >>> sizes = BatchSizes(8, first=1)
        >>> sizes.fitted(1)
        >>> sizes.size()
        2
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
        """Record that a batch of `count` items fitted."""
        if count >= self.size(shape):
            self._sizes[shape] = min(2 * count, self._limits.get(shape, self._largest), self._largest)

    def did_not_fit(self, count: int, shape: Hashable = None) -> None:
        """Record that memory ran out with a batch of `count` items."""
        self._limits[shape] = self._sizes[shape] = max(1, count // 2)


def in_batches(
    items: Iterable[T],
    run: Callable[[list[T]], R | None],
    sizes: BatchSizes,
    *,
    shape: Hashable = None,
    max_size: int | None = None,
) -> Iterator[tuple[list[T], R | None]]:
    """Run a model on items in batches that fit into memory; yield each batch with its result, in order.

    A batch that does not fit is split and run again. A single item that does not fit is yielded with None.

    Args:
        items: Items of one shape. They are consumed one batch at a time.
        run: Runs a batch; returns None when memory ran out, see `run_if_fits`.
        sizes: Batch sizes that fit, updated after every batch.
        shape: Shape of the items.
        max_size: Maximum size of a batch, even if a larger one fits.
    """
    source = iter(items)
    pending: list[T] = []
    while True:
        size = sizes.size(shape) if max_size is None else min(sizes.size(shape), max_size)
        pending += islice(source, max(0, size - len(pending)))
        batch = pending[:size]
        if not batch:
            return
        result = run(batch)
        if result is not None:
            sizes.fitted(len(batch), shape)
        else:
            sizes.did_not_fit(len(batch), shape)
            if len(batch) > 1:
                continue
        del pending[: len(batch)]
        yield batch, result
