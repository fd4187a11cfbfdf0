"""The images of a submission: thumbnails, and copies of the scored files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from knowgen.core.errors import DataError
from knowgen.core.images import open_rgb, read_image_file
from knowgen.core.records import ImageRef
from knowgen.store.images import EXTENSIONS

if TYPE_CHECKING:
    from PIL.Image import Image

KeptImages = Literal["none", "thumbnails", "full"]
"""What a submission keeps of its images: nothing, thumbnails, or thumbnails and the scored files."""

THUMBNAIL_SIDE = 384
"""Maximum length of the longer side of a thumbnail, in pixels."""

THUMBNAIL_QUALITY = 65
"""JPEG quality of a thumbnail, 1 to 100."""


def thumbnail(image: Image) -> bytes:
    """Return the JPEG file of a small copy of an image: the same bytes for the same pixels and version of Pillow.

    Args:
        image: 8-bit RGB pixels; an image that is small enough is not enlarged.
    """
    from PIL.Image import Resampling

    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Resampling.LANCZOS)
    small.info.clear()  # a profile or a comment of the original
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return buffer.getvalue()


class SubmissionImages:
    """Writes the images of a submission, each file named by the hash of its content.

    Args:
        folder: Folder `images` of the submission; it is created for the first image.
        kept: What to keep.
    """

    def __init__(self, folder: Path, kept: KeptImages) -> None:
        self.folder, self.kept = folder, kept

    def keep(self, image: ImageRef, path: Path) -> dict[str, str]:
        """Keep an image; return the fields of `SubmittedImage` that name its files.

        Args:
            image: Record of the scored file.
            path: The scored file.

        Raises:
            DataError: The file does not have the recorded hash, or does not open.
        """
        if self.kept == "none":
            return {}
        data = read_image_file(path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise DataError("has other content than the image that was scored", where=str(path))
        self.folder.mkdir(exist_ok=True)
        small = thumbnail(open_rgb(data))
        digest = hashlib.sha256(small).hexdigest()
        (self.folder / f"{digest}.jpg").write_bytes(small)
        if self.kept == "thumbnails":
            return {"thumbnail": digest}
        name = f"{image.sha256}.{EXTENSIONS[image.format]}"
        (self.folder / name).write_bytes(data)
        return {"thumbnail": digest, "file": name}
