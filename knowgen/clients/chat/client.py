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
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pydantic import ValidationError

from knowgen.clients.chat.accepted import (
    SCHEMA,
    SEED,
    TEMPERATURE,
    TOP_P,
    Accepted,
    Lesson,
    advice,
    describe_changes,
    learn,
)
from knowgen.clients.chat.encoder_pool import EncoderPool
from knowgen.clients.chat.identity import is_vendor, served_identity
from knowgen.clients.chat.image_encoding import EncodedImageFile, ImageEncoding
from knowgen.clients.chat.request import ChatRequest, Message, replace_images
from knowgen.clients.chat.response import MAX_BODY, ChatResponse, ResponseReader
from knowgen.clients.endpoint_url import (
    NO_KEY,
    OPENAI_URL,
    endpoint_url,
    key_for,
    key_headers,
    url_with_path,
)
from knowgen.clients.http_client import HttpClient
from knowgen.clients.pricing import ChatPrice, max_input_tokens
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateControl, RateLimits
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.clients.service_errors import Outcome, is_context_error
from knowgen.core.cache import Cache
from knowgen.core.errors import UsageError
from knowgen.core.metering import Reservation, judge_repeat, note, paid_call, reuse_replies
from knowgen.core.records import Attempt, ImageRef, Usage
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import fingerprint
from knowgen.core.text import parse_json

SchemaUse = Literal["auto", "on", "off"]

_CONNECT_TIMEOUT = 30.0
"""Maximum time to open a connection, in seconds."""

_MAX_LESSONS = 6
"""Maximum number of times that a request is changed after an error that says what the endpoint does not accept."""

_BYTES_PER_TOKEN = 4
"""Divides the upper bound of input tokens (one a byte) to estimate the tokens of a call for the rate limit."""


