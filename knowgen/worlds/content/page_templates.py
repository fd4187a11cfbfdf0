"""Pages from templates: text in which some words are links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import Formatter

from knowgen.search.contract import Link, Page


def address(host: str, title: str) -> str:
    """Returns the address of a page by its title, on a host that can never exist."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"https://{host}.example/{slug}"


def capital(text: str) -> str:
    """Returns the text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def listing(items: Sequence[str]) -> str:
    """Joins items as in `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def write_page(host: str, title: str, paragraphs: Sequence[str], values: Mapping[str, str | Link]) -> Page:
    """Fills paragraphs in; a `{field}` whose value is a link becomes its text and is listed as a link of the page.

    Raises:
        KeyError: A paragraph names a field that has no value.
    """
    links: list[Link] = []
    written: list[str] = []
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
        written.append(text)
    return Page(url=address(host, title), title=title, text="\n\n".join(written), links=tuple(links))
