"""HTTP client of the hosted image services: rate control, budget, and errors as exceptions.

Redirects are not followed, because the key would go along.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import url_with_path
from knowgen.clients.http_service import Connection, CurrentSession, RawResponse, exchange, json_object, signal_load
from knowgen.clients.preflight import get_free
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateLimits
from knowgen.clients.response_body import UnreadableBodyError
from knowgen.clients.service_errors import MAYBE_BILLED, embedded_status, error_from, is_web_page, read_error
from knowgen.core.errors import ServiceUnavailableError
from knowgen.core.metering import ReportedUsage, Reservation, paid_call
from knowgen.core.records import Usage
from knowgen.generators.hosted.errors import ServiceRejectedError, exception_of
from knowgen.generators.hosted.images import EncodedReference

MAX_RESPONSE_BYTES = 256 * 1024 * 1024

IMAGE_CONTENT = "image content"
"""Name under which the data of a response has the image that was its whole body."""

UsageOf = Callable[[Mapping[str, Any], Mapping[str, str]], ReportedUsage]
"""Reads tokens and cost from the data and the headers of a response."""


@dataclass(frozen=True)
class ServiceRequest:
    """A request to a service.

    Attributes:
        path: Path after the URL of the service.
        body: Fields of the request.
        files: Reference images to send as files. With files the request is a form, without them JSON.
        file_field: Form field of the files.
        content: Body to send as it is, in place of the fields; empty for none.
        headers: Headers of this request, beside those of every call.
        error_inside: Whether `error` in a successful response is an error of the call; not where it is one of a task.
    """

    path: str
    body: Mapping[str, Any]
    files: Sequence[EncodedReference] = ()
    file_field: str = "image[]"
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error_inside: bool = True


@dataclass(frozen=True)
class ServiceResponse:
    """A successful response of a service.

    Attributes:
        data: The JSON object, with the key masked; of a response that is an image, its bytes under `IMAGE_CONTENT`.
        usage: Tokens and cost of the call.
    """

    data: Mapping[str, Any]
    usage: Usage


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
    _current: CurrentSession = field(default_factory=CurrentSession, repr=False, compare=False)

    @property
    def _connection(self) -> Connection:
        return Connection(self.name, self.url, self.headers, self.timeout, self.limits)

    async def send(
        self,
        request: ServiceRequest,
        worst_case: float | None,
        usage: UsageOf,
        tokens: int,
    ) -> ServiceResponse:
        """Send one request. Its worst-case cost is reserved before, and replaced by its actual cost after.

        Args:
            request: The request.
            worst_case: Maximum cost in US dollars, None when unknown.
            usage: Reads tokens and cost from a response. Where they are incomplete, the worst case is charged.
            tokens: Estimated tokens of the call, for the tokens-per-minute limit.

        Raises:
            ServiceUnavailableError: The service is overloaded, broken or cannot be reached.
            AccountError: The service rejects every call: a wrong key, no credit, an unknown model, a wrong address.
            RefusalError: The service declined the content.
            ServiceRejectedError: The service rejected the request, and a retry would not help.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        session = self._current.get(self._connection)
        async with session.rate_control.slot(tokens) as slot, paid_call(worst_case, self.name) as reservation:
            response = await self._exchange(request, slot, reservation)
            status, headers, body = response.status, response.headers, response.body
            if not 200 <= status < 300:
                error = read_error(status, headers, body, self.key)
                if status not in MAYBE_BILLED:
                    reservation.settle(0.0)
                signal_load(slot, error)
                raise exception_of(error, self.name)
            data = await asyncio.to_thread(_data, headers, body, self.key)
            if data is None:
                slot.signal = LoadSignal.UNAVAILABLE
                page = ", but a web page: base_url may not be its address" if is_web_page(body) else ""
                what = f"{self.name} answered {status} without a JSON object{page}"
                raise ServiceUnavailableError(what, service=self.name)
            reported = usage(data, headers)
            slot.signal, slot.tokens = LoadSignal.SUCCESS, reported.input_tokens + reported.output_tokens
            cost = reported.charge(worst_case)
            reservation.settle(cost)
            if request.error_inside and (inside := data.get("error")):
                details = inside if isinstance(inside, Mapping) else {"message": str(inside)}
                error = error_from(details, embedded_status(details), headers, self.key)
                signal_load(slot, error)
                raise exception_of(error, self.name)
            return ServiceResponse(
                data, Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=cost)
            )

    async def _exchange(self, request: ServiceRequest, slot: CallSlot, reservation: Reservation) -> RawResponse:
        """Send a request; raises as `exchange`, and ServiceRejectedError for a body that cannot be read."""
        http = await self._current.get(self._connection).http()
        payload, headers = await asyncio.to_thread(_payload, request)
        post = http.post(url_with_path(self.url, request.path), data=payload, headers=headers)
        try:
            return await exchange(post, self._connection, slot, reservation, MAX_RESPONSE_BYTES)
        except UnreadableBodyError as error:
            raise ServiceRejectedError(f"{self.name}: {error.what}") from error

    async def get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of a free call, for a check before a run.

        Args:
            path: Path after the URL of the service.

        Raises:
            ServiceUnavailableError: It does not answer.
            AccountError: The certificate of the server is not valid.
        """
        return await self.get_at(url_with_path(self.url, path))

    async def get_at(self, url: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of a free call to a URL at the service's own origin.

        Args:
            url: The URL.

        Raises:
            ServiceUnavailableError: It does not answer.
            AccountError: The certificate of the server is not valid.
            ServiceRejectedError: The URL is at another origin, which the key must not reach.
        """
        if urlsplit(url)[:2] != urlsplit(self.url)[:2]:
            raise ServiceRejectedError(f"{self.name} named an address at another host, which is not asked")
        http = await self._current.get(self._connection).http()
        return await get_free(http, url, self.name, self.url)

    async def close(self) -> None:
        """Close the connections. Call it in the event loop in which they were used."""
        await self._current.close()


def _payload(request: ServiceRequest) -> tuple[Any, dict[str, str]]:
    """Return the HTTP body of a request and its headers."""
    import aiohttp

    if request.content:
        return request.content, dict(request.headers)
    if not request.files:
        return json.dumps(request.body).encode(), {"Content-Type": "application/json", **request.headers}
    form = aiohttp.FormData()
    for name, value in request.body.items():
        form.add_field(name, _form_value(value))
    for number, reference in enumerate(request.files, 1):
        form.add_field(
            request.file_field,
            reference.data,
            filename=f"reference-{number}.{reference.suffix}",
            content_type=reference.mime,
        )
    return form, dict(request.headers)


def _form_value(value: Any) -> str:
    """Return a value as a form sends it: booleans, lists and objects as JSON."""
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)


def _data(headers: Mapping[str, str], body: bytes, key: str) -> Mapping[str, Any] | None:
    """Return the data of a response, None when it is neither an image nor a JSON object."""
    if headers.get("Content-Type", "").startswith("image/"):
        return {IMAGE_CONTENT: body}
    return json_object(body, key)
