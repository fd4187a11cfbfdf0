"""Images of a report: a small WebP of each for the page and a larger one to open, made in threads.

Names come from the content of the original, so a image that is there from an earlier report is not made again, and
the same image under many samples is made once.
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
"""Originals of at most this many bytes are copied as they are; heavier ones are drawn anew at `LARGE` pixels."""

RECIPE = f"webp-{SMALL}-{LARGE}-1"
"""Name the way images are made; images of an earlier report are reused only under the same recipe."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True)
class ShownImage:
    """A image as the page shows it.

    Attributes:
        small: File name under `img/`, empty when there is a fault.
        large: File name under `img/` of the one to open.
        width: Pixels of the original.
        height: Pixels of the original.
        fault: Why it cannot be shown, empty when it can.
    """

    small: str = ""
    large: str = ""
    width: int = 0
    height: int = 0
    fault: str = ""


def make_images(
    wanted: Iterable[tuple[ImageRef, Path | None]], folder: Path, earlier: Path | None = None
) -> dict[str, ShownImage]:
    """Make what the page shows of each image.

    Args:
        wanted: Each image and where its file lies, None when that is not on this
            machine; repeated digests are made once.
        folder: Folder to write to; it must exist.
        earlier: Folder of an earlier report, from which finished images are linked or copied.

    Returns:
        By digest; a image that is missing or does not decode has a `fault` instead of files.

    Raises:
        OSError: The folder cannot be written (a full disk).
    """
    once: dict[str, tuple[ImageRef, Path | None]] = {}
    for ref, path in wanted:
        once.setdefault(ref.sha256, (ref, path))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda entry: _make(entry[0], entry[1], folder, earlier), once.values())
        return dict(zip(once, made, strict=True))


def _make(ref: ImageRef, path: Path | None, folder: Path, earlier: Path | None) -> ShownImage:
    if not _DIGEST.fullmatch(ref.sha256) or ref.format not in _ENDINGS:
        return ShownImage(fault=f"its record is not that of a stored image ({ref.format})")
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
        return ShownImage(fault=f"it does not decode: {' '.join(str(error).split())[:160]}")
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
