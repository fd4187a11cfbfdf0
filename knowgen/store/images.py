"""Images by content: images/ab/<sha256>.png. A file is complete as soon as it exists under this name."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
from pathlib import Path

from knowgen.core.errors import DataError
from knowgen.core.records import ImageRef
from knowgen.store.files import explain_os_error

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""File extensions by Pillow format name."""

_PARTS = ".part"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImageFolder:
    """The images of a run.

    An image is written under a temporary name and renamed, so a killed process leaves no partial file under a digest.
    Files are not flushed with fsync: after a power failure a file may be empty. `ok` detects it, and the image is
    generated again.

    Args:
        root: The folder `images` of a run directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._created: set[str] = set()
        self._folders: dict[str, Path] = {}
        self._numbers = itertools.count()

    def path(self, ref: ImageRef) -> Path:
        """Return the path of an image, whether or not the file exists.

        Raises:
            DataError: The digest is not a SHA-256, or the format is not one of `EXTENSIONS`.
        """
        name = self._name(ref.sha256, ref.format)
        folder = self._folders.get(ref.sha256[:2])
        if folder is None:  # a path is parsed once per folder, because a report asks for those of all images
            folder = self._folders[ref.sha256[:2]] = self.root / ref.sha256[:2]
        return folder / name.rpartition("/")[2]

    def _name(self, digest: str, format: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise DataError(f"{digest[:80]!r} is not a SHA-256 digest", where="image record")
        if format not in EXTENSIONS:
            names = ", ".join(EXTENSIONS)
            raise DataError(f"format {format[:40]!r} is not one of {names}", where=f"image {digest[:12]}")
        return f"{self.root}/{digest[:2]}/{digest}.{EXTENSIONS[format]}"

    def put(self, data: bytes, *, width: int, height: int, format: str) -> ImageRef:
        """Store an image. Thread-safe.

        Args:
            data: Content of the image file.
            width: Width in pixels.
            height: Height in pixels.
            format: PNG, JPEG or WEBP.

        Returns:
            The image's record, with its path.

        Raises:
            DataError: The disk is full, or the format is unknown.
            ConfigError: The folder cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = self._name(digest, format)
        if not _has_content(name, data):
            try:
                self._write(name, digest[:2], data)
            except OSError as error:
                raise explain_os_error(error, self.root.parent) from error
        return ImageRef(sha256=digest, width=width, height=height, format=format, path=Path(name))

    def take(self, ref: ImageRef, path: Path) -> ImageRef | None:
        """Store an image of another run: as a hard link if possible, else as a copy.

        Args:
            ref: Record of the image.
            path: Its file in the other run.

        Returns:
            The record with the path of the stored file; None if the file is missing or has other content.

        Raises:
            DataError: The disk is full.
            ConfigError: The folder cannot be written.
        """
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            return None
        target = self.path(ref)
        if not _linked(path, target):
            return self.put(data, width=ref.width, height=ref.height, format=ref.format)
        return ref.model_copy(update={"path": target})

    def _write(self, name: str, prefix: str, data: bytes) -> None:
        if prefix not in self._created:
            for folder in (_PARTS, prefix):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._created.add(prefix)
        part = f"{self.root}/{_PARTS}/{os.getpid()}-{next(self._numbers)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
            os.rename(part, name)  # noqa: PTH104 - once per image, in a hot path
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise

    def ok(self, ref: ImageRef) -> bool:
        """Return whether an image exists and its bytes match its digest."""
        try:
            data = self.path(ref).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == ref.sha256

    def sweep(self) -> None:
        """Remove partial files of a killed writer; only for the process that holds the run's lock."""
        shutil.rmtree(self.root / _PARTS, ignore_errors=True)


def _linked(path: Path, target: Path) -> bool:
    """Return whether a hard link could be made; an existing target is checked by the copy instead."""
    with contextlib.suppress(OSError):  # another file system, or one without hard links
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
        return True
    return False


def _has_content(name: str, data: bytes) -> bool:
    """Return whether a file exists with exactly these bytes."""
    try:
        with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast as Path.open, once per image
            return file.read(len(data) + 1) == data
    except OSError:
        return False
