"""Open pages of the web: fetch, check, read as text, cache for a day."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urldefrag

from knowgen.clients.safe_fetch import BlockedError, Fetcher, FetchError, FetchResult
from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, TransientError
from knowgen.core.metering import reuse_replies
from knowgen.core.retry import exponential, retry
from knowgen.search.contract import Page
from knowgen.search.web.guarding import address_blocked, check_leaks
from knowgen.search.web.query_cache import CACHE, KeyedLocks, cache_key, day_of
from knowgen.search.web.reading import PageReading
from knowgen.search.web.robots import Robots

READING_VERSION = "1"
"""Version of how a document becomes a page, part of the cache's keys."""

MAX_BYTES = 8 * 1024 * 1024
"""Maximum size of a page, in bytes."""

TIMEOUT = 30.0
"""Maximum duration of a fetch in seconds, redirects included."""

ATTEMPTS = 2
_LONGEST_WAIT = 10.0


class PageOpener(Protocol):
    """Opens pages for a search backend. The backend has asked the leak guard about the URL before."""

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        ...

    async def close(self) -> None:
        """Close connections and caches."""
        ...


class PageFetcher:
    """Opens pages by fetching them itself.

    Args:
        fetcher: Fetches the pages; it is not closed with this object.
        robots: Whether sites' robots.txt files are respected.
        trusted: As for `Fetcher.fetch`.
        reading: Reads what was fetched; it is closed with this object.
        clock: Returns the current time in seconds since the epoch.
        sleep: Waits before another attempt.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        robots: bool = True,
        trusted: str = "",
        reading: PageReading | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._fetcher = fetcher
        self._trusted = trusted
        self._clock = clock
        self._cache = Cache(CACHE)
        self._locks = KeyedLocks()
        self._reading = PageReading() if reading is None else reading
        self._sleep = sleep
        self._robots = Robots(fetcher, self._cache, trusted=trusted, clock=clock) if robots else None

    async def open(self, url: str) -> Page:
        """Return the page at a URL.

        Raises:
            DataError: The page does not exist, is not HTML or text, or has no text.
            PageBlockedError: Its address, its site or the leak guard excludes it, or one that it redirects to.
            TransientError: It could not be fetched now.
        """
        address = urldefrag(url.strip()).url
        check_leaks((address,))
        key = cache_key("page", READING_VERSION, address, day_of(self._clock()))
        async with self._locks.hold(key):
            if reuse_replies.get() and (cached := self._cache.get(key)) is not None:
                stored = json.loads(cached)
                check_leaks(stored["via"])
                return Page.model_validate(stored["page"])
            fetched = await self._fetch(address)
            page = await self._reading.read(fetched)
            stored = {"via": fetched.via, "page": page.model_dump(mode="json")}
            self._cache.put(key, json.dumps(stored).encode())
            return page

    async def close(self) -> None:
        """Write what was cached, and end the processes that read pages."""
        self._cache.close()
        await self._reading.close()

    async def _fetch(self, url: str) -> FetchResult:
        async def attempt(_number: int) -> FetchResult:
            return await self._fetcher.fetch(
                url, max_bytes=MAX_BYTES, timeout=TIMEOUT, trusted=self._trusted, check=self._check
            )

        def wait(number: int, error: BaseException | None) -> float:
            asked = getattr(error, "retry_after", None)
            return min(exponential(number, first=1.0) if asked is None else float(asked), _LONGEST_WAIT)

        try:
            return await retry(
                attempt,
                attempts=ATTEMPTS,
                retryable=lambda error: isinstance(error, TransientError),
                wait=wait,
                sleep=self._sleep,
            )
        except BlockedError as error:
            raise address_blocked(error, url) from error
        except FetchError as error:
            raise DataError(error.what, where=url, fix="open another page") from error

    async def _check(self, url: str) -> float:
        """Ask the leak guard and the site about a URL before it is requested."""
        check_leaks((url,))
        return 0.0 if self._robots is None else await self._robots.check(url)
