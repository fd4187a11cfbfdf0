"""The images of episodes: stored by content in the directory of a training."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from knowgen.core.records import ImageRef
from knowgen.engine.imaging import encode
from knowgen.store.images import EXTENSIONS, ImageFolder


class StoredImage(NamedTuple):
    """A generated image in the directory of the training.

    Attributes:
        image: Its record, with its path.
        notes: What was changed; see `Generation.image_notes`.
        one_colour: Colour of all its pixels; empty when there are several.
    """

    image: ImageRef
    notes: tuple[str, ...] = ()
    one_colour: str = ""


class EpisodeImages:
    """Stores images of episodes.

    Args:
        folder: The folder of images of a training.
    """

    def __init__(self, folder: ImageFolder) -> None:
        self._folder = folder
        self._taken: set[str] = set()

    async def store(self, image: Any) -> StoredImage:
        """Check and store what an image model returned, in another thread.

        Raises:
            ContractError: It is not an image.
            DataError, ConfigError: The folder cannot be written.
        """
        return await asyncio.to_thread(self._store, image)

    def _store(self, image: Any) -> StoredImage:
        encoded = encode(image)
        ref = self._folder.put(encoded.data, width=encoded.width, height=encoded.height, format=encoded.format)
        return StoredImage(ref, tuple(encoded.notes), encoded.one_colour)

    def take(self, image: ImageRef) -> ImageRef | None:
        """Store an image that the agent saw, as a link where possible; None if its file is gone or of another kind."""
        if image.sha256 in self._taken:
            return image.model_copy(update={"path": self._folder.path(image)})
        if image.path is None or image.format not in EXTENSIONS:
            return None
        taken = self._folder.take(image, Path(image.path))
        if taken is not None:
            self._taken.add(image.sha256)
        return taken
