"""Errors of image services as exceptions, and the fields of a request that a service does not take."""

from __future__ import annotations

import re
from collections.abc import Collection

from knowgen.clients.service_errors import Outcome, ServiceError
from knowgen.core.errors import AccountError, KnowgenError, RefusalError, ServiceUnavailableError

_NOT_TAKEN = re.compile(
    r"unknown|unsupported|not supported|does not support|unrecognized|unexpected|not (?:permitted|allowed|accepted)|"
    r"extra (?:inputs|fields)|invalid",
    re.IGNORECASE,
)

_ONE_REFERENCE = re.compile(r"only (?:a single|one) (?:input |reference )?image", re.IGNORECASE)
_MOST_REFERENCES = re.compile(
    r"(?:at most|up to|maximum of|more than) (\d{1,3}) (?:input |reference )?images",
    re.IGNORECASE,
)
"""How services state their limit on reference images: vLLM-Omni (api_server.py, 2026-11-29), and other words for it."""


class ServiceRejectedError(KnowgenError):
    """A service rejects this request, and a retry would not help.

    Args:
        what: What the service says.
        error: The error that it reported, None without one.
    """

    def __init__(self, what: str, error: ServiceError | None = None) -> None:
        super().__init__(what)
        self.error = error


def exception_of(error: ServiceError, service: str) -> KnowgenError:
    """Return the exception to raise for an error.

    Args:
        error: The error.
        service: Name of the service, for the message.
    """
    what = error.describe(service)
    if error.outcome is Outcome.REFUSED:
        return RefusalError(f"{service} declined: {error.message or error.code}")
    if error.outcome is Outcome.ACCOUNT:
        return AccountError(what)
    if error.outcome.transient:
        busy = error.outcome is Outcome.BUSY
        return ServiceUnavailableError(what, service=service, busy=busy, retry_after=error.retry_after)
    return ServiceRejectedError(what, error)


def refused_field(error: ServiceError | None, sent: Collection[str]) -> str:
    """Return the field of a request that the service does not take; empty where the error names none.

    Args:
        error: The error that it reported.
        sent: Names of the fields that were sent and may be left out.

    Example:
        >>> refused_field(ServiceError(400, "unknown_parameter", "Unknown parameter: 'moderation'."), ["moderation"])
        'moderation'
    """
    if error is None or error.status not in (400, 415, 422):
        return ""
    if error.parameter in sent:
        return error.parameter
    if not _NOT_TAKEN.search(error.message):
        return ""
    return next((name for name in sent if re.search(rf"\b{re.escape(name)}\b", error.message)), "")


def refused_choice(error: ServiceError | None, chosen: Collection[str]) -> str:
    """Return the field that the user chose and the service refuses; empty where the error names none.

    A service may refuse the field or its value; both would be refused in every call.

    Args:
        error: The error that it reported.
        chosen: Names of the fields.

    Example:
        >>> error = ServiceError(422, "", '[{"loc": ["body", "steps"], "msg": "Input should be at most 200"}]')
        >>> refused_choice(error, ["steps"])
        'steps'
    """
    if error is None or error.status not in (400, 415, 422):
        return ""
    if error.parameter in chosen:
        return error.parameter
    quoted = next((name for name in chosen if re.search(rf"[\'\"`]{re.escape(name)}[\'\"`]", error.message)), "")
    return quoted or refused_field(error, chosen)


def stated_reference_limit(error: ServiceError | None, sent: int) -> int | None:
    """Return the maximum number of reference images that an error states; None where it states none below `sent`.

    Args:
        error: The error that the service reported.
        sent: Number of reference images that were sent.

    Example:
        >>> message = "Received 5 input images. At most 3 images are supported by this model."
        >>> stated_reference_limit(ServiceError(400, "", message), 5)
        3
    """
    if error is None or error.status not in (400, 413, 422):
        return None
    if _ONE_REFERENCE.search(error.message):
        return 1 if sent > 1 else None
    stated = _MOST_REFERENCES.search(error.message)
    limit = int(stated[1]) if stated else 0
    return limit if 0 < limit < sent else None
