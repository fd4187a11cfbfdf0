"""Errors of services: whether one is a refusal, transient or permanent, and its message without the key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knowgen.clients.endpoint_url import NO_KEY, retry_after
from knowgen.core.errors import KnowgenError, RefusalError, TransientError
from knowgen.core.secrets import mask_key_like, mask_secrets

MAX_MESSAGE_CHARACTERS = 600
"""Characters of a service's message that are kept."""

MAYBE_BILLED = frozenset({502, 504})
"""HTTP statuses of a gateway that stopped waiting: the model behind it may have generated an image and billed it."""

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
_PERMANENT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ServiceRejectedError(KnowgenError):
    """A service rejects this request, and a retry would not help: a wrong key, an unknown model."""


@dataclass(frozen=True)
class ServiceError:
    """An error response of a service.

    Attributes:
        status: HTTP status.
        code: `error.code`, `error.status` or `error.type`, the first that is there.
        message: Its message, without secrets and control characters.
        details: The error object.
        retry_after: Seconds to wait as the service asks, None when it does not.
    """

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return (self.status in _TRANSIENT_STATUSES or self.status >= 500) and self.code not in _PERMANENT_CODES

    def to_exception(self, service: str, is_refusal: Callable[[ServiceError], bool]) -> KnowgenError:
        """Return the exception to raise for it.

        Args:
            service: Name of the service, for the message.
            is_refusal: Returns whether the service declines the content.
        """
        if 400 <= self.status < 500 and self.status != 429 and is_refusal(self):
            return RefusalError(f"{service} declined: {self.message or self.code}")
        if 300 <= self.status < 400:
            return ServiceRejectedError(
                f"{service} answered {self.status}, a redirect; it is not followed, because the key would go along"
            )
        text = f"{service} answered {self.status}"
        if self.code and self.code not in self.message:
            text += f" {self.code}"
        if self.message:
            text += f": {self.message}"
        return TransientError(text, retry_after=self.retry_after) if self.transient else ServiceRejectedError(text)


def read_error(status: int, headers: Mapping[str, str], body: bytes, key: str) -> ServiceError:
    """Read a response with an error status.

    Args:
        status: HTTP status.
        headers: Headers of the response, with names in any case.
        body: Body of the response.
        key: Key of the service, which is masked in every text.
    """
    try:
        data = mask_secrets(json.loads(body), _secret(key))
    except (ValueError, RecursionError):
        data, body = None, mask_secrets(body, _secret(key))
    error = data.get("error") if isinstance(data, Mapping) else None
    details = error if isinstance(error, Mapping) else data if isinstance(data, Mapping) else {}
    codes = (details.get(name) for name in ("code", "status", "type"))
    code = next((clean_response_text(value, key) for value in codes if isinstance(value, str) and value), "")
    message = (
        details.get("message")
        or details.get("detail")
        or error
        or ("" if details else body[: 4 * MAX_MESSAGE_CHARACTERS].decode("utf-8", "replace"))
    )
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    wait = retry_after(headers)
    if wait is None:
        wait = _retry_delay(details)
    return ServiceError(status, code, clean_response_text(text, key), details, wait)


def _retry_delay(error: Mapping[str, Any]) -> float | None:
    """Return the seconds to wait as Google's services write them in an error's details: `"34.5s"`."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and re.fullmatch(r"\d{1,6}(\.\d+)?s", delay):
            return float(delay[:-1])
    return None


def _secret(key: str) -> str:
    return "" if key == NO_KEY else key


def clean_response_text(text: str, key: str, limit: int | None = MAX_MESSAGE_CHARACTERS) -> str:
    """Return text of a service without the key and without broken or control characters, fit to be stored.

    Args:
        text: Text of the response.
        key: Key of the service.
        limit: Maximum number of characters, on one line; None keeps everything, line ends included.
    """
    full = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))
    full = str(mask_secrets(full, _secret(key)))
    if limit is None:
        return full
    return " ".join(mask_key_like(full).split())[:limit]
