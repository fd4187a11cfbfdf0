"""HTTP client of the search services: rate control, budget, and errors as exceptions.

Redirects are not followed, because the key would go along. A request whose connection is lost is sent once more, as it
changes nothing at the service: a GET request by aiohttp, a POST request here, with a reservation of its own. All other
repetitions are left to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knowgen.clients.http_service import (
    Connection,
    ConnectionLostError,
    CurrentSession,
    RawResponse,
    exchange,
    json_object,
    signal_load,
)
from knowgen.clients.rate_control import CallSlot, LoadSignal
from knowgen.clients.response_body import UnreadableBodyError
from knowgen.clients.service_errors import MAYBE_BILLED, Outcome, ServiceError, is_web_page, read_error
from knowgen.core.errors import AccountError, DataError, KnowgenError, ServiceUnavailableError
from knowgen.core.metering import Reservation, paid_call
from knowgen.core.text import clean_text

MAX_RESPONSE_BYTES = 32 * 1024 * 1024
"""Maximum size of a response, in bytes."""


@dataclass(frozen=True)
class SearchRequest:
    """A request to a search service.

    Attributes:
        url: URL of the request, without a query.
        params: Fields of the query.
        body: Fields of a JSON body, sent by POST; None for a GET request.
    """

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


def _no_cost(_data: Mapping[str, Any]) -> float | None:
    return None


def _no_error(_data: Mapping[str, Any], _headers: Mapping[str, str]) -> ServiceError | None:
    return None


def _cleaned(value: Any) -> Any:
    """Return data whose texts can be stored as UTF-8."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(name): _cleaned(inner) for name, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class SearchClient:
    """Sends requests to one search service. Used in one event loop at a time.

    Attributes:
        connection: How the service is reached.
        key: The secret key; empty for a service without one.
        fixes: What to do about an error that turns the account away, by HTTP status; 0 for the others.
    """

    connection: Connection
    key: str = field(default="", repr=False)
    fixes: Mapping[int, str] = field(default_factory=dict)
    _current: CurrentSession = field(default_factory=CurrentSession, repr=False, compare=False)

    async def send(
        self,
        request: SearchRequest,
        worst_case: float | None,
        cost: Callable[[Mapping[str, Any]], float | None] = _no_cost,
        error_inside: Callable[[Mapping[str, Any], Mapping[str, str]], ServiceError | None] = _no_error,
    ) -> Mapping[str, Any]:
        """Send a request, and return the JSON object of its response.

        Args:
            request: The request.
            worst_case: Maximum cost in US dollars; 0.0 for a free service; None when unknown.
            cost: Reads the cost in US dollars from a response; None charges the maximum.
            error_inside: Reads an error inside a response of status 200, from its data and headers.

        Raises:
            ServiceUnavailableError: The service is busy or broken, or cannot be reached.
            AccountError: The service rejects every call: a wrong key, no credit, a wrong address.
            DataError: The service rejects this request.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        try:
            return await self._send(request, worst_case, cost, error_inside)
        except ConnectionLostError:
            if request.body is None:
                raise
            return await self._send(request, worst_case, cost, error_inside)

    async def _send(
        self,
        request: SearchRequest,
        worst_case: float | None,
        cost: Callable[[Mapping[str, Any]], float | None],
        error_inside: Callable[[Mapping[str, Any], Mapping[str, str]], ServiceError | None],
    ) -> Mapping[str, Any]:
        name, session = self.connection.name, self._current.get(self.connection)
        async with session.rate_control.slot(1) as slot, paid_call(worst_case, name) as reservation:
            response = await self._exchange(request, slot, reservation)
            if not 200 <= response.status < 300:
                if response.status not in MAYBE_BILLED:
                    reservation.settle(0.0)
                error = read_error(response.status, response.headers, response.body, self.key)
                signal_load(slot, error)
                raise self.exception_of(error)
            data = json_object(response.body, self.key)
            if data is None:
                slot.signal = LoadSignal.UNAVAILABLE
                raise self._no_json(response)
            if b"\\ud" in response.body.lower():  # an escaped surrogate, which may be alone
                data = _cleaned(data)
            inside = error_inside(data, response.headers)
            if inside is not None:
                reservation.settle(0.0)
                signal_load(slot, inside)
                raise self.exception_of(inside)
            slot.signal = LoadSignal.SUCCESS
            reservation.settle(cost(data))
            return data

    async def _exchange(self, request: SearchRequest, slot: CallSlot, reservation: Reservation) -> RawResponse:
        http = await self._current.get(self.connection).http()
        if request.body is None:
            call = http.get(request.url, params=dict(request.params))
        else:
            call = http.post(request.url, params=dict(request.params), json=dict(request.body))
        try:
            return await exchange(call, self.connection, slot, reservation, MAX_RESPONSE_BYTES)
        except UnreadableBodyError as error:
            raise DataError(error.what, where=self.connection.name) from error

    def exception_of(self, error: ServiceError) -> KnowgenError:
        """Return the exception to raise for an error."""
        name = self.connection.name
        what = error.describe(name)
        if error.outcome is Outcome.ACCOUNT:
            return AccountError(what, fix=self.fixes.get(error.status) or self.fixes.get(0, ""))
        if error.outcome.transient:
            busy = error.outcome is Outcome.BUSY
            return ServiceUnavailableError(what, service=name, busy=busy, retry_after=error.retry_after)
        return DataError(what)

    def _no_json(self, response: RawResponse) -> KnowgenError:
        what = f"{self.connection.name} answered {response.status} without a JSON object"
        if is_web_page(response.body):
            return AccountError(f"{what}, but with a web page", fix=f"check that {self.connection.url} is its address")
        return ServiceUnavailableError(what, service=self.connection.name)

    async def close(self) -> None:
        """Close the connections. Call it in the event loop in which they were used."""
        await self._current.close()
