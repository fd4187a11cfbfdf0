"""A client for OpenAI-compatible chat endpoints: rate-controlled, metered against the budget, with a reply cache.

    endpoint = ChatEndpoint.of("gpt-4.1", "", "", "scorer vlm", price=ChatPrice(2, 8))
    response = await endpoint.ask(messages, caller="vlm:gpt-4.1", schema={"name": ..., "schema": ...})
    endpoint.cache_replies([response])  # an identical request later gets this reply without a call
    await endpoint.close()

In `messages` an `EncodedImageFile` takes the place of an image's data URL. A failed call is a `ChatResponse` with a
reason and not an exception, so that its record is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from knowgen.clients.chat.encoder_pool import EncoderPool
from knowgen.clients.chat.identity import is_vendor, served_identity
from knowgen.clients.chat.image_encoding import EncodedImageFile, ImageEncoding
from knowgen.clients.chat.request import ChatRequest, Message
from knowgen.clients.chat.response import ChatResponse, ResponseKind, ResponseReader
from knowgen.clients.endpoint_url import NO_KEY, OPENAI_URL, endpoint_url, is_loopback, key_for
from knowgen.clients.pricing import ChatPrice, max_input_tokens
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateControl, RateLimits
from knowgen.core.cache import Cache
from knowgen.core.errors import UsageError
from knowgen.core.metering import Reservation, judge_repeat, note, paid_call, reuse_replies
from knowgen.core.records import Attempt, ImageRef, Usage
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import fingerprint

if TYPE_CHECKING:
    from aiohttp import ClientSession

SchemaUse = Literal["auto", "on", "off"]

_CONNECT_TIMEOUT = 30.0
"""Maximum time to open a connection, in seconds."""

_SCHEMA_REJECTIONS = (400, 415, 422, 501)
"""HTTP statuses with which an endpoint may reject a request because it does not support JSON schemas."""

_BYTES_PER_TOKEN = 4
"""Divides the upper bound of input tokens (one a byte) to estimate the tokens of a call for the rate limit."""


class EndpointSession:
    """The HTTP client, rate control and image encoder of one endpoint in one event loop, each made on first use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: ChatEndpoint) -> None:
        self.loop = loop
        self._endpoint = endpoint
        self._client: ClientSession | None = None
        self._rate_control: RateControl | None = None
        self._encoder: EncoderPool | None = None
        self.identifying = asyncio.Lock()

    @property
    def client(self) -> ClientSession:
        """The HTTP client. Calls must not follow redirects, which could send the key to another host."""
        import aiohttp

        if self._client is None:
            endpoint = self._endpoint
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_TIMEOUT, endpoint.timeout)),
                trust_env=not is_loopback(endpoint.base_url),
                headers={"Authorization": f"Bearer {endpoint.key}", "User-Agent": "knowgen"},
                auto_decompress=True,
            )
        return self._client

    def rate_control(self, caller: str) -> RateControl:
        """Return the rate control; its changes are noted in the run under the name of the first caller."""
        if self._rate_control is None:
            self._rate_control = RateControl(self._endpoint.limits, partial(note, caller, "pace"))
        return self._rate_control

    @property
    def encoder(self) -> EncoderPool:
        """The worker processes that encode images."""
        if self._encoder is None:
            self._encoder = EncoderPool(self._endpoint.encoding)
        return self._encoder

    async def close(self) -> None:
        """Close the connections and end the worker processes."""
        if self._client is not None:
            await self._client.close()
        if self._encoder is not None:
            await self._encoder.close()


class ClientState:
    """The mutable state of an endpoint: its session, its reply cache, and whether it supports JSON schemas."""

    def __init__(self) -> None:
        self._rejects_schema: bool | None = None
        self._cache: Cache | None = None
        self._session: EndpointSession | None = None
        self._identified = False
        self.identity: str | None = ""

    async def identify(self, endpoint: ChatEndpoint) -> None:
        """Find out which server answers, once; None is its identity while it does not answer."""
        if self._identified or not endpoint.use_cache:
            return
        session = self.session(endpoint)
        async with session.identifying:
            if self._identified:
                return
            self.identity = endpoint.endpoint_id
            if not self.identity and not is_vendor(endpoint.base_url):
                models_url = f"{endpoint.base_url}/models"
                self.identity = await served_identity(session.client, models_url, endpoint.model)
            self._identified = self.identity is not None

    @property
    def cache(self) -> Cache:
        """The cache of replies, shared by all runs on this machine."""
        if self._cache is None:
            self._cache = Cache("replies")
        return self._cache

    def rejects_schema(self, endpoint: ChatEndpoint) -> bool:
        """Return whether the endpoint has rejected a JSON schema, in this run or an earlier one."""
        if self._rejects_schema is None:
            self._rejects_schema = endpoint.use_cache and self.cache.get(_schema_key(endpoint)) is not None
        return self._rejects_schema

    def remember_schema_rejection(self, endpoint: ChatEndpoint) -> None:
        """Record that the endpoint rejects JSON schemas, so that later runs look up cached replies without one."""
        self._rejects_schema = True
        if endpoint.use_cache:
            self.cache.put(_schema_key(endpoint), b"refused")

    def session(self, endpoint: ChatEndpoint) -> EndpointSession:
        """Return the session of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            self._session = EndpointSession(loop, endpoint)
        return self._session

    async def close(self) -> None:
        """Close the session, if it belongs to the running event loop, and the cache."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()
        if self._cache is not None:
            self._cache.close()


