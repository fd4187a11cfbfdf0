"""Files of pictures that are drawn on demand, in a temporary folder of this process."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import ConfigError
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureFiles:
    """Keeps images as PNG files, named by their SHA-256, until `close`."""

    def __init__(self) -> None:
        self._folder: ScratchFolder | None = None
        self._lock = threading.Lock()

    def add(self, image: Image) -> ImageRef:
        """Write an image, once for the same content, and return its record.

        Raises:
            ConfigError: It cannot be written.
        """
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        try:
            path = self._place() / f"{digest}.png"
            if not path.exists():
                path.write_bytes(data)
        except OSError as error:
            raise ConfigError(
                f"a picture cannot be written: {error.strerror}",
                where=str(error.filename or ""),
                fix="set TMPDIR to a folder with free space",
            ) from error
        return ImageRef(sha256=digest, width=image.width, height=image.height, format="PNG", path=path)

    def _place(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = ScratchFolder("knowgen.pictures.")
            return self._folder.path

    def close(self) -> None:
        """Remove all files."""
        with self._lock:
            if self._folder is not None:
                self._folder.close()
                self._folder = None
