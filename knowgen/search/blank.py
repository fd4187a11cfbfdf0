"""The search backend `blank:NAME`: another one, whose images are blank.

It is a control. Titles, addresses and pages are those that were found, and the images have their size and show nothing:
what an agent gains from looking must be lost with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError
from knowgen.core.records import ImageRef, image_ref
from knowgen.core.scratch import ScratchFolder
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.search.load import named_backend
from knowgen.search.prices import query_price

VERSION = "1"
"""Version of the blank images, part of keys."""

_LIGHTEST, _SHADES = 216, 64


class BlankSearch:
    """The search backend `blank:NAME`, or `blank` for the task's own.

    Images of one result differ by one level of grey, because equal files would be one image to an agent.

    Args:
        model: Name of the backend.
        arguments: Arguments of the backend.

    Raises:
        UsageError: The backend is unknown.
    """

    wraps_search = True

    def __init__(self, model: str, **arguments: Any) -> None:
        self._name, self._backend = named_backend(model, arguments)
        self._folder: ScratchFolder | None = None
        self._images: dict[tuple[int, int, int], ImageRef] = {}

    @classmethod
    def query_price(cls, model: str, **arguments: Any) -> float | None:
        """Return the maximum cost of a query of the backend in US dollars; None when it is not known."""
        return query_price(model, arguments)

    @property
    def version(self) -> str:
        """Name and version of the backend, and of the blank images."""
        return f"{self._name}@{getattr(self._backend, 'version', '')} {VERSION}"

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return the pages that the backend finds; errors as in `SearchBackend.search`."""
        return await self._backend.search(query, k)

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return the hits that the backend finds with blank images; errors as in `SearchBackend.image_search`.

        Raises:
            ConfigError: An image cannot be written.
        """
        return await asyncio.to_thread(self._blanked, await self._backend.image_search(query, k))

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        return await self._backend.open(url)

    async def titles(self) -> list[str]:
        """Return the titles of the backend's pages, where it can list them."""
        titles: list[str] = await self._backend.titles()  # type: ignore[attr-defined]
        return titles

    async def close(self) -> None:
        """Close the backend, and remove the images."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None
        self._images.clear()
        if (close := getattr(self._backend, "close", None)) is not None:
            await close()

    def _blanked(self, hits: Sequence[ImageHit]) -> list[ImageHit]:
        return [
            hit
            if hit.image is None
            else hit.model_copy(update={"image": self._blank(hit.image.width, hit.image.height, number)})
            for number, hit in enumerate(hits)
        ]

    def _blank(self, width: int, height: int, number: int) -> ImageRef:
        from PIL import Image

        key = width, height, _LIGHTEST - number % _SHADES
        if key in self._images:
            return self._images[key]
        try:
            if self._folder is None:
                self._folder = ScratchFolder("knowgen.blank.")
            path = Path(self._folder.path) / f"{'-'.join(map(str, key))}.png"
            Image.new("RGB", (width, height), (key[2],) * 3).save(path)
        except OSError as error:
            raise ConfigError(
                f"an image cannot be written: {error.strerror}",
                where=str(error.filename or ""),
                fix="set TMPDIR to a folder with space",
            ) from error
        return self._images.setdefault(key, image_ref(path))