def _schema_key(endpoint: ChatEndpoint) -> str:
    return fingerprint(["no schema", endpoint.base_url, endpoint.model])


@dataclass(frozen=True)
class ChatEndpoint:
    """A model at an OpenAI-compatible endpoint, and the settings of calls to it. Use it in one event loop at a time.

    Attributes:
        model: Model name, as the endpoint knows it.
        base_url: URL such as `https://api.openai.com/v1`, without a trailing slash.
        key: API key; never shown.
        temperature: Sampling temperature.
        max_tokens: Maximum number of tokens of a reply.
        timeout: Maximum duration of one call in seconds, without the time it waits for the rate control.
        price: Price of a call.
        limits: Rate limits of the endpoint.
        encoding: How images are encoded.
        schema: Whether to ask the endpoint to enforce a reply's JSON schema; `auto` asks until the endpoint rejects
            one.
        use_cache: Whether replies are cached between runs.
        endpoint_id: Identity of the server in keys of cached replies; the server is asked for it when empty.
    """

    model: str
    base_url: str = OPENAI_URL
    key: str = field(default=NO_KEY, repr=False)
    temperature: float = 0.0
    max_tokens: int = 8192
    timeout: float = 120.0
    price: ChatPrice = field(default_factory=ChatPrice)
    limits: RateLimits = field(default_factory=RateLimits)
    encoding: ImageEncoding = field(default_factory=ImageEncoding)
    schema: SchemaUse = "auto"
    use_cache: bool = True
    endpoint_id: str = ""
    _state: ClientState = field(default_factory=ClientState, repr=False, compare=False)

    @classmethod
    def of(cls, model: str, base_url: str, key_env: str, where: str, **settings: Any) -> ChatEndpoint:
        """Return an endpoint from the arguments a user gives.

        Args:
            model: Model name.
            base_url: URL, empty for OpenAI.
            key_env: Environment variable with the key; empty for the default one.
            where: Name of the scorer in errors.
            settings: Further fields of `ChatEndpoint`.

        Raises:
            UsageError: The URL or a setting is invalid.
            ConfigError: The key is missing, or the URL contains a secret.
        """
        refuse_secrets({"model": model})
        if settings.get("schema", "auto") not in ("auto", "on", "off"):
            raise UsageError(f"schema must be auto, on or off, got {settings['schema']!r}", where=where)
        url = endpoint_url(base_url, where)
        return cls(model=model, base_url=url, key=key_for(url, key_env, where.removeprefix("scorer ")), **settings)

    async def encode(self, image: ImageRef, what: str) -> EncodedImageFile:
        """Return an image as it is sent to this endpoint; see `EncoderPool.encode`."""
        return await self._state.session(self).encoder.encode(image, what)

    async def ask(
        self, messages: Sequence[Message], caller: str, schema: Mapping[str, Any] | None = None, *, attempt: int = 0
    ) -> ChatResponse:
        """Send one request, or return the cached reply to an identical one.

        The worst-case cost is reserved from the budget before the call is sent, and settled to the real cost after.

        Args:
            messages: Messages in the chat format.
            caller: Name of the caller in the spend table and the notes of the run.
            schema: Name and JSON schema of the reply, for endpoints that can enforce one.
            attempt: Number of the attempt; asking the same again under another number is another request.

        Returns:
            The reply, or the reason why there is none.

        Raises:
            BudgetReachedError: The remaining budget is smaller than the call's worst case.
            ConfigError: There is a budget and the price is unknown.
        """
        await self._state.identify(self)
        may_reject = schema is not None and self.schema == "auto"
        if self.schema == "off" or (may_reject and self._state.rejects_schema(self)):
            schema = None
        request = self._request(messages, schema, attempt)
        response = self._cached(request) or await self._call(request, caller)
        schema_rejected = response.kind is ResponseKind.REJECTED and response.status in _SCHEMA_REJECTIONS
        if schema is None or not may_reject or not schema_rejected:
            return response
        plain = self._request(messages, None, attempt)  # the schema may be what the endpoint rejected
        plain_response = self._cached(plain) or await self._call(plain, caller)
        if plain_response.kind is ResponseKind.REJECTED:
            return response
        self._state.remember_schema_rejection(self)
        note(caller, "schema", {"refused": response.attempt.error})
        return plain_response

    def cache_replies(self, responses: Sequence[ChatResponse]) -> None:
        """Cache the replies among some responses, so that identical requests need no call.

        Call it once one of them was usable: an unusable reply without a usable one after it must be requested again.
        """
        if not self.use_cache:
            return
        for response in responses:
            if response.key and response.kind is ResponseKind.REPLY and not response.attempt.cached:
                self._state.cache.put(response.key, response.attempt.model_dump_json().encode())

    async def close(self) -> None:
        """Close connections and worker processes. Call it in the event loop they were used in."""
        await self._state.close()

    def _request(self, messages: Sequence[Message], schema: Mapping[str, Any] | None, attempt: int) -> ChatRequest:
        decoding: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if schema is not None:
            decoding["response_format"] = {"type": "json_schema", "json_schema": {"strict": True, **schema}}
        return ChatRequest(self.base_url, self.model, messages, decoding, attempt)

    def _cached(self, request: ChatRequest) -> ChatResponse | None:
        """Return the cached reply to a request, at no cost; None where there is none."""
        key = self._key(request) if reuse_replies.get() else ""
        if not key:
            return None
        value = self._state.cache.get(key)
        if value is None:
            return None
        try:
            attempt = Attempt.model_validate_json(value)
        except ValidationError:
            return None  # written by another version: the next usable reply replaces it
        usage = attempt.usage.model_copy(update={"cost": 0.0})
        attempt = attempt.model_copy(update={"cached": True, "usage": usage})
        return ChatResponse(attempt, ResponseKind.REPLY, status=200, key=key)

    def _key(self, request: ChatRequest) -> str:
        """Return the key of a request's reply; empty where replies are not cached or the server is not known."""
        identity = self._state.identity
        if not self.use_cache or identity is None:
            return ""
        key = request.key(judge_repeat.get())
        return fingerprint([key, identity]) if identity else key

    async def _call(self, request: ChatRequest, caller: str) -> ChatResponse:
        """Send a request when rate control and budget admit it."""
        session = self._state.session(self)
        max_input = max_input_tokens(request.texts, ((each.width, each.height) for each in request.images))
        worst = self.price.of(max_input, self.max_tokens)
        estimate = max_input // _BYTES_PER_TOKEN
        async with session.rate_control(caller).slot(estimate) as slot, paid_call(worst, caller) as reservation:
            loop = asyncio.get_running_loop()
            started = loop.time()
            response = await self._send(session.client, request, worst, reservation)
            seconds = loop.time() - started
            _report_load(slot, response)
        key = self._key(request)
        attempt = response.attempt.model_copy(update={"seconds": seconds})
        return ChatResponse(attempt, response.kind, response.retry_after, response.status, response.billed, key)

    async def _send(
        self, client: ClientSession, request: ChatRequest, worst: float | None, reservation: Reservation
    ) -> ChatResponse:
        """Send a request, read the response, and settle the reservation where the cost is known.

        A request that never left costs nothing. One without a response may have been billed: its worst case counts.
        """
        import aiohttp

        reader = ResponseReader(self.key, self.price)
        free = Usage(cost=None if worst is None else 0.0)
        headers = {"Content-Type": "application/json", "Content-Length": str(request.length)}
        url = f"{self.base_url}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.timeout),
                client.post(url, data=request.body(), headers=headers, allow_redirects=False) as http_response,
            ):
                body = await http_response.read()
                response = reader.read(http_response.status, http_response.headers, body, worst)
        except aiohttp.ClientConnectorError as error:
            cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
            what = f"the endpoint {self.base_url} cannot be reached ({cause})"
            response = reader.transient_error(what, free, billed=0.0)
        except TimeoutError:
            response = reader.transient_error(f"no answer within {self.timeout:g} s", Usage(cost=worst))
        except (aiohttp.ClientError, ConnectionError) as error:
            response = reader.transient_error(f"the answer was lost ({type(error).__name__})", Usage(cost=worst))
        if response.billed is not None:
            reservation.settle(response.billed)
        return response


def _report_load(slot: CallSlot, response: ChatResponse) -> None:
    """Set the load signal of a response on the slot of its call."""
    usage = response.attempt.usage
    slot.tokens, slot.retry_after = usage.input_tokens + usage.output_tokens, response.retry_after
    if response.status == 429:
        slot.signal = LoadSignal.RATE_LIMITED
    elif response.kind is ResponseKind.TRANSIENT:
        slot.signal = LoadSignal.UNAVAILABLE
    elif response.kind is not ResponseKind.REJECTED:
        slot.signal = LoadSignal.SUCCESS
