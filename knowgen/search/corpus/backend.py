"""The search backend `corpus:DIR`: BM25 over pages and image titles on disk."""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef
from knowgen.search.contract import Hit, ImageHit, Link, Page
from knowgen.search.corpus.build import CORPUS_FOLDER
from knowgen.search.corpus.storage import FACTS_FILE, REBUILD, RecordReader, read_facts
from knowgen.search.text_index import TextIndex
from knowgen.search.web.guarding import check_leaks, guarded_hit, guarded_image_hit

_SNIPPET = 240
"""Maximum length of a snippet in characters."""


class CorpusSearch:
    """Pages and images of a folder that `knowgen corpus build` indexed. It needs no key and no network.

    Args:
        model: The folder, the DIR of `corpus:DIR`: a corpus, or the folder that it was built from.

    Raises:
        DataError: The folder has no corpus.
    """

    def __init__(self, model: str) -> None:
        folder = Path(model)
        inside = folder / CORPUS_FOLDER
        self._folder = inside if not (folder / FACTS_FILE).is_file() and inside.is_dir() else folder
        self._facts = read_facts(self._folder)
        self._lock = threading.Lock()

    @classmethod
    def query_price(cls, **_arguments: Any) -> float:
        """Return the cost of a query in US dollars: nothing."""
        return 0.0

    @property
    def version(self) -> str:
        """Hash of pages and images, 12 hex digits."""
        return str(self._facts["version"])

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, best first; an empty list if none matches."""
        return [guarded_hit(hit) for hit in await asyncio.to_thread(self._search, query, k)]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images whose titles match, best first; an empty list if none matches."""
        return await asyncio.to_thread(self._image_search, query, k)

    async def open(self, url: str) -> Page:
        """Return a page.

        Raises:
            DataError: The corpus does not have it.
            PageBlockedError: It is the benchmark's own data.
        """
        check_leaks((url,))
        row = await asyncio.to_thread(lambda: self._loaded("pages")[0].find(url))
        if row is None:
            raise DataError("the corpus does not have this page", where=url, fix="open a URL of a search result")
        links = tuple(Link(text=str(each["text"]), url=str(each["url"])) for each in row.get("links", []))
        return Page(url=row["url"], title=row["title"], text=row["text"], links=links)

    async def close(self) -> None:
        """Close the files."""
        with self._lock:
            for name in ("pages", "images"):
                if name in self._open:
                    self._open.pop(name)[0].close()

    def _search(self, query: str, k: int) -> list[Hit]:
        records, index = self._loaded("pages")
        rows = [records.get(number) for number in index.find(query, k)]
        return [
            Hit(title=row["title"], url=row["url"], snippet=index.best_passage(row["text"], query, _SNIPPET))
            for row in rows
        ]

    def _image_search(self, query: str, k: int) -> list[ImageHit]:
        records, index = self._loaded("images")
        return [guarded_image_hit(self._image(records.get(number))) for number in index.find(query, k)]

    def _image(self, row: dict[str, Any]) -> ImageHit:
        hit = ImageHit(title=row["title"], url=row["url"], page_url=row.get("page_url", ""))
        path = (self._folder / str(row["file"])).resolve()
        if not path.is_relative_to(self._folder.resolve()):  # a corpus may come from somebody else
            raise DataError("an image file is outside the corpus", where=str(self._folder), fix=REBUILD)
        if not path.is_file():
            return hit.model_copy(update={"failure": f"the file {row['file']} of the corpus is missing"})
        image = ImageRef.model_validate(row["image"])
        return hit.model_copy(update={"image": image.model_copy(update={"path": path})})

    @cached_property
    def _open(self) -> dict[str, tuple[RecordReader, TextIndex]]:
        return {}

    def _loaded(self, name: str) -> tuple[RecordReader, TextIndex]:
        with self._lock:
            if name not in self._open:
                records = RecordReader(self._folder, name)
                try:
                    self._open[name] = records, TextIndex.load(self._folder / f"{name}.index")
                except (OSError, ValueError) as error:
                    records.close()
                    raise DataError(f"its index is damaged: {error}", where=str(self._folder), fix=REBUILD) from error
            return self._open[name]
