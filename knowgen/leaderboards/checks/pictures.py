"""The image files of a submission: each is what its name and the result say it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.images import (
    MAX_PIXELS,
    UnreadableImageError,
    inspect_image,
    open_image,
    open_rgb,
    read_image_file,
)
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.content import named
from knowgen.leaderboards.checks.files import IMAGE_NAME
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.checks.hashes import bits_apart
from knowgen.leaderboards.folder import IMAGES, RESULT_FILE
from knowgen.leaderboards.images import THUMBNAIL_SIDE
from knowgen.leaderboards.records import SubmissionResult, SubmittedImage
from knowgen.search.leaks import MAX_DISTANCE, perceptual_hash

if TYPE_CHECKING:
    from PIL.Image import Image

SAME_FILE = 8
"""Bits by which the perceptual hash of one file may differ between versions of the libraries that open it."""

_FIX = "make the submission again with `knowgen board add`"


def check_images(result: SubmissionResult, folder: Path) -> Iterator[BoardFinding]:
    """Yield image files that are missing, are not named in the result, or show something else than it says.

    Args:
        result: Result of the submission.
        folder: Folder of the revision.
    """
    path = folder / IMAGES
    there = {each.name for each in path.iterdir()} if path.is_dir() and not path.is_symlink() else set()
    wanted: dict[str, tuple[str, SubmittedImage]] = {}
    for sample in result.samples:
        for generation in sample.generations:
            image = generation.image
            if image is None:
                continue
            where = f"{RESULT_FILE}, sample {one_line(sample.id, 60)!r}"
            if image.file and image.file.partition(".")[0] != image.sha256:
                yield error("images", where, "the name of its file is not the hash of the image", _FIX)
            for name in filter(None, (image.file, f"{image.thumbnail}.jpg" if image.thumbnail else "")):
                wanted.setdefault(name, (sample.id, image))
    if missing := sorted(wanted.keys() - there):
        what = f"{count(len(missing), 'file')} named in {RESULT_FILE} missing: {named(missing)}"
        yield error("images", IMAGES, what, "add them, or make the submission without images")
    if unknown := sorted(name for name in there - wanted.keys() if IMAGE_NAME.fullmatch(name)):
        what = f"{count(len(unknown), 'file')} that {RESULT_FILE} does not name: {named(unknown)}"
        yield error("images", IMAGES, what, "remove them")
    for name in sorted(there & wanted.keys()):
        sample_id, image = wanted[name]
        yield from _check_image(path / name, image, f"sample {one_line(sample_id, 60)!r}")


def _check_image(path: Path, image: SubmittedImage, sample: str) -> Iterator[BoardFinding]:
    where = f"{IMAGES}/{path.name}"
    if path.is_symlink() or not path.is_file():
        return  # reported with the files
    try:
        data = read_image_file(path)
        if hashlib.sha256(data).hexdigest() != path.stem:
            what = f"the content is not that of its name: it was changed ({sample})"
            yield error("images", where, what, "restore the file, or make the submission again")
            return
        full = path.name == image.file
        yield from (_check_full if full else _check_thumbnail)(data, image, where, sample)
    except UnreadableImageError as fault:
        yield error("images", where, f"does not open: {fault.what} ({sample})", _FIX)


def _check_full(data: bytes, image: SubmittedImage, where: str, sample: str) -> Iterator[BoardFinding]:
    facts = inspect_image(data, max_pixels=min(MAX_PIXELS, image.width * image.height))
    if (facts.width, facts.height, facts.format) != (image.width, image.height, image.format):
        there = f"{facts.width}x{facts.height} {facts.format}"
        what = f"is {there}, {RESULT_FILE} says {image.width}x{image.height} {one_line(image.format, 20)} ({sample})"
        yield error("images", where, what, _FIX)
    yield from _check_look(
        open_rgb(data), image, where, sample, SAME_FILE, "its perceptual hash is not the claimed one"
    )


def _check_thumbnail(data: bytes, image: SubmittedImage, where: str, sample: str) -> Iterator[BoardFinding]:
    small = open_image(data, formats=("JPEG",), max_pixels=THUMBNAIL_SIDE**2).image
    yield from _check_look(small, image, where, sample, MAX_DISTANCE, "does not look like the image")


def _check_look(
    pixels: Image, image: SubmittedImage, where: str, sample: str, most: int, what: str
) -> Iterator[BoardFinding]:
    distance = bits_apart(perceptual_hash(pixels).tobytes(), bytes.fromhex(image.perceptual))
    if distance > most:
        yield error("images", where, f"{what} ({sample}): {distance} of 256 bits differ, at most {most} may", _FIX)
