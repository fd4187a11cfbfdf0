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
