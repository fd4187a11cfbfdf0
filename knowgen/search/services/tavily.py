"""Pages and images through Tavily.

Format: docs.tavily.com/api-reference/endpoint/search and its OpenAPI description (looked up in 2026-11). Images come
with a search for pages, and without the pages that they stand on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from knowgen.core.errors import UsageError
from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.client import SearchRequest
from knowgen.search.services.reading import number_at, rows_at, shortened, text_at, url_at
from knowgen.search.web.images import RawImageHit

MAX_RESULTS = 20
MAX_QUERY = 400
"""Maximum number of characters of a query; longer ones are cut at a word."""

CREDITS = {"basic": 1, "advanced": 2}
"""Credits of a search, by its depth."""


@dataclass(eq=False, repr=False, kw_only=True)
class Tavily(ServiceSearch):
    """The search backend `tavily`.

    Args:
        depth: `basic`, one credit a query, or `advanced`, two.

    Further arguments are those of `SearchAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: `TAVILY_API_KEY` is not set.
    """

    provider: ClassVar[str] = "tavily"
    service_url: ClassVar[str] = "https://api.tavily.com"
    default_key: ClassVar[str] = "TAVILY_API_KEY"
    key_scheme: ClassVar[str] = "Bearer"

    depth: str = "basic"

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        if self.depth not in CREDITS:
            fix = f"write {' or '.join(CREDITS)}"
            raise UsageError(f"depth={self.depth!r} is unknown", where="search backend tavily", fix=fix)
        self.connect()

    def settings(self) -> str:
        """Return the server and the depth."""
        return f"{self.base_url} {self.depth}"

    @classmethod
    def query_price(
        cls, base_url: str = "", price: float | None = None, depth: str = "basic", **_arguments: Any
    ) -> float | None:
        """Return the cost of a query in US dollars, None when the price is unknown; arguments as the constructor's."""
        return cls.price_at(base_url or cls.service_url, price).cost(CREDITS.get(depth, max(CREDITS.values())))

    async def find_pages(self, query: str, k: int) -> list[Hit]:
        """Ask for pages."""
        data = await self._ask(query, k, {})
        hits = [
            Hit(
                title=text_at(row, "title"),
                url=url_at(row, "url"),
                snippet=text_at(row, "content"),
                date=text_at(row, "published_date"),
            )
            for row in rows_at(data, "results")
        ]
        return [hit for hit in hits if hit.url][:k]

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask for images. The service decides how many it returns."""
        data = await self._ask(query, 1, {"include_images": True, "include_image_descriptions": True})
        hits = [
            RawImageHit(title=text_at(row, "description"), url=url_at(row, "url")) for row in rows_at(data, "images")
        ]
        return [hit for hit in hits if hit.url][:n]

    async def _ask(self, query: str, k: int, more: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {
            "query": shortened(query, MAX_QUERY),
            "max_results": max(1, min(k, MAX_RESULTS)),
            "search_depth": self.depth,
            "include_usage": True,
            **more,
        }
        worst = self.prices.worst(k, CREDITS[self.depth])
        data = await self._client.send(SearchRequest(f"{self.url}/search", body=body), worst, self._cost)
        if "results" not in data:
            raise self.unexpected("results")
        return data

    def _cost(self, data: Mapping[str, Any]) -> float | None:
        credits = number_at(data, "usage", "credits")
        return None if credits is None else self.prices.cost(credits)

    async def check_service(self) -> str:
        """Check the address and the key with the free call `GET /usage`.

        Returns:
            An empty text.

        Raises:
            AccountError: The service rejects the key.
            ServiceUnavailableError: The service cannot be reached, or is busy.
        """
        await self._client.send(SearchRequest(f"{self.url}/usage"), 0.0)
        return ""
