"""Calls to an OpenAI-compatible chat endpoint: paced, paid, kept, and never without their record.

    endpoint = Endpoint(model="gpt-4.1", base_url="https://api.openai.com/v1", key=…, price=ChatPrice(2, 8))
    answer = await endpoint.ask(messages, who="vlm:gpt-4.1", schema={"name": …, "schema": …})
    endpoint.keep([answer])          # the reply was of use: found again when exactly the same is asked
    await endpoint.close()

In `messages` an `EncodedImageFile` picture stands where the data URL belongs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from knowgen.clients.chat.image_encoding import EncodedImageFile, ImageEncoding
from knowgen.clients.chat.request import ChatRequest, Message
from knowgen.clients.chat.response import ChatResponse, ResponseKind, ResponseReader
from knowgen.clients.endpoint_url import NO_KEY, OPENAI_URL, endpoint_url, key_for
from knowgen.clients.pricing import ChatPrice, max_input_tokens
from knowgen.clients.rate_control import CallSlot, LoadSignal, RateLimits
from knowgen.core.errors import UsageError
from knowgen.core.metering import Reservation, judge_repeat, note, paid_call
from knowgen.core.records import Attempt, ImageRef, Usage
from knowgen.core.secrets import refuse_secrets

if TYPE_CHECKING:
    from aiohttp import ClientSession
from functools import partial
from typing import TYPE_CHECKING

from knowgen.clients.chat.encoder_pool import EncoderPool
from knowgen.clients.endpoint_url import is_loopback
from knowgen.clients.rate_control import RateControl
from knowgen.core.cache import Cache
from knowgen.core.spec import fingerprint

if TYPE_CHECKING:
    from aiohttp import ClientSession


_CONNECT_SECONDS = 30.0


class ClientState:
    """What an endpoint keeps while it is used."""

    def __init__(self) -> None:
        self._no_schema: bool | None = None
        self._cache: Cache | None = None
        self._session: EndpointSession | None = None

    @property
    def cache(self) -> Cache:
        """The replies that were kept."""
        if self._cache is None:
            self._cache = Cache("replies")
        return self._cache

    def refuses_schema(self, endpoint: ChatEndpoint) -> bool:
        """Tells whether an endpoint said, now or in an earlier run, that it takes no JSON schema."""
        if self._no_schema is None:
            self._no_schema = endpoint.keeps and self.cache.get(_schema_key(endpoint)) is not None
        return self._no_schema

    def schema_refused(self, endpoint: ChatEndpoint) -> None:
        """Remembers that an endpoint takes no JSON schema, so that its kept replies are found at once."""
        self._no_schema = True
        if endpoint.keeps:
            self.cache.put(_schema_key(endpoint), b"refused")

    def here(self, endpoint: ChatEndpoint) -> EndpointSession:
        """Returns connections, pace and encoder of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            self._session = EndpointSession(loop, endpoint)
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()
        if self._cache is not None:
            self._cache.close()


def _schema_key(endpoint: ChatEndpoint) -> str:
    return fingerprint(["no schema", endpoint.base_url, endpoint.model])


