"""Published prices of judge models, as a data file; what a user gives stands above it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import OPENAI_URL
from knowgen.scorers.pricing import Price

PRICES_FILE = "prices.json"
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|preview(-[\d-]+)?|latest)\Z")


@cache
def price_list() -> dict[str, Any]:
    """Returns the data file: when it was read off, and per host the prices of models."""
    found: dict[str, Any] = json.loads((files("knowgen.scorers") / PRICES_FILE).read_text(encoding="utf-8"))
    return found


def price_for(
    model: str,
    base_url: str,
    price_in: float | None = None,
    price_out: float | None = None,
    price_call: float | None = None,
) -> Price:
    """Returns what a model's calls cost.

    Args:
        model: Model name; a date at its end is passed over where the name with it is not listed.
        base_url: Address of the endpoint, empty for OpenAI. A listed price is that of one host alone.
        price_in: US dollars per million input tokens, as the user says.
        price_out: US dollars per million output tokens, as the user says.
        price_call: US dollars per call, as the user says.

    Raises:
        UsageError: A price is negative or no number, or only one of the two token prices is given.
    """
    if (price_in, price_out, price_call) != (None, None, None):
        return Price(price_in, price_out, price_call)
    listed = price_list()["hosts"].get(_host(base_url), {})
    for name in (model, _DATED.sub("", model)):
        if name in listed:
            return Price(*listed[name])
    return Price()


def _host(base_url: str) -> str:
    try:
        return urlsplit(base_url.strip() or OPENAI_URL).hostname or ""
    except ValueError:  # an address that is none is told where it is checked
        return ""
