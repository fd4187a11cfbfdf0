"""The search backend `shuffled:NAME`: another one, whose results are those of other queries.

It is a control. What an agent gains from search must be lost with it: pages and images look like those of the
benchmark, and have nothing to do with what was asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from knowgen.core.errors import DataError, UsageError
from knowgen.core.home import expand_user
from knowgen.core.text import error_message
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.search.load import named_backend
from knowgen.search.prices import query_price

VERSION = "1"
"""Version of how the other query is chosen, part of keys."""

_WORD = re.compile(r"\w+")
_MORE = 3
"""How many times as many results are asked for, since those that fit the query after all are left out."""


class ShuffledSearch:
    """The search backend `shuffled:NAME`, or `shuffled` for the task's own.

    Each query is answered with the results of another one, which shares no word with it. The same query always gets the
    same results. Results that have a word of the query in their title are left out. Pages are opened as they are.

    Args:
        model: Name of the backend.
        seed: Chooses the other queries.
        queries: File with the other queries, one a line; empty for the titles of pages, which `world` can list.
        arguments: Arguments of the backend.

    Raises:
        UsageError: The backend is unknown, or cannot list titles, and no file is given.
        DataError: The file cannot be read, or is empty.
    """

    wraps_search = True

    def __init__(self, model: str, *, seed: int = 0, queries: str = "", **arguments: Any) -> None:
        self._name, self._backend = named_backend(model, arguments)
        self._seed, self._file = seed, queries
        if not queries and not callable(getattr(self._backend, "titles", None)):
            raise UsageError(
                f"{self._name} cannot list titles to use as queries",
                where=f"search backend shuffled:{self._name}",
                fix="give a file with other queries, one a line: search.queries=FILE",
            )
        self._given = _lines(queries) if queries else None

    @classmethod
    def query_price(cls, model: str, *, seed: int = 0, queries: str = "", **arguments: Any) -> float | None:
        """Return the maximum cost of a query of the backend in US dollars; None when it is not known."""
        return query_price(model, arguments)

    @cached_property
    def version(self) -> str:
        """Name and version of the backend, seed, and the hash of the file with queries."""
        given = "" if self._given is None else hashlib.sha256("\n".join(self._given).encode()).hexdigest()[:12]
        own = " ".join(filter(None, (VERSION, f"seed={self._seed}", given)))
        return f"{self._name}@{getattr(self._backend, 'version', '')} {own}"

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages that were found for another query; errors as in `SearchBackend.search`."""
        other = await self._other(query)
        hits = await self._backend.search(other, _MORE * k) if other else []
        return [hit for hit in hits if _apart(hit.title, query)][:k]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images that were found for another query; errors as in `SearchBackend.image_search`."""
        other = await self._other(query)
        hits = await self._backend.image_search(other, k) if other else []
        return [hit for hit in hits if _apart(hit.title, query)]

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        return await self._backend.open(url)

    async def close(self) -> None:
        """Close the backend."""
        if (close := getattr(self._backend, "close", None)) is not None:
            await close()

    async def _other(self, query: str) -> str:
        """Return the other query; an empty text if every one shares a word with the query."""
        if self._given is None:
            self._given = await self._backend.titles()  # type: ignore[attr-defined]
        return other_query(query, self._given, self._seed)


def other_query(query: str, queries: Sequence[str], seed: int) -> str:
    """Return one of some queries that shares no word with a query; an empty text if each does.

    Example:
        >>> other_query("red boat", ["blue boat", "old tower"], seed=0)
        'old tower'
    """
    if not queries:
        return ""
    digest = hashlib.sha256(f"{seed}\0{query}".encode()).digest()
    start = int.from_bytes(digest[:8], "big") % len(queries)
    return next((one for one in (*queries[start:], *queries[:start]) if _apart(one, query)), "")


def _apart(text: str, query: str) -> bool:
    """Return whether two texts have no word in common."""
    return not _words(text) & _words(query)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _lines(file: str) -> list[str]:
    try:
        text = expand_user(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"the file of queries cannot be read: {error_message(error)}", where=file) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError("the file of queries is empty", where=file, fix="write one query a line")
    return lines