class EndpointSession:
    """Connections, pace and encoder of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: ChatEndpoint) -> None:
        self.loop = loop
        self._endpoint = endpoint
        self._client: ClientSession | None = None
        self._pace: RateControl | None = None
        self._encoder: EncoderPool | None = None

    @property
    def client(self) -> ClientSession:
        """The HTTP client; it follows no redirect, for the key must go nowhere else."""
        import aiohttp

        if self._client is None:
            own = self._endpoint
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_SECONDS, own.timeout)),
                trust_env=not is_loopback(own.base_url),
                headers={"Authorization": f"Bearer {own.key}", "User-Agent": "knowgen"},
                auto_decompress=True,
            )
        return self._client

    def pace(self, who: str) -> RateControl:
        """How many calls are let go at once."""
        if self._pace is None:
            self._pace = RateControl(self._endpoint.limits, partial(note, who, "pace"))
        return self._pace

    @property
    def encoder(self) -> EncoderPool:
        """Encodes pictures in worker processes."""
        if self._encoder is None:
            self._encoder = EncoderPool(self._endpoint.form)
        return self._encoder

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._encoder is not None:
            await self._encoder.close()


_REFUSALS = (400, 415, 422, 501)
"""With these an endpoint may say that it does not know JSON schemas."""

SchemaUse = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ChatEndpoint:
    """Where a judge is asked, and how. Used in one event loop at a time.

    Attributes:
        model: Model name, as the endpoint knows it.
        base_url: Such as `https://api.openai.com/v1`, without a trailing slash.
        key: Secret of the endpoint; never shown.
        temperature: Of the decoding.
        max_tokens: Longest reply.
        timeout: Seconds for one call, waiting for its turn not counted.
        price: What calls cost.
        limits: What the endpoint admits.
        form: How pictures are encoded.
        schema: Is the model held to a JSON schema? `auto` asks for it until the endpoint says that it cannot.
        keeps: Are replies kept between runs, and found again?
    """

    model: str
    base_url: str = OPENAI_URL
    key: str = field(default=NO_KEY, repr=False)
    temperature: float = 0.0
    max_tokens: int = 8192
    timeout: float = 120.0
    price: ChatPrice = field(default_factory=ChatPrice)
    limits: RateLimits = field(default_factory=RateLimits)
    form: ImageEncoding = field(default_factory=ImageEncoding)
    schema: SchemaUse = "auto"
    keeps: bool = True
    _state: ClientState = field(default_factory=ClientState, repr=False, compare=False)

    @classmethod
    def of(cls, model: str, base_url: str, key_env: str, where: str, **settings: Any) -> ChatEndpoint:
        """Makes an endpoint from what a user writes.

        Args:
            model: Model name.
            base_url: Address, empty for OpenAI.
            key_env: Environment variable with the key; empty means the usual one.
            where: Names the scorer in errors.
            settings: Further fields.

        Raises:
            UsageError: The address or a setting is wrong.
            ConfigError: The key is missing, or the address holds a secret.
        """
        refuse_secrets({"model": model})
        if settings.get("schema", "auto") not in ("auto", "on", "off"):
            raise UsageError(f"schema={settings['schema']!r} is not possible", where=where, fix="auto, on or off")
        url = endpoint_url(base_url, where)
        return cls(model=model, base_url=url, key=key_for(url, key_env, where.removeprefix("scorer ")), **settings)

    async def encode(self, picture: ImageRef, what: str) -> EncodedImageFile:
        """Returns a picture as this endpoint is shown it; see `EncoderPool.encode`."""
        return await self._state.here(self).encoder.encode(picture, what)

    async def ask(
        self, messages: Sequence[Message], who: str, schema: Mapping[str, Any] | None = None, *, attempt: int = 0
    ) -> ChatResponse:
        """Sends one request, or returns the reply that was kept when exactly the same was asked before.

        The worst case is reserved before a call is sent, and settled to the real cost after.

        Args:
            messages: In the chat format.
            who: What is calling, for the books.
            schema: Name and JSON schema that the reply is to follow, where the endpoint can hold a model to one.
            attempt: Number of the try, where the same words are asked again in the hope of another reply.

        Raises:
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        may_refuse = schema is not None and self.schema == "auto"
        if self.schema == "off" or (may_refuse and self._state.refuses_schema(self)):
            schema = None
        request = self._request(messages, schema, attempt)
        if (kept := self._kept(request)) is not None:
            return kept
        answer = await self._call(request, who)
        if (
            schema is None
            or not may_refuse
            or answer.came is not ResponseKind.REJECTED
            or answer.status not in _REFUSALS
        ):
            return answer
        plain = self._request(messages, None, attempt)  # perhaps it was the schema that it could not take
        again = self._kept(plain) or await self._call(plain, who)
        if again.came is ResponseKind.REJECTED:
            return answer
        self._state.schema_refused(self)
        note(who, "schema", {"refused": answer.attempt.error})
        return again

    def keep(self, answers: Sequence[ChatResponse]) -> None:
        """Keeps replies that were of use, so that asking the same costs nothing again."""
        cache = self._state.cache if self.keeps else None
        for answer in answers:
            if cache is not None and answer.key and answer.came is ResponseKind.REPLY and not answer.attempt.cached:
                cache.put(answer.key, answer.attempt.model_dump_json().encode())

    async def close(self) -> None:
        """Closes connections and worker processes; in the event loop they were used in."""
        await self._state.close()

    def _request(self, messages: Sequence[Message], schema: Mapping[str, Any] | None, attempt: int) -> ChatRequest:
        decoding: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if schema is not None:
            decoding["response_format"] = {"type": "json_schema", "json_schema": {"strict": True, **schema}}
        return ChatRequest(self.base_url, self.model, messages, decoding, attempt)

    def _kept(self, request: ChatRequest) -> ChatResponse | None:
        if not self.keeps:
            return None
        key = request.key(judge_repeat.get())
        value = self._state.cache.get(key)
        if value is None:
            return None
        try:
            attempt = Attempt.model_validate_json(value)
        except ValidationError:
            return None  # written by another version: asked anew, and kept anew
        usage = attempt.usage.model_copy(update={"cost": 0.0})
        return ChatResponse(
            attempt.model_copy(update={"cached": True, "usage": usage}), ResponseKind.REPLY, status=200, key=key
        )

    async def _call(self, request: ChatRequest, who: str) -> ChatResponse:
        session = self._state.here(self)
        most = max_input_tokens(request.texts, ((each.width, each.height) for each in request.pictures))
        worst = self.price.of(most, self.max_tokens)
        async with session.pace(who).place(most // 4) as place, paid_call(worst, who) as ticket:
            loop = asyncio.get_running_loop()
            began = loop.time()
            answer = await self._send(session.client, request, worst, ticket)
            seconds = loop.time() - began
            _tell(place, answer)
        key = request.key(judge_repeat.get()) if self.keeps else ""
        attempt = answer.attempt.model_copy(update={"seconds": seconds})
        return ChatResponse(attempt, answer.came, answer.retry_after, answer.status, answer.billed, key)

    async def _send(
        self, client: ClientSession, request: ChatRequest, worst: float | None, ticket: Reservation
    ) -> ChatResponse:
        """Sends a request and reads what comes back; what never left is told from what may have been billed."""
        import aiohttp

        reader = ResponseReader(self.key, self.price)
        free = Usage(cost=None if worst is None else 0.0)
        headers = {"Content-Type": "application/json", "Content-Length": str(request.length)}
        try:
            async with (
                asyncio.timeout(self.timeout),
                client.post(
                    f"{self.base_url}/chat/completions", data=request.body(), headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await response.read()
                answer = reader.of_response(response.status, response.headers, body, worst)
        except aiohttp.ClientConnectorError as error:
            cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
            what = f"the endpoint {self.base_url} cannot be reached ({cause})"
            answer = reader.passing(what, free, billed=0.0)
        except TimeoutError:
            answer = reader.passing(f"no answer within {self.timeout:g} s", Usage(cost=worst))
        except (aiohttp.ClientError, ConnectionError) as error:
            answer = reader.passing(f"the answer was lost ({type(error).__name__})", Usage(cost=worst))
        if answer.billed is not None:
            ticket.settle(answer.billed)
        return answer


def _tell(place: CallSlot, answer: ChatResponse) -> None:
    """Tells the pace what an answer says about the endpoint's load."""
    usage = answer.attempt.usage
    place.tokens, place.wait = usage.input_tokens + usage.output_tokens, answer.retry_after
    if answer.status == 429:
        place.said = LoadSignal.BUSY
    elif answer.came is ResponseKind.PASSING:
        place.said = LoadSignal.BROKEN
    elif answer.came is not ResponseKind.REJECTED:
        place.said = LoadSignal.GOOD
