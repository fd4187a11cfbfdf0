"""Pages and images through Brave's Search API, which has an index of its own.

Format and limits: api-dashboard.search.brave.com (API reference, read 2026-03) and github.com/brave/brave-search-skills
(read 2026-11). Only successful requests are billed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from knowgen.core.errors import DataError
from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.client import SearchRequest
from knowgen.search.services.reading import rows_at, shortened, text_at, url_at
from knowgen.search.web.images import RawImageHit

MAX_PAGES, MAX_IMAGES = 20, 200
MAX_QUERY, MAX_WORDS = 400, 50
"""Maximum number of characters and words of a query; longer ones are cut at a word."""

_WEB, _IMAGES = "/res/v1/web/search", "/res/v1/images/search"


@dataclass(eq=False, repr=False, kw_only=True)
class Brave(ServiceSearch):
    """The search backend `brave`.

    Args:
        country: Country of the results as two letters, or `ALL`; empty for the service's default.
        language: Language of the results, such as `en`; empty for the service's default.

    Further arguments are those of `SearchAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: `BRAVE_SEARCH_API_KEY` is not set.
    """

    provider: ClassVar[str] = "brave"
    service_url: ClassVar[str] = "https://api.search.brave.com"
    default_key: ClassVar[str] = "BRAVE_SEARCH_API_KEY"
    key_header: ClassVar[str] = "X-Subscription-Token"

    country: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        self.connect()

    def settings(self) -> str:
        """Return the server, the country and the language."""
        return f"{self.base_url} {self.country} {self.language}"

    async def find_pages(self, query: str, k: int) -> list[Hit]:
        """Ask for pages."""
        params = {"count": str(max(1, min(k, MAX_PAGES))), "result_filter": "web", "text_decorations": "false"}
        data = await self._ask(_WEB, query, params, "search")
        hits = [
            Hit(
                title=text_at(row, "title"),
                url=url_at(row, "url"),
                snippet=text_at(row, "description"),
                date=text_at(row, "page_age")[:10] or text_at(row, "age"),
            )
            for row in rows_at(data, "web", "results")
        ]
        return [hit for hit in hits if hit.url][:k]

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask for images."""
        data = await self._ask(_IMAGES, query, {"count": str(max(1, min(n, MAX_IMAGES)))}, "images")
        hits = [
            RawImageHit(
                title=text_at(row, "title"),
                url=url_at(row, "properties", "url"),
                page_url=url_at(row, "url"),
                thumbnail_url=url_at(row, "thumbnail", "src"),
                source=text_at(row, "source"),
            )
            for row in rows_at(data, "results")
        ]
        return [hit for hit in hits if hit.url or hit.thumbnail_url][:n]

    async def _ask(self, path: str, query: str, params: Mapping[str, str], kind: str) -> Mapping[str, Any]:
        params = {"q": shortened(query, MAX_QUERY, MAX_WORDS), **params}
        params |= {name: value for name, value in (("country", self.country), ("search_lang", self.language)) if value}
        data = await self._client.send(SearchRequest(f"{self.url}{path}", params), self.prices.cost(1))
        if data.get("type") != kind:
            raise self.unexpected(f'"type": "{kind}"')
        return data

    async def check_service(self) -> str:
        """Check the address and the key with a request that lacks its query: a good key makes it invalid, and free.

        Returns:
            An empty text.

        Raises:
            AccountError: The service rejects the key.
            ServiceUnavailableError: The service cannot be reached, or is busy.
        """
        try:
            await self._client.send(SearchRequest(f"{self.url}{_WEB}"), 0.0)
        except DataError:  # the key was taken, and the query missed
            return ""
        return ""
