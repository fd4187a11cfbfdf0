"""The policy `openai:MODEL`: any model behind an OpenAI-compatible chat endpoint, hosted ones included.

The conversation is sent as text and images in each call; the service renders it. Images are sent as the judges send
them, and made smaller where the host takes no larger ones. What the host does not accept of a request, such as a
temperature or a seed, is learnt from its first error.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

from knowgen.agents.policies.contract import ContextFullError, Finish, PolicyReply, Sampling
from knowgen.agents.records import Message, Segment
from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.chat.image_encoding import MAX_SIDE, QUALITY, EncodedImageFile, ImageEncoding
from knowgen.clients.chat.response import REFUSED, ChatResponse
from knowgen.clients.endpoint_url import endpoint_url, is_loopback
from knowgen.clients.preflight import check_endpoint
from knowgen.clients.pricing import chat_price
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.service_errors import Outcome, is_context_error
from knowgen.core.errors import AccountError, KnowgenError, ServiceUnavailableError, UsageError

_CUT = frozenset({"length", "max_tokens", "maxtokens"})
"""Finish reasons of a reply that the limit on tokens cut, in lower case."""


@dataclass(eq=False, repr=False)
class OpenAiPolicy:
    """A vision-language model behind an OpenAI-compatible chat endpoint.

    A reasoning that the service returns in a field of its own is put before the reply in a think block, and a tool call
    that it takes out of the text is put back, so that a reply is read in the same way wherever it comes from. Its
    sessions have no token ids.

    Args:
        model: Model name, as the endpoint knows it.
        base_url: URL of the endpoint, such as `http://127.0.0.1:8000/v1`; empty for OpenAI.
        key_env: Environment variable with the key; empty means OPENAI_API_KEY, and none for an endpoint on this
            machine.
        max_side: Maximum length of the longer side of an image in pixels.
        quality: JPEG quality of images, 1 to 100.
        price_in: US dollars per million input tokens; give it with `price_out`. Known models need none.
        price_out: US dollars per million output tokens.
        price_call: US dollars per call; 0 for a free endpoint.
        concurrency: Maximum number of concurrent calls.
        rpm: Maximum number of requests per minute, 0 for no limit.
        tpm: Maximum number of tokens per minute, 0 for no limit.
        timeout: Maximum duration of one call in seconds.
        endpoint_id: Identity of the server, such as a hash of its weights, as part of keys.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The key is missing, or the URL contains a secret.

    Example:
        >>> policy = OpenAiPolicy("qwen3-vl", "http://127.0.0.1:8000/v1")
        >>> policy.label, policy.endpoint.base_url
        ('openai:qwen3-vl', 'http://127.0.0.1:8000/v1')
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        {"key_env", "price_in", "price_out", "price_call", "concurrency", "rpm", "tpm", "timeout"}
    )

    model: str
    base_url: str = ""
    _: KW_ONLY
    key_env: str = ""
    max_side: int = MAX_SIDE
    quality: int = QUALITY
    price_in: float | None = None
    price_out: float | None = None
    price_call: float | None = None
    concurrency: int = 256
    rpm: float = 0
    tpm: float = 0
    timeout: float = 600.0
    endpoint_id: str = ""

    endpoint: ChatEndpoint = field(init=False)
    label: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the arguments and create the endpoint, without calling it."""
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("the policy needs a model", where="policy openai", fix="name it as openai:MODEL")
        self.label = f"openai:{self.model}"
        where = f"policy {self.label}"
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {self.timeout!r}", where=where, fix="give seconds")
        self.endpoint = ChatEndpoint.of(
            self.model,
            self.base_url,
            self.key_env,
            where,
            timeout=float(self.timeout),
            price=chat_price(self.model, self.base_url, self.price_in, self.price_out, self.price_call),
            limits=RateLimits(self.concurrency, self.rpm, self.tpm),
            encoding=ImageEncoding(self.max_side, self.quality),
            schema="off",
            use_cache=False,  # a reply that is sampled is another one in every trajectory
            endpoint_id=self.endpoint_id,
            growing=True,
            option="-g policy.",
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, endpoint and form of the images."""
        return {
            "policy": "openai", "model": self.model, "endpoint": self.endpoint_id or self.endpoint.base_url,
            "max_side": self.max_side, "quality": self.quality,
        }  # fmt: skip

    def open(self, sampling: Sampling, prompt: str, session: str) -> ChatSession:
        """Return a new session."""
        endpoint = replace(
            self.endpoint,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.top_p < 1 and sampling.temperature > 0 else None,
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
        )
        return ChatSession(endpoint, self.label, sampling.max_context)

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
        url = endpoint_url(base_url, f"policy openai:{model}")
        return is_loopback(url) or chat_price(model, base_url, price_in, price_out, price_call).known

    async def check_service(self) -> str:
        """Check the address, the key and the model with one free call.

        Returns:
            A warning in one line, or an empty text.

        Raises:
            AccountError: The endpoint rejects the key, or the address is wrong.
            ServiceUnavailableError: The endpoint cannot be reached, or is busy.
        """
        return await check_endpoint(self.endpoint, self.label)

    async def close(self) -> None:
        """Close connections and worker processes. Call it in the event loop they were used in."""
        await self.endpoint.close()


