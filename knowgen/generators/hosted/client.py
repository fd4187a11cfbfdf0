"""HTTP client of the hosted image services: rate control, budget, and errors as exceptions.

Redirects are not followed, because the key would go along.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from knowgen.clients.endpoint_url import url_with_path
from knowgen.clients.http_client import HttpClient
from knowgen.clients.preflight import get_free
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateControl, RateLimits
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.clients.service_errors import (
    MAYBE_BILLED,
    Outcome,
    ServiceError,
    embedded_status,
    error_from,
    is_web_page,
    read_error,
    secret_of,
)
from knowgen.core.errors import AccountError, ServiceUnavailableError
from knowgen.core.metering import ReportedUsage, Reservation, note, paid_call
from knowgen.core.records import Usage
from knowgen.core.secrets import mask_secrets
from knowgen.generators.hosted.errors import ServiceRejectedError, exception_of
from knowgen.generators.hosted.images import EncodedReference

if TYPE_CHECKING:
    pass

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
_CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class ServiceRequest:
    """A request to a service.

    Attributes:
        path: Path after the URL of the service.
        body: Fields of the request.
        files: Reference images to send as files. With files the request is a form, without them JSON.
        file_field: Form field of the files.
    """

    path: str
    body: Mapping[str, Any]
    files: Sequence[EncodedReference] = ()
    file_field: str = "image[]"


@dataclass(frozen=True)
class ServiceResponse:
    """A successful response of a service.

    Attributes:
        data: The JSON object, with the key masked.
        usage: Tokens and cost of the call.
    """

    data: Mapping[str, Any]
    usage: Usage


async def _open_http(service: ServiceClient) -> AsyncGenerator[HttpClient]:
    """Yield an HTTP client, and close it when this generator or its event loop is shut down."""
    client = HttpClient(service.headers, min(_CONNECT_SECONDS, service.timeout))
    try:
        yield client
    finally:
        await client.close()


class _Session:
    """Connections and rate control of one event loop. A worker process runs a loop for each of its batches."""

    def __init__(self, loop: asyncio.AbstractEventLoop, service: ServiceClient) -> None:
        self.loop = loop
        self.rate_control = RateControl(service.limits, partial(note, service.name, "pace"))
        self._opening = _open_http(service)
        self._http: HttpClient | None = None

    async def http(self) -> HttpClient:
        """Return the HTTP client. The first call opens it."""
        if self._http is None:
            self._http = await anext(self._opening)  # does not suspend, so no second call can open another
        return self._http

    async def close(self) -> None:
        await self._opening.aclose()


class _CurrentSession:
    """The session of the event loop that is running now."""

    def __init__(self) -> None:
        self._session: _Session | None = None

    def get(self, service: ServiceClient) -> _Session:
        """Return the session of the running event loop, a new one in a new loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            self._session = _Session(loop, service)
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()


