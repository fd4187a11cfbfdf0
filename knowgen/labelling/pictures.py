"""Images as a rater sees them: all in one format and size, so that only their content differs."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path

from knowgen.core.errors import KnowgenError
from knowgen.core.images import UnreadableImageError, open_image, read_image_file

MAX_SIDE = 2048
"""Maximum length of the longer side in pixels."""

MEDIA_TYPE = "image/jpeg"
QUALITY = 95
_KEPT = 32


class Pictures:
    """Encoded images, of which the last few are kept.

    Args:
        side: Length of the longer side of every generated image in pixels; smaller ones are enlarged, so that the size
            of a file says nothing about its system.
    """

    def __init__(self, side: int) -> None:
        self.side = max(1, min(side, MAX_SIDE))
        self._kept: OrderedDict[tuple[str, bool], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def encoded(self, path: Path, sha256: str, *, generated: bool) -> bytes:
        """Return an image as a JPEG file.

        Args:
            path: Its file.
            sha256: Hash that the file must have.
            generated: Whether it is brought to the common size; a ground truth is only reduced to `MAX_SIDE`.

        Raises:
            UnreadableImageError: The file is missing, has another content, or cannot be opened.
        """
        key = (sha256, generated)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = self._encode(path, sha256, generated)
        with self._lock:
            self._kept[key] = data
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return data

    def _encode(self, path: Path, sha256: str, generated: bool) -> bytes:
        from PIL import Image

        try:
            content = read_image_file(path)
        except KnowgenError as error:
            raise UnreadableImageError(error.what, where=str(path)) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UnreadableImageError("the file has changed since it was stored", where=str(path))
        image = open_image(content).image
        longer = max(image.size)
        side = self.side if generated else min(longer, MAX_SIDE)
        if longer != side:
            size = [max(1, round(each * side / longer)) for each in image.size]
            image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        return buffer.getvalue()
