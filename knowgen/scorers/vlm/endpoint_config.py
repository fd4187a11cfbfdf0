"""The arguments of every judge over an OpenAI-compatible endpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from knowgen.clients.chat.client import ChatEndpoint, SchemaUse
from knowgen.clients.chat.identity import is_vendor
from knowgen.clients.chat.image_encoding import MAX_SIDE, QUALITY, EncodedImageFile, ImageEncoding
from knowgen.clients.endpoint_url import endpoint_url, is_loopback
from knowgen.clients.preflight import check_endpoint
from knowgen.clients.pricing import chat_price
from knowgen.clients.rate_control import RateLimits
from knowgen.core.errors import UsageError

MAX_CONCURRENCY = 256
"""Default of the maximum number of concurrent calls."""

IDENTITY_EXCLUDES = frozenset(
    {"price_in", "price_out", "price_call", "key_env", "concurrency", "timeout", "rpm", "tpm", "cache"}
)
"""Arguments that do not affect replies, and so are not part of a key."""


@dataclass(eq=False, repr=False)
class EndpointConfig:
    """The endpoint of a judge and the settings of calls to it. Judges inherit these constructor arguments.

    Args:
        model: Model name, as the endpoint knows it.
        base_url: URL of the endpoint, such as `http://127.0.0.1:8000/v1`; empty for OpenAI.
        temperature: Sampling temperature, 0 to 2.
        max_tokens: Maximum number of tokens of a reply.
        attempts: Maximum number of calls for one score, when replies break the contract.
        schema: Whether the endpoint enforces the JSON schema of the reply: on, off, or auto to try it first.
        max_side: Maximum length of the longer side of an image in pixels; larger images are scaled down.
        quality: JPEG quality, 1 to 100.
        price_in: US dollars per million input tokens; give it with `price_out`. Known models need none.
        price_out: US dollars per million output tokens.
        price_call: US dollars per call; 0 for a free endpoint.
        key_env: Environment variable with the key; empty means OPENAI_API_KEY, and none for an endpoint on this
            machine.
        concurrency: Maximum number of concurrent calls. Calls start with 16 of them and rise to what the endpoint can
            do; they rise sooner where this is given, or the endpoint is one of a known service.
        rpm: Maximum number of requests per minute, 0 for no limit.
        tpm: Maximum number of tokens per minute, 0 for no limit.
        timeout: Maximum duration of one call in seconds. A score whose calls took longer in total gets no further call.
        cache: Whether to reuse the reply to an identical request of an earlier run; by default for every endpoint but
            those on this machine, where another server may answer tomorrow.
        endpoint_id: Identity of the server, such as a hash of its weights. It is part of all keys: results of another
            server at the same address are not reused. Without it, the server's list of models decides about replies.
    """

    identity_excludes: ClassVar[frozenset[str]] = IDENTITY_EXCLUDES

    model: str
    base_url: str = ""
    _: KW_ONLY
    temperature: float = 0.0
    max_tokens: int = 8192
    attempts: int = 4
    schema: SchemaUse = "auto"
    max_side: int = MAX_SIDE
    quality: int = QUALITY
    price_in: float | None = None
    price_out: float | None = None
    price_call: float | None = None
    key_env: str = ""
    concurrency: int = MAX_CONCURRENCY
    rpm: float = 0
    tpm: float = 0
    timeout: float = 120.0
    cache: bool | None = None
    endpoint_id: str = ""

    endpoint: ChatEndpoint = field(init=False)
    label: str = field(init=False)

    def open_endpoint(self, name: str) -> ChatEndpoint:
        """Check the arguments and return the endpoint, without calling it.

        Args:
            name: Name of the scorer in errors.

        Raises:
            UsageError: An argument is invalid.
            ConfigError: The key is missing, or the URL contains a secret.
        """
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("the judge needs a model", where=f"scorer {name}", fix=f"name it as {name}:MODEL")
        where = f"scorer {name}:{self.model}"
        self._check(where)
        return ChatEndpoint.of(
            self.model,
            self.base_url,
            self.key_env,
            where,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            timeout=self.timeout,
            price=chat_price(self.model, self.base_url, self.price_in, self.price_out, self.price_call),
            limits=RateLimits(
                self.concurrency,
                self.rpm,
                self.tpm,
                # who gives a number of calls knows the server
                many_at_once=is_vendor(endpoint_url(self.base_url, where)) or self.concurrency != MAX_CONCURRENCY,
            ),
            encoding=ImageEncoding(self.max_side, self.quality),
            schema=self.schema,
            use_cache=not is_loopback(self.base_url) if self.cache is None else self.cache,
            endpoint_id=self.endpoint_id,
        )

    @staticmethod
    def price_known(
        model: str,
        base_url: str = "",
        price_in: float | None = None,
        price_out: float | None = None,
        price_call: float | None = None,
        **_: Any,
    ) -> bool:
        """Return whether the cost of a call is known, or the endpoint is on this machine."""
        url = endpoint_url(base_url, f"scorer {model}")
        return is_loopback(url) or chat_price(model, base_url, price_in, price_out, price_call).known

    async def check_service(self) -> str:
        """Check the address, the key and the model with one free call, before anything is generated.

        Returns:
            A warning in one line, or an empty text.

        Raises:
            AccountError: The endpoint rejects the key, or the address is wrong.
            ServiceUnavailableError: The endpoint cannot be reached, or is busy.
        """
        endpoint = self.endpoint
        await endpoint.session().encoder.prepare()  # it starts while the call is under way
        return await check_endpoint(endpoint, self.label)

    async def _as_sent(self, images: Sequence[EncodedImageFile]) -> list[EncodedImageFile]:
        """Return images as the endpoint takes them, after it has been asked: it may have rejected larger ones."""
        return [await self.endpoint.as_sent(image) for image in images]

    def _check(self, where: str) -> None:
        for name in ("max_tokens", "attempts", "concurrency"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number >= 1, got {value!r}", where=where)
        if not _is_number(self.temperature) or not 0 <= self.temperature <= 2:
            raise UsageError(f"temperature must be a number from 0 to 2, got {self.temperature!r}", where=where)
        if not _is_number(self.timeout) or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {self.timeout!r}", where=where, fix="give seconds")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
