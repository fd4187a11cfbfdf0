"""The file of a recording: one JSON line for each call with its answer, appended and never changed.

    {"format": "knowgen search recording", "version": 1, "backend": "serper"}
    {"call": ["search", "harrow boats", 5], "hits": [...]}
    {"call": ["image_search", "harrow boats", 5], "hits": [...]}
    {"call": ["open", "https://example.org/"], "page": {...}}
    {"call": ["open", "https://example.org/gone"], "error": {"kind": "data", "what": "…", "fix": "…"}}

Images are in the folder `FILE.images`, each named by the hash of its content. A recording may also be one zip file with
both: `FILE.zip`, with `FILE` and `FILE.images` in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import threading
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from knowgen.core.atomic import write_file
from knowgen.core.errors import ConfigError, DataError
from knowgen.core.images import UnreadableImageError, read_image_file
from knowgen.core.records import ImageRef
from knowgen.core.scratch import ScratchFolder
from knowgen.core.text import error_message, parse_json

FORMAT, VERSION = "knowgen search recording", 1

Call = tuple[str | int, ...]
"""A call: name of the method and its arguments."""

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")
_MAX_IMAGE, _MAX_FILE = 64 << 20, 4 << 30
"""Maximum sizes of the files in a zip file, in bytes once unpacked."""

_MAX_LINE = 64 << 20


def image_name(image: ImageRef) -> str:
    """Return the name of an image's file in a recording: its hash and format."""
    return f"{image.sha256}.{image.format.lower()}"


