"""HTTP to a service: connections and rate control of an event loop, and one exchange with failures as exceptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from knowgen.clients.http_client import HttpClient
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateControl, RateLimits
from knowgen.clients.response_body import read_body
from knowgen.clients.service_errors import Outcome, ServiceError, secret_of
from knowgen.core.errors import AccountError, ServiceUnavailableError
from knowgen.core.metering import Reservation, note
from knowgen.core.secrets import mask_secrets

if TYPE_CHECKING:
    import aiohttp

USER_AGENT = "knowgen"
"""User agent of calls to services that ask for no particular one."""

_CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class Connection:
    """How a service is reached.

    Attributes:
        name: Name of the service, for messages and notes.
        url: URL of the service.
        headers: Headers of every call, the key included; `User-Agent` may be among them.
        timeout: Seconds for one call.
        limits: Limits on concurrent calls, and on requests and tokens per minute.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    limits: RateLimits


async def _open_http(connection: Connection) -> AsyncGenerator[HttpClient]:
    """Yield an HTTP client, and close it when this generator or its event loop is shut down."""
    client = HttpClient(connection.headers, min(_CONNECT_SECONDS, connection.timeout))
    try:
        yield client
    finally:
        await client.close()


class ServiceSession:
    """Connections and rate control of one event loop. A worker process runs a loop for each of its batches.

    Args:
        loop: The event loop.
        connection: How the service is reached.

    Attributes:
        loop: The event loop.
        rate_control: Admits the calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self.loop = loop
        self.rate_control = RateControl(connection.limits, partial(note, connection.name, "pace"))
        self._opening = _open_http(connection)
        self._http: HttpClient | None = None

    async def http(self) -> HttpClient:
        """Return the HTTP client. The first call opens it."""
        if self._http is None:
            self._http = await anext(self._opening)  # does not suspend, so no second call can open another
        return self._http

    async def close(self) -> None:
        """Close the connections."""
        await self._opening.aclose()


class CurrentSession:
    """The session of the event loop that is running now."""

    def __init__(self) -> None:
        self._session: ServiceSession | None = None

    def get(self, connection: Connection) -> ServiceSession:
        """Return the session of the running event loop, a new one in a new loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            self._session = ServiceSession(loop, connection)
        return self._session

    async def close(self) -> None:
        """Close the connections, if they belong to the running event loop."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()


@dataclass(frozen=True)
class RawResponse:
    """A response before it is understood.

    Attributes:
        status: HTTP status.
        headers: Headers, looked up by name in any case.
        body: Decompressed body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ConnectionLostError(ServiceUnavailableError):
    """The connection ended before the response was complete. The service may have served the call."""


async def exchange(
    request: AbstractAsyncContextManager[aiohttp.ClientResponse],
    connection: Connection,
    slot: CallSlot,
    reservation: Reservation,
    max_bytes: int,
) -> RawResponse:
    """Send a request and read its response.

    Args:
        request: The request, as a client's `get` or `post` returns it.
        connection: How the service is reached.
        slot: Place of the call in rate control; its signal is set where a response is missing.
        reservation: Reservation of the cost, settled at 0 where the call was not sent.
        max_bytes: Maximum size of the body, before and after decompression.

    Raises:
        ServiceUnavailableError: The service cannot be reached, or gave no response in time.
        ConnectionLostError: The response did not arrive in full.
        AccountError: The certificate of the server is not valid.
        UnreadableBodyError: The body is too long, or cannot be decompressed.
    """
    import aiohttp

    name = connection.name
    slot.signal = LoadSignal.UNAVAILABLE
    try:
        async with asyncio.timeout(connection.timeout), request as response:
            body = await read_body(response, max_bytes)
    except aiohttp.ClientConnectorCertificateError as error:
        reservation.settle(0.0)
        what = f"the certificate of {name} at {connection.url} is not valid: {error.certificate_error}"
        raise AccountError(what) from error
    except aiohttp.ClientConnectorError as error:
        reservation.settle(0.0)
        cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
        what = f"{name} cannot be reached at {connection.url} ({cause})"
        raise ServiceUnavailableError(what, service=name, busy=True) from error
    except TimeoutError as error:
        what = f"{name} gave no response within {connection.timeout:g} s"
        raise ServiceUnavailableError(what, service=name) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        what = f"the response of {name} was lost ({type(error).__name__})"
        raise ConnectionLostError(what, service=name) from error
    slot.signal = LoadSignal.NONE
    return RawResponse(response.status, response.headers, body)


def signal_load(slot: CallSlot, error: ServiceError) -> None:
    """Report to rate control the load of the service that an error shows."""
    slot.retry_after = error.retry_after
    if error.outcome is Outcome.BUSY and error.status == 429:
        slot.signal = LoadSignal.RATE_LIMITED
    elif error.outcome.transient:
        slot.signal = LoadSignal.UNAVAILABLE
    else:
        slot.signal = LoadSignal.SUCCESS if error.outcome is Outcome.REFUSED else LoadSignal.NONE


def json_object(body: bytes, key: str) -> Mapping[str, Any] | None:
    """Return the JSON object of a response with the key masked, None when it is not one."""
    try:
        data = mask_secrets(json.loads(body), secret_of(key))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, Mapping) else None
