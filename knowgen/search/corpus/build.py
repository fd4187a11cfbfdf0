"""Build a corpus from files."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from knowgen.core.atomic import folder_draft, write_file
from knowgen.core.errors import DataError
from knowgen.core.images import UnreadableImageError, inspect_image, read_image_file
from knowgen.core.steps import counted
from knowgen.search.corpus import sources
from knowgen.search.corpus.sources import Found, FoundImage, FoundPage, Html, Reading, Skipped
from knowgen.search.corpus.storage import FACTS_FILE, FORMAT, RecordWriter, read_lines, url_digest
from knowgen.search.text_index import TextIndex

CORPUS_FOLDER = ".corpus"
"""Name of the folder that is written into the folder of the sources."""

TITLE_WEIGHT = 3
"""Number of times a title is repeated before the text in the index."""

CPU_SECONDS = 15.0
"""Maximum processor time for one HTML page, in seconds, where processes read them."""

_SHOWN_REASONS = 20
_BATCH = 32
"""Number of items that a process parses at once."""

_BATCHES_IN_FLIGHT = 4
"""Batches per process that are read ahead."""


@dataclass
class BuiltCorpus:
    """What was built.

    Attributes:
        folder: The corpus.
        pages: Number of pages.
        images: Number of images.
        duplicates: Number of pages and images whose URL was there before; the first counts.
        skipped: What was not taken, the first ones.
        skipped_count: Number of all that was not taken.
        seconds: Time it took.
    """

    folder: Path
    pages: int = 0
    images: int = 0
    duplicates: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    seconds: float = 0.0


def build_corpus(
    folder: Path,
    out: Path | None = None,
    *,
    prefix: str = "https://corpus.invalid/",
    workers: int | None = None,
) -> BuiltCorpus:
    """Read all pages and images below a folder, and write a corpus that `corpus:DIR` searches.

    Files are read in order of their names, so that the same files give the same corpus. Memory grows by the words of
    the pages (about 40 bytes per word), not by the files.

    Args:
        folder: Folder with HTML, text, JSONL, WARC and image files. Hidden files and folders are left out.
        out: Where the corpus is written; the folder `.corpus` inside `folder` when None.
        prefix: URL that stands for `folder` in the URLs of files that name none themselves.
        workers: Processes that read files; one per core when None, 0 to read in this process.

    Raises:
        DataError: There is nothing to index, or a folder cannot be read or written.
    """
    start = time.monotonic()
    if not folder.is_dir():
        raise DataError("not a folder", where=str(folder), fix="name the folder with the pages")
    target = folder / CORPUS_FOLDER if out is None else out
    built = BuiltCorpus(target)
    files = list(_files(folder, target))
    try:
        with folder_draft(target) as draft:
            _write(draft, _read_all(files, Reading(folder, prefix), workers), built)
            if not built.pages and not built.images:
                why = f" ({built.skipped[0].where}: {built.skipped[0].reason})" if built.skipped else ""
                raise DataError(
                    f"has no page and no image in {len(files)} files{why}",
                    where=str(folder),
                    fix="give HTML, text, JSONL, WARC or image files",
                )
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(target)) from error
    built.seconds = time.monotonic() - start
    return built


def _files(folder: Path, target: Path) -> Iterator[Path]:
    """Yield the files below a folder in order, without hidden ones and those of the corpus itself."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(each for each in folders if not each.startswith(".") and here / each != target)
        yield from (here / name for name in sorted(names) if not name.startswith(".") and ".caption." not in name)


def _read_all(files: list[Path], reading: Reading, workers: int | None) -> Iterator[Found]:
    """Yield what the files contain, in order. Processes parse HTML, each page in limited time."""
    count = (os.cpu_count() or 1) if workers is None else workers
    batches = _batches(_items(files, reading))
    if count < 1:
        for batch in batches:
            yield from _parse(batch)
        return
    pool: ProcessPoolExecutor | None = None
    waiting: deque[Future[list[Found]]] = deque()
    try:
        for batch in batches:
            if not any(isinstance(each, Html) for each in batch):
                ready = Future[list[Found]]()
                ready.set_result(_parse(batch))
                waiting.append(ready)
            else:
                pool = pool or ProcessPoolExecutor(count, mp_context=get_context("spawn"))
                waiting.append(pool.submit(_parse_limited, batch))
            if len(waiting) >= count * _BATCHES_IN_FLIGHT:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _items(files: list[Path], reading: Reading) -> Iterator[Found | Html]:
    for path in counted(files, "reading files"):
        yield from sources.read_file(path, reading)


