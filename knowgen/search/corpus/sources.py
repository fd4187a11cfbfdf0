"""Read pages and images from files: HTML, plain text, JSON lines, WARC archives and image files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urljoin

from knowgen.core.errors import DataError, KnowgenError, MissingDependencyError
from knowgen.core.text_files import decode, numbered_lines, parse_strict_json, read_bytes, read_text
from knowgen.search.web.html_text import decoded, read_page

HTML = frozenset({".html", ".htm", ".xhtml"})
TEXT = frozenset({".txt", ".md"})
ROWS = frozenset({".jsonl", ".ndjson"})
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

_MAX_LINKS = 500
"""Maximum number of links that are kept of a page."""


@dataclass(frozen=True)
class FoundPage:
    """A page of a source.

    Attributes:
        url: Its URL.
        title: Its title.
        text: Its text.
        links: Text and URL of its links.
        pictures: URL and caption of the images that it shows.
    """

    url: str
    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FoundImage:
    """An image of a source.

    Attributes:
        source: Path of the file, or its bytes.
        url: Its URL.
        title: Its title; empty to use what a page says of it, or else its file name.
        page_url: URL of the page with it.
    """

    source: Path | bytes
    url: str
    title: str = ""
    page_url: str = ""


@dataclass(frozen=True)
class Skipped:
    """Something that was not taken.

    Attributes:
        where: File, and line or URL.
        reason: Why.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Html:
    """HTML that is still to be parsed, which takes longer than all else.

    Attributes:
        source: Path of the file, or its content.
        url: Its URL.
        where: File, and line or URL, for messages.
    """

    source: Path | bytes | str
    url: str
    where: str


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    Attributes:
        root: Folder that addresses of its files are relative to.
        prefix: URL of that folder.
    """

    root: Path
    prefix: str

    def url(self, path: Path) -> str:
        """Return the URL of a file: the prefix with its path inside the folder."""
        return urljoin(self.prefix, quote(path.relative_to(self.root).as_posix()))


Found = FoundPage | FoundImage | Skipped


def parsed(item: Found | Html) -> Found:
    """Return an item, parsed if it is HTML."""
    if not isinstance(item, Html):
        return item
    try:
        data = read_bytes(item.source) if isinstance(item.source, Path) else item.source
    except KnowgenError as error:
        return Skipped(item.where, error.what)
    return page_from_html(data, item.url) or Skipped(item.where, "has no text")


def read_file(path: Path, reading: Reading) -> Iterator[Found | Html]:
    """Yield what a file contains; a file of another kind yields nothing.

    An error concerns this file alone and is yielded as `Skipped`.
    """
    kind = path.suffix.lower()
    try:
        if kind in HTML:
            yield Html(path, reading.url(path), str(path))
        elif kind in TEXT:
            text = read_text(path)
            title = next(
                (line.strip("# ").strip() for line in text.splitlines() if line.strip("# ").strip()), path.stem
            )
            yield FoundPage(reading.url(path), title[:200], text)
        elif kind in ROWS:
            yield from _rows(path, reading)
        elif path.name.lower().endswith((".warc", ".warc.gz")):
            yield from _warc(path)
        elif kind in IMAGES:
            yield FoundImage(path, reading.url(path), _sidecar(path))
    except KnowgenError as error:
        yield Skipped(str(path), error.what)


def _sidecar(image: Path) -> str:
    """Return the caption in a text file beside an image, such as `boat.caption.txt` for `boat.png`."""
    caption = image.with_suffix(".caption.txt")
    return " ".join(read_text(caption).split()) if caption.is_file() else ""


def page_from_html(data: str | bytes, url: str) -> FoundPage | None:
    """Return the page of an HTML file: title, main text, links and images; None if it has no text.

    Args:
        data: The file.
        url: Its URL, for links that are relative; a canonical URL in the page replaces it.

    Raises:
        MissingDependencyError: trafilatura is not installed.
    """
    try:
        from lxml import etree
        from trafilatura import load_html
    except ImportError as error:
        raise MissingDependencyError(
            "needs trafilatura", where="corpus from HTML", fix="pip install 'knowgen[search]'"
        ) from error
    encoded = data.encode("utf-8", "replace") if isinstance(data, str) else data
    charset = "utf-8" if isinstance(data, str) else ""
    try:
        tree = load_html(decoded(encoded, charset, html=True))
        if tree is None:
            return None
        canonical = next((each.get("href") for each in tree.iter("link") if each.get("rel") == "canonical"), None)
        base = canonical if canonical and canonical.startswith(("http://", "https://")) else url
        # a page that was saved with its images names them by path, whatever its canonical URL is
        shown = dict.fromkeys(pair for each in (base, url) for pair in _pictures(tree, each))
        page = read_page(encoded, "text/html", charset, base)
    except (etree.LxmlError, ValueError, DataError):  # not HTML, or without text
        return None
    links = tuple((link.text, urldefrag(link.url).url) for link in page.links[:_MAX_LINKS])
    return FoundPage(base, page.title or unquote(base.rsplit("/", 1)[-1]), page.text, links, tuple(shown))


def _pictures(tree: Any, base: str) -> Iterator[tuple[str, str]]:
    """Yield absolute URL and caption of the images of a page."""
    for element in tree.iter("img"):
        source = (element.get("src") or "").strip()
        if not source or source.startswith("data:"):
            continue
        try:
            yield urldefrag(urljoin(base, source)).url, " ".join((element.get("alt") or "").split())[:200]
        except ValueError:  # an address that cannot be parsed
            continue


def _rows(path: Path, reading: Reading) -> Iterator[Found | Html]:
    """Yield the rows of a JSONL file: pages (url, title, text, links) and images (image, title, url, page_url)."""
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        try:
            row = parse_strict_json(line, where)
        except KnowgenError as error:
            yield Skipped(where, error.what)
            continue
        if not isinstance(row, dict):
            yield Skipped(where, "not a JSON object")
            continue
        address = row.get("url") if isinstance(row.get("url"), str) else f"{reading.url(path)}#{number}"
        title, text = _string(row, "title", "caption"), _string(row, "text", "contents", "content")
        if isinstance(row.get("image"), str):
            yield _image_row(row, path, str(address), title, where)
        elif isinstance(row.get("html"), str):
            yield Html(row["html"], str(address), where)
        elif text.strip():
            yield FoundPage(str(address), title or text.strip().splitlines()[0][:200], text, _links(row))
        else:
            yield Skipped(where, "has no text (a field `text`, `html` or `image` is needed)")


def _string(row: dict[str, Any], *names: str) -> str:
    return next((row[name] for name in names if isinstance(row.get(name), str)), "")


def _links(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    links = row.get("links")
    given = links if isinstance(links, list) else []
    return tuple((str(each.get("text", "")), each["url"]) for each in given if _has_url(each))[:_MAX_LINKS]


def _has_url(link: Any) -> bool:
    return isinstance(link, dict) and isinstance(link.get("url"), str)


def _image_row(row: dict[str, Any], path: Path, url: str, title: str, where: str) -> Found:
    """Return the image of a row; its file must be inside the folder of the JSONL file."""
    folder = path.parent.resolve()
    file = (folder / row["image"].replace("\\", "/")).resolve()
    if not file.is_relative_to(folder):
        return Skipped(where, f"{row['image']} is outside the folder of {path.name}")
    if not file.is_file():
        return Skipped(where, f"{row['image']} is missing")
    return FoundImage(file, url, title, _string(row, "page_url"))


def _warc(path: Path) -> Iterator[Found | Html]:
    """Yield the successful responses of a WARC archive that are HTML, plain text or images."""
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise MissingDependencyError("needs warcio", where=str(path), fix="pip install 'knowgen[search]'") from error
    try:
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type not in {"response", "resource"}:
                    continue
                url = str(record.rec_headers.get_header("WARC-Target-URI") or "").strip("<>")
                http = record.http_headers
                if not url or (http is not None and http.get_statuscode() != "200"):
                    continue
                kind = str((http or record.rec_headers).get_header("Content-Type") or "").split(";")[0].strip().lower()
                data, where = record.content_stream().read(), f"{path}: {url}"
                if getattr(record.raw_stream, "limit", 0) > 0:
                    yield Skipped(where, "the archive ends within this record")
                    continue
                found = _warc_record(kind, data, url, where)
                if found is not None:
                    yield found
    except (ArchiveLoadFailed, OSError, EOFError) as error:
        raise DataError(f"not a complete WARC archive: {error}", where=str(path)) from error


def _warc_record(kind: str, data: bytes, url: str, where: str) -> Found | Html | None:
    if kind in {"text/html", "application/xhtml+xml"}:
        return Html(data, url, where)
    if kind == "text/plain":
        try:
            text = decode(data, where)
        except KnowgenError as error:
            return Skipped(where, error.what)
        return FoundPage(url, unquote(url.rsplit("/", 1)[-1]) or url, text)
    if kind.startswith("image/") and kind != "image/svg+xml":
        return FoundImage(data, url)
    return None
