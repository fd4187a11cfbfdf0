"""Images in files, for tests."""

from __future__ import annotations

from pathlib import Path

from knowgen.records import ImageRef


def path_of(image: ImageRef | None) -> Path:
    """Return the file of an image that is known to be there."""
    assert image is not None and image.path is not None
    return image.path
