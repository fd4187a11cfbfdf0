"""What came of a call to a chat endpoint: a reply, a refusal, a rejection that stays, or a fault that may pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from knowgen.clients.endpoint_url import NO_KEY, retry_after
from knowgen.clients.pricing import ChatPrice
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import Attempt, Usage
from knowgen.core.secrets import MASK, mask_secrets
from knowgen.core.text import clean_text

WORDS_KEPT = 600
"""Characters of an endpoint's error that are kept."""

_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key)-[\w*.-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
_MAYBE_BILLED = frozenset({502, 504})
"""A gateway that gave up waiting: the model behind it may have worked and been billed."""

_REFUSAL_FINISHES = frozenset(
    {"contentfilter", "safety", "imagesafety", "prohibitedcontent", "recitation", "blocklist", "spii", "refusal"}
)
"""Finish reasons of a refusal, in lower case without underscores: of OpenAI's API, and as other services pass theirs
on."""

_STAYS = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class ResponseKind(StrEnum):
    """What came of a call."""

    REPLY = "reply"
    REFUSED = "refused"
    REJECTED = "rejected"
    PASSING = "passing"


@dataclass(frozen=True)
class ChatResponse:
    """What came of a call, with its record.

    Attributes:
        attempt: The record.
        came: A reply to be read; a refusal of the model or its filter; a rejection that will not change (wrong key,
            unknown model, bad request); a fault that may pass.
        retry_after: Seconds the endpoint asked to wait, or None.
        status: HTTP status, 0 where none came.
        billed: US dollars the call came to; None where it must count at its worst case.
        key: Name of the request, under which a reply may be kept; empty where replies are not kept.
    """

    attempt: Attempt
    came: ResponseKind
    retry_after: float | None = None
    status: int = 0
    billed: float | None = None
    key: str = ""


class ResponseReader:
    """Turns what an endpoint sent into an `ChatResponse`.

    Args:
        key: The endpoint's secret, which is taken out of every text.
        price: What calls cost.
    """

    def __init__(self, key: str, price: ChatPrice) -> None:
        self._secret, self._price = key if key != NO_KEY else "", price

    def of_response(self, status: int, headers: Mapping[str, str], body: bytes, worst: float | None) -> ChatResponse:
        """Reads a response.

        Args:
            status: HTTP status.
            headers: With names in any case.
            body: As it came.
            worst: The most the call can cost in US dollars, None when unknown.
        """
        try:
            data = mask_secrets(json.loads(body), self._secret)
        except (ValueError, RecursionError):
            data, body = None, mask_secrets(body, self._secret)
        if not 200 <= status < 300:
            return self._of_status(status, headers, data, body, worst)
        if not isinstance(data, Mapping):
            return self.passing("the endpoint's answer is no JSON object", Usage(cost=worst), status=status)
        return self._of_body(data, worst, status)

    def _of_body(self, body: Mapping[str, Any], worst: float | None, status: int) -> ChatResponse:
        """Reads an answer that came with status 200."""
        reported = self._usage(body.get("usage"))
        usage = _usage(reported, worst)
        billed = usage.cost if reported.complete or usage.cost != worst else None
        choice = _first_choice(body)
        if choice is None:
            fault = body.get("error")
            words = fault.get("message") if isinstance(fault, Mapping) else fault
            what = f"the endpoint's answer holds no reply: {words or 'no choices'}"
            return self.passing(what, usage, status=status, billed=billed)
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        reply = self.clean(_text_of(message.get("content")), limit=None)
        finish = str(choice.get("finish_reason") or "")
        error = ""
        if refusal := _refusal_of(message):
            error = f"the judge refused: {self.clean(refusal)}"
        elif finish.replace("_", "").casefold() in _REFUSAL_FINISHES:
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
        """Read tokens and cost. Some endpoints leave thoughts out of the completion: the total counts them."""
        counts = UsageReader(usage)
        read, written = counts.required("prompt_tokens", least=1), counts.required("completion_tokens")
        total = UsageReader(usage).optional("total_tokens") or 0
        if read:
            written = max(written, total - read)
        else:
            read = max(0, total - written)
        return ReportedUsage(read, written, self._price.of(read, written), counts.complete)

    def _of_status(
        self, status: int, headers: Mapping[str, str], data: Any, body: bytes, worst: float | None
    ) -> ChatResponse:
        """Tells apart answers with an error status."""
        free = Usage(cost=None if worst is None else 0.0)
        error = data.get("error") if isinstance(data, Mapping) else None
        said = error if isinstance(error, Mapping) else data if isinstance(data, Mapping) else {}
        words = self.clean(_words_of(said, error, body))
        what = f"the endpoint answered {status}: {words}" if words else f"the endpoint answered {status}"
        passing = status in {408, 409, 425, 429} or status >= 500
        if passing and str(said.get("code") or said.get("type") or "") not in _STAYS:
            wait = retry_after(headers)
            if status in _MAYBE_BILLED:
                return self.passing(what, Usage(cost=worst), wait, status=status)
            return self.passing(what, free, wait, status=status, billed=0.0)
        return ChatResponse(Attempt(error=what, usage=free), ResponseKind.REJECTED, status=status, billed=0.0)

    def passing(
        self,
        what: str,
        usage: Usage,
        wait: float | None = None,
        *,
        status: int = 0,
        billed: float | None = None,
    ) -> ChatResponse:
        """Makes the answer of a fault that may pass."""
        attempt = Attempt(error=self.clean(what), usage=usage)
        return ChatResponse(attempt, ResponseKind.PASSING, wait, status=status, billed=billed)

    def clean(self, text: str, limit: int | None = WORDS_KEPT) -> str:
        """Returns text from outside without the key, and an error's words on one line, shortened."""
        cleaned = clean_text(mask_secrets(text, self._secret))
        if limit is None:
            return cleaned
        return " ".join(_KEY_LIKE.sub(MASK, cleaned).split())[:limit]


def _usage(reported: ReportedUsage, worst: float | None) -> Usage:
    return Usage(input_tokens=reported.input_tokens, output_tokens=reported.output_tokens, cost=reported.charge(worst))


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


def _refusal_of(message: Mapping[str, Any]) -> str:
    """Return the words of a refusal, which stand in a field of the message or in parts of its content."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    said = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    words = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in said if one]
    return " ".join(text.strip() for text in words if text.strip())


def _words_of(said: Mapping[str, Any], error: Any, body: bytes) -> str:
    """Returns an endpoint's own words for an error."""
    words = said.get("message") or said.get("detail") or error
    if words:
        return words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
    return "" if said else body[: 4 * WORDS_KEPT].decode("utf-8", "replace")
