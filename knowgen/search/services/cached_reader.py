"""Page readers that ask a service, with their pages cached for a day."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import urldefrag

from knowgen.core.cache import Cache
from knowgen.core.metering import reuse_replies
from knowgen.search.contract import Page
from knowgen.search.web.guarding import check_leaks
from knowgen.search.web.query_cache import CACHE, KeyedLocks, cache_key, day_of


class CachedReader(ABC):
    """Opens pages through a service.

    Args:
        clock: Returns the current time in seconds since the epoch.

    Attributes:
        version: Version of how the service's response becomes a page, part of the cache's keys.
    """

    version: ClassVar[str]

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._cache = Cache(CACHE)
        self._locks = KeyedLocks()

    @abstractmethod
    async def read(self, url: str) -> Page:
        """Return a page that is not cached; errors as in `SearchBackend.open`."""

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        address = urldefrag(url.strip()).url
        check_leaks((address,))
        key = cache_key("page", self.version, address, day_of(self._clock()))
        async with self._locks.hold(key):
            if reuse_replies.get() and (cached := self._cache.get(key)) is not None:
                page = Page.model_validate_json(cached)
            else:
                page = await self.read(address)
                self._cache.put(key, json.dumps(page.model_dump(mode="json")).encode())
        check_leaks((page.url,))  # the service may have followed a redirect
        return page

    async def close(self) -> None:
        """Write what was cached."""
        self._cache.close()
