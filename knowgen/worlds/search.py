"""Search in a world: BM25 over its pages and over the titles of its images.

The folder of the search material has `pages.jsonl`, `pictures.jsonl` and the image files. It is the folder `search` of
a world, apart from samples and ground truths, and the backend reads nothing else. Images are handed out as copies in a
folder of their own, so that no path of a hit leads to the world's folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.images import UnreadableImageError, read_image_file
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder
from knowgen.core.text import error_message, parse_json
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.search.text_index import TextIndex

PAGES_FILE, IMAGES_FILE = "pages.jsonl", "pictures.jsonl"
TRUTH_FILES = ("truth.jsonl", "truth", "samples.jsonl")
"""What must not be beside the search material."""

_TITLE_WEIGHT = 3
"""Number of times a title is repeated before the text in the index."""

_SNIPPET = 160


@dataclass(frozen=True)
class _PageIndex:
    pages: list[Page]
    by_url: dict[str, Page]
    index: TextIndex


class WorldSearch:
    """The search backend `world:DIR`.

    The index is built on first use and then kept in memory. The image files of hits are read-only copies, named by
    their SHA-256, in a temporary folder of this process.

    Args:
        model: Folder of the search material, the DIR of `world:DIR`, such as `worlds/seven/search`.

    Raises:
        UsageError: If the folder does not exist, is not search material, or contains ground truths.
    """

    def __init__(self, model: str) -> None:
        self._folder = Path(model)
        missing = [name for name in (PAGES_FILE, IMAGES_FILE) if not (self._folder / name).is_file()]
        if missing:
            raise UsageError(
                f"missing {' and '.join(missing)}",
                where=model,
                fix="name the folder `search` of a world built by `knowgen world build`",
            )
        if apart := [name for name in TRUTH_FILES if (self._folder / name).exists()]:
            raise UsageError(
                f"contains {apart[0]}, which a search must not reach",
                where=model,
                fix=f"name the folder `search` of a world, without {apart[0]}",
            )
        self._lock = threading.Lock()

    @classmethod
    def query_price(cls, **_arguments: Any) -> float:
        """Return the cost of a query in US dollars: nothing."""
        return 0.0

    @cached_property
    def version(self) -> str:
        """Hash of the searched data: 12 hex digits, equal to the task's `search_version`."""
        digest = hashlib.sha256()
        for name in (PAGES_FILE, IMAGES_FILE):
            digest.update(f"{name}\0".encode())
            with (self._folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:12]

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, best first; an empty list if none matches."""
        return await asyncio.to_thread(self._search, query, k)

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images whose titles match, best first; an empty list if none matches.

        Raises:
            DataError: If an image file is missing or differs from its record.
        """
        return await asyncio.to_thread(self._image_search, query, k)

    async def open(self, url: str) -> Page:
        """Return a page.

        Raises:
            DataError: If the page does not exist.
        """
        pages = await asyncio.to_thread(self._loaded_pages)
        page = pages.by_url.get(url)
        if page is None:
            raise DataError("page not found", where=url, fix="open a URL that a search result or a link names")
        return page

    async def titles(self) -> list[str]:
        """Return the titles of all pages, each once, which are queries that find something."""
        pages = await asyncio.to_thread(self._loaded_pages)
        return list(dict.fromkeys(page.title for page in pages.pages))

    def _search(self, query: str, k: int) -> list[Hit]:
        pages = self._loaded_pages()
        return [page_hit(pages.pages[position]) for position in pages.index.find(query, k)]

    def _image_search(self, query: str, k: int) -> list[ImageHit]:
        images, index = self._loaded_images()
        return [_with_copy(images[position]) for position in index.find(query, k)]

    def _loaded_pages(self) -> _PageIndex:
        with self._lock:
            return self._pages

    def _loaded_images(self) -> tuple[list[ImageHit], TextIndex]:
        with self._lock:
            return self._images

    @cached_property
    def _pages(self) -> _PageIndex:
        pages = [_page(row, where) for where, row in _rows(self._folder / PAGES_FILE)]
        index = TextIndex([f"{page.title}. " * _TITLE_WEIGHT + page.text for page in pages])
        return _PageIndex(pages, {page.url: page for page in pages}, index)

    @cached_property
    def _images(self) -> tuple[list[ImageHit], TextIndex]:
        images = [_image(row, self._folder, where) for where, row in _rows(self._folder / IMAGES_FILE)]
        return images, TextIndex([image.title for image in images])


class _CopiedImages:
    """Read-only copies of image files, named by their SHA-256, in a folder that is removed when the process ends."""

    def __init__(self) -> None:
        self._folder: ScratchFolder | None = None
        self._paths: dict[str, Path] = {}
        self._lock = threading.Lock()

    def path(self, image: ImageRef) -> Path:
        """Return the path of a copy of an image, made on the first call.

        Raises:
            DataError: The image file is missing or differs from its record.
            ConfigError: The copy cannot be written.
        """
        with self._lock:
            if image.sha256 not in self._paths:
                self._paths[image.sha256] = self._copy(image)
            return self._paths[image.sha256]

    def _copy(self, image: ImageRef) -> Path:
        assert image.path is not None
        try:
            data = read_image_file(image.path)
        except UnreadableImageError as error:
            raise DataError(error.what, where=str(image.path), fix="build the world again") from error
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise DataError("differs from its record", where=str(image.path), fix="build the world again")
        try:
            if self._folder is None:
                self._folder = ScratchFolder("knowgen.search.")
            copy = self._folder.path / f"{image.sha256}{image.path.suffix}"
            copy.write_bytes(data)
            copy.chmod(0o444)  # later hits name the same file
        except OSError as error:
            what = f"an image that a search found cannot be copied: {error.strerror}"
            fix = "set TMPDIR to a folder with free space"
            raise ConfigError(what, where=str(error.filename or ""), fix=fix) from error
        return copy


_copies = _CopiedImages()


def _with_copy(hit: ImageHit) -> ImageHit:
    """Return a hit with the path of a copy of its image in place of the path in the world's folder."""
    assert hit.image is not None
    return hit.model_copy(update={"image": hit.image.model_copy(update={"path": _copies.path(hit.image)})})


def page_hit(page: Page) -> Hit:
    """Return a page as the result of a search, with the beginning of its text."""
    return Hit(title=page.title, url=page.url, snippet=" ".join(page.text.split())[:_SNIPPET])


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                row = parse_json(line)
            except ValueError as error:
                what = f"not valid JSON: {error_message(error)}"
                raise DataError(what, where=where, fix="build the world again") from error
            if not isinstance(row, dict):
                raise DataError("not a JSON object", where=where, fix="build the world again")
            yield where, row


def _page(row: dict[str, Any], where: str) -> Page:
    try:
        return Page.model_validate(row)
    except ValueError as error:
        raise DataError("not a page record", where=where, fix="build the world again") from error


def _image(row: dict[str, Any], folder: Path, where: str) -> ImageHit:
    """Return the hit for an image row; the file must be inside the world folder."""
    try:
        image = ImageRef.model_validate(row["image"])
        path = (folder / str(row["file"])).resolve()
        hit = ImageHit(title=row["title"], url=row["url"], page_url=row["page_url"], image=image)
    except (KeyError, ValueError) as error:
        raise DataError("not an image record", where=where, fix="build the world again") from error
    if not path.is_relative_to(folder.resolve()):
        raise DataError("the image file is outside the world folder", where=where, fix="build the world again")
    return hit.model_copy(update={"image": image.model_copy(update={"path": path})})