class EndpointSession:
    """The HTTP client, rate control and image encoder of one endpoint in one event loop, each made on first use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: ChatEndpoint) -> None:
        self.loop = loop
        self._endpoint = endpoint
        self._client: HttpClient | None = None
        self._rate_control: RateControl | None = None
        self._encoder: EncoderPool | None = None
        self.identifying = asyncio.Lock()
        self._closing = self._close_at_the_end()
        with contextlib.suppress(StopIteration):  # run it up to its `yield`, which registers it with the event loop
            self._closing.__anext__().send(None)

    async def _close_at_the_end(self) -> AsyncGenerator[None]:
        """Yield once; close everything when this generator or its event loop is shut down."""
        try:
            yield
        finally:
            if self._client is not None:
                await self._client.close()
            if self._encoder is not None:
                await self._encoder.close()

    @property
    def client(self) -> HttpClient:
        """The HTTP client."""
        if self._client is None:
            endpoint = self._endpoint
            headers = key_headers(endpoint.base_url, endpoint.key)
            self._client = HttpClient(headers, min(_CONNECT_TIMEOUT, endpoint.timeout))
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
        await self._closing.aclose()


class ClientState:
    """The mutable state of an endpoint: its session, its reply cache, and what it has been found to accept.

    Attributes:
        schema_worked: Whether a request with a JSON schema was answered in this run.
    """

    def __init__(self) -> None:
        self.schema_worked = False
        self._accepted: Accepted | None = None
        self._guesses: set[Accepted] = set()
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
                models_url = url_with_path(endpoint.base_url, "/models")
                self.identity = await served_identity(session.client, models_url, endpoint.model)
            self._identified = self.identity is not None

    @property
    def cache(self) -> Cache:
        """The cache of replies, shared by all runs on this machine."""
        if self._cache is None:
            self._cache = Cache("replies")
        return self._cache

    def accepted(self, endpoint: ChatEndpoint) -> Accepted:
        """Return what the endpoint accepts, as far as this run or an earlier one has found out."""
        if self._accepted is None:
            stored = self.cache.get(_accepted_key(endpoint)) if endpoint.use_cache else None
            try:
                self._accepted = Accepted.from_data(parse_json(stored)) if stored else Accepted()
            except ValueError:  # a damaged entry: what the endpoint accepts is found out again
                self._accepted = Accepted()
        return self._accepted

    def seen_twice(self, accepted: Accepted) -> bool:
        """Return whether this is called for the second time with a guess, at least."""
        known = accepted in self._guesses
        self._guesses.add(accepted)
        return known

    def remember(self, endpoint: ChatEndpoint, accepted: Accepted) -> None:
        """Store what the endpoint accepts, so that later requests and runs ask, and find replies, in that form."""
        self._accepted = accepted
        if endpoint.use_cache:
            self.cache.put(_accepted_key(endpoint), json.dumps(accepted.to_data()).encode())

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


def _accepted_key(endpoint: ChatEndpoint) -> str:
    return fingerprint(["accepted", endpoint.base_url, endpoint.model])


@dataclass(frozen=True)
class ChatEndpoint:
    """A model at an OpenAI-compatible endpoint, and the settings of calls to it. Use it in one event loop at a time.

    Attributes:
        model: Model name, as the endpoint knows it.
        base_url: URL such as `https://api.openai.com/v1`, without a trailing slash.
        key: API key; never shown.
        temperature: Sampling temperature.
        max_tokens: Maximum number of tokens of a reply.
        top_p: Share of probability that is sampled from; None to leave it to the endpoint.
        seed: Seed of the sampling; None for none.
        timeout: Maximum duration of one call in seconds, without the time it waits for the rate control.
        price: Price of a call.
        limits: Rate limits of the endpoint.
        encoding: How images are encoded.
        schema: Whether to ask the endpoint to enforce a reply's JSON schema; `auto` asks until the endpoint rejects
            one.
        use_cache: Whether replies are cached between runs.
        endpoint_id: Identity of the server in keys of cached replies; the server is asked for it when empty.
        growing: Whether conversations grow from call to call: that a reply of `max_tokens` does not fit beside one of
            them says nothing about others, and is not remembered.
        option: Beginning of the command-line option that takes an argument of this endpoint, for advice in errors.
    """

    model: str
    base_url: str = OPENAI_URL
    key: str = field(default=NO_KEY, repr=False)
    temperature: float = 0.0
    max_tokens: int = 8192
    top_p: float | None = None
    seed: int | None = None
    timeout: float = 120.0
    price: ChatPrice = field(default_factory=ChatPrice)
    limits: RateLimits = field(default_factory=RateLimits)
    encoding: ImageEncoding = field(default_factory=ImageEncoding)
    schema: SchemaUse = "auto"
    use_cache: bool = True
    endpoint_id: str = ""
    growing: bool = False
    option: str = "-s "
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
        encoded = replace(await self._encoder.encode(image, what), source=image, what=what)
        return await self._within(encoded, self._state.accepted(self))

    async def as_sent(self, image: EncodedImageFile) -> EncodedImageFile:
        """Return an encoded image made small enough for this endpoint, as far as that is known now."""
        return await self._within(image, self._state.accepted(self))

    def session(self) -> EndpointSession:
        """Return the session of the running event loop."""
        return self._state.session(self)

    @property
    def _encoder(self) -> EncoderPool:
        return self.session().encoder

    async def _within(self, image: EncodedImageFile, accepted: Accepted) -> EncodedImageFile:
        """Return an image made small enough for the endpoint; the same where it is."""
        too_large = accepted.image_bytes and image.size > accepted.image_bytes
        too_wide = accepted.image_side and max(image.width, image.height) > accepted.image_side
        if image.source is None or not (too_large or too_wide):
            return image
        side = min(accepted.image_side or self.encoding.max_side, self.encoding.max_side)
        encoding = replace(self.encoding, max_side=side, max_bytes=accepted.image_bytes)
        smaller = await self._encoder.encode(image.source, image.what, encoding)
        return replace(smaller, source=image.source, what=image.what, reduced=True)

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
        if self.schema == "off":
            schema = None
        accepted = self._state.accepted(self)
        first: ChatResponse | None = None
        certain, fitted = True, False
        for _ in range(_MAX_LESSONS + 1):
            request = await self._request(messages, schema, attempt, accepted)
            response = self._cached(request) or await self._call(request, caller)
            if not certain and response.kind not in (Outcome.REPLY, Outcome.REFUSED):
                return first or response  # the guess was wrong
            lesson = self._lesson(response, request, accepted)
            if lesson is None:
                break
            first, certain, accepted = response, lesson.certain, lesson.accepted
            fitted |= response.error is not None and is_context_error(response.error.message)
        if response.kind in (Outcome.REPLY, Outcome.REFUSED):
            self._state.schema_worked |= SCHEMA in request.decoding
            if first is not None:
                self._learnt(accepted, caller, first, fitted=fitted)
        elif response.error is not None and (help_ := advice(response.error, len(request.images), self.option)):
            record = response.attempt.model_copy(update={"error": f"{response.attempt.error}; {help_}"})
            return replace(response, attempt=record)
        return response

    def _lesson(self, response: ChatResponse, request: ChatRequest, accepted: Accepted) -> Lesson | None:
        """Return the next form of a request to try, None where the response says nothing new about it."""
        server_error = response.kind is Outcome.FAULT and response.status == 500
        if response.error is None or not (response.kind is Outcome.REJECTED or server_error):
            return None
        return learn(
            response.error,
            accepted,
            max_tokens=self.max_tokens,
            sent_schema=SCHEMA in request.decoding,
            may_drop_schema=self.schema == "auto" and not self._state.schema_worked,
            images=len(request.images),
        )

    def _learnt(self, accepted: Accepted, caller: str, refused: ChatResponse, *, fitted: bool) -> None:
        """Remember what the endpoint accepts and note it in the run.

        A server error may be a coincidence: what one seems to show is remembered when a second one shows it.

        Args:
            accepted: What the request that was answered took into account.
            caller: Name of the caller in the notes of the run.
            refused: The last response that refused an earlier form.
            fitted: Whether `max_tokens` was lowered to fit beside the prompt.
        """
        before = self._state.accepted(self)
        if fitted and self.growing:
            accepted = replace(accepted, max_tokens=before.max_tokens)
        if refused.status >= 500 and not self._state.seen_twice(accepted):
            return
        accepted = accepted.merged(before)
        if accepted == before:
            return  # another call of this run found it out meanwhile
        self._state.remember(self, accepted)
        changes = describe_changes(
            accepted, sent_schema=self.schema != "off", max_tokens=self.max_tokens, smaller=accepted.limits_images
        )
        note(caller, "decoding", {"changes": list(changes), "refused": refused.attempt.error})

    def cache_replies(self, responses: Sequence[ChatResponse]) -> None:
        """Cache the replies among some responses, so that identical requests need no call.

        Call it once one of them was usable: an unusable reply without a usable one after it must be requested again.
        """
        if not self.use_cache:
            return
        for response in responses:
            if response.key and response.kind is Outcome.REPLY and not response.attempt.cached:
                self._state.cache.put(response.key, response.attempt.model_dump_json().encode())

    async def close(self) -> None:
        """Close connections and worker processes. Call it in the event loop they were used in."""
        await self._state.close()

    async def _request(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, attempt: int, accepted: Accepted
    ) -> ChatRequest:
        """Return a request in the form that the endpoint accepts."""
        decoding: dict[str, Any] = {TEMPERATURE: self.temperature} if accepted.temperature else {}
        decoding[accepted.limit_name] = accepted.fitted(self.max_tokens)
        if self.top_p is not None and accepted.top_p:
            decoding[TOP_P] = self.top_p
        if self.seed is not None and accepted.seed:
            decoding[SEED] = self.seed
        if schema is not None and accepted.schema:
            decoding[SCHEMA] = {"type": "json_schema", "json_schema": {"strict": True, **schema}}
        request = ChatRequest(self.base_url, self.model, messages, decoding, attempt)
        if accepted.limits_images:
            sent = [await self._within(image, accepted) for image in request.images]
            request = replace(request, messages=replace_images(messages, sent))
        changes = describe_changes(
            accepted,
            sent_schema=schema is not None,
            max_tokens=self.max_tokens,
            smaller=any(image.reduced for image in request.images),
        )
        return replace(request, changes=changes)

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
        return ChatResponse(attempt, Outcome.REPLY, status=200, key=key)

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
        attempt = response.attempt.model_copy(update={"seconds": seconds, "changes": request.changes})
        return replace(response, attempt=attempt, key=key)

    async def _send(
        self, client: HttpClient, request: ChatRequest, worst: float | None, reservation: Reservation
    ) -> ChatResponse:
        """Send a request, read the response, and settle the reservation where the cost is known.

        A request that never left costs nothing. One without a response may have been billed: its worst case counts.
        """
        import aiohttp

        reader = ResponseReader(self.key, self.price)
        free = Usage(cost=None if worst is None else 0.0)
        headers = {"Content-Type": "application/json", "Content-Length": str(request.length)}
        url = url_with_path(self.base_url, "/chat/completions")
        try:
            async with (
                asyncio.timeout(self.timeout),
                client.post(url, data=request.body(), headers=headers) as http_response,
            ):
                body = await read_body(http_response, MAX_BODY)
                response = reader.read(http_response.status, http_response.headers, body, worst)
        except aiohttp.ClientConnectorCertificateError as error:
            what = f"the certificate of the endpoint {self.base_url} is not valid: {error.certificate_error}"
            response = reader.failed(what, Outcome.ACCOUNT, free, billed=0.0)
        except aiohttp.ClientConnectorError as error:
            cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
            what = f"the endpoint {self.base_url} cannot be reached ({cause})"
            response = reader.failed(what, Outcome.BUSY, free, billed=0.0)
        except TimeoutError:
            response = reader.failed(f"no answer within {self.timeout:g} s", Outcome.FAULT, Usage(cost=worst))
        except UnreadableBodyError as error:
            response = reader.failed(error.what, Outcome.FAULT, Usage(cost=worst))
        except (aiohttp.ClientError, ConnectionError) as error:
            what = f"the answer was lost ({type(error).__name__})"
            response = reader.failed(what, Outcome.FAULT, Usage(cost=worst))
        if response.billed is not None:
            reservation.settle(response.billed)
        return response


def _report_load(slot: CallSlot, response: ChatResponse) -> None:
    """Set the load signal of a response on the slot of its call."""
    usage = response.attempt.usage
    slot.tokens, slot.retry_after = usage.input_tokens + usage.output_tokens, response.retry_after
    if response.kind is Outcome.BUSY and response.status == 429:
        slot.signal = LoadSignal.RATE_LIMITED
    elif response.kind.transient:
        slot.signal = LoadSignal.UNAVAILABLE
    elif response.kind in (Outcome.REPLY, Outcome.REFUSED):
        slot.signal = LoadSignal.SUCCESS
