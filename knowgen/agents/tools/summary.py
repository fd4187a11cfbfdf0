"""Answering a question from a page by a summary model, over an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from knowgen.agents.prompts.texts import AgentTexts
from knowgen.agents.protocol import escape_tags
from knowgen.agents.service_calls import all_results, until_answered
from knowgen.agents.text_budget import estimate_tokens, split_by_tokens
from knowgen.agents.usage_parts import total_usage
from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.chat.reasoning import split_reasoning
from knowgen.clients.endpoint_url import is_loopback
from knowgen.clients.preflight import check_endpoint
from knowgen.clients.pricing import chat_price
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.service_errors import Outcome
from knowgen.core.errors import AccountError, KnowgenError, ServiceUnavailableError, UsageError
from knowgen.core.records import Usage, UsagePart

PART = "summary"
"""Name of the summary model among the parts of usage."""

SPLIT_TOKENS = 95_000
"""Length in tokens above which a page is split."""

OVERLAP_TOKENS = 1024
"""Tokens that a part of a page continues into the next."""


class NoSummaryError(KnowgenError):
    """The summary model gave no answer for a page."""


@dataclass(eq=False, repr=False)
class SummaryModel:
    """A summary model. Arguments as `summary=MODEL` and `summary.KEY` of the agent.

    Args:
        model: Model name, as the endpoint knows it.
        base_url: URL of the endpoint, such as `http://127.0.0.1:8001/v1`; empty for OpenAI.
        max_tokens: Maximum number of tokens of an answer.
        temperature: Sampling temperature, 0 to 2.
        key_env: Environment variable with the key; empty means OPENAI_API_KEY, and none for an endpoint on this
            machine.
        price_in: US dollars per million input tokens; give it with `price_out`. Known models need none.
        price_out: US dollars per million output tokens.
        price_call: US dollars per call; 0 for a free endpoint.
        concurrency: Maximum number of concurrent calls.
        rpm: Maximum number of requests per minute, 0 for no limit.
        tpm: Maximum number of tokens per minute, 0 for no limit.
        timeout: Maximum duration of one call in seconds.
        cache: Whether to reuse the answer to an identical request; by default for every endpoint but those on this
            machine.
        endpoint_id: Identity of the server, as part of keys.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The key is missing, or the URL contains a secret.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        {"key_env", "price_in", "price_out", "price_call", "concurrency", "rpm", "tpm", "timeout", "cache"}
    )

    model: str
    base_url: str = ""
    _: KW_ONLY
    max_tokens: int = 8192
    temperature: float = 0.0
    key_env: str = ""
    price_in: float | None = None
    price_out: float | None = None
    price_call: float | None = None
    concurrency: int = 64
    rpm: float = 0
    tpm: float = 0
    timeout: float = 300.0
    cache: bool | None = None
    endpoint_id: str = ""

    endpoint: ChatEndpoint = field(init=False)
    label: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the arguments and create the endpoint, without calling it."""
        self.label = f"summary {self.model}"
        for name in ("max_tokens", "concurrency"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number >= 1, got {value!r}", where=self.label)
        if not 0 <= self.temperature <= 2:
            raise UsageError(f"temperature must be a number from 0 to 2, got {self.temperature!r}", where=self.label)
        if not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {self.timeout!r}", where=self.label)
        self.endpoint = ChatEndpoint.of(
            self.model,
            self.base_url,
            self.key_env,
            self.label,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            timeout=float(self.timeout),
            price=chat_price(self.model, self.base_url, self.price_in, self.price_out, self.price_call),
            limits=RateLimits(self.concurrency, self.rpm, self.tpm),
            schema="off",
            use_cache=not is_loopback(self.base_url) if self.cache is None else self.cache,
            endpoint_id=self.endpoint_id,
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its answers, as plain data for keys."""
        return {
            "model": self.model,
            "endpoint": self.endpoint_id or self.endpoint.base_url,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }

    async def check_service(self) -> str:
        """Check the address, the key and the model with one free call; errors as of a judge."""
        return await check_endpoint(self.endpoint, self.label)

    async def ask(self, prompt: str) -> tuple[str, Usage]:
        """Return the answer to a prompt, and what it used.

        Raises:
            NoSummaryError: The model refused, or its answer is empty.
            ServiceUnavailableError: The endpoint is busy, failing or unreachable.
            AccountError: The endpoint rejects the account.
            BudgetReachedError: The budget does not allow the call.
        """
        return await until_answered(lambda: self._ask(prompt))

    async def _ask(self, prompt: str) -> tuple[str, Usage]:
        response = await self.endpoint.ask([{"role": "user", "content": prompt}], self.label)
        attempt = response.attempt
        if response.kind.transient:
            raise ServiceUnavailableError(
                attempt.error,
                service=self.label,
                busy=response.kind is Outcome.BUSY,
                retry_after=response.retry_after,
                attempts=(attempt,),
            )
        if response.kind is Outcome.ACCOUNT:
            raise AccountError(attempt.error, where=self.label, attempts=(attempt,))
        answer = split_reasoning(attempt.reply).answer.strip() if response.kind is Outcome.REPLY else ""
        if not answer:
            raise NoSummaryError(attempt.error or "the answer is empty", where=self.label)
        self.endpoint.cache_replies([response])
        return answer, attempt.usage

    async def close(self) -> None:
        """Close connections. Call it in the event loop they were used in."""
        await self.endpoint.close()


class SummaryReader:
    """Reads pages by a summary model; pages that are too long for one request are read in parts.

    Args:
        model: The summary model.
        texts: The agent's texts, which contain the request.
        split_tokens: Length in tokens above which a page is split.
        overlap_tokens: Tokens that a part continues into the next.
    """

    def __init__(
        self,
        model: SummaryModel,
        texts: AgentTexts,
        *,
        split_tokens: int = SPLIT_TOKENS,
        overlap_tokens: int = OVERLAP_TOKENS,
    ) -> None:
        self._model, self._texts = model, texts
        self._split, self._overlap = split_tokens, overlap_tokens

    async def read(self, text: str, query: str) -> tuple[str, Sequence[UsagePart]]:
        """Return the model's answer, or its answers to the parts of a long page.

        Raises:
            NoSummaryError: The model gave no answer, for a long page to any part.
            ServiceUnavailableError: The endpoint is busy, failing or unreachable.
            AccountError: The endpoint rejects the account.
        """
        text = escape_tags(text)
        length = estimate_tokens(text)
        loop = asyncio.get_running_loop()
        started = loop.time()
        if length <= self._split:
            answer, usage = await self._model.ask(self._texts.summary(text, query))
            return answer, [_part([usage], loop.time() - started)]
        parts = split_by_tokens(text, max(2, length // self._split + 1), self._overlap)
        answers = await all_results([self._part(part, query) for part in parts])
        if not any(answer for answer, _ in answers):
            raise NoSummaryError("the answers to all parts are empty", where=self._model.label)
        framed = "".join(
            f"--- begin of result part {number} ---\n{answer}\n--- end of result part {number} ---\n\n"
            for number, (answer, _) in enumerate(answers, 1)
        )
        return self._texts.parts + framed, [_part([usage for _, usage in answers if usage], loop.time() - started)]

    async def _part(self, text: str, query: str) -> tuple[str, Usage | None]:
        try:
            return await self._model.ask(self._texts.summary_part(text, query))
        except NoSummaryError:
            return "", None  # the other parts may have an answer


def _part(usages: Sequence[Usage], seconds: float) -> UsagePart:
    return UsagePart(part=PART, calls=len(usages), usage=total_usage(usages), seconds=seconds)
