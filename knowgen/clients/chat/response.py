"""Reading responses of a chat endpoint: a reply, a refusal, a permanent rejection or a transient error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from knowgen.clients.endpoint_url import NO_KEY, retry_after
from knowgen.clients.pricing import ChatPrice
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import Attempt, Usage
from knowgen.core.secrets import mask_key_like, mask_secrets
from knowgen.core.text import clean_text

MAX_ERROR_LENGTH = 600
"""Maximum number of characters of an endpoint's error message that are recorded."""

_POSSIBLY_BILLED = frozenset({502, 504})
"""HTTP statuses of a gateway that stopped waiting: the model behind it may have answered, and the call been billed."""

_REFUSAL_FINISH_REASONS = frozenset(
    {"contentfilter", "safety", "imagesafety", "prohibitedcontent", "recitation", "blocklist", "spii", "refusal"}
)
"""Finish reasons of a refusal, in lower case without underscores, of OpenAI and of services behind compatible APIs."""

_PERMANENT_ERROR_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""Error codes of a 429 response that no waiting helps against."""


class ResponseKind(StrEnum):
    """The outcome of a call.

    Attributes:
        REPLY: A reply to parse.
        REFUSED: The model or its content filter refused.
        REJECTED: The endpoint rejected the call, and would again: wrong key, unknown model, invalid request.
        TRANSIENT: A transient error; another attempt may succeed.
    """

    REPLY = "reply"
    REFUSED = "refused"
    REJECTED = "rejected"
    TRANSIENT = "transient"


@dataclass(frozen=True)
class ChatResponse:
    """The outcome of a call and its record.

    Attributes:
        attempt: Record of the call.
        kind: Kind of outcome.
        retry_after: Seconds the endpoint asked to wait, None where it did not.
        status: HTTP status, 0 where there was no response.
        billed: Cost in US dollars; None where it is unknown and the call counts at its worst case.
        key: Key of the request in the reply cache; empty where replies are not cached.
    """

    attempt: Attempt
    kind: ResponseKind
    retry_after: float | None = None
    status: int = 0
    billed: float | None = None
    key: str = ""


class ResponseReader:
    """Turns HTTP responses of an endpoint into `ChatResponse` objects.

    Args:
        key: API key of the endpoint, masked in every text.
        price: Price of a call.
    """

    def __init__(self, key: str, price: ChatPrice) -> None:
        self._secret, self._price = key if key != NO_KEY else "", price

    def read(self, status: int, headers: Mapping[str, str], body: bytes, worst: float | None) -> ChatResponse:
        """Read a response and return the outcome of the call.

        Args:
            status: HTTP status.
            headers: HTTP headers, looked up by name in any case.
            body: Raw body.
            worst: Worst-case cost of the call in US dollars, None where unknown.
        """
        try:
            data = mask_secrets(json.loads(body), self._secret)
        except (ValueError, RecursionError):
            data, body = None, mask_secrets(body, self._secret)
        if not 200 <= status < 300:
            return self._read_error(status, headers, data, body, worst)
        if not isinstance(data, Mapping):
            what = "the endpoint's answer is not a JSON object"
            return self.transient_error(what, Usage(cost=worst), status=status)
        return self._read_success(data, worst, status)

    def _read_success(self, body: Mapping[str, Any], worst: float | None, status: int) -> ChatResponse:
        reported = self._usage(body.get("usage"))
        usage = _usage(reported, worst)
        billed = usage.cost if reported.complete or usage.cost != worst else None
        choice = _first_choice(body)
        if choice is None:
            error_object = body.get("error")
            message = error_object.get("message") if isinstance(error_object, Mapping) else error_object
            what = f"the endpoint's answer contains no reply: {message or 'no choices'}"
            return self.transient_error(what, usage, status=status, billed=billed)
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        reply = self.clean(_text_of(message.get("content")), limit=None)
        finish = str(choice.get("finish_reason") or "")
        error = ""
        if refusal := _refusal_of(message):
            error = f"the judge refused: {self.clean(refusal)}"
        elif finish.replace("_", "").casefold() in _REFUSAL_FINISH_REASONS:
            error = f"the judge refused: the endpoint's content filter withheld the reply ({self.clean(finish)})"
        attempt = Attempt(
            reply=reply,
            error=error,
            model=clean_text(str(body.get("model") or "")),
            finish_reason=finish,
            refused=bool(error),
            usage=usage,
        )
        return ChatResponse(
            attempt, ResponseKind.REFUSED if error else ResponseKind.REPLY, status=status, billed=billed
        )

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

    def _read_error(
        self, status: int, headers: Mapping[str, str], data: Any, body: bytes, worst: float | None
    ) -> ChatResponse:
        free = Usage(cost=None if worst is None else 0.0)
        error = data.get("error") if isinstance(data, Mapping) else None
        details = error if isinstance(error, Mapping) else data if isinstance(data, Mapping) else {}
        message = self.clean(_error_message(details, error, body))
        what = f"the endpoint answered {status}: {message}" if message else f"the endpoint answered {status}"
        transient = status in {408, 409, 425, 429} or status >= 500
        if transient and str(details.get("code") or details.get("type") or "") not in _PERMANENT_ERROR_CODES:
            wait = retry_after(headers)
            if status in _POSSIBLY_BILLED:
                return self.transient_error(what, Usage(cost=worst), wait, status=status)
            return self.transient_error(what, free, wait, status=status, billed=0.0)
        return ChatResponse(Attempt(error=what, usage=free), ResponseKind.REJECTED, status=status, billed=0.0)

    def transient_error(
        self,
        what: str,
        usage: Usage,
        wait: float | None = None,
        *,
        status: int = 0,
        billed: float | None = None,
    ) -> ChatResponse:
        """Return the outcome of a call that met a transient error.

        Args:
            what: What went wrong.
            usage: Tokens and cost of the call.
            wait: Seconds the endpoint asked to wait, None where it did not.
            status: HTTP status, 0 where there was no response.
            billed: Cost in US dollars, None where the worst case counts.
        """
        attempt = Attempt(error=self.clean(what), usage=usage)
        return ChatResponse(attempt, ResponseKind.TRANSIENT, wait, status=status, billed=billed)

    def clean(self, text: str, limit: int | None = MAX_ERROR_LENGTH) -> str:
        """Return text from outside with the key masked; with a limit also on one line and at most that long."""
        cleaned = clean_text(mask_secrets(text, self._secret))
        if limit is None:
            return cleaned
        return " ".join(mask_key_like(cleaned).split())[:limit]


def _usage(reported: ReportedUsage, worst: float | None) -> Usage:
    return Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=reported.charge(worst))


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
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def _refusal_of(message: Mapping[str, Any]) -> str:
    """Return the text of a refusal, which is a field of the message or of parts of its content."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    refusals = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    texts = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in refusals if each]
    return " ".join(text.strip() for text in texts if text.strip())


def _error_message(details: Mapping[str, Any], error: Any, body: bytes) -> str:
    """Return the endpoint's own message for an error, or the body where it has none."""
    message = details.get("message") or details.get("detail") or error
    if message:
        return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return "" if details else body[: 4 * MAX_ERROR_LENGTH].decode("utf-8", "replace")
