"""How many images a batch has: the size that was measured to be the fastest, as far as it fits into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from knowgen.core.errors import UsageError

AUTO = "auto"
LARGEST = 16
"""Largest size that is tried where none is set."""

_LEAST_GAIN = 0.03
"""Share of the time of an image that a larger size must save. A smaller one needs less memory and is shared better."""

_TRIALS = 2
"""Times that a size is tried before it is rejected: the first batch of a size chooses kernels."""

_RECENT = 3
"""Number of batches whose fastest stands for a size; other work on the machine makes some of them slow."""

_PAUSE = 8
"""Number of batches after which a rejected size is tried again; doubled each time that it is rejected."""


def parse_batch(value: int | str, where: str) -> int | None:
    """Return a fixed batch size, or None for `auto`.

    Raises:
        UsageError: It is neither `auto` nor a number of 1 or more.

    Example:
        >>> parse_batch("auto", "generator"), parse_batch("4", "generator")
        (None, 4)
    """
    text = str(value).strip().lower()
    if text == AUTO:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"batch must be auto, or 1 or more, got {value!r}", where=where)
    return int(text)


@dataclass
class _Shape:
    """What is known about the batches of one shape.

    Attributes:
        limit: Largest size that fits into memory, as far as is known.
        best: Fastest size.
        recent: Seconds per image of the last batches, by size.
        trials: Number of batches of the size that is being tried.
        pause: Number of batches until a larger size is tried.
        next_pause: Pause after the next rejection.
        warm: Whether a batch has run; the first one also loads kernels.
    """

    limit: int
    best: int = 1
    recent: dict[int, deque[float]] = field(default_factory=dict)
    trials: int = 0
    pause: int = 0
    next_pause: int = _PAUSE
    warm: bool = False

    def seconds(self, size: int) -> float:
        """Return the seconds per image of a size that was measured."""
        return min(self.recent[size])

    @property
    def target(self) -> int | None:
        """The size to measure next; None when none is to be tried."""
        size = 2 * self.best if self.best in self.recent else self.best
        return size if self.pause == 0 and size <= self.limit else None

    def add(self, size: int, seconds: float) -> None:
        """Add the time per image of a batch, and choose the fastest size again."""
        tried = size == self.target and size > self.best
        self.pause = max(0, self.pause - 1)
        self.recent.setdefault(size, deque(maxlen=_RECENT)).append(seconds)
        if tried:
            self._judge(size)
        elif size == self.best:
            smaller = [each for each in self.recent if each < size]
            faster = min(smaller, key=self.seconds, default=size)
            if self.seconds(faster) < self.seconds(size):
                self.best = faster
                self._wait()

    def _judge(self, size: int) -> None:
        """Keep or reject the size that is being tried."""
        self.trials += 1
        if self.seconds(size) < self.seconds(self.best) * (1 - _LEAST_GAIN):
            self.best, self.trials, self.next_pause = size, 0, _PAUSE
        elif self.trials >= _TRIALS:
            self._wait()

    def _wait(self) -> None:
        """Try no larger size for a while."""
        self.trials, self.pause = 0, self.next_pause
        self.next_pause *= 2


class MeasuredBatchSizes:
    """Sizes of batches by the shape of their images.

    Sizes 1, 2, 4 and so on are measured during the work, each when as many requests wait. The fastest is kept: a larger
    one only if it saves 3 % of the time of an image. A rejected size is tried again later, less and less often. When
    memory runs out, the size is halved and does not grow again.

    Args:
        fixed: Size of every batch, measured or not; None for the fastest one.
        largest: Largest size that is tried where none is fixed.

    Example:
        >>> sizes = MeasuredBatchSizes()
        >>> for seconds in (9.0, 2.0):  # the first batch is not counted
        ...     sizes.took(1, seconds)
        >>> sizes.size(waiting=10)
        2
        >>> for seconds in (4.2, 4.1):
        ...     sizes.took(2, seconds)
        >>> sizes.size(waiting=10), sizes.seconds()
        (1, {1: 2.0, 2: 2.05})
    """

    def __init__(self, fixed: int | None = None, largest: int = LARGEST) -> None:
        self._fixed, self._largest = fixed, largest
        self._shapes: dict[Hashable, _Shape] = {}

    def size(self, shape: Hashable = None, *, waiting: int) -> int:
        """Return the size of the next batch.

        Args:
            shape: Shape of its images.
            waiting: Number of requests of this shape that wait; 1 or more.
        """
        known = self._shape(shape)
        if self._fixed is not None:
            return min(self._fixed, known.limit, waiting)
        target = known.target
        return target if target is not None and target <= waiting else min(known.best, waiting)

    def took(self, count: int, seconds: float, shape: Hashable = None) -> None:
        """Record the time of a batch.

        Args:
            count: Number of its images.
            seconds: Time from its start until its images were in main memory.
            shape: Shape of its images.
        """
        known = self._shape(shape)
        if not known.warm:
            known.warm = True
            return
        known.add(count, seconds / count)

    def did_not_fit(self, count: int, shape: Hashable = None) -> None:
        """Record that memory ran out with a batch of `count` images."""
        known = self._shape(shape)
        known.limit = max(1, count // 2)
        known.best, known.trials = min(known.best, known.limit), 0

    def seconds(self, shape: Hashable = None) -> dict[int, float]:
        """Return the seconds per image that were measured, by size of the batch."""
        known = self._shape(shape)
        return {size: round(known.seconds(size), 4) for size in sorted(known.recent)}

    def _shape(self, shape: Hashable) -> _Shape:
        if shape not in self._shapes:
            self._shapes[shape] = _Shape(self._largest if self._fixed is None else self._fixed)
        return self._shapes[shape]
