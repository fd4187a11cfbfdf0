"""Results of search services, cached by service, query, number of results and day (UTC)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from knowgen.core.cache import Cache
from knowgen.core.metering import reuse_replies
from knowgen.core.records import Record

R = TypeVar("R", bound=Record)

CACHE = "web"
"""Cache of queries, pages and addresses of images."""


class KeyedLocks:
    """Locks by key, so that of several equal requests one is sent and the others find its result."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key in the `with` block."""
        lock, users = self._locks.setdefault(key, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users and self._locks.get(key) == (lock, users):
                del self._locks[key]


def day_of(seconds: float) -> str:
    """Return the day of a time in seconds since the epoch, in UTC.

    Example:
        >>> day_of(0.0)
        '1970-01-01'
    """
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def cache_key(*parts: str | int) -> str:
    """Return the key of a cache entry: the hash of its parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class QueryCache:
    """Results of one service.

    Args:
        provider: Name of the service.
        clock: Returns the current time in seconds since the epoch.
    """

    def __init__(self, provider: str, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock
        self._cache = Cache(CACHE)
        self._locks = KeyedLocks()

    async def get(
        self, kind: str, query: str, k: int, settings: str, find: Callable[[], Awaitable[list[R]]], record: type[R]
    ) -> list[R]:
        """Return the results of a query, from the cache or else from the service.

        Args:
            kind: Kind of results, such as `pages`.
            query: The query.
            k: Number of results that are asked for.
            settings: Settings of the service that decide what it finds.
            find: Asks the service. Its errors are raised and not cached.
            record: Class of the results.
        """
        key = cache_key("query", self._provider, settings, kind, query, k, day_of(self._clock()))
        async with self._locks.hold(key):
            if reuse_replies.get() and (cached := self._cache.get(key)) is not None:
                return [record.model_validate(row) for row in json.loads(cached)]
            found = await find()
            self._cache.put(key, json.dumps([row.model_dump(mode="json") for row in found]).encode())
            return found

    def close(self) -> None:
        """Write what was cached."""
        self._cache.close()
