"""The queue of a dispatcher: requests that wait for a slot, and how a batch is taken from them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

from knowgen.engine.retry import PluginError, describe


@dataclass(slots=True)
class QueuedRequest:
    """A request to a plugin.

    Attributes:
        id: Id of the request, unique within a batch; its result carries the same id.
        payload: What the plugin is given.
        future: Resolves to the result and the seconds it took.
        alone: Whether it must not share a batch, because a batch that it was in failed.
        length: Length of its prompt, by which requests share batches; 0 where they share them in the order of arrival.
        on_repeat: Called when a second result arrives; that result is dropped.
        started: When the plugin was given it, by the monotonic clock.
        admitted: Whether it counts towards the capacity limit.
    """

    id: str
    payload: Any
    future: asyncio.Future[tuple[Any, float]]
    alone: bool = False
    on_repeat: Callable[[], None] | None = None
    started: float = 0.0
    admitted: bool = False
    length: int = 0

    def resolve(self, value: Any) -> None:
        """End the request with a result."""
        if not self.future.done():
            self.future.set_result((value, time.monotonic() - self.started))

    def fail(self, error: BaseException) -> None:
        """End the request with an error. One that would end an event loop, such as SystemExit, is wrapped."""
        if self.future.done():
            return
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            error = PluginError(describe(error))
        self.future.set_exception(error)


LOOK_AHEAD = 8
"""Batches among whose requests those of like length are looked for."""


class QueuedRequests:
    """Requests that wait for a slot, in the order in which they arrived. Used in one event loop only.

    Args:
        by_length: Whether a batch has requests of like length. It always has the one that has waited for longest, so
            that none waits for ever: before a request come at most as many batches as there were requests before it.
    """

    def __init__(self, *, by_length: bool = False) -> None:
        self._by_length = by_length
        self._waiting: deque[QueuedRequest] = deque()

    def __len__(self) -> int:
        """Return the number of requests, cancelled ones included."""
        return len(self._waiting)

    def put(self, request: QueuedRequest) -> None:
        """Add a request at the end."""
        self._waiting.append(request)

    def put_back(self, batch: Iterable[QueuedRequest]) -> None:
        """Put a batch that was taken back in front."""
        self._waiting.extendleft(reversed(list(batch)))

    def fail(self, error: Callable[[], Exception]) -> None:
        """Fail all requests, each with an error of its own."""
        while self._waiting:
            self._waiting.popleft().fail(error())

    def take(self, size: int) -> list[QueuedRequest]:
        """Take a batch: some requests, without two of the same id, or one that must be alone.

        Args:
            size: Maximum number of requests.
        """
        if self._by_length and size > 1:
            return self._take_alike(size)
        batch: list[QueuedRequest] = []
        ids: set[str] = set()
        while len(batch) < size and self._waiting:
            request = self._waiting[0]
            if request.future.done():  # its item was cancelled
                self._waiting.popleft()
                continue
            if request.id in ids or (request.alone and batch):
                break
            batch.append(self._waiting.popleft())
            ids.add(request.id)
            if request.alone:
                break
        return batch

    def _take_alike(self, size: int) -> list[QueuedRequest]:
        """Take the request that has waited for longest, and those that need the least padding beside it."""
        while self._waiting and self._waiting[0].future.done():  # its item was cancelled
            self._waiting.popleft()
        if not self._waiting or self._waiting[0].alone:
            return [self._waiting.popleft()] if self._waiting else []
        first = self._waiting[0]
        candidates = {first.id: first}
        for request in islice(self._waiting, 1, LOOK_AHEAD * size):
            if not request.alone and not request.future.done():
                candidates.setdefault(request.id, request)
        ordered = sorted(candidates.values(), key=lambda request: request.length)  # stable: equal ones stay in order
        batch = _least_padded(ordered, ordered.index(first), min(size, len(ordered)))
        taken = {id(request) for request in batch}
        self._waiting = deque(request for request in self._waiting if id(request) not in taken)
        return batch


def _least_padded(ordered: list[QueuedRequest], place: int, size: int) -> list[QueuedRequest]:
    """Return the neighbours of a request, itself included, that take the least padding to the length of the longest.

    Args:
        ordered: Requests, the shortest first.
        place: Place of the request.
        size: Number of requests to return.

    Example:
        >>> requests = [QueuedRequest(str(n), None, None, length=n) for n in (1, 8, 9, 30)]  # type: ignore[arg-type]
        >>> [request.length for request in _least_padded(requests, 1, 2)]
        [8, 9]
    """
    sums = list(accumulate((request.length for request in ordered), initial=0))

    def padding(start: int) -> int:
        return ordered[start + size - 1].length * size - (sums[start + size] - sums[start])

    start = min(range(max(0, place - size + 1), min(place, len(ordered) - size) + 1), key=padding)
    return ordered[start : start + size]
