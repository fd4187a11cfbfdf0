"""Calls to services that draw: paced, paid, and never following a redirect with the key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from knowgen.clients.endpoint_url import NO_KEY, is_loopback
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateControl, RateLimits
from knowgen.core.errors import RefusalError, TransientError
from knowgen.core.metering import ReportedUsage, Reservation, note, paid_call
from knowgen.core.records import Usage
from knowgen.core.secrets import mask_secrets
from knowgen.generators.hosted.errors import MAYBE_BILLED, ServiceError, ServiceRejectedError, fault_of
from knowgen.generators.hosted.images import EncodedReference

if TYPE_CHECKING:
    import aiohttp

MOST_ANSWER_BYTES = 256 * 1024 * 1024
_CONNECT_SECONDS = 30.0
_CHUNK = 1 << 18


@dataclass(frozen=True)
class ServiceRequest:
    """A request to a service.

    Attributes:
        path: After the service's address.
        body: Fields of the request.
        files: Reference images that go along as files, each under this name; the request is a form then, JSON else.
        file_field: Name of the files.
    """

    path: str
    body: Mapping[str, Any]
    files: Sequence[EncodedReference] = ()
    file_field: str = "image[]"


@dataclass(frozen=True)
class ServiceResponse:
    """What a service answered.

    Attributes:
        data: The JSON object.
        usage: Tokens and cost of the call.
    """

    data: Mapping[str, Any]
    usage: Usage


async def _open(service: ServiceClient) -> AsyncGenerator[aiohttp.ClientSession]:
    """Yields an HTTP client, and closes it when the generator or the event loop it was opened in is shut down."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_SECONDS, service.timeout)),
        trust_env=not is_loopback(service.url),
        headers={**service.headers, "User-Agent": "knowgen"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as client:
        yield client


class _Session:
    """Connections and pace of one event loop. A worker process has a loop for each of its batches."""

    def __init__(self, loop: asyncio.AbstractEventLoop, service: ServiceClient) -> None:
        self.loop = loop
        self.rate_control = RateControl(service.limits, partial(note, service.name, "pace"))
        self._opening = _open(service)
        self._client: aiohttp.ClientSession | None = None

    async def client(self) -> aiohttp.ClientSession:
        """Returns the HTTP client; the first call that is admitted opens it."""
        if self._client is None:
            self._client = await anext(self._opening)  # which gives way to no other call
        return self._client

    async def close(self) -> None:
        await self._opening.aclose()


class _State:
    """What a service keeps while it is used."""

    def __init__(self) -> None:
        self._session: _Session | None = None

    def here(self, service: ServiceClient) -> _Session:
        """Returns connections and pace of the running event loop."""
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
    """Where pictures are asked for. Used in one event loop at a time.

    Attributes:
        name: Of the service and model, for messages and the books.
        url: Address without a trailing slash.
        key: Secret; never shown.
        headers: What every call carries, the key among it.
        timeout: Seconds for one call, waiting for its turn not counted.
        limits: What the service admits.
        refuses: Tells from an error whether the content was declined.
    """

    name: str
    url: str
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    limits: RateLimits
    refuses: Callable[[ServiceError], bool]
    _state: _State = field(default_factory=_State, repr=False, compare=False)

    async def ask(
        self,
        outgoing: ServiceRequest,
        worst: float | None,
        usage: Callable[[Mapping[str, Any]], ReportedUsage],
        tokens: int,
    ) -> ServiceResponse:
        """Sends one request; its worst case is reserved before, and settled to what it cost after.

        Args:
            outgoing: The request.
            worst: The most it can cost in US dollars, None when unknown.
            usage: Reads tokens and cost from the answer; what it leaves open counts at the worst case.
            tokens: Estimate of the tokens of the call, for limits a minute.

        Raises:
            TransientError: The service is busy, broken or out of reach.
            RefusalError: It declined the content.
            ServiceRejectedError: It will not draw this request, and asking again would not help.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        session = self._state.here(self)
        async with session.rate_control.slot(tokens) as slot, paid_call(worst, self.name) as ticket:
            status, headers, body = await self._exchange(await session.client(), outgoing, slot, ticket)
            if not 200 <= status < 300:
                fault = fault_of(status, headers, body, self.key)
                if status not in MAYBE_BILLED:
                    ticket.settle(0.0)
                error = fault.error(self.name, self.refuses)
                _tell(slot, fault, error)
                raise error
            data = await asyncio.to_thread(_object, body, self.key)
            if data is None:
                slot.signal = LoadSignal.UNAVAILABLE
                raise TransientError(f"{self.name} answered {status} with no JSON object")
            reported = usage(data)
            slot.signal, slot.tokens = LoadSignal.SUCCESS, reported.input_tokens + reported.output_tokens
            cost = reported.charge(worst)
            ticket.settle(cost)
            counted = Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=cost)
            return ServiceResponse(data, counted)

    async def _exchange(
        self, client: aiohttp.ClientSession, outgoing: ServiceRequest, slot: CallSlot, ticket: Reservation
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp

        slot.signal = LoadSignal.UNAVAILABLE
        try:
            payload, headers = await asyncio.to_thread(_payload, outgoing)
            async with (
                asyncio.timeout(self.timeout),
                client.post(
                    f"{self.url}{outgoing.path}", data=payload, headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await self._read(response)
        except aiohttp.ClientConnectorError as error:
            ticket.settle(0.0)
            cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
            raise TransientError(f"{self.name} cannot be reached at {self.url} ({cause})") from error
        except TimeoutError as error:
            raise TransientError(f"{self.name} gave no answer within {self.timeout:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransientError(f"the answer of {self.name} was lost ({type(error).__name__})") from error
        slot.signal = LoadSignal.NONE
        return response.status, response.headers, body

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > MOST_ANSWER_BYTES:
                raise ServiceRejectedError(f"{self.name} answered with more than {MOST_ANSWER_BYTES >> 20} MiB")
        return bytes(body)

    async def close(self) -> None:
        """Closes the connections; in the event loop they were used in."""
        await self._state.close()


def _tell(slot: CallSlot, fault: ServiceError, error: Exception) -> None:
    """Tells the pace what an error says about the service's load."""
    slot.retry_after = fault.wait
    if fault.status == 429:
        slot.signal = LoadSignal.RATE_LIMITED if isinstance(error, TransientError) else LoadSignal.NONE
    elif isinstance(error, TransientError):
        slot.signal = LoadSignal.UNAVAILABLE
    elif isinstance(error, RefusalError):
        slot.signal = LoadSignal.SUCCESS


def _object(body: bytes, key: str) -> Mapping[str, Any] | None:
    """Return the JSON object of an answer with the key masked; None where it is something else."""
    try:
        data = mask_secrets(json.loads(body), "" if key == NO_KEY else key)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, Mapping) else None


def _payload(outgoing: ServiceRequest) -> tuple[Any, dict[str, str]]:
    import aiohttp

    if not outgoing.files:
        return json.dumps(outgoing.body).encode(), {"Content-Type": "application/json"}
    form = aiohttp.FormData()
    for name, value in outgoing.body.items():
        form.add_field(name, str(value))
    for number, picture in enumerate(outgoing.files, 1):
        form.add_field(
            outgoing.file_field,
            picture.data,
            filename=f"reference-{number}.{picture.suffix}",
            content_type=picture.mime,
        )
    return form, {}
