"""Images in files, for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from knowgen.core.records import ImageRef


def path_of(image: ImageRef | None) -> Path:
    """Return the file of an image that is known to be there."""
    assert image is not None and image.path is not None
    return image.path


def save_image(path: Path, size: tuple[int, int], colour: str) -> ImageRef:
    """Save an image of one colour and return its record."""
    Image.new("RGB", size, colour).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=size[0], height=size[1], format="PNG", path=path)