class Recording:
    """A recording that is read, and perhaps appended to. Several processes may append to one file.

    Args:
        path: The file, or a zip file of a recording.
        backend: Name of the backend that is recorded, for a file that does not exist yet; None to read only.

    Raises:
        DataError: The file does not exist, is not a recording, or a line of it is broken.
        ConfigError: It cannot be written.
    """

    def __init__(self, path: Path, backend: str | None = None) -> None:
        self.path = path
        self._backend = backend
        self._lock = threading.Lock()
        self._places: dict[Call, tuple[int, int]] = {}
        self._read_to = 0
        self._number = 0
        self._unpacked: ScratchFolder | None = None
        self._zip = path.suffix.lower() == ".zip" and path.is_file()
        if self._zip and backend is not None:
            raise ConfigError("is a zip file, which cannot be appended to", where=str(path), fix="name another file")
        with self._failing("cannot be read" if backend is None else "cannot be written"):
            self._file = self._opened(backend)

    @property
    def version(self) -> str:
        """Hash of the whole file, 12 hex digits. It names the images by their hashes, so it is that of everything."""
        digest = hashlib.sha256()
        with self._lock:
            self._file.seek(0)
            while block := self._file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:12]

    def __len__(self) -> int:
        """Return the number of recorded calls."""
        return len(self._places)

    def find(self, call: Call) -> dict[str, Any] | None:
        """Return the line of a call; None when it was not recorded."""
        with self._lock:
            place = self._places.get(call)
            if place is None:
                return None
            self._file.seek(place[0])
            return dict(parse_json(self._file.read(place[1])))

    def add(self, call: Call, answer: dict[str, Any]) -> dict[str, Any]:
        """Append a call with its answer, durably, and return its line.

        Where another process has recorded the call meanwhile, its line is returned and nothing is appended.

        Raises:
            ConfigError: The file cannot be written.
        """
        line = json.dumps({"call": call, **answer}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock, self._failing("cannot be written"):
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._read_new()
                if call not in self._places:
                    self._append(line)
                    self._read_new()
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        found = self.find(call)
        assert found is not None, "it was appended"
        return found

    def add_image(self, image: ImageRef) -> None:
        """Copy the file of an image into the recording.

        Raises:
            ConfigError: It cannot be written.
        """
        assert image.path is not None, "a hit has the file of its image"
        target = self._images / image_name(image)
        with self._failing("cannot be written"):
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, image.path.read_bytes())

    def image(self, stored: ImageRef) -> ImageRef:
        """Return an image with the path of its file.

        Raises:
            DataError: The file is missing, or is not the one that was recorded.
        """
        name = image_name(stored)
        where, fix = f"{self._images}/{name}", "copy the recording again, with the folder of its images"
        if not _NAME.fullmatch(name):
            raise DataError("is not the name of an image", where=where, fix=fix)
        try:
            path = self._unzipped(name) if self._zip else self._images / name
            data = read_image_file(path)
        except (OSError, StopIteration, zipfile.BadZipFile, UnreadableImageError) as error:
            raise DataError("the image of a recorded hit is missing", where=where, fix=fix) from error
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise DataError("the image of a recorded hit was changed", where=where, fix=fix)
        return stored.model_copy(update={"path": path})

    def close(self) -> None:
        """Close the file, and remove what was unpacked from a zip file."""
        with self._lock:
            self._file.close()
            if self._unpacked is not None:
                self._unpacked.close()

    @property
    def _images(self) -> Path:
        return self.path.with_name(f"{self.path.name}.images")

    def _opened(self, backend: str | None) -> IO[bytes]:
        if self._zip:
            self._unpacked = ScratchFolder("knowgen.recording.")
            weakref.finalize(self, self._unpacked.close)
            file: IO[bytes] = self._unzipped(self._main_member()).open("rb")
        elif backend is None:
            file = self.path.open("rb")
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        self._file = file
        if backend is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if backend is not None and not os.fstat(file.fileno()).st_size:
                header = {"format": FORMAT, "version": VERSION, "backend": backend}
                self._append(json.dumps(header).encode() + b"\n")
            self._read_new()
        except BaseException:
            file.close()
            raise
        finally:
            if backend is not None and not file.closed:
                fcntl.flock(file, fcntl.LOCK_UN)
        return file

    def _append(self, line: bytes) -> None:
        """Append a line, in the place of one that a killed process left incomplete."""
        if os.fstat(self._file.fileno()).st_size > self._read_to:
            self._file.truncate(self._read_to)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read_new(self) -> None:
        """Read the complete lines after those that were read."""
        self._file.seek(self._read_to)
        while (line := self._file.readline(_MAX_LINE)).endswith(b"\n"):
            self._number += 1
            call = self._call_of(line)
            if call:
                self._places.setdefault(call, (self._read_to, len(line)))
            self._read_to += len(line)
        if len(line) == _MAX_LINE or (not self._number and self._backend is None):
            raise self._broken("is not a recording")

    def _call_of(self, line: bytes) -> Call:
        """Return the call of a line; empty for the first line, which has none."""
        try:
            row = parse_json(line)
        except ValueError as error:
            raise self._broken("is not JSON") from error
        if self._number == 1:
            if not isinstance(row, dict) or row.get("format") != FORMAT:
                raise self._broken("is not a recording")
            if row.get("version") != VERSION:
                raise self._broken(f"is a recording of version {row.get('version')}, and {VERSION} is known")
            if self._backend is not None and row.get("backend") != self._backend:
                raise ConfigError(
                    f"has the answers of the backend {row.get('backend')}, and not of {self._backend}",
                    where=str(self.path),
                    fix="name another file",
                )
            return ()
        call = row.get("call") if isinstance(row, dict) else None
        if not isinstance(call, list) or not call or not all(isinstance(part, str | int) for part in call):
            raise self._broken("has no call")
        return tuple(call)

    def _broken(self, what: str) -> DataError:
        return DataError(what, where=f"{self.path}:{self._number or 1}", fix="name a file that record:FILE wrote")

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Turn errors of the file system into one line."""
        try:
            yield
        except FileNotFoundError as error:
            raise DataError("the file does not exist", where=str(self.path), fix="check the path") from error
        except (OSError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or error_message(error)
            raise ConfigError(f"{what}: {reason}", where=str(self.path), fix="check the file and its folder") from error

    def _main_member(self) -> str:
        """Return the name of the recording's own file in a zip file."""
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not _NAME.fullmatch(_last(name))]
        if len(names) != 1:
            raise DataError(
                f"the zip file has {len(names)} files beside the images, and a recording is one",
                where=str(self.path),
                fix="pack the file of a recording and the folder of its images",
            )
        return names[0]

    def _unzipped(self, name: str) -> Path:
        """Unpack a file, under a name of ours; what the archive says about paths is not used."""
        assert self._unpacked is not None
        target = self._unpacked.path / (_last(name) if _NAME.fullmatch(_last(name)) else "recording.jsonl")
        if target.exists():
            return target
        limit = _MAX_IMAGE if _NAME.fullmatch(_last(name)) else _MAX_FILE
        with zipfile.ZipFile(self.path) as archive:
            member = next(one for one in archive.infolist() if _last(one.filename) == _last(name))
            with archive.open(member) as source, target.with_suffix(".part").open("wb") as file:
                while block := source.read(1 << 20):
                    file.write(block)
                    if file.tell() > limit:
                        raise DataError(f"is larger than {limit >> 20} MiB", where=f"{self.path}/{name}")
        target.with_suffix(".part").replace(target)
        return target


def _last(name: str) -> str:
    """Return the last part of a path in a zip file."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]
