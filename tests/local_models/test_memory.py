"""Batches shrink until they fit into memory, and out-of-memory errors are recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.local_models import memory
from knowgen.local_models.devices import is_gpu_fault
from knowgen.local_models.memory import BatchSizes, in_batches, is_out_of_memory, run_if_fits


class Model:
    """A model that doubles numbers, in batches up to a size that fits; it records the batch sizes."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.batches: list[int] = []

    def __call__(self, batch: list[int]) -> list[int] | None:
        self.batches.append(len(batch))
        return None if len(batch) > self.fits else [2 * number for number in batch]


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 12), st.integers(1, 12))
def test_every_item_is_run_once_in_order_and_in_a_batch_that_fits(calls: list[int], largest: int, fits: int) -> None:
    sizes = BatchSizes(largest)
    misfits: list[int] = []
    for count in calls:
        model = Model(fits)
        results: list[int] = []
        for batch, result in in_batches(iter(range(count)), model, sizes):
            assert result == [2 * number for number in batch]
            results += result
        assert results == [2 * number for number in range(count)]
        assert all(1 <= size <= largest for size in model.batches)
        misfits += [size for size in model.batches if size > fits]
    assert len(misfits) <= 4, "memory ran out again at a size that did not fit before"
    assert misfits == sorted(misfits, reverse=True)


def test_an_item_that_does_not_fit_alone_is_yielded_without_a_result() -> None:
    model = Model(fits=0)
    assert list(in_batches(["a", "b"], model, BatchSizes(8))) == [(["a"], None), (["b"], None)]  # type: ignore[arg-type]
    assert model.batches == [2, 1, 1]


def test_items_are_consumed_one_batch_at_a_time() -> None:
    consumed: list[int] = []
    source = (consumed.append(number) or number for number in range(10))  # type: ignore[func-returns-value]
    batches = in_batches(source, Model(fits=3), BatchSizes(3))
    next(batches)
    assert consumed == [0, 1, 2]


def test_memory_is_freed_after_the_error_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    exceptions: list[object] = []
    monkeypatch.setattr(memory, "free_memory", lambda: exceptions.append(sys.exc_info()[1]))

    def full() -> int:
        raise MemoryError

    assert run_if_fits(full) is None and exceptions == [None]
    assert run_if_fits(lambda: 5) == 5 and len(exceptions) == 1


def test_other_errors_are_raised() -> None:
    def broken() -> int:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_if_fits(broken)


def test_an_out_of_memory_error_is_not_a_gpu_failure() -> None:
    torch = pytest.importorskip("torch")
    full = [
        torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ]
    gpu = [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ]
    others = [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA error: no"),
        ValueError("out of memory"),
    ]
    assert all(map(is_out_of_memory, full)) and not any(map(is_gpu_fault, full))
    assert all(map(is_gpu_fault, gpu)) and not any(map(is_out_of_memory, gpu))
    assert not any(is_out_of_memory(error) or is_gpu_fault(error) for error in others)
