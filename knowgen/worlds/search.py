"""Search over a world folder: BM25 on its pages and on the titles of its pictures.

It reads `pages.jsonl`, `pictures.jsonl` and the pictures they name; it never looks at samples or truths.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import ImageRef
from knowgen.search.contract import Hit, ImageHit, Page

PAGES_FILE, PICTURES_FILE = "pages.jsonl", "pictures.jsonl"
_TITLE_WEIGHT = 3
"""A title counts as if it stood this many times in the text."""

_SNIPPET = 160


class TextIndex:
    """BM25 over short texts, in memory.

    Args:
        texts: What is searched; English stop words are dropped and words stemmed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s
        import Stemmer

        self._size = len(texts)
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25()
        self._lock = threading.Lock()
        tokens = bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)
        self._known = set(tokens.vocab)
        if self._known:
            self._index.index(tokens, show_progress=False)

    def find(self, query: str, k: int) -> list[int]:
        """Returns the positions of at most `k` texts that share a word with the query, best first."""
        import bm25s

        with self._lock:
            split = bm25s.tokenize(query, stopwords="en", stemmer=self._stemmer, show_progress=False, return_ids=False)
            words = [word for word in split[0] if word in self._known]
            if not words or k < 1:
                return []
            found, scores = self._index.retrieve([words], k=min(k, self._size), show_progress=False)
        return [int(at) for at, score in zip(found[0], scores[0], strict=True) if score > 0]


@dataclass(frozen=True)
class _Pages:
    listed: list[Page]
    by_url: dict[str, Page]
    index: TextIndex


class WorldSearch:
    """The search backend `world:DIR`.

    The index is built on first use and then answers from memory.

    Args:
        model: The world's folder, as in `world:DIR`.

    Raises:
        UsageError: There is no such folder, or it holds no world.
    """

    def __init__(self, model: str) -> None:
        self.folder = Path(model)
        missing = [name for name in (PAGES_FILE, PICTURES_FILE) if not (self.folder / name).is_file()]
        if missing:
            raise UsageError(
                f"there is no {' and no '.join(missing)}", where=model, fix="make a world with `knowgen world build`"
            )
        self._lock = threading.Lock()

    @cached_property
    def version(self) -> str:
        """Hash of all that is answered from: 12 hex digits, the same as the task's `search_version`."""
        digest = hashlib.sha256()
        for name in (PAGES_FILE, PICTURES_FILE):
            digest.update(f"{name}\0".encode())
            with (self.folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:12]

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Returns at most `k` pages, best first; an empty list when nothing is found."""
        return await asyncio.to_thread(self._search, query, k)

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Returns at most `k` pictures whose titles fit, best first; an empty list when nothing is found."""
        return await asyncio.to_thread(self._image_search, query, k)

    async def open(self, url: str) -> Page:
        """Opens a page.

        Raises:
            DataError: There is no such page.
        """
        pages = await asyncio.to_thread(self._loaded_pages)
        page = pages.by_url.get(url)
        if page is None:
            raise DataError("there is no such page", where=url, fix="open an address that a search or a link gave")
        return page

    def _search(self, query: str, k: int) -> list[Hit]:
        pages = self._loaded_pages()
        return [_hit(pages.listed[at]) for at in pages.index.find(query, k)]

    def _image_search(self, query: str, k: int) -> list[ImageHit]:
        pictures, index = self._loaded_pictures()
        return [pictures[at] for at in index.find(query, k)]

    def _loaded_pages(self) -> _Pages:
        with self._lock:
            return self._pages

    def _loaded_pictures(self) -> tuple[list[ImageHit], TextIndex]:
        with self._lock:
            return self._pictures

    @cached_property
    def _pages(self) -> _Pages:
        listed = [_page(row, where) for where, row in _rows(self.folder / PAGES_FILE)]
        index = TextIndex([f"{page.title}. " * _TITLE_WEIGHT + page.text for page in listed])
        return _Pages(listed, {page.url: page for page in listed}, index)

    @cached_property
    def _pictures(self) -> tuple[list[ImageHit], TextIndex]:
        pictures = [_picture(row, self.folder, where) for where, row in _rows(self.folder / PICTURES_FILE)]
        return pictures, TextIndex([picture.title for picture in pictures])


def _hit(page: Page) -> Hit:
    return Hit(title=page.title, url=page.url, snippet=" ".join(page.text.split())[:_SNIPPET])


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"is no JSON: {error.msg}", where=where, fix="build the world again") from error
            if not isinstance(row, dict):
                raise DataError("is no record", where=where, fix="build the world again")
            yield where, row


def _page(row: dict[str, Any], where: str) -> Page:
    try:
        return Page.model_validate(row)
    except ValueError as error:
        raise DataError("is no page", where=where, fix="build the world again") from error


def _picture(row: dict[str, Any], folder: Path, where: str) -> ImageHit:
    """Makes the hit of a picture; its file must lie inside the world's folder."""
    try:
        image = ImageRef.model_validate(row["image"])
        path = (folder / str(row["file"])).resolve()
        hit = ImageHit(title=row["title"], url=row["url"], page_url=row["page_url"], image=image)
    except (KeyError, ValueError) as error:
        raise DataError("is no picture", where=where, fix="build the world again") from error
    if not path.is_relative_to(folder.resolve()):
        raise DataError("the picture's file lies outside the world's folder", where=where, fix="build the world again")
    return hit.model_copy(update={"image": image.model_copy(update={"path": path})})
