"""What a service's error means: a refusal, a fault that may pass, or one that stays; told without the key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knowgen.clients.endpoint_url import NO_KEY, retry_after
from knowgen.core.errors import KnowgenError, RefusalError, TransientError
from knowgen.core.secrets import MASK, mask_secrets

WORDS_KEPT = 600
"""Characters of a service's error that are kept."""

MAYBE_BILLED = frozenset({502, 504})
"""A gateway that gave up waiting: the model behind it may have drawn, and been billed."""

_PASSING = frozenset({408, 409, 425, 429})
_STAYS = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|key)-[\w*.-]{6,}|\bAIza[\w-]{20,}|\bBearer\s+\S+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ServiceRejectedError(KnowgenError):
    """A service will not draw this request, and asking again would not help: a wrong key, an unknown model."""


@dataclass(frozen=True)
class ServiceError:
    """A service's error.

    Attributes:
        status: HTTP status.
        code: Its code, as `error.code`, `error.status` or `error.type` say it.
        words: Its message, cleaned.
        details: The error object.
        wait: Seconds it asks to wait, or None.
    """

    status: int
    code: str
    words: str
    details: Mapping[str, Any] = field(default_factory=dict)
    wait: float | None = None

    @property
    def passing(self) -> bool:
        """Tells whether it may pass."""
        return (self.status in _PASSING or self.status >= 500) and self.code not in _STAYS

    def error(self, service: str, refuses: Callable[[ServiceError], bool]) -> KnowgenError:
        """Returns what is raised for it.

        Args:
            service: Name of the service, for the message.
            refuses: Tells whether the service declines the content.
        """
        if 400 <= self.status < 500 and self.status != 429 and refuses(self):
            return RefusalError(f"{service} declined: {self.words or self.code}")
        if 300 <= self.status < 400:
            return ServiceRejectedError(f"{service} answered {self.status}, a redirect, which no key follows")
        what = f"{service} answered {self.status}"
        if self.code and self.code not in self.words:
            what += f" {self.code}"
        if self.words:
            what += f": {self.words}"
        return TransientError(what, retry_after=self.wait) if self.passing else ServiceRejectedError(what)


def fault_of(status: int, headers: Mapping[str, str], body: bytes, key: str) -> ServiceError:
    """Reads an answer with an error status.

    Args:
        status: HTTP status.
        headers: With names in any case.
        body: As it came.
        key: The service's secret, which is taken out of every text.
    """
    try:
        data = mask_secrets(json.loads(body), _secret(key))
    except (ValueError, RecursionError):
        data, body = None, mask_secrets(body, _secret(key))
    error = data.get("error") if isinstance(data, Mapping) else None
    said = error if isinstance(error, Mapping) else data if isinstance(data, Mapping) else {}
    codes = (said.get(name) for name in ("code", "status", "type"))
    code = next((clean(value, key) for value in codes if isinstance(value, str) and value), "")
    words = (
        said.get("message")
        or said.get("detail")
        or error
        or ("" if said else body[: 4 * WORDS_KEPT].decode("utf-8", "replace"))
    )
    text = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
    wait = retry_after(headers)
    return ServiceError(status, code, clean(text, key), said, wait if wait is not None else _retry_info(said))


def _retry_info(said: Mapping[str, Any]) -> float | None:
    """Returns the seconds that an error's details ask to wait, as Google's services write them: `"34.5s"`."""
    details = said.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and re.fullmatch(r"\d{1,6}(\.\d+)?s", delay):
            return float(delay[:-1])
    return None


def _secret(key: str) -> str:
    return "" if key == NO_KEY else key


def clean(text: str, key: str, limit: int | None = WORDS_KEPT) -> str:
    """Returns text from outside as it may be stored: without the key and without broken or control characters.

    Args:
        text: As it came.
        key: The service's secret.
        limit: Characters that are kept, on one line; None keeps all, and line ends.
    """
    whole = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))
    whole = str(mask_secrets(whole, _secret(key)))
    if limit is None:
        return whole
    return " ".join(_KEY_LIKE.sub(MASK, whole).split())[:limit]