@dataclass(frozen=True)
class ServiceClient:
    """Sends requests to a service. Used in one event loop at a time.

    Attributes:
        name: Name of the service and model, for messages and the budget.
        url: URL without a trailing slash.
        key: The secret key; never shown.
        headers: Headers of every call, the key included.
        timeout: Seconds for one call, without the time it waits for rate control.
        limits: Limits on concurrent calls, and on requests and tokens per minute.
    """

    name: str
    url: str
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    limits: RateLimits
    _current: _CurrentSession = field(default_factory=_CurrentSession, repr=False, compare=False)

    async def send(
        self,
        request: ServiceRequest,
        worst_case: float | None,
        usage: Callable[[Mapping[str, Any]], ReportedUsage],
        tokens: int,
    ) -> ServiceResponse:
        """Send one request. Its worst-case cost is reserved before, and replaced by its actual cost after.

        Args:
            request: The request.
            worst_case: Maximum cost in US dollars, None when unknown.
            usage: Reads tokens and cost from the response. Where they are incomplete, the worst case is charged.
            tokens: Estimated tokens of the call, for the tokens-per-minute limit.

        Raises:
            ServiceUnavailableError: The service is overloaded, broken or cannot be reached.
            AccountError: The service rejects every call: a wrong key, no credit, an unknown model, a wrong address.
            RefusalError: The service declined the content.
            ServiceRejectedError: The service rejected the request, and a retry would not help.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        session = self._current.get(self)
        async with session.rate_control.slot(tokens) as slot, paid_call(worst_case, self.name) as reservation:
            status, headers, body = await self._exchange(await session.http(), request, slot, reservation)
            if not 200 <= status < 300:
                error = read_error(status, headers, body, self.key)
                if status not in MAYBE_BILLED:
                    reservation.settle(0.0)
                _signal_load(slot, error)
                raise exception_of(error, self.name)
            data = await asyncio.to_thread(_json_object, body, self.key)
            if data is None:
                slot.signal = LoadSignal.UNAVAILABLE
                page = ", but a web page: base_url may not be its address" if is_web_page(body) else ""
                what = f"{self.name} answered {status} without a JSON object{page}"
                raise ServiceUnavailableError(what, service=self.name)
            reported = usage(data)
            slot.signal, slot.tokens = LoadSignal.SUCCESS, reported.input_tokens + reported.output_tokens
            cost = reported.charge(worst_case)
            reservation.settle(cost)
            if inside := data.get("error"):
                details = inside if isinstance(inside, Mapping) else {"message": str(inside)}
                error = error_from(details, embedded_status(details), headers, self.key)
                _signal_load(slot, error)
                raise exception_of(error, self.name)
            return ServiceResponse(
                data, Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=cost)
            )

    async def _exchange(
        self, http: HttpClient, request: ServiceRequest, slot: CallSlot, reservation: Reservation
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the response.

        Raises:
            ServiceUnavailableError: The service cannot be reached, or the response did not arrive in full or in time.
            AccountError: The certificate of the server is not valid.
            ServiceRejectedError: The response is too long.
        """
        import aiohttp

        slot.signal = LoadSignal.UNAVAILABLE
        try:
            payload, headers = await asyncio.to_thread(_payload, request)
            url = url_with_path(self.url, request.path)
            async with (
                asyncio.timeout(self.timeout),
                http.post(url, data=payload, headers=headers) as response,
            ):
                body = await read_body(response, MAX_RESPONSE_BYTES)
        except aiohttp.ClientConnectorCertificateError as error:
            reservation.settle(0.0)
            what = f"the certificate of {self.name} at {self.url} is not valid: {error.certificate_error}"
            raise AccountError(what) from error
        except aiohttp.ClientConnectorError as error:
            reservation.settle(0.0)
            cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
            what = f"{self.name} cannot be reached at {self.url} ({cause})"
            raise ServiceUnavailableError(what, service=self.name, busy=True) from error
        except TimeoutError as error:
            what = f"{self.name} gave no response within {self.timeout:g} s"
            raise ServiceUnavailableError(what, service=self.name) from error
        except UnreadableBodyError as error:
            raise ServiceRejectedError(f"{self.name}: {error.what}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            what = f"the response of {self.name} was lost ({type(error).__name__})"
            raise ServiceUnavailableError(what, service=self.name) from error
        slot.signal = LoadSignal.NONE
        return response.status, response.headers, body

    async def get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of a free call, for a check before a run.

        Args:
            path: Path after the URL of the service.

        Raises:
            ServiceUnavailableError: It does not answer.
            AccountError: The certificate of the server is not valid.
        """
        http = await self._current.get(self).http()
        return await get_free(http, url_with_path(self.url, path), self.name, self.url)

    async def close(self) -> None:
        """Close the connections. Call it in the event loop in which they were used."""
        await self._current.close()


def _signal_load(slot: CallSlot, error: ServiceError) -> None:
    """Report to rate control the load of the service that an error shows."""
    slot.retry_after = error.retry_after
    if error.outcome is Outcome.BUSY and error.status == 429:
        slot.signal = LoadSignal.RATE_LIMITED
    elif error.outcome.transient:
        slot.signal = LoadSignal.UNAVAILABLE
    else:
        slot.signal = LoadSignal.SUCCESS if error.outcome is Outcome.REFUSED else LoadSignal.NONE


def _json_object(body: bytes, key: str) -> Mapping[str, Any] | None:
    """Return the JSON object of a response with the key masked, None when it is not one."""
    try:
        data = mask_secrets(json.loads(body), secret_of(key))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, Mapping) else None


def _payload(request: ServiceRequest) -> tuple[Any, dict[str, str]]:
    """Return the HTTP body of a request and its headers."""
    import aiohttp

    if not request.files:
        return json.dumps(request.body).encode(), {"Content-Type": "application/json"}
    form = aiohttp.FormData()
    for name, value in request.body.items():
        form.add_field(name, str(value))
    for number, reference in enumerate(request.files, 1):
        form.add_field(
            request.file_field,
            reference.data,
            filename=f"reference-{number}.{reference.suffix}",
            content_type=reference.mime,
        )
    return form, {}
