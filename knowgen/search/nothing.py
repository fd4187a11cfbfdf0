"""The search backend `none`, which finds nothing: an agent without search, to compare one with search against."""

from __future__ import annotations

from typing import Any

from knowgen.core.errors import DataError
from knowgen.search.contract import Hit, ImageHit, Page


class NothingSearch:
    """The search backend `none`.

    Example:
        >>> import asyncio
        >>> asyncio.run(NothingSearch().search("lighthouse"))
        []
    """

    version = "1"

    @classmethod
    def query_price(cls, **_arguments: Any) -> float:
        """Return the cost of a query in US dollars: nothing."""
        return 0.0

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return no pages."""
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return no images."""
        return []

    async def open(self, url: str) -> Page:
        """Raise `DataError`: there are no pages."""
        raise DataError("page not found", where=url, fix="the search backend `none` has no pages")
