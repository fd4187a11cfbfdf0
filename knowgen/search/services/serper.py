"""Google results through Serper.

The service publishes its format in its playground alone. Request and response here are as its users show them (looked
up in 2026-11): `POST {q, num, gl, hl}` with the header `X-API-KEY`; `organic[]` with title, link, snippet, date,
position; `images[]` with title, imageUrl, imageWidth, imageHeight, thumbnailUrl, source, domain, link, googleUrl,
position; `credits`, the cost of the call; `GET /account` gives `{balance, rateLimit}` and is free. A query is sent as
given, with its quotes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.client import SearchRequest
from knowgen.search.services.reading import number_at, rows_at, text_at, url_at
from knowgen.search.web.images import RawImageHit

MAX_RESULTS = 100


@dataclass(eq=False, repr=False, kw_only=True)
class Serper(ServiceSearch):
    """The search backend `serper`: Google's pages and images.

    Args:
        country: Country of the results as two letters, such as `us`; empty for the service's default.
        language: Language of the results, such as `en`; empty for the service's default.

    Further arguments are those of `SearchAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: `SERPER_API_KEY` is not set.
    """

    provider: ClassVar[str] = "serper"
    service_url: ClassVar[str] = "https://google.serper.dev"
    default_key: ClassVar[str] = "SERPER_API_KEY"
    key_header: ClassVar[str] = "X-API-KEY"

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
        data = await self._ask("/search", query, k)
        hits = [
            Hit(
                title=text_at(row, "title"),
                url=url_at(row, "link"),
                snippet=text_at(row, "snippet"),
                date=text_at(row, "date"),
            )
            for row in rows_at(data, "organic")
        ]
        return [hit for hit in hits if hit.url][:k]

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask for images."""
        data = await self._ask("/images", query, n)
        hits = [
            RawImageHit(
                title=text_at(row, "title"),
                url=url_at(row, "imageUrl"),
                page_url=url_at(row, "link"),
                thumbnail_url=url_at(row, "thumbnailUrl"),
                source=text_at(row, "source") or text_at(row, "domain"),
            )
            for row in rows_at(data, "images")
        ]
        return [hit for hit in hits if hit.url or hit.thumbnail_url][:n]

    async def _ask(self, path: str, query: str, k: int) -> Mapping[str, Any]:
        number = max(1, min(k, MAX_RESULTS))
        body: dict[str, Any] = {"q": query, "num": number}
        body |= {name: value for name, value in (("gl", self.country), ("hl", self.language)) if value}
        data = await self._client.send(
            SearchRequest(f"{self.url}{path}", body=body), self.prices.worst(number), self._cost
        )
        if "searchParameters" not in data:
            raise self.unexpected("searchParameters")
        return data

    def _cost(self, data: Mapping[str, Any]) -> float | None:
        credits = number_at(data, "credits")
        return None if credits is None else self.prices.cost(credits)

    async def check_service(self) -> str:
        """Check the address and the key with one free call, before anything is paid.

        Returns:
            A warning in one line where no credits are left, or an empty text.

        Raises:
            AccountError: The service rejects the key.
            ServiceUnavailableError: The service cannot be reached, or is busy.
        """
        data = await self._client.send(SearchRequest(f"{self.url}/account"), 0.0)
        balance = number_at(data, "balance")
        if balance is None:
            raise self.unexpected("balance")
        return "" if balance > 0 else "the account of serper has no credits left"
