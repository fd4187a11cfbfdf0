"""Image files of a report: for each image a small WebP for the page and a larger file to open.

A few images are written by threads, many by worker processes.

File names contain the digest of the original. Files of an earlier report are therefore reused, and an image that many
samples share is written once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from PIL import Image

from knowgen.core.images import OPENING_VERSION, UnreadableImageError, open_image
from knowgen.core.records import ImageRef
from knowgen.core.steps import counted
from knowgen.report.worker_pool import image_workers

SMALL = 512
LARGE = 1600
COPY_BELOW = 400_000
"""Originals of at most this many bytes are copied, if every browser shows them as they were scored (`_ENDINGS`, without
notes of `open_image`); others are re-encoded with at most `LARGE` pixels a side.
"""

MAX_WORKERS = 8
"""Maximum number of threads or processes that write images."""

IN_PROCESSES_FROM = 400
"""Number of images from which they are written by processes: it pays for their start, of about half a second."""

RECIPE = f"webp-{SMALL}-{LARGE}-{OPENING_VERSION}"
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

    @property
    def stem(self) -> str:
        """What the names of both files begin with."""
        return self.small.partition(".")[0]


def image_of(digest: str, shown: Mapping[str, ShownImage]) -> ShownImage:
    """Return an image of the page by its digest; one with a fault if its file is not in the run."""
    return shown.get(digest, ShownImage(fault="its file is not in the run directory"))


def image_entry(digest: str, shown: Mapping[str, ShownImage]) -> dict[str, Any]:
    """Return the files of an image for the scripts of a page, or why it cannot be shown."""
    image = image_of(digest, shown)
    if image.fault:
        return {"fault": image.fault}
    return {"small": image.small, "large": image.large, "width": image.width, "height": image.height}


def make_images(
    images: Iterable[tuple[ImageRef, Path | None]],
    folder: Path,
    earlier: Path | None = None,
    *,
    large: bool = True,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, ShownImage]:
    """Write the files of each image.

    Args:
        images: Each image with the path of its file, None if it is not on this machine; repeated digests are written
            once.
        folder: Existing folder to write to.
        earlier: Image folder of an earlier report, from which files are linked or copied.
        large: Whether the larger file is written; without it, its name is empty.
        meanwhile: What this thread does while the files are written.

    Returns:
        Files by digest; an image that is missing or cannot be decoded has a `fault` instead of files.

    Raises:
        OSError: The folder cannot be written (a full disk).
        DataError: A worker process ended before its time.
    """
    once: dict[str, tuple[ImageRef, Path | None]] = {}
    for ref, path in images:
        once.setdefault(ref.sha256, (ref, path))
    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    made: Iterable[ShownImage]
    with contextlib.ExitStack() as stack:
        if workers > 1 and len(once) >= IN_PROCESSES_FROM:
            started = image_workers(list(once.values()), folder, earlier, large=large, workers=workers)
            made = starmap(ShownImage, stack.enter_context(started))
        else:
            pool = stack.enter_context(ThreadPoolExecutor(workers))
            made = pool.map(lambda one: make_image(one[0], one[1], folder, earlier, with_large=large), once.values())
        meanwhile()
        return dict(zip(once, counted(made, "writing images", len(once)), strict=True))


def make_image(ref: ImageRef, path: Path | None, folder: Path, earlier: Path | None, *, with_large: bool) -> ShownImage:
    """Write the files of one image; see `make_images`."""
    if not _DIGEST.fullmatch(ref.sha256):
        return ShownImage(fault="not a stored image")
    if path is None:
        return ShownImage(fault="its file is not on this machine")
    try:
        weight = path.stat().st_size
    except OSError as error:
        return ShownImage(fault=f"its file cannot be read: {error.strerror or error}")
    small = f"{ref.sha256}.small.webp"
    encoded, copied = f"{ref.sha256}.large.webp", f"{ref.sha256}.{_ENDINGS.get(ref.format, 'webp')}"
    if earlier is not None and _take(earlier, folder, small):
        for large in (copied, encoded):
            if _take(earlier, folder, large):
                return ShownImage(small, large, ref.width, ref.height)
    try:
        opened = open_image(path)
    except UnreadableImageError as error:
        return ShownImage(fault=f"it cannot be decoded: {error.what}")
    image = opened.image
    _write(image, folder / small, SMALL, quality=82)
    if not with_large:
        return ShownImage(small, "", image.width, image.height)
    if weight <= COPY_BELOW and opened.format in _ENDINGS and not opened.notes:
        large = f"{ref.sha256}.{_ENDINGS[opened.format]}"
        shutil.copyfile(path, folder / large)
    else:
        large = encoded
        _write(image, folder / large, LARGE, quality=90)
    return ShownImage(small, large, image.width, image.height)


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
