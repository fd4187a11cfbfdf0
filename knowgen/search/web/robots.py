"""The robots.txt of sites whose pages are fetched (RFC 9309).

A site without the file, or that answers 4xx, excludes nothing. A site whose file cannot be read now, for example
because it answers 5xx, may exclude anything: its pages cannot be fetched now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from knowgen.clients.safe_fetch import Fetcher, FetchError, origin
from knowgen.core.cache import Cache
from knowgen.core.errors import TransientError
from knowgen.search.contract import BlockReason, PageBlockedError
from knowgen.search.web.guarding import check_leaks
from knowgen.search.web.query_cache import KeyedLocks, cache_key, day_of

if TYPE_CHECKING:
    from protego import Protego

AGENT = "knowgen"
"""Name by which robots.txt files address this project."""

MAX_BYTES = 500 * 1024
"""Number of bytes of a file that are read: the least that RFC 9309 asks for."""

MAX_DELAY = 10.0
"""Largest `Crawl-delay` that is kept, in seconds: one page of a site is opened here and there, and no site crawled."""

_TIMEOUT = 10.0
_MAX_SITES = 1000


class Robots:
    """The rules of the sites that were asked, for a day.

    Args:
        fetcher: Fetches the files.
        cache: Cache of the files.
        trusted: As for `Fetcher.fetch`.
        clock: Returns the current time in seconds since the epoch.
    """

    def __init__(
        self, fetcher: Fetcher, cache: Cache, *, trusted: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._trusted = trusted
        self._clock = clock
        self._locks = KeyedLocks()
        self._rules: dict[str, Protego] = {}

    async def check(self, url: str) -> float:
        """Check that a site lets a page be fetched, and return the seconds that it asks for between two requests.

        Raises:
            PageBlockedError: The site excludes the page.
            TransientError: Its rules cannot be read now.
        """
        from yarl import URL

        file = str(URL(url).origin() / "robots.txt")
        key = cache_key("robots", file, day_of(self._clock()))
        async with self._locks.hold(key):
            if key not in self._rules:
                self._rules[key] = self._parsed(await self._text(file, key))
                if len(self._rules) > _MAX_SITES:
                    del self._rules[next(iter(self._rules))]
            rules = self._rules[key]
        if not rules.can_fetch(url, AGENT):
            raise PageBlockedError("the site's robots.txt excludes this page", BlockReason.ROBOTS, where=url)
        return min(rules.crawl_delay(AGENT) or 0.0, MAX_DELAY)

    async def _text(self, file: str, key: str) -> str:
        if (cached := self._cache.get(key)) is not None:
            return cached.decode("utf-8", "replace")

        async def check(url: str) -> None:
            check_leaks((url,))

        try:
            fetched = await self._fetcher.fetch(
                file, max_bytes=MAX_BYTES, cut=True, timeout=_TIMEOUT, trusted=self._trusted, check=check
            )
        except FetchError as error:
            if not 400 <= error.status < 500 and error.status:
                raise
            data = b""
        except TransientError as error:
            host = (origin(file) or ("the site", 0))[0]
            raise TransientError(
                f"the robots.txt of {host} cannot be read now: {error.what}", retry_after=error.retry_after
            ) from error
        else:
            data = fetched.data
        self._cache.put(key, data)
        return data.decode("utf-8", "replace")

    @staticmethod
    def _parsed(text: str) -> Protego:
        from protego import Protego

        return Protego.parse(text.removeprefix("\ufeff"))
