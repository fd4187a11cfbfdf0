"""Reading the JSON of a search service: texts, addresses, numbers and rows, whatever is in their place."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


def plain(text: str) -> str:
    """Return text of a response without markup, on one line.

    Example:
        >>> plain("a <span class='searchmatch'>red</span> &amp; blue\\n kit")
        'a red & blue kit'
    """
    return " ".join(html.unescape(_TAG.sub("", text)).split())


def value_at(data: Any, *names: str) -> Any:
    """Return the value under nested names, None where it is missing."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def number_at(data: Any, *names: str) -> float | None:
    """Return the number >= 0 under nested names, None where there is none."""
    value = value_at(data, *names)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def text_at(data: Any, *names: str) -> str:
    """Return the text under nested names, without markup; empty where it is missing or not a text."""
    data = value_at(data, *names)
    return plain(data) if isinstance(data, str) else ""


def url_at(data: Any, *names: str) -> str:
    """Return the http address under nested names; empty where there is none. One without a scheme is https."""
    data = value_at(data, *names)
    if not isinstance(data, str):
        return ""
    url = data.strip()
    url = f"https:{url}" if url.startswith("//") else url
    return url if url.lower().startswith(("http://", "https://")) else ""


def rows_at(data: Any, *names: str) -> list[Mapping[str, Any]]:
    """Return the objects of the list under nested names; empty where it is missing."""
    data = value_at(data, *names)
    return [row for row in data if isinstance(row, Mapping)] if isinstance(data, list) else []


def shortened(query: str, characters: int, words: int | None = None) -> str:
    """Return a query cut at a word to what a service takes.

    Example:
        >>> shortened("one two three", characters=9), shortened("one two three", characters=400, words=1)
        ('one two', 'one')
    """
    parts: Sequence[str] = query.split()[:words]
    kept = " ".join(parts)
    if len(kept) <= characters:
        return kept
    cut = kept[: characters + 1].rpartition(" ")[0]
    return cut or kept[:characters]
