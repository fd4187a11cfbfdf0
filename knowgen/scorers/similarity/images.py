"""An image file to embed or compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        sha256: SHA-256 of the file, hex.
        path: Path of the file, None when it is not on this machine.
        what: Name of the image in reasons, such as `the ground truth`.
    """

    sha256: str
    path: Path | None
    what: str
