"""One call to an OpenAI-compatible chat endpoint, told apart by what came of it, and never without its record."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knowgen.calls import Ticket, paid_call
from knowgen.errors import ConfigError, MissingDependencyError, UsageError
from knowgen.records import Attempt, Usage
from knowgen.scorers.pricing import Price
from knowgen.scorers.reply import clean_text

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
WORDS_KEPT = 600
"""Characters of an endpoint's error that are kept."""

_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key)-[\w*.-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})
_MAYBE_BILLED = frozenset({502, 504})
"""A gateway that gave up waiting: the model behind it may have worked and been billed."""

_STAYS = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class Came(StrEnum):
    """What came of a call."""

    REPLY = "reply"
    REFUSED = "refused"
    REJECTED = "rejected"
    PASSING = "passing"


@dataclass(frozen=True)
class Answer:
    """What came of a call, with its record.

    Attributes:
        attempt: The record.
        came: A reply to be read; a refusal of the model or its filter; a rejection that will not change (wrong key,
            unknown model, bad request); a fault that may pass.
        retry_after: Seconds the endpoint asked to wait, or None.
    """

    attempt: Attempt
    came: Came
    retry_after: float | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is asked, and how.

    Attributes:
        model: Model name, as the endpoint knows it.
        base_url: Such as `https://api.openai.com/v1`, without a trailing slash.
        key: Secret of the endpoint; never shown.
        temperature: Of the decoding.
        max_tokens: Longest reply.
        timeout: Seconds for one call.
        price: What calls cost.
    """

    model: str
    base_url: str
    key: str = field(repr=False)
    temperature: float
    max_tokens: int
    timeout: float
    price: Price

    def client(self) -> AsyncOpenAI:
        """Makes a client, to be used in one event loop; it never tries again by itself.

        Raises:
            MissingDependencyError: The openai package is not installed.
        """
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient
        except ModuleNotFoundError as error:
            raise MissingDependencyError("a VLM judge needs the package 'openai'", fix="pip install openai") from error
        http = DefaultAsyncHttpxClient(trust_env=False) if is_loopback(self.base_url) else None
        return AsyncOpenAI(
            api_key=self.key, base_url=self.base_url, max_retries=0, timeout=self.timeout, http_client=http
        )

    async def ask(self, client: AsyncOpenAI, messages: list[dict[str, Any]], most_input: int, who: str) -> Answer:
        """Sends one request. Its worst case is reserved before, and settled to the real cost after.

        Args:
            client: From `client`.
            messages: In the chat format.
            most_input: Upper bound of the input tokens.
            who: What is calling, for the books.

        Raises:
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        worst = self.price.of(most_input, self.max_tokens)
        async with paid_call(worst, who) as ticket:
            started = time.perf_counter()
            answer = await self._send(client, messages, worst, ticket)
            seconds = time.perf_counter() - started
        attempt = answer.attempt.model_copy(update={"seconds": seconds})
        return Answer(attempt, answer.came, answer.retry_after)

    async def _send(
        self, client: AsyncOpenAI, messages: list[dict[str, Any]], worst: float | None, ticket: Ticket
    ) -> Answer:
        import openai

        maybe_billed = Usage(cost=worst)
        try:
            async with asyncio.timeout(self.timeout):
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=messages,  # type: ignore[arg-type]
                    temperature=self.temperature,
                    max_tokens=self.max_tokens,
                )
                body = response.http_response.json()
        except openai.APIStatusError as error:
            return self._of_status(error, worst, ticket)
        except (TimeoutError, openai.APITimeoutError) as error:
            return self._of_lost(error, f"no answer within {self.timeout:g} s", worst, ticket)
        except openai.APIConnectionError as error:
            return self._of_lost(error, "the connection was lost", worst, ticket)
        except (ValueError, openai.APIError) as error:
            return self._passing(f"the endpoint's answer is no JSON: {error}", maybe_billed)
        if not isinstance(body, Mapping):
            return self._passing("the endpoint's answer is no JSON object", maybe_billed)
        return self._of_body(body, worst, ticket)

    def _of_body(self, body: Mapping[str, Any], worst: float | None, ticket: Ticket) -> Answer:
        """Reads an answer that came with status 200."""
        usage = self._usage(body.get("usage"), worst)
        if usage.input_tokens or usage.output_tokens:
            ticket.settle(usage.cost)
        choice = _first_choice(body)
        if choice is None:
            fault = body.get("error")
            words = fault.get("message") if isinstance(fault, Mapping) else fault
            return self._passing(f"the endpoint's answer holds no reply: {words or 'no choices'}", usage)
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        reply = self._clean(_text_of(message.get("content")), limit=None)
        finish = str(choice.get("finish_reason") or "")
        refusal = message.get("refusal")
        error, came = "", Came.REPLY
        if isinstance(refusal, str) and refusal.strip():
            error, came = f"the judge declined: {self._clean(refusal)}", Came.REFUSED
        elif finish == "content_filter":
            error, came = "the endpoint's content filter withheld the reply", Came.REFUSED
        attempt = Attempt(
            reply=reply, error=error, model=clean_text(str(body.get("model") or "")), finish_reason=finish, usage=usage
        )
        return Answer(attempt, came)

    def _usage(self, usage: Any, worst: float | None) -> Usage:
        """Returns tokens and cost; an endpoint that does not count is taken at the worst case, as the budget does."""
        if not isinstance(usage, Mapping):
            return Usage(cost=worst)
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        tokens = [count if isinstance(count, int) and count >= 0 else 0 for count in counts]
        if not any(tokens):
            return Usage(cost=worst)
        return Usage(input_tokens=tokens[0], output_tokens=tokens[1], cost=self.price.of(*tokens))

    def _of_status(self, error: APIStatusError, worst: float | None, ticket: Ticket) -> Answer:
        """Tells apart answers with an error status."""
        status = error.status_code
        free = Usage(cost=None if worst is None else 0.0)
        words = self._clean(_words_of(error))
        what = f"the endpoint answered {status}: {words}" if words else f"the endpoint answered {status}"
        passing = status in {408, 409, 425, 429} or status >= 500
        if passing and str(error.code or error.type or "") not in _STAYS:
            wait = _retry_after(error.response.headers)
            if status in _MAYBE_BILLED:
                return self._passing(what, Usage(cost=worst), wait)
            ticket.settle(free.cost)
            return self._passing(what, free, wait)
        ticket.settle(free.cost)
        return Answer(Attempt(error=what, usage=free), Came.REJECTED)

    def _of_lost(
        self, error: TimeoutError | APIConnectionError, what: str, worst: float | None, ticket: Ticket
    ) -> Answer:
        """Tells a request that was never sent from one that may have been billed."""
        cause = type(error.__cause__).__name__
        if cause in _NEVER_SENT:
            ticket.settle(None if worst is None else 0.0)
            return self._passing(
                f"the endpoint {self.base_url} cannot be reached ({cause})", Usage(cost=None if worst is None else 0.0)
            )
        return self._passing(what, Usage(cost=worst))

    def _passing(self, what: str, usage: Usage, retry_after: float | None = None) -> Answer:
        return Answer(Attempt(error=self._clean(what), usage=usage), Came.PASSING, retry_after)

    def _clean(self, text: str, limit: int | None = WORDS_KEPT) -> str:
        """Returns text from outside without the key, and an error's words on one line, shortened."""
        cleaned = clean_text(text)
        if self.key and self.key != NO_KEY:
            cleaned = cleaned.replace(self.key, "[key]")
        if limit is None:
            return cleaned
        return " ".join(_KEY_LIKE.sub("[key]", cleaned).split())[:limit]


