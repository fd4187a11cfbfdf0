"""The queue of a dispatcher: requests that wait for a slot, and how a batch is taken from them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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


class QueuedRequests:
    """Requests that wait for a slot, in the order in which they arrived. Used in one event loop only."""

    def __init__(self) -> None:
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
