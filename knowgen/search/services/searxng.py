"""Pages and images through a SearXNG server, a metasearch engine that anybody can run.

Format: docs.searxng.org/dev/search_api (looked up in 2026-11). The format `json` must be among `search.formats` in the
server's `settings.yml`; a server without it answers 403, as most public ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from knowgen.clients.pricing import FREE, SearchPrice
from knowgen.core.errors import ServiceUnavailableError, UsageError
from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.client import SearchRequest
from knowgen.search.services.reading import rows_at, text_at, url_at
from knowgen.search.web.images import RawImageHit

MAX_RESULT_PAGES = 3
"""Maximum number of result pages that are asked for; the server decides how many results one has."""

_NO_JSON = "add `json` to search.formats in the server's settings.yml, or use a server of your own"
_EXAMPLE = "write searxng:http://127.0.0.1:8888"


@dataclass(eq=False, repr=False)
class Searxng(ServiceSearch):
    """The search backend `searxng:URL`.

    Args:
        model: URL of the server, as in `searxng:http://127.0.0.1:8888`.
        language: Language of the results, such as `en`; empty for the server's default.
        engines: Engines to ask, separated by commas; empty for those of the category.

    Further arguments are those of `SearchAccess`.

    Raises:
        UsageError: No URL is given, or an argument is out of its range.
    """

    provider: ClassVar[str] = "searxng"

    model: str = ""
    _: KW_ONLY
    language: str = ""
    engines: str = ""

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = "search backend searxng"
        self.check(where)
        if self.model and self.base_url:
            raise UsageError("the URL is given twice", where=where, fix=_EXAMPLE)
        self.base_url = (self.base_url or self.model).removesuffix("/search")
        if not self.base_url:
            raise UsageError("no URL is given", where=where, fix=_EXAMPLE)
        if not self.base_url.lower().startswith(("http://", "https://")):
            raise UsageError(f"{self.base_url!r} is not an http address", where=where, fix=_EXAMPLE)
        self.connect(fixes={403: _NO_JSON})

    def settings(self) -> str:
        """Return the server, the language and the engines."""
        return f"{self.base_url} {self.language} {self.engines}"

    @classmethod
    def price_at(cls, url: str, price: float | None) -> SearchPrice:
        """Return the price of a query: nothing."""
        return FREE if price is None else super().price_at(url, price)

    async def find_pages(self, query: str, k: int) -> list[Hit]:
        """Ask for pages."""
        hits = [
            Hit(
                title=text_at(row, "title"),
                url=url_at(row, "url"),
                snippet=text_at(row, "content"),
                date=text_at(row, "publishedDate")[:10],
            )
            for row in await self._ask(query, k, "general")
        ]
        return [hit for hit in hits if hit.url][:k]

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask for images."""
        hits = [
            RawImageHit(
                title=text_at(row, "title"),
                url=url_at(row, "img_src"),
                page_url=url_at(row, "url"),
                thumbnail_url=url_at(row, "thumbnail_src") or url_at(row, "thumbnail"),
                source=text_at(row, "source") or text_at(row, "engine"),
            )
            for row in await self._ask(query, n, "images")
        ]
        return [hit for hit in hits if hit.url or hit.thumbnail_url][:n]

    async def _ask(self, query: str, k: int, category: str) -> list[Mapping[str, Any]]:
        """Return at least `k` results, from as many result pages as that takes."""
        rows: list[Mapping[str, Any]] = []
        for number in range(1, MAX_RESULT_PAGES + 1):
            page = await self._ask_page(query, category, number)
            rows += page
            if len(rows) >= k or not page:
                break
        return rows

    async def _ask_page(self, query: str, category: str, number: int) -> list[Mapping[str, Any]]:
        params = {"q": query, "format": "json", "categories": category, "pageno": str(number)}
        params |= {name: value for name, value in (("language", self.language), ("engines", self.engines)) if value}
        data = await self._client.send(SearchRequest(f"{self.url}/search", params), self.prices.cost(1))
        if "results" not in data:
            raise self.unexpected("results")
        rows = rows_at(data, "results")
        failed = data.get("unresponsive_engines")
        if not rows and number == 1 and isinstance(failed, list) and failed:
            raise ServiceUnavailableError(
                f"search:searxng found nothing, and engines of the server did not answer: {_names(failed)}",
                service="search:searxng",
            )
        return rows

    async def check_service(self) -> str:
        """Check that the server answers a search in JSON, with one query.

        Returns:
            A warning in one line where its engines do not answer, or an empty text.

        Raises:
            AccountError: The server does not offer JSON, or is not a SearXNG server.
            ServiceUnavailableError: The server cannot be reached.
        """
        params = {"q": "test", "format": "json"}
        data = await self._client.send(SearchRequest(f"{self.url}/search", params), 0.0)
        if "results" not in data:
            raise self.unexpected("results")
        failed = data.get("unresponsive_engines")
        return f"engines of the server do not answer: {_names(failed)}" if isinstance(failed, list) and failed else ""


def _names(failed: list[Any]) -> str:
    """Return the engines that did not answer, each with the reason that the server gives."""
    entries = [entry if isinstance(entry, list) else [entry] for entry in failed[:8]]
    return ", ".join(": ".join(str(part) for part in entry[:2]) for entry in entries)
