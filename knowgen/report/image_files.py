"""Image files of a report: for each image a small WebP for the page and a larger file to open, written in threads.

File names contain the digest of the original. Files of an earlier report are therefore reused, and an image that many
samples share is written once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from knowgen.core.records import ImageRef

SMALL = 512
LARGE = 1600
COPY_BELOW = 400_000
"""Originals of at most this many bytes are copied; larger ones are re-encoded with at most `LARGE` pixels a side."""

RECIPE = f"webp-{SMALL}-{LARGE}-1"
"""Name of the encoding; files of an earlier report are reused only if it is the same."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True)
class ShownImage:
    """Files of an image on the page.

    Attributes:
        small: File name under `img/`; empty if there is a fault.
        large: File name under `img/` of the larger file.
        width: Width of the original in pixels.
        height: Height of the original in pixels.
        fault: Why it cannot be shown; empty if it can.
    """

    small: str = ""
    large: str = ""
    width: int = 0
    height: int = 0
    fault: str = ""


def make_images(
    images: Iterable[tuple[ImageRef, Path | None]], folder: Path, earlier: Path | None = None
) -> dict[str, ShownImage]:
    """Write the files of each image.

    Args:
        images: Each image with the path of its file, None if it is not on this machine; repeated digests are written
            once.
        folder: Existing folder to write to.
        earlier: Image folder of an earlier report, from which files are linked or copied.

    Returns:
        Files by digest; an image that is missing or cannot be decoded has a `fault` instead of files.

    Raises:
        OSError: The folder cannot be written (a full disk).
    """
    once: dict[str, tuple[ImageRef, Path | None]] = {}
    for ref, path in images:
        once.setdefault(ref.sha256, (ref, path))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda entry: _make(entry[0], entry[1], folder, earlier), once.values())
        return dict(zip(once, results, strict=True))


def _make(ref: ImageRef, path: Path | None, folder: Path, earlier: Path | None) -> ShownImage:
    if not _DIGEST.fullmatch(ref.sha256) or ref.format not in _ENDINGS:
        return ShownImage(fault=f"not a stored image ({ref.format})")
    if path is None:
        return ShownImage(fault="its file is not on this machine")
    try:
        weight = path.stat().st_size
    except OSError as error:
        return ShownImage(fault=f"its file cannot be read: {error.strerror or error}")
    small = f"{ref.sha256}.small.webp"
    copied = weight <= COPY_BELOW
    large = f"{ref.sha256}.{_ENDINGS[ref.format]}" if copied else f"{ref.sha256}.large.webp"
    shown = ShownImage(small, large, ref.width, ref.height)
    if earlier is not None and _take(earlier, folder, small) and _take(earlier, folder, large):
        return shown
    try:
        with Image.open(path, formats=tuple(_ENDINGS)) as opened:
            image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return ShownImage(fault=f"it cannot be decoded: {' '.join(str(error).split())[:160]}")
    _write(image, folder / small, SMALL, quality=82)
    if copied:
        shutil.copyfile(path, folder / large)
    else:
        _write(image, folder / large, LARGE, quality=90)
    return shown


def _write(image: Image.Image, path: Path, side: int, quality: int) -> None:
    reduced = image
    if max(image.size) > side:
        reduced = image.copy()
        reduced.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    reduced.save(path, "WEBP", quality=quality, method=3)


def _take(earlier: Path, folder: Path, name: str) -> bool:
    source, target = earlier / name, folder / name
    if target.exists():
        return True
    if not source.is_file() or source.is_symlink():
        return False
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return True
