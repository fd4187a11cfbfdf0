"""Accelerator memory: recognise out-of-memory errors, and shrink batches until they fit."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
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
    """The batch size that fits into memory: when memory runs out, it is halved and does not grow again.

    Args:
        largest: Maximum size of a batch.

    Example:
        >>> sizes = BatchSizes(8)
        >>> sizes.did_not_fit(8)
        >>> sizes.size
        4
    """

    def __init__(self, largest: int) -> None:
        self.size = largest

    def did_not_fit(self, count: int) -> None:
        """Record that memory ran out with a batch of `count` items."""
        self.size = max(1, count // 2)


def in_batches(
    items: Iterable[T], run: Callable[[list[T]], R | None], sizes: BatchSizes
) -> Iterator[tuple[list[T], R | None]]:
    """Run a model on items in batches that fit into memory; yield each batch with its result, in order.

    A batch that does not fit is split and run again. A single item that does not fit is yielded with None.

    Args:
        items: The items. They are consumed one batch at a time.
        run: Runs a batch; returns None when memory ran out, see `run_if_fits`.
        sizes: Batch size that fits, updated when one does not.
    """
    source = iter(items)
    pending: list[T] = []
    while True:
        pending += islice(source, max(0, sizes.size - len(pending)))
        batch = pending[: sizes.size]
        if not batch:
            return
        result = run(batch)
        if result is None:
            sizes.did_not_fit(len(batch))
            if len(batch) > 1:
                continue
        del pending[: len(batch)]
        yield batch, result
