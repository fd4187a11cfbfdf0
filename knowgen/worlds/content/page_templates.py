"""Pages from templates with fields that become text or links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import Formatter

from knowgen.search.contract import Link, Page


def address(host: str, title: str) -> str:
    """Return the URL of a page from its title, on a reserved host.

    Example:
        >>> address("atlas", "Notes on Gakar")
        'https://atlas.example/notes-on-gakar'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"https://{host}.example/{slug}"


def capital(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def listing(items: Sequence[str]) -> str:
    """Return items joined as in `a, b and c`.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def write_page(host: str, title: str, paragraphs: Sequence[str], values: Mapping[str, str | Link]) -> Page:
    """Return a page with its fields filled in; a `{field}` whose value is a link adds a link to the page.

    Raises:
        KeyError: If a paragraph has a field without a value.
    """
    links: list[Link] = []
    texts: list[str] = []
    for paragraph in paragraphs:
        text = ""
        for literal, field, _, _ in Formatter().parse(paragraph):
            text += literal
            if field is not None:
                value = values[field]
                if isinstance(value, Link):
                    links.append(value)
                    value = value.text
                text += value
        texts.append(text)
    return Page(url=address(host, title), title=title, text="\n\n".join(texts), links=tuple(links))
