"""The wait that a service asks for, from the headers or the body of a response.

Formats, looked up in November 2026:

- `Retry-After` in seconds or as a date: RFC 9110, section 10.2.3. OpenRouter sends it with 429 and 503.
- `retry-after-ms`: OpenAI's and Azure's servers; read by OpenAI's client libraries.
- `X-RateLimit-Remaining: 0, 1200` and `X-RateLimit-Reset: 1, 1419704`, one number for each window: Brave.
- `x-ratelimit-remaining-*` and `x-ratelimit-reset-*` as `1s` or `6m0s`: OpenAI's guide to rate limits. Other services
  send seconds, or the time of the reset as seconds or milliseconds since 1970.
- `RetryInfo.retryDelay` as `58s` or `45.837906927s`: google.rpc in the details of an error; Gemini sends no header.
- `retryAfter` in seconds in the body: Jina's reader.
- "try again in 7m12s", "Please retry in 58.9s", "retry after 20 seconds" in a message: OpenAI, Gemini, Azure.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+", re.ASCII | re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

_IN_MESSAGE = re.compile(
    r"\b(?:try again|retry|wait|reset)\w*\s+(?:after|in|for)\s+"
    r"(?P<wait>\d+(?:\.\d+)?\s*(?:ms|milliseconds?|minutes?|mins?|hours?|seconds?|secs?|[dhms])"
    r"(?:\s*\d+(?:\.\d+)?\s*(?:ms|minutes?|mins?|seconds?|secs?|[ms]))*)\b",
    re.ASCII | re.IGNORECASE,
)
_WORDS = (
    (re.compile(r"milliseconds?", re.IGNORECASE), "ms"),
    (re.compile(r"minutes?|mins?", re.IGNORECASE), "m"),
    (re.compile(r"hours?", re.IGNORECASE), "h"),
    (re.compile(r"seconds?|secs?", re.IGNORECASE), "s"),
)

_EPOCH_SECONDS = 1e9
"""A number of seconds from here on is a time since 1970 and not a duration."""

_EPOCH_MILLISECONDS = 1e12

_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the headers ask to wait, None where they do not.

    Args:
        headers: Headers of the response, looked up by name in any case.

    Example:
        >>> retry_after({"retry-after": "2"}), retry_after({"retry-after-ms": "250"}), retry_after({})
        (2.0, 0.25, None)
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    wait = (headers.get("retry-after") or "").strip()
    if not wait:
        return None
    seconds = seconds_of(wait)
    return _until_date(wait) if seconds is None else seconds


def stated_wait(
    headers: Mapping[str, str], error: Mapping[str, Any] | None = None, message: str = "", *, limited: bool = True
) -> float | None:
    """Return the seconds that a response asks to wait, None where it does not.

    The first of these that is there: `Retry-After`, the details of the error, the message, the reset of a limit that is
    used up.

    Args:
        headers: Headers of the response, looked up by name in any case.
        error: The error object of the body.
        message: The message of the error.
        limited: Whether a limit was reached. If not, `x-ratelimit-reset-*` says nothing: services send it always.

    Example:
        >>> stated_wait({}, {"details": [{"retryDelay": "34.5s"}]})
        34.5
        >>> stated_wait({}, message="Rate limit reached. Please try again in 1m2s.")
        62.0
        >>> stated_wait({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"})
        0.12
    """
    wait = retry_after(headers)
    if wait is None:
        wait = _in_details(error or {})
    if wait is None:
        wait = _in_message(message)
    return _reset(headers) if wait is None and limited else wait


def seconds_of(text: str) -> float | None:
    """Return a duration in seconds, None for anything else.

    A number without a unit is seconds; a large one is a time since 1970, in seconds or milliseconds.

    Example:
        >>> seconds_of("6m0s"), seconds_of("120ms"), seconds_of("12"), seconds_of("soon")
        (360.0, 0.12, 12.0, None)
    """
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number < _EPOCH_SECONDS:
            return number
        since = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        return max(0.0, since - time.time())
    if not _DURATION.fullmatch(text):
        return None
    return _finite(sum(float(count) * _UNITS[unit.lower()] for count, unit in _PIECE.findall(text)))


def _in_details(error: Mapping[str, Any]) -> float | None:
    """Return the wait in the details of an error, as Google's services write it, or in its metadata, as proxies do."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and (seconds := seconds_of(delay)) is not None:
            return seconds
    if (stated := error.get("retryAfter")) is not None and not isinstance(stated, bool):
        return _number(str(stated))
    metadata = error.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if isinstance(inner, Mapping):  # OpenRouter passes on the headers of the service behind it
        lowered = {str(name).lower(): str(value) for name, value in inner.items()}
        wait = retry_after(lowered)
        return _reset(lowered) if wait is None else wait
    return None


def _in_message(message: str) -> float | None:
    found = _IN_MESSAGE.search(message)
    if found is None:
        return None
    text = found["wait"]
    for word, unit in _WORDS:
        text = word.sub(unit, text)
    return seconds_of("".join(text.split()))


def _reset(headers: Mapping[str, str]) -> float | None:
    """Return the time until the limits that are used up are reset; the longest where nothing is said to be left."""
    waits: list[float] = []
    used_up: list[float] = []
    for name in ("", *_LIMITS):
        suffix = f"-{name}" if name else ""
        for before in ("x-ratelimit-reset", "ratelimit-reset"):
            resets = (headers.get(f"{before}{suffix}") or "").split(",")
            left = (headers.get(f"{before.replace('reset', 'remaining')}{suffix}") or "").split(",")
            for number, reset in enumerate(resets):  # one for each window of time
                seconds = seconds_of(reset)
                if seconds is None:
                    continue
                waits.append(seconds)
                if number < len(left) and _number(left[number]) == 0:
                    used_up.append(seconds)
    if used_up:
        return max(used_up)
    # with some of each limit left, the shortest is enough: a limit that is not reached need not be reset
    return min(waits, default=None)


def _until_date(text: str) -> float | None:
    try:
        return _finite(parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    return _finite(float(text)) if _NUMBER.fullmatch(text) else None


def _finite(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
