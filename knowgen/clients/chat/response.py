"""Reading responses of a chat endpoint: a reply, a refusal or an error, with tokens and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knowgen.clients.chat.reasoning import reasoning_of
from knowgen.clients.pricing import ChatPrice
from knowgen.clients.service_errors import (
    MAX_MESSAGE,
    MAYBE_BILLED,
    Outcome,
    ServiceError,
    embedded_status,
    error_from,
    is_web_page,
    read_error,
    secret_of,
)
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import Attempt, Usage
from knowgen.core.secrets import mask_key_like, mask_secrets
from knowgen.core.text import clean_text

MAX_BODY = 8 << 20
"""Maximum size of a response in bytes, after decompression."""

MAX_REPLY = 1 << 20
"""Maximum number of characters of a reply that are kept; the rest is cut, and the reply is a fault."""

MAX_REASONING = 1 << 16
"""Maximum number of characters of a reasoning that are kept, from its end, where the answer would be."""

_REFUSAL_FINISH_REASONS = frozenset(
    {
        "contentfilter", "contentfiltered", "safety", "imagesafety", "prohibitedcontent", "imageprohibitedcontent",
        "recitation", "imagerecitation", "blocklist", "spii", "refusal", "guardrailintervened", "modelarmor",
        "sensitive",
    }
)  # fmt: skip
"""Finish reasons of a refusal, in lower case without underscores, of OpenAI and of services behind compatible APIs."""

_UNEXPLAINED_FINISH_REASONS = frozenset({"other", "language", "unspecified", "finishreasonunspecified"})
"""Finish reasons of Gemini that are blocks where the reply is empty."""

_REASONING_PARTS = frozenset({"thinking", "reasoning"})
"""Types of the parts of a content that are not the answer."""

REFUSED = "the judge refused: "
"""Beginning of the reason of a refusal."""


@dataclass(frozen=True)
class ChatResponse:
    """The outcome of a call and its record.

    Attributes:
        attempt: Record of the call.
        kind: How the call ended.
        retry_after: Seconds the endpoint asked to wait, None where it did not.
        status: HTTP status, 0 where there was no response.
        billed: Cost in US dollars; None where it is unknown and the call counts at its worst case.
        key: Key of the request in the reply cache; empty where replies are not cached.
        error: The error that the endpoint reported, None where it reported none.
        reasoning: The reasoning that the endpoint returned apart from the reply; empty where it returned none.
        calls: Name and arguments (JSON text) of the tool calls that the endpoint took out of the reply.
    """

    attempt: Attempt
    kind: Outcome
    retry_after: float | None = None
    status: int = 0
    billed: float | None = None
    key: str = ""
    error: ServiceError | None = None
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()


class ResponseReader:
    """Turns HTTP responses of an endpoint into `ChatResponse` objects.

    Args:
        key: API key of the endpoint, masked in every text.
        price: Price of a call.
    """

    def __init__(self, key: str, price: ChatPrice) -> None:
        self._key, self._secret, self._price = key, secret_of(key), price

    def read(self, status: int, headers: Mapping[str, str], body: bytes, worst: float | None) -> ChatResponse:
        """Read a response and return the outcome of the call.

        Args:
            status: HTTP status.
            headers: HTTP headers, looked up by name in any case.
            body: Raw body.
            worst: Worst-case cost of the call in US dollars, None where unknown.
        """
        if not 200 <= status < 300:
            free = Usage(cost=None if worst is None else 0.0)
            error = read_error(status, headers, body, self._key)
            maybe_billed = status in MAYBE_BILLED
            usage = Usage(cost=worst) if maybe_billed else free
            return self._failed(error, usage, None if maybe_billed else 0.0)
        try:
            data = mask_secrets(json.loads(body), self._secret)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, Mapping):
            return self._read_success(data, headers, worst, status)
        page = ", but a web page: base_url may not be the address of this API" if is_web_page(body) else ""
        what = f"the endpoint's answer is not a JSON object{page}"
        return self.failed(what, Outcome.FAULT, Usage(cost=worst), status=status)

    def _read_success(
        self, body: Mapping[str, Any], headers: Mapping[str, str], worst: float | None, status: int
    ) -> ChatResponse:
        reported = self._usage(body.get("usage"))
        usage = _usage(reported, worst)
        billed = usage.cost if reported.complete or usage.cost != worst else None
        choice = _first_choice(body) or {}
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        finish = str(choice.get("finish_reason") or "")
        inside = next((each["error"] for each in (choice, message, body) if each.get("error")), None)
        if inside is not None or finish.casefold() == "error":
            return self._failed(self._error_inside(inside, headers), usage, billed)
        if not choice:
            what = "the endpoint's answer contains no reply: no choices"
            return self.failed(what, Outcome.FAULT, usage, status=status, billed=billed)
        reply = self.clean(_text_of(message.get("content")), limit=None)
        apart = reasoning_of(message)[1]
        thoughts = self.clean((apart or _thoughts_of(message.get("content")))[-MAX_REPLY:], limit=None)
        # what the content itself marks as thoughts is never read as an answer; a field may hold one by mistake
        reasoning = "" if reply.strip() else self.clean(apart[-MAX_REASONING:], limit=None)
        error = self._refusal(message, finish, reply, reasoning, body.get("usage"))
        refused = bool(error)
        if len(reply) > MAX_REPLY:
            reply, error = reply[:MAX_REPLY], error or f"the reply has {len(reply)} characters and was cut"
        attempt = Attempt(
            reply=reply,
            error=error,
            model=clean_text(str(body.get("model") or ""))[:MAX_MESSAGE],
            finish_reason=self.clean(finish),
            refused=refused,
            reasoning=reasoning,
            usage=usage,
        )
        kind = Outcome.REFUSED if refused else Outcome.REPLY
        calls = tuple((self.clean(name), self.clean(arguments, None)) for name, arguments in _calls_of(message))
        return ChatResponse(attempt, kind, status=status, billed=billed, reasoning=thoughts, calls=calls)

    def _error_inside(self, inside: Any, headers: Mapping[str, str]) -> ServiceError:
        """Return the error inside a successful response, which counts as a 502 where it names no status."""
        error = inside if isinstance(inside, Mapping) else {"message": str(inside or "the model ended with an error")}
        return error_from(error, embedded_status(error), headers, self._key)

    def _refusal(self, message: Mapping[str, Any], finish: str, reply: str, reasoning: str, usage: Any) -> str:
        """Return why a reply counts as a refusal, empty where it does not.

        A filter may leave nothing but an empty reply without tokens and the finish reason `stop`, as Gemini's
        compatible API does for a blocked prompt.
        """
        if refusal := _refusal_of(message):
            return f"{REFUSED}{self.clean(refusal)}"
        name = finish.partition(":")[0].replace("_", "").replace("-", "").strip().casefold()
        empty = not reply.strip() and not reasoning
        if name in _REFUSAL_FINISH_REASONS or (empty and name in _UNEXPLAINED_FINISH_REASONS):
            return f"{REFUSED}the endpoint's content filter withheld the reply ({self.clean(finish)})"
        if empty and name in {"stop", ""} and _wrote_nothing(usage):
            return f"{REFUSED}the reply is empty and has no tokens, as where a content filter withholds it"
        return ""

    def _usage(self, usage: Any) -> ReportedUsage:
        """Return tokens and cost. Some endpoints count reasoning tokens in the total only."""
        counts = UsageReader(usage)
        input_tokens, output_tokens = counts.required("prompt_tokens", minimum=1), counts.required("completion_tokens")
        total = UsageReader(usage).optional("total_tokens") or 0
        if input_tokens:
            output_tokens = max(output_tokens, total - input_tokens)
        else:
            input_tokens = max(0, total - output_tokens)
        cost = self._price.of(input_tokens, output_tokens)
        return ReportedUsage(input_tokens, output_tokens, cost, counts.complete)

    def _failed(self, error: ServiceError, usage: Usage, billed: float | None) -> ChatResponse:
        """Return the outcome of a call that ended in an error of the endpoint."""
        what = error.describe("the endpoint")
        refused = error.outcome is Outcome.REFUSED
        attempt = Attempt(
            error=f"{REFUSED}{error.message or error.code}" if refused else what, refused=refused, usage=usage
        )
        return ChatResponse(attempt, error.outcome, error.retry_after, error.status, billed, error=error)

    def failed(
        self, what: str, kind: Outcome, usage: Usage, *, status: int = 0, billed: float | None = None
    ) -> ChatResponse:
        """Return the outcome of a call without a usable response.

        Args:
            what: What went wrong.
            kind: How the call ended.
            usage: Tokens and cost of the call.
            status: HTTP status, 0 where there was no response.
            billed: Cost in US dollars, None where the worst case counts.
        """
        return ChatResponse(Attempt(error=self.clean(what), usage=usage), kind, status=status, billed=billed)

    def clean(self, text: str, limit: int | None = MAX_MESSAGE) -> str:
        """Return text from outside with the key masked; with a limit also on one line and at most that long."""
        cleaned = clean_text(mask_secrets(text, self._secret))
        if limit is None:
            return cleaned
        return " ".join(mask_key_like(cleaned).split())[:limit]


def _usage(reported: ReportedUsage, worst: float | None) -> Usage:
    return Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=reported.charge(worst))


def _wrote_nothing(usage: Any) -> bool:
    """Return whether a usage says that the model wrote no token; False where it says nothing."""
    if not isinstance(usage, Mapping) or "prompt_tokens" not in usage:
        return False
    counts = UsageReader(usage)
    prompt, written = counts.optional("prompt_tokens") or 0, counts.optional("completion_tokens") or 0
    total = counts.optional("total_tokens")
    return written == 0 and (total is None or total <= prompt)


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    return None


def _text_of(content: Any) -> str:
    """Return a message's text, which some endpoints send as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part for part in content if isinstance(part, Mapping) and part.get("type") not in _REASONING_PARTS]
        return "".join(str(part.get("text") or "") for part in texts)
    return ""


def _thoughts_of(content: Any) -> str:
    """Return the reasoning in a message's content: Mistral sends parts with texts inside (looked up in 2026-11)."""
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("type") in _REASONING_PARTS:
            inner = part.get("thinking") or part.get("reasoning") or part.get("text")
            texts.append(inner if isinstance(inner, str) else _text_of(inner))
    return "".join(texts)


def _calls_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the name and arguments of the tool calls that a server took out of the text."""
    calls = message.get("tool_calls")
    found = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            found.append((str(function.get("name") or ""), text))
    return found


def _refusal_of(message: Mapping[str, Any]) -> str:
    """Return the text of a refusal, which is a field of the message or of parts of its content."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    refusals = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    texts = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in refusals if each]
    return " ".join(text.strip() for text in texts if text.strip())
