"""Pictures that were drawn elsewhere: a folder of files named by sample id, or another run directory."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from knowgen.core.errors import DataError
from knowgen.core.images import UnreadableImageError, inspect_image
from knowgen.core.records import Generation, GenerationStatus, ImageRef
from knowgen.core.spec import fingerprint
from knowgen.store.run import RunStore

PICTURE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp"})
SMALLEST_SIDE = 2
"""Pixels; a picture with a shorter side is a blank that stands for nothing."""

_REPEAT = re.compile(r"(?P<id>.+)[_/](?P<repeat>[0-9]{1,6})")


@dataclass(frozen=True)
class ImageSource:
    """What a source has for one sample and repeat.

    Attributes:
        path: The picture's file when the status is ok, else None.
        status: ok, failed or refused; not_run where another run has not drawn it yet.
        reason: Why, when the status is not ok; names the file.
        generation: The stored drawing, from a run directory; brings prompt, references, evidence and settings along.
    """

    path: Path | None
    status: GenerationStatus
    reason: str = ""
    generation: Generation | None = None


def failed(reason: str) -> ImageSource:
    """Returns a drawing that is not there, with the reason."""
    return ImageSource(None, GenerationStatus.FAILED, reason)


def look_at(path: Path, shown: str) -> ImageSource:
    """Opens a picture file and reads all its pixels.

    Args:
        path: The file.
        shown: How messages name it.

    Returns:
        An ok entry, or a failed one that says why: missing, no picture, cut off, or without content.
    """
    try:
        picture_facts(path)
    except DataError as error:
        return failed(f"{shown}: {error.what}")
    return ImageSource(path, GenerationStatus.OK)


def picture_facts(path: Path) -> ImageRef:
    """Decodes a picture file and returns its record with the digest of its bytes and its path.

    Raises:
        DataError: It is missing, is no file, does not decode to its end, or is smaller than `SMALLEST_SIDE`.
    """
    if not path.is_file():  # also keeps away from pipes, which would wait forever
        raise DataError("is not a file" if path.exists() else "is missing", where=str(path))
    try:
        facts = inspect_image(path)
    except UnreadableImageError as error:
        raise DataError(f"does not open: {error.what}", where=str(path)) from error
    if min(facts.width, facts.height) < SMALLEST_SIDE:
        raise DataError(f"is only {facts.width}x{facts.height} pixels", where=str(path))
    return ImageRef(**asdict(facts), path=path)


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or a word when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


class FolderSource:
    """A folder whose file stems are sample ids; satisfies the engine's drawing source but for `ImageSource`.

    Repeat 0 of sample `a` is `a.png`, `a_0.png` or `a/0.png`, repeat 1 is `a_1.png` or `a/1.png`. A stem that is an id
    as it stands is always read so. Case of the extension does not matter; hidden files are passed over.

    Args:
        path: The folder.
        ids: All sample ids of the task.

    Raises:
        DataError: It is no folder, or two files answer the same sample and repeat.

    Attributes:
        name: Name of the folder.
        unknown: Pictures that answer no sample, as relative paths, sorted.
        found: Number of pictures that answer one.
        repeats: One more than the highest repeat that was found, at least 1.
    """

    def __init__(self, path: Path, ids: Iterable[str]) -> None:
        if not path.is_dir():
            raise DataError("is no folder", where=str(path))
        self.path = path
        self.name = path.resolve().name
        self._known = {unicodedata.normalize("NFC", sample_id): sample_id for sample_id in ids}
        self._files: dict[tuple[str, int], str] = {}
        unknown: list[str] = []
        for relative in sorted(_picture_files(path)):
            place = self._place(relative)
            if place is None:
                unknown.append(relative)
            elif place in self._files:
                raise DataError(
                    f"{_shown(self._files[place])} and {_shown(relative)} both answer sample {place[0]!r}"
                    + (f", repeat {place[1]}" if place[1] else ""),
                    where=str(path),
                    fix="remove one of them",
                )
            else:
                self._files[place] = relative
        self.unknown = tuple(unknown)
        self.found = len(self._files)
        self.repeats = 1 + max((repeat for _, repeat in self._files), default=0)

    def _place(self, relative: str) -> tuple[str, int] | None:
        stem = unicodedata.normalize("NFC", relative.rpartition(".")[0])
        if stem in self._known:
            return self._known[stem], 0
        numbered = _REPEAT.fullmatch(stem)
        if numbered and numbered["id"] in self._known:
            return self._known[numbered["id"]], int(numbered["repeat"])
        return None

    @cached_property
    def revision(self) -> str:
        """Hash over the pictures that answer samples: another picture is another source."""
        content = [[*place, file_digest(self.path / name)] for place, name in sorted(self._files.items())]
        return fingerprint(content)[:12]

    def generation(self, sample_id: str, repeat: int) -> ImageSource:
        """Returns the picture of a sample and repeat, or why there is none."""
        relative = self._files.get((sample_id, repeat))
        if relative is None:
            which = f", repeat {repeat}" if repeat else ""
            return failed(f"no picture for sample {sample_id!r}{which} in {_shown(self.name)}")
        return look_at(self.path / relative, _shown(relative))


def _picture_files(root: Path) -> list[str]:
    """Returns the relative paths of all picture files, without following linked folders."""
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_EXTENSIONS:
                found.append((Path(folder) / name).relative_to(root).as_posix())
    return found


def _shown(name: str) -> str:
    """Returns a file name on one line, as text that can be stored and printed."""
    clean = name.encode("utf-8", "backslashreplace").decode()
    return clean if clean.isprintable() and clean.strip() else repr(clean)


class RunSource:
    """The drawings of another run directory; a context manager.

    Args:
        path: The run directory.

    Raises:
        DataError: It is no run directory, or damaged.

    Attributes:
        name: The generator of that run.
        revision: Hash of what that run was bound to.
        store: The run, opened for reading.
    """

    def __init__(self, path: Path) -> None:
        self.store = RunStore.read(path)
        self.path = path
        self.name = self.store.spec.generator.name
        self.revision = fingerprint(self.store.spec.directory_identity())[:12]

    def close(self) -> None:
        """Closes the run."""
        self.store.close()

    def __enter__(self) -> RunSource:
        """Returns the source itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the run."""
        self.close()

    def generation(self, sample_id: str, repeat: int) -> ImageSource:
        """Returns the drawing of a sample and repeat with its status there, or why there is none."""
        generation = self.store.drawn(sample_id, repeat)
        if generation is None or generation.status is GenerationStatus.NOT_RUN:
            reason = f"{self.path} has no drawing of sample {sample_id!r}, repeat {repeat}"
            return ImageSource(None, GenerationStatus.NOT_RUN, reason)  # it never failed, so nothing may count it so
        if generation.image is None:
            return ImageSource(None, generation.status, generation.reason, generation)
        if not self.store.image_ok(generation.image):
            file = self.store.image_path(generation.image)
            reason = f"{file}: is missing or damaged"
            return ImageSource(None, GenerationStatus.FAILED, reason, generation)
        return ImageSource(generation.image.path, generation.status, generation.reason, generation)
