"""Pictures by content: images/ab/<sha256>.png. A file is complete from the moment it has its name."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
from pathlib import Path

from knowgen.core.errors import ConfigError, DataError, KnowgenError
from knowgen.core.records import ImageRef

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""File name extensions by Pillow's name of the format."""

_PARTS = ".part"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImageFolder:
    """The pictures of a run.

    A picture is written under a temporary name and renamed, so a killed process leaves no half file under a digest.
    There is no fsync: after a power cut a file may be empty, which `ok` finds, and the picture is drawn again.

    Args:
        root: The folder `images` of a run directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[str] = set()
        self._numbers = itertools.count()

    def path(self, ref: ImageRef) -> Path:
        """Returns where a picture lies, whether or not it is there.

        Raises:
            DataError: The digest is no SHA-256, or the format is none of `EXTENSIONS`.
        """
        return Path(self._name(ref.sha256, ref.format))

    def _name(self, digest: str, kind: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise DataError(f"{digest[:80]!r} is no SHA-256 digest", where="picture record")
        if kind not in EXTENSIONS:
            raise DataError(f"format {kind[:40]!r} is none of {', '.join(EXTENSIONS)}", where=f"picture {digest[:12]}")
        return f"{self.root}/{digest[:2]}/{digest}.{EXTENSIONS[kind]}"

    def put(self, data: bytes, *, width: int, height: int, format: str) -> ImageRef:
        """Stores a picture; safe to call from several threads.

        Args:
            data: The bytes of the file.
            width: Pixels.
            height: Pixels.
            format: PNG, JPEG or WEBP.

        Returns:
            Its record, with the path filled in.

        Raises:
            DataError: The disk is full, or the format is not known.
            ConfigError: The folder cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = self._name(digest, format)
        if not _holds(name, data):
            try:
                self._write(name, digest[:2], data)
            except OSError as error:
                raise explain_os_error(error, self.root.parent) from error
        return ImageRef(sha256=digest, width=width, height=height, format=format, path=Path(name))

    def _write(self, name: str, prefix: str, data: bytes) -> None:
        if prefix not in self._made:
            for folder in (_PARTS, prefix):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(prefix)
        part = f"{self.root}/{_PARTS}/{os.getpid()}-{next(self._numbers)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
            os.rename(part, name)  # noqa: PTH104 - once a picture, in a hot path
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise

    def ok(self, ref: ImageRef) -> bool:
        """Tells whether a picture is there and its bytes hash to its name."""
        try:
            data = self.path(ref).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == ref.sha256

    def sweep(self) -> None:
        """Removes what a killed writer left half written; only for the process that holds the run."""
        shutil.rmtree(self.root / _PARTS, ignore_errors=True)


def _holds(name: str, data: bytes) -> bool:
    """Tells whether a file already has exactly these bytes."""
    try:
        with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast as Path.open, once a picture
            return file.read(len(data) + 1) == data
    except OSError:
        return False


def explain_os_error(error: OSError, where: Path) -> KnowgenError:
    """Turns a failed write into one line that says what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DataError(
            f"the disk is full ({error.strerror})",
            where=str(where),
            fix="free some space and run the same command again: what was committed is kept",
        )
    return ConfigError(
        f"cannot be written ({error.strerror})", where=str(where), fix="mend its permissions or choose another --out"
    )