def _batches(items: Iterator[Found | Html]) -> Iterator[list[Found | Html]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


def _parse(batch: list[Found | Html]) -> list[Found]:
    return [sources.parsed(each) for each in batch]


class _SlowPageError(BaseException):
    """Raised by the timer. Not an Exception, which the parser catches."""


def _parse_limited(batch: list[Found | Html]) -> list[Found]:
    """Parse a batch in a process of its own: a table of 2 MB can keep the parser busy for an hour."""

    def stop(*_: object) -> None:
        raise _SlowPageError

    signal.signal(signal.SIGPROF, stop)
    results: list[Found] = []
    for each in batch:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            results.append(sources.parsed(each))
        except _SlowPageError:
            assert isinstance(each, Html)
            results.append(Skipped(each.where, f"takes more than {CPU_SECONDS:g} s of processor time to read"))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return results


def _write(draft: Path, found: Iterable[Found], built: BuiltCorpus) -> None:
    """Write all files of a corpus."""
    pages, images = RecordWriter(draft, "pages"), RecordWriter(draft, "images")
    seen: set[int] = set()
    captions: dict[int, tuple[str, str]] = {}
    reasons: Counter[str] = Counter()
    waiting: list[FoundImage] = []

    def skip(skipped: Skipped) -> None:
        built.skipped_count += 1
        reasons[skipped.reason] += 1
        if len(built.skipped) < _SHOWN_REASONS:
            built.skipped.append(skipped)

    def is_new(url: str, kind: str) -> bool:
        digest = url_digest(f"{kind} {url}")
        known = digest in seen
        built.duplicates += known
        seen.add(digest)
        return not known

    def add_image(image: FoundImage) -> None:
        caption, page_url = captions.get(url_digest(image.url), ("", ""))
        title = image.title or caption or _name(image.url)
        try:
            row = _stored_image(draft, image.source)
        except UnreadableImageError as error:
            skip(Skipped(image.url, f"the image does not open: {error.what}"))
            return
        images.add({"url": image.url, "title": title, "page_url": image.page_url or page_url, **row}, image.url)

    for each in found:
        match each:
            case Skipped():
                skip(each)
            case FoundPage():
                if is_new(each.url, "page"):
                    pages.add(_page_row(each), each.url)
                for address, caption in each.pictures:
                    captions.setdefault(url_digest(address), (caption, each.url))
            case FoundImage() if isinstance(each.source, bytes):  # its page, with the caption, came before it
                if is_new(each.url, "image"):
                    add_image(each)
            case FoundImage():
                if is_new(each.url, "image"):
                    waiting.append(each)
    for image in counted(
        waiting, "copying images"
    ):  # files stay where they are until every page was read, which may have a caption
        add_image(image)
    built.pages, built.images = len(pages), len(images)
    pages.close()
    images.close()
    _write_indexes(draft, built)
    facts = {
        "format": FORMAT,
        "version": _version(pages, images),
        "pages": built.pages,
        "images": built.images,
        "duplicates": built.duplicates,
        "skipped": dict(reasons.most_common(_SHOWN_REASONS)),
    }
    write_file(draft / FACTS_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _write_indexes(draft: Path, built: BuiltCorpus) -> None:
    pages = counted(read_lines(draft / "pages.jsonl"), "indexing pages", built.pages)
    texts = (f"{row['title']}. " * TITLE_WEIGHT + row["text"] for row in pages)
    TextIndex(texts).save(draft / "pages.index")
    images = counted(read_lines(draft / "images.jsonl"), "indexing images", built.images)
    TextIndex(row["title"] for row in images).save(draft / "images.index")


def _version(pages: RecordWriter, images: RecordWriter) -> str:
    digest = pages.hash.copy()
    digest.update(images.hash.digest())
    return digest.hexdigest()[:12]


def _page_row(page: FoundPage) -> dict[str, Any]:
    links = [{"text": text, "url": url} for text, url in page.links]
    return {"url": page.url, "title": page.title, "text": page.text, "links": links}


def _name(url: str) -> str:
    """Return the file name of a URL as words."""
    stem = unquote(url.split("#", maxsplit=1)[0].split("?", maxsplit=1)[0].rsplit("/", 1)[-1]).rsplit(".", 1)[0]
    return " ".join(stem.replace("_", " ").replace("-", " ").split()) or "image"


def _stored_image(draft: Path, source: Path | bytes) -> dict[str, Any]:
    """Copy an image into the corpus under the hash of its content, and return its facts.

    Raises:
        UnreadableImageError: It does not open.
    """
    data = read_image_file(source) if isinstance(source, Path) else source
    facts = inspect_image(data)
    file = Path("images") / facts.sha256[:2] / f"{facts.sha256}.{facts.format.lower()}"
    path = draft / file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    image = {"sha256": facts.sha256, "width": facts.width, "height": facts.height, "format": facts.format}
    return {"file": file.as_posix(), "image": image}


__all__ = ["CORPUS_FOLDER", "BuiltCorpus", "build_corpus"]