NO_KEY = "no-key"
"""Sent to an endpoint on this machine that asks for none."""


def endpoint_url(base_url: str, where: str) -> str:
    """Returns the address of an endpoint in one spelling; an empty one is OpenAI's.

    Args:
        base_url: As the user wrote it.
        where: Names whose address it is, for errors.

    Raises:
        UsageError: It is no http address.
        ConfigError: It holds a password or other secret, which would be recorded.
    """
    url = (base_url or OPENAI_URL).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # such as a bracket that is not closed
        is_http = False
    if not is_http:  # it is not repeated here, for it may hold a password
        raise UsageError("base_url is no http address", where=where, fix="write base_url=http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url must not hold a user, a password or a query, for it is recorded",
            where=where,
            fix="put the key into an environment variable and name it with key_env",
        )
    return url


def is_loopback(url: str) -> bool:
    """Tells whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(url: str, key_env: str) -> str:
    """Returns the endpoint's key from the environment.

    Args:
        url: Of the endpoint.
        key_env: Name of the variable; empty means `OPENAI_API_KEY`, or no key for an endpoint on this machine.

    Raises:
        ConfigError: The variable is not set, or its name is no name.
    """
    if not key_env and is_loopback(url):
        return NO_KEY
    name = key_env or OPENAI_KEY
    if not _VARIABLE.match(name):
        raise ConfigError(
            "key_env must be the name of an environment variable, not a key", fix="write key_env=OPENAI_API_KEY"
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"the key for {urlsplit(url).hostname} is missing", where="vlm", fix=f"type: export {name}=<your key>"
        )
    return key


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    return None


def _text_of(content: Any) -> str:
    """Returns a message's text; some endpoints send it as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def _words_of(error: APIStatusError) -> str:
    """Returns an endpoint's own words for an error."""
    body = error.body
    if isinstance(body, Mapping):
        words = body.get("message") or body.get("detail") or body.get("error")
        return words if isinstance(words, str) else json.dumps(words, ensure_ascii=False) if words else ""
    return body if isinstance(body, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds an endpoint asks to wait, written as seconds, milliseconds or a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif not (wait := headers.get("retry-after")):
            return None
        elif re.fullmatch(r"[\d.]+", wait.strip()):
            seconds = float(wait)
        else:
            seconds = parsedate_to_datetime(wait).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
