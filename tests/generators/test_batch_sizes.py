"""The size of a batch: the fastest that was measured, as far as it fits and as many requests wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.core.errors import UsageError
from knowgen.generators.diffusers.batch_sizes import MeasuredBatchSizes, parse_batch


def batches(
    sizes: MeasuredBatchSizes, seconds: Callable[[int], float], requests: int, fits: int = 99, *, cold: float = 0.0
) -> list[int]:
    """Return the sizes of the batches in which some requests are generated; the first takes `cold` seconds longer."""
    made: list[int] = []
    while requests:
        size = sizes.size(waiting=requests)
        made.append(size)
        if size > fits:
            sizes.did_not_fit(size)
            continue
        sizes.took(size, seconds(size) + cold)
        cold = 0.0
        requests -= size
    return made


def test_sizes_grow_while_they_are_faster() -> None:
    sizes = MeasuredBatchSizes()
    assert batches(sizes, lambda size: 1.0 + 0.1 * size, 64, cold=60.0) == [1, 1, 2, 4, 8, 16, 16, 16]
    assert sizes.seconds() == {1: 1.1, 2: 0.6, 4: 0.35, 8: 0.225, 16: 0.1625}


def test_the_fastest_size_is_kept_and_not_the_largest() -> None:
    """A batch of 4 saves nothing against 2; a first batch of a size may be slow, so it is tried twice."""
    sizes = MeasuredBatchSizes()
    assert batches(sizes, lambda size: {1: 1.0, 2: 1.2}.get(size, 0.65 * size), 28) == [1, 1, 2, 4, 4, *[2] * 8]


def test_a_size_that_was_rejected_is_tried_again_less_and_less_often() -> None:
    """A machine that was busy when it was measured says nothing about the rest of a long run."""
    sizes = MeasuredBatchSizes()
    made = batches(sizes, lambda size: 1.0 * size, 100)
    tried = [number for number, size in enumerate(made) if size == 2]
    assert tried == [2, 3, 12, 13, 30, 31, 64, 65]
    assert batches(sizes, lambda size: 1.0, 200)[-2] == 16, "now batches pay"


def test_a_size_that_becomes_slower_than_a_smaller_one_is_given_up() -> None:
    sizes = MeasuredBatchSizes()
    assert batches(sizes, lambda size: 1.0, 16) == [1, 1, 2, 4, 8]
    sizes.did_not_fit(16)
    made = batches(sizes, lambda size: 0.5 if size < 8 else 9.0, 60)
    assert made[:4] == [8, 8, 8, 4] and made[-1] == 4


def test_batches_that_do_not_pay_are_given_up() -> None:
    assert batches(MeasuredBatchSizes(), lambda size: 1.0 * size, 12) == [1, 1, 2, 2, *[1] * 6]


def test_a_size_is_tried_only_when_enough_requests_wait() -> None:
    sizes = MeasuredBatchSizes()
    for _ in range(4):
        assert batches(sizes, lambda size: 1.0, 1) == [1]
    assert batches(sizes, lambda size: 1.0, 3) == [2, 1]
    assert batches(sizes, lambda size: 1.0, 3) == [2, 1], "three requests cannot tell whether four are faster"
    assert batches(sizes, lambda size: 1.0, 6) == [4, 2]


def test_memory_that_runs_out_halves_the_size_for_good() -> None:
    sizes = MeasuredBatchSizes()
    assert batches(sizes, lambda size: 1.0, 20, fits=5) == [1, 1, 2, 4, 8, 4, 4, 4]
    assert batches(sizes, lambda size: 1.0, 9, fits=5) == [4, 4, 1]
    fixed = MeasuredBatchSizes(6)
    assert batches(fixed, lambda size: 1.0, 9, fits=3) == [6, 3, 3, 3]


def test_a_fixed_size_is_used_however_slow_it_is() -> None:
    assert batches(MeasuredBatchSizes(4), lambda size: 9.0 * size, 10) == [4, 4, 2]
    assert batches(MeasuredBatchSizes(1), lambda size: 1.0, 3) == [1, 1, 1]


def test_shapes_are_measured_separately() -> None:
    sizes = MeasuredBatchSizes()
    for _ in range(2):
        sizes.took(1, 5.0, "small")
    assert (sizes.size("small", waiting=9), sizes.size("large", waiting=9)) == (2, 1)
    assert (sizes.seconds("small"), sizes.seconds("large")) == ({1: 5.0}, {})


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8), st.none() | st.integers(1, 20), st.integers(1, 20),
    st.floats(0.0, 2.0), st.floats(0.01, 2.0),
)  # fmt: skip
def test_no_batch_exceeds_what_waits_or_what_fits_twice(
    calls: list[int], fixed: int | None, fits: int, start: float, each: float
) -> None:
    sizes = MeasuredBatchSizes(fixed)
    made = [size for count in calls for size in batches(sizes, lambda size: start + each * size, count, fits)]
    fitting = [size for size in made if size <= fits]
    assert sum(fitting) == sum(calls) and max(made) <= (fixed or 16)
    misfits = [size for size in made if size > fits]
    assert len(misfits) == len(set(misfits)) <= 5


@pytest.mark.parametrize("value", ["many", 0, -1, "1.5", ""])
def test_other_sizes_are_refused(value: int | str) -> None:
    with pytest.raises(UsageError, match="batch must be auto, or 1 or more"):
        parse_batch(value, "generator")
