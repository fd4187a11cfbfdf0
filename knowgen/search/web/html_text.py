"""The text and links of a fetched page. HTML is read by trafilatura, which leaves navigation and advertisements out."""

from __future__ import annotations

import codecs
import contextlib
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from knowgen.core.errors import DataError
from knowgen.core.text import clean_text, one_line
from knowgen.search.contract import Link, Page

if TYPE_CHECKING:
    from lxml.etree import _Element

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
TEXT_TYPES = frozenset({"application/json", "application/ld+json", "application/xml", "application/x-ndjson"})
"""Media types that are read as they are, as is all other text."""

MAX_LINKS = 500
"""Maximum number of links of a page."""

_MAX_TITLE = 300
_UNNAMED_TYPES = frozenset({"", "application/octet-stream", "application/unknown"})
_SNIFFED = 2048
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-z0-9_:.-]{2,40})", re.IGNORECASE)
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_READ_AS = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932",
    "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-9": "cp1254", "tis-620": "cp874", "iso8859-11": "cp874",
}  # fmt: skip
"""Larger character sets that browsers use in the place of named ones (the Encoding Standard of the WHATWG)."""

_LIST_OR_ROW = re.compile(r"\s*(?:[-*•|]|\d+[.)])\s?")
_REFERENCE = re.compile(r"&#(?:0*(\d{1,7})|[xX]0*([0-9a-fA-F]{1,6}));?")
_PARSER_LOGS = ("trafilatura", "htmldate", "justext", "charset_normalizer")


def read_page(data: bytes, content_type: str, charset: str, url: str) -> Page:
    """Return a fetched document as a page.

    Args:
        data: The document.
        content_type: Media type that the server named, without parameters; empty when it named none.
        charset: Character set that the server named; empty when it named none.
        url: URL of the page.

    Raises:
        DataError: It is not HTML or text, or has no text.
    """
    kind = _kind(data, content_type)
    if kind == "other":
        named = one_line(content_type, 60) or "an unknown type"
        raise DataError(f"the page is {named}, and only HTML and text are read", where=url, fix="open another page")
    text = decoded(data, charset, html=kind == "html")
    page = _from_html(text, url) if kind == "html" else Page(url=url, title="", text=clean_text(text).strip())
    if not page.text:
        raise DataError("the page has no text", where=url, fix="open another page")
    return page


def _kind(data: bytes, content_type: str) -> str:
    """Return `html`, `text` or `other`."""
    start = data[:_SNIFFED].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    looks_html = start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))
    if content_type in HTML_TYPES or (looks_html and content_type in _UNNAMED_TYPES | {"text/plain"}):
        return "html"
    if content_type in TEXT_TYPES or content_type.startswith("text/") or content_type.endswith(("+json", "+xml")):
        return "text"
    if content_type in _UNNAMED_TYPES and data and b"\0" not in data[:_SNIFFED]:
        return "text"
    return "other"


def decoded(data: bytes, charset: str, *, html: bool) -> str:
    """Return a document as text: by its byte order mark, as the server says, as it says itself, or else by guess.

    Args:
        data: The document.
        charset: Character set that the server named; empty when it named none.
        html: Whether it is HTML, which may name its character set.

    Example:
        >>> decoded(b"caf\\xe9 \\x80", "iso-8859-1", html=False)
        'café €'
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    named = [charset]
    if html and (found := _META_CHARSET.search(data[:4096])):
        named.append(found.group(1).decode("ascii"))
    for name in named:
        if codec := _codec(name):
            return data.decode(codec, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data[: 1 << 16]).best()
        return data.decode(best.encoding if best is not None else "cp1252", "replace")


def _codec(name: str) -> str:
    """Return the codec for the name of a character set; empty for one that is unknown or not for text."""
    try:
        found = codecs.lookup(name.strip()) if name.strip() else None
    except (LookupError, ValueError):
        return ""
    if found is None or not getattr(found, "_is_text_encoding", True) or found.name in {"idna", "punycode"}:
        return ""
    return _READ_AS.get(found.name, found.name)


def _from_html(text: str, url: str) -> Page:
    from trafilatura import bare_extraction, html2txt
    from trafilatura.utils import load_html

    for name in _PARSER_LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    text = _REFERENCE.sub(_allowed, text)
    tree = load_html(text)
    if tree is None or tree.find(".//body") is None:  # a fragment without a root of its own
        tree = load_html(f"<html><body>{text}</body></html>")
    if tree is None:
        return Page(url=url, title="", text="")
    title = _title(tree)
    tree.make_links_absolute(_base(tree, url), resolve_base_href=False, handle_failures="ignore")
    document = bare_extraction(tree, url=url, include_comments=False, include_links=True)
    body = getattr(document, "body", None)
    if body is None:
        return Page(url=url, title=title, text=clean_text(html2txt(tree)).strip())
    links = _links((one, one.get("target")) for one in body.iter("ref"))
    if not links:  # a page of links alone, or one whose text was not recognised
        links = _links((one, one.get("href")) for one in tree.iter("a"))
    return Page(url=url, title=title, text=_text(body), links=links)


def _allowed(reference: re.Match[str]) -> str:
    """Return a reference to a character; nothing for one that XML does not allow, which the parser breaks at."""
    decimal, hexadecimal = reference.groups()
    code = int(decimal) if decimal else int(hexadecimal, 16)
    allowed = code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code <= 0x10FFFF
    return reference.group() if allowed else ""


def _title(tree: _Element) -> str:
    for path in (".//head/title", ".//title", ".//h1"):
        found = tree.find(path)
        if found is not None and (title := one_line(" ".join(str(part) for part in found.itertext()), _MAX_TITLE)):
            return title
    return ""


def _base(tree: _Element, url: str) -> str:
    """Return the URL that relative links start from, and drop its element, which would be applied again."""
    base = url
    for element in tree.findall(".//base[@href]"):
        with contextlib.suppress(ValueError):  # not a URL
            base = urljoin(url, str(element.get("href")).strip())
        element.drop_tree()
    return base


def _links(elements: Iterable[tuple[_Element, str | None]]) -> tuple[Link, ...]:
    """Return the http links among elements with their targets, each URL once."""
    links: dict[str, Link] = {}
    for element, target in elements:
        url = clean_text(target or "").strip()
        text = one_line(" ".join(str(part) for part in element.itertext()), _MAX_TITLE)
        if text and _is_http(url) and len(links) < MAX_LINKS:
            links.setdefault(url, Link(text=text, url=url))
    return tuple(links.values())


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _text(body: _Element) -> str:
    """Return the text of an extracted tree: a blank line between paragraphs, none inside lists and tables."""
    from lxml.etree import Element, strip_tags
    from trafilatura.xml import xmltotxt

    whole = Element("body")
    whole.append(body)  # which may be a link itself
    strip_tags(whole, "ref")  # the text of a link stays
    parts: list[str] = []
    for line in xmltotxt(whole, False).splitlines():
        if not line.strip():
            continue
        together = parts and _LIST_OR_ROW.match(line) and _LIST_OR_ROW.match(parts[-1])
        parts.append(("\n" if together else "\n\n" if parts else "") + line.strip())
    return clean_text("".join(parts)).strip()
