"""An image file as similarity scorers take it; `core.images.open_rgb` opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OPENING_VERSION = "rgb-1"
"""Part of every embedding's key. Raise it when `core.images.open_rgb` gives other pixels for the same file."""


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        sha256: Hex digest of the file's bytes.
        path: The file; None when it is not on this machine.
        what: What to call it in a reason, such as `the ground truth`.
    """

    sha256: str
    path: Path | None
    what: str