class ChatSession:
    """One trajectory over a chat endpoint; a `PolicySession`.

    Args:
        endpoint: The endpoint, with the sampling of this trajectory.
        label: Name of the policy in the spend table and in errors.
        max_context: Maximum number of tokens of the conversation, as the service counted it in the last call; 0 for
            that of the service.
    """

    segments: Sequence[Segment] = ()

    def __init__(self, endpoint: ChatEndpoint, label: str, max_context: int) -> None:
        self._endpoint, self._label, self._max_context = endpoint, label, max_context
        self._tokens = 0

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the reply to a conversation; see `PolicySession`."""
        if self._max_context and self._tokens > self._max_context:
            raise ContextFullError(
                f"the conversation has {self._tokens} tokens, more than {self._max_context}",
                where=f"policy {self._label}",
            )
        sent = [await self._form(message) for message in messages]
        response = await self._ask(sent)
        attempt = response.attempt
        self._tokens = attempt.usage.input_tokens + attempt.usage.output_tokens
        finish: Finish = "length" if attempt.finish_reason.casefold() in _CUT else "stop"
        details = {"decoding": list(attempt.changes)} if attempt.changes else {}
        return PolicyReply(_text_of(response, finish), finish, attempt.usage, attempt.model, details)

    async def close(self) -> None:
        """Do nothing: connections are those of the policy."""

    async def _ask(self, messages: Sequence[Mapping[str, Any]]) -> ChatResponse:
        """Send one request.

        Raises:
            ContextFullError: The conversation does not fit into the context of the service.
            ServiceUnavailableError: The service cannot answer now.
            AccountError: The service rejects the account.
            KnowgenError: The service rejects the request, or the model refused.
        """
        response = await self._endpoint.ask(messages, self._label)
        what, where = response.attempt.error, f"policy {self._label}"
        if response.kind.transient:
            busy = response.kind is Outcome.BUSY
            raise ServiceUnavailableError(
                what, service=self._label, busy=busy, retry_after=response.retry_after, attempts=(response.attempt,)
            )
        if response.kind is Outcome.ACCOUNT:
            raise AccountError(what, where=where, attempts=(response.attempt,))
        if response.kind is Outcome.REFUSED:
            raise KnowgenError(f"the model refused: {what.removeprefix(REFUSED)}", where=where)
        if response.kind is Outcome.REJECTED:
            full = response.error is not None and is_context_error(response.error.message)
            raise (ContextFullError if full else KnowgenError)(what, where=where)
        return response

    async def _form(self, message: Message) -> dict[str, Any]:
        """Return a message in the chat format."""
        if not message.images:
            return {"role": message.role, "content": message.text}
        encoded = await asyncio.gather(*(self._endpoint.encode(image, "an image") for image in message.images))
        text = [{"type": "text", "text": message.text}] if message.text else []
        images = [_image_part(image) for image in encoded]
        return {"role": message.role, "content": [*images, *text] if message.images_first else [*text, *images]}


def _image_part(image: EncodedImageFile) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image}}


def _text_of(response: ChatResponse, finish: Finish) -> str:
    """Return a reply with its reasoning in a think block, and with the tool calls that the server took out."""
    text = response.attempt.reply
    if response.calls and "<tool_call>" not in text:
        text = "\n".join(part for part in (text, *map(_call_text, response.calls)) if part)
    if not response.reasoning.strip() or "<think>" in text:
        return text
    thought = f"<think>\n{response.reasoning.strip()}"
    cut = finish == "length" and not text.strip()
    return thought if cut else f"{thought}\n</think>\n{text}"


def _call_text(call: tuple[str, str]) -> str:
    name, arguments = call
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        parsed = arguments
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': parsed}, ensure_ascii=False)}\n</tool_call>"
