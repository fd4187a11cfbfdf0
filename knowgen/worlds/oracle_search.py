"""The search backend `oracle:NAME`: another one, that first returns what the ground truth of the sample rests on.

It separates two abilities of an agent: finding, and using what was found. It is privileged, so leaderboards refuse runs
with it. An agent hands it the ground truth of each sample by `for_truth`; without one it answers nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import GroundTruth, ImageRef, image_ref
from knowgen.core.scratch import ScratchFolder
from knowgen.search.contract import Hit, ImageHit, Page, SearchBackend
from knowgen.search.load import named_backend
from knowgen.search.prices import query_price
from knowgen.worlds.search import page_hit

T = TypeVar("T", Page, ImageHit)

VERSION = "1"
"""Version of what is returned first, part of keys."""

_NAME = "search backend oracle"


class OracleSearch:
    """The search backend `oracle:NAME`, or `oracle` for the task's own.

    Args:
        model: Name of the backend that has the pages of the world, such as `world:DIR`.
        arguments: Arguments of that backend.

    Raises:
        UsageError: That backend is unknown.
    """

    privileged = True
    wraps_search = True

    def __init__(self, model: str, **arguments: Any) -> None:
        self._name, self._backend = named_backend(model, arguments)
        self._images = _TrueImages()

    @classmethod
    def query_price(cls, model: str, **arguments: Any) -> float | None:
        """Return the maximum cost of a query of the backend in US dollars; None when it is not known."""
        return query_price(model, arguments)

    @property
    def version(self) -> str:
        """Name and version of the backend, and of what is returned first."""
        return f"{self._name}@{getattr(self._backend, 'version', '')} {VERSION}"

    def for_truth(self, truth: GroundTruth) -> SearchBackend:
        """Return the search for one sample.

        Raises:
            UsageError: The ground truth is not from a world.
        """
        if not truth.evidence or not all({"name", "look"} <= subject.keys() for subject in truth.subjects):
            what = f"the ground truth of sample {truth.sample_id!r} has no evidence and appearances"
            raise UsageError(what, where=_NAME, fix="use a task made by `knowgen world build`")
        return _OracleResults(self._backend, truth, self._images)

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Raise `ConfigError`: the sample is not known."""
        _unknown_sample()

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Raise `ConfigError`: the sample is not known."""
        _unknown_sample()

    async def open(self, url: str) -> Page:
        """Raise `ConfigError`: the sample is not known."""
        _unknown_sample()

    async def close(self) -> None:
        """Close the backend, and remove the images."""
        self._images.close()
        if (close := getattr(self._backend, "close", None)) is not None:
            await close()


def _unknown_sample() -> NoReturn:
    raise ConfigError(
        "the ground truth of the sample is not known", where=_NAME, fix="use it for `gen_searcher` in a run of a world"
    )


class _OracleResults:
    """The search for one sample: pages and images of its ground truth before those that the backend finds.

    Args:
        backend: The backend.
        truth: The ground truth.
        images: Images of the subjects.
    """

    def __init__(self, backend: SearchBackend, truth: GroundTruth, images: _TrueImages) -> None:
        self._backend, self._truth, self._images = backend, truth, images

    @property
    def version(self) -> str:
        """Version of the backend."""
        return self._backend.version

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages: those that state the facts, then others that match."""
        evidence = _named_first([await self._evidence(url) for url in self._truth.evidence], query)
        found = await self._backend.search(query, k)
        known = set(self._truth.evidence)
        return [*map(page_hit, evidence), *(hit for hit in found if hit.url not in known)][:k]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images: a true one of each subject, then others that match."""
        images = _named_first(await asyncio.to_thread(self._images.hits, self._truth), query)
        return [*images, *await self._backend.image_search(query, k)][:k]

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        return await self._backend.open(url)

    async def _evidence(self, url: str) -> Page:
        try:
            return await self._backend.open(url)
        except DataError as error:
            what = f"{url}, evidence of sample {self._truth.sample_id!r}, is not among its pages"
            raise UsageError(what, where=_NAME, fix="name the search backend of the task's own world") from error


class _TrueImages:
    """Images of the subjects of ground truths, rendered on the first call, in a folder that `close` removes."""

    def __init__(self) -> None:
        self._folder: ScratchFolder | None = None
        self._hits: dict[str, list[ImageHit]] = {}
        self._lock = threading.Lock()

    def hits(self, truth: GroundTruth) -> list[ImageHit]:
        """Return an image of each subject of a sample, in the order of the ground truth.

        Raises:
            ConfigError: An image cannot be written.
        """
        with self._lock:
            if truth.sample_id not in self._hits:
                self._hits[truth.sample_id] = [
                    self._hit(f"{truth.sample_id}-{number}", subject) for number, subject in enumerate(truth.subjects)
                ]
            return self._hits[truth.sample_id]

    def _hit(self, name: str, subject: dict[str, Any]) -> ImageHit:
        title, url = str(subject["name"]), f"https://pictures.example/oracle/{name}.png"
        return ImageHit(title=title, url=url, image=self._rendered(name, subject))

    def _rendered(self, name: str, subject: dict[str, Any]) -> ImageRef:
        from knowgen.worlds.content.search_images import SearchImage, render_search_image
        from knowgen.worlds.rendering.appearance import Appearance

        appearance = Appearance.from_dict(subject["look"])
        image = render_search_image(SearchImage(f"oracle-{name}", "", "", appearance, "plain", ""))
        try:
            if self._folder is None:
                self._folder = ScratchFolder("knowgen.oracle.")
            path = Path(self._folder.path) / f"{name}.png"
            image.save(path)
        except OSError as error:
            what = f"an image cannot be written: {error.strerror}"
            raise ConfigError(what, where=str(error.filename or ""), fix="set TMPDIR to a folder with space") from error
        return image_ref(path)

    def close(self) -> None:
        """Remove the images."""
        with self._lock:
            self._hits.clear()
            if self._folder is not None:
                self._folder.close()
                self._folder = None


def _named_first(items: Sequence[T], query: str) -> list[T]:
    """Return pages or images, those whose title is part of a query first."""
    return sorted(items, key=lambda item: item.title.casefold() not in query.casefold())
