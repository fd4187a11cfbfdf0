"""A stated wait is read wherever a service states it: headers in every form, the details of an error, its message."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from knowgen.clients.stated_wait import seconds_of, stated_wait

RETRY_INFO = {
    "code": 429,
    "message": "You exceeded your current quota. Please retry in 58.934310785s.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": "5"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.837906927s"},
    ],
}
LIMIT = "x-ratelimit"


@pytest.mark.parametrize(
    ("headers", "error", "message", "seconds"),
    [
        ({"retry-after": "7"}, {}, "", 7),
        ({"retry-after": "86400"}, {}, "", 86_400),
        ({"retry-after": " 1.5 "}, {}, "", 1.5),
        ({"retry-after": "2m"}, {}, "", 120),
        ({"retry-after-ms": "1500", "retry-after": "9"}, {}, "", 1.5),
        ({}, RETRY_INFO, "", 45.837906927),
        ({}, {"details": [{"retryDelay": "0s"}]}, "", 0),
        ({}, {"metadata": {"headers": {"Retry-After": "12"}}}, "", 12),
        ({}, {}, "Please try again in 12s.", 12),
        ({}, {}, "Please try again in 1m2s. Visit …", 62),
        ({}, {}, "Please try again in 7m12s.", 432),
        ({}, {}, "Please try again in 120ms.", 0.12),
        ({}, {}, "Try again in 12 seconds", 12),
        ({}, {}, "Please retry after 20 seconds.", 20),
        ({}, {}, "Retry in 1 minute 30 seconds", 90),
        ({}, {}, "Please retry in 58.934310785s.", 58.934310785),
        ({}, {}, "wait for 3 minutes", 180),
        ({f"{LIMIT}-reset-requests": "1s"}, {}, "", 1),
        ({f"{LIMIT}-reset-tokens": "6m0s"}, {}, "", 360),
        ({f"{LIMIT}-reset-requests": "12ms", f"{LIMIT}-remaining-requests": "99",
          f"{LIMIT}-reset-tokens": "6m0s", f"{LIMIT}-remaining-tokens": "0"}, {}, "", 360),
        ({f"{LIMIT}-reset-requests": "1s", f"{LIMIT}-reset-tokens": "6m0s"}, {}, "", 1),
        ({f"{LIMIT}-reset": "30"}, {}, "", 30),
        ({"retry-after": "7", f"{LIMIT}-reset-requests": "99s"}, {}, "try again in 50s", 7),
    ],
)  # fmt: skip
def test_a_wait_is_read_in_every_published_form(
    headers: dict[str, str], error: dict[str, Any], message: str, seconds: float
) -> None:
    assert stated_wait(headers, error, message) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["soon", "-", "", "-5", "1.2.3", "inf", "nan", "9" * 400, "5 apples", "1s2", "٣", "1e3"]
)
def test_other_text_is_not_a_wait(text: str) -> None:
    assert (
        stated_wait({"retry-after": text, f"{LIMIT}-reset-requests": text}, {"details": [{"retryDelay": text}]}) is None
    )


def test_a_time_since_1970_is_a_wait_until_then() -> None:
    for text in (str(int(time.time()) + 100), str(int(time.time() * 1000) + 100_000)):
        seconds = stated_wait({f"{LIMIT}-reset": text})
        assert seconds is not None and 90 <= seconds <= 101
    assert seconds_of("1500000000") == 0


def test_a_date_is_a_wait_until_then() -> None:
    seconds = stated_wait({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert seconds is not None and 3500 < seconds <= 3600


def test_the_reset_of_a_limit_says_nothing_where_no_limit_was_reached() -> None:
    assert stated_wait({f"{LIMIT}-reset-requests": "12ms"}, limited=False) is None
