"""Several search backends in order: where one cannot answer or finds nothing, the next one is asked."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from knowgen.core.errors import AccountError, DataError, KnowgenError, TransientError, UsageError
from knowgen.core.metering import note
from knowgen.core.text import error_message
from knowgen.search.contract import Hit, ImageHit, Page, SearchBackend
from knowgen.search.load import arguments_by_name, named_backend
from knowgen.search.prices import query_price

T = TypeVar("T")

PAUSE = 30.0
"""Seconds for which a backend that could not answer is asked last, unless it asked for more."""

_MAX_FINDERS = 10_000
"""Number of URLs whose backend is remembered, so that it is asked for the page first."""

_log = logging.getLogger("knowgen.search")


@dataclass
class _ChainMember:
    """A backend of a chain.

    Attributes:
        name: Its name, without what follows a colon.
        backend: The backend.
        turned_away: Whether it rejected the account, which it would do again.
        paused_until: Time until which it is asked last.
        reported: What the log said last about it.
    """

    name: str
    backend: SearchBackend
    turned_away: bool = False
    paused_until: float = 0.0
    reported: str = ""


class ChainSearch:
    """The search backend `chain:NAME,NAME,...`.

    A backend that rejects the account is not asked again while there is another; one that cannot answer is asked last
    for a while. Both are logged, and noted in the run. Every hit names the backend that found it.

    Args:
        model: Names of the backends, separated by commas, such as `serper,brave` or `searxng:http://127.0.0.1:8888,brave`.
        clock: Returns the current time in seconds, of any origin.
        arguments: Arguments of the backends, as `NAME.KEY`, such as `{"brave.country": "DE"}`.

    Raises:
        UsageError: There are fewer than two names, one is unknown, or an argument is of none of them.
    """

    def __init__(self, model: str, *, clock: Callable[[], float] = time.monotonic, **arguments: Any) -> None:
        self._clock = clock
        self._members = [_ChainMember(*named_backend(name, given)) for name, given in _parts(model, arguments)]
        self._finders: dict[str, _ChainMember] = {}

    @classmethod
    def query_price(cls, model: str, **arguments: Any) -> float | None:
        """Return the maximum cost of a query in US dollars, where all backends are asked; None when it is not known."""
        prices = [query_price(name, given) for name, given in _parts(model, arguments)]
        return None if None in prices else math.fsum(price for price in prices if price is not None)

    @property
    def version(self) -> str:
        """Names and versions of all backends, in order."""
        return ",".join(f"{one.name}@{getattr(one.backend, 'version', '')}" for one in self._members)

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return the pages of the first backend that finds some; errors as in `SearchBackend.search`."""
        member, hits = await self._first(self._order(), lambda backend: backend.search(query, k), bool)
        for hit in hits:
            self._finders[hit.url] = member
        while len(self._finders) > _MAX_FINDERS:
            del self._finders[next(iter(self._finders))]
        return [hit.model_copy(update={"found_by": hit.found_by or member.name}) for hit in hits]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return the images of the first backend that finds some, with what was blocked on the way."""
        blocked: list[ImageHit] = []

        async def ask(backend: SearchBackend) -> list[ImageHit]:
            hits = await backend.image_search(query, k)
            if not _has_image(hits):
                blocked.extend(hit for hit in hits if hit.blocked is not None)
            return hits

        member, hits = await self._first(self._order(), ask, _has_image)
        found = [hit.model_copy(update={"found_by": hit.found_by or member.name}) for hit in hits]
        return [*found, *blocked] if _has_image(found) else blocked or found

    async def open(self, url: str) -> Page:
        """Return the page at a URL, opened by the backend that found it, else by the first one that can.

        Errors as in `SearchBackend.open`: that of the first backend that was asked.
        """
        finder = self._finders.get(url)
        order = sorted(self._order(), key=lambda member: member is not finder)
        _, page = await self._first(order, lambda backend: backend.open(url), lambda page: True, of_page=True)
        return page

    async def close(self) -> None:
        """Close all backends."""
        for member in self._members:
            if (close := getattr(member.backend, "close", None)) is not None:
                await close()

    async def _first(
        self,
        order: Sequence[_ChainMember],
        ask: Callable[[SearchBackend], Awaitable[T]],
        enough: Callable[[T], bool],
        *,
        of_page: bool = False,
    ) -> tuple[_ChainMember, T]:
        """Return the first backend with enough results, and these; the last that answered where none has enough.

        Args:
            order: The backends, in the order in which they are asked.
            ask: Asks a backend.
            enough: Whether its results are enough.
            of_page: Whether an error may be that of the page's site. It says nothing about the backend then, and the
                first one is raised; else the first after which trying again may help.

        Raises:
            TransientError, AccountError, DataError: No backend could answer.
        """
        failures: list[KnowgenError] = []
        answered: tuple[_ChainMember, T] | None = None
        for member in order:
            try:
                results = await ask(member.backend)
            except AccountError as error:
                member.turned_away = True
                failures.append(error)
                self._report(member, f"rejects the account: {error_message(error)}")
            except TransientError as error:
                failures.append(error)
                if not of_page:
                    member.paused_until = self._clock() + max(error.retry_after or 0.0, PAUSE)
                    self._report(member, f"cannot answer now: {error_message(error)}")
            except DataError as error:  # it says nothing about the backend
                failures.append(error)
            else:
                answered = (member, results)
                member.paused_until, member.reported = 0.0, ""
                if enough(results):
                    break
        if answered is not None:
            return answered
        transient = next((error for error in failures if isinstance(error, TransientError)), failures[0])
        raise failures[0] if of_page else transient

    def _order(self) -> list[_ChainMember]:
        """Return the backends to ask, those that could not answer lately last."""
        asked = [member for member in self._members if not member.turned_away] or self._members
        return sorted(asked, key=lambda member: member.paused_until > self._clock())

    def _report(self, member: _ChainMember, what: str) -> None:
        note("search", "fallback", {"backend": member.name, "reason": what})
        if member.reported != what:
            member.reported = what
            _log.warning("knowgen: search backend %s %s; the next one is asked", member.name, what)


def _has_image(hits: Sequence[ImageHit]) -> bool:
    return any(hit.image is not None for hit in hits)


def _parts(model: str, arguments: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the names of a chain's backends, each with its arguments."""
    names = [name.strip() for name in model.split(",") if name.strip()]
    if len(names) < 2:
        raise UsageError("a chain has two backends or more", where=f"chain:{model}", fix="write chain:NAME,NAME")
    given = arguments_by_name([name.partition(":")[0] for name in names], arguments, f"chain:{model}")
    return [(name, given[name.partition(":")[0]]) for name in names]
