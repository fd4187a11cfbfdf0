"""The base of search backends over the web. A service finds pages and images; everything else is done here.

    class MySearch(WebSearch):
        provider = "mine"

        async def find_pages(self, query: str, k: int) -> list[Hit]: ...
        async def find_images(self, query: str, n: int) -> list[RawImageHit]: ...

Results are cached by query and day, images downloaded, pages fetched, and whatever the leak guard blocks is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import ClassVar, TypeVar

from knowgen.clients.safe_fetch import Fetcher
from knowgen.core.errors import MissingDependencyError
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.search.web.guarding import check_leaks, guarded_hit
from knowgen.search.web.images import ImageDownloader, RawImageHit
from knowgen.search.web.pages import PageFetcher, PageOpener
from knowgen.search.web.query_cache import QueryCache

R = TypeVar("R", Hit, RawImageHit)

_PACKAGES = ("imagehash", "protego", "trafilatura")
"""Packages of the extra `search`, which are imported where they are needed."""

_FEWEST_IMAGES = 10
"""Minimum number of image hits to ask a service for, so that there are others where a download fails."""


class WebSearch(ABC):
    """A search backend over the web.

    Args:
        fetcher: Fetches pages and images; one of its own when None. It is closed with the backend.
        pages: Opens pages; fetched and read by `PageFetcher` when None.
        trusted: URL of a search service that the user runs. Images that its own address serves are downloaded, even if
            it is not on the public internet.

    Attributes:
        provider: Name of the service, in caches and messages.

    Raises:
        MissingDependencyError: A package that it needs is not installed.
    """

    provider: ClassVar[str]

    def __init__(self, *, fetcher: Fetcher | None = None, pages: PageOpener | None = None, trusted: str = "") -> None:
        _check_packages(self.provider)
        self.fetcher = Fetcher() if fetcher is None else fetcher
        self._pages: PageOpener = PageFetcher(self.fetcher) if pages is None else pages
        self._images = ImageDownloader(self.fetcher, trusted=trusted)
        self._queries = QueryCache(self.provider)

    @property
    def version(self) -> str:
        """Identity of the searched content: that of the open web."""
        return "live"

    @abstractmethod
    async def find_pages(self, query: str, k: int) -> list[Hit]:
        """Ask the service for at most `k` pages, best first; an empty list when nothing is found.

        A paid request is wrapped in `paid_call` here. A result from the cache does not get this far, and costs nothing.

        Raises:
            TransientError: The service cannot answer now.
            AccountError: The service rejects the account.
        """

    @abstractmethod
    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask the service for at most `n` images, best first; an empty list when nothing is found.

        `n` is more than the images that are wanted, since some cannot be downloaded. Errors as in `find_pages`.
        """

    def settings(self) -> str:
        """Return the settings that decide what the service finds, such as language and region, for the query cache."""
        return ""

    async def close_service(self) -> None:  # noqa: B027 - a service without connections of its own has none to close
        """Close the connections to the service."""

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, best first; an empty list when nothing is found."""
        hits = await self._cached("pages", query, k, self.find_pages, Hit)
        return [guarded_hit(hit) for hit in hits[:k]]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images, best first, with those that could not be downloaded on the way."""
        n = max(2 * k, _FEWEST_IMAGES)
        raw = await self._cached("images", query, n, self.find_images, RawImageHit)
        hits = await self._images.download_hits(raw, k)
        if len(raw) >= n and sum(hit.image is not None for hit in hits) < k:
            raw = await self._cached("images", query, 2 * n, self.find_images, RawImageHit)
            hits = await self._images.download_hits(raw, k)
        return hits

    async def open(self, url: str) -> Page:
        """Return the page at a URL."""
        check_leaks((url,))
        return await self._pages.open(url)

    async def close(self) -> None:
        """Close all connections."""
        await self._pages.close()
        await self._images.close()
        await self.fetcher.close()
        await self.close_service()
        self._queries.close()

    async def _cached(
        self, kind: str, query: str, k: int, find: Callable[[str, int], Awaitable[list[R]]], record: type[R]
    ) -> list[R]:
        return await self._queries.get(kind, query, k, self.settings(), lambda: find(query, k), record)


def _check_packages(provider: str) -> None:
    for name in _PACKAGES:
        if find_spec(name) is None:
            raise MissingDependencyError(
                f"needs the package {name!r}, which is not installed",
                where=f"search backend {provider}",
                fix="pip install 'knowgen[search]'",
            )
