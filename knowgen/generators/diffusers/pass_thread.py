"""A thread for the passes of a pipeline, so that the images of one pass are handed on while the next one runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class PassThread(Generic[T]):
    """Runs one call after the other in one thread. The thread is a daemon: a GPU that hangs keeps no process alive."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Start a call after those started before; return the future of its result."""
        future: Future[T] = Future()
        self._calls.put((call, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="knowgen passes", daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        """End the thread after the calls started so far, and wait for it."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            call, future = entry
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
                future.set_exception(error)
            del entry, call, future  # a result that waits here would keep its memory
