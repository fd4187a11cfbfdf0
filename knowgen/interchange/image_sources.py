"""Existing images as a source: a folder of files named by sample id, or another run directory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from knowgen.core.errors import DataError
from knowgen.core.images import UnreadableImageError, inspect_image
from knowgen.core.records import Generation, GenerationStatus, ImageRef
from knowgen.core.sample_ids import comparable_id
from knowgen.core.spec import fingerprint
from knowgen.core.text import count, one_line
from knowgen.interchange.name_pattern import NamePattern
from knowgen.interchange.recorded_images import IMAGE_EXTENSIONS, listed
from knowgen.store.run import RunStore

MIN_SIDE = 2
"""Minimum width and height in pixels; a smaller image is a placeholder without content."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_RESOURCE_FORKS = "__MACOSX"
_REPEAT = re.compile(r"(?P<id>.+)[_/](?P<repeat>[0-9]{1,6})")


@dataclass(frozen=True)
class SourceImage:
    """The image of a source for one sample and repeat, or the reason why there is none.

    Attributes:
        path: The image file if the status is ok, else None.
        status: ok, failed or refused; not_run if the other run has not generated it yet.
        reason: Why the status is not ok; names the file.
        generation: The generation of a run directory, with its prompt, references, evidence and settings.
    """

    path: Path | None
    status: GenerationStatus
    reason: str = ""
    generation: Generation | None = None


def no_image(reason: str) -> SourceImage:
    """Return a failed entry with its reason."""
    return SourceImage(None, GenerationStatus.FAILED, reason)


def source_image(path: Path, name: str) -> SourceImage:
    """Return the entry of an image file, after decoding it completely.

    Args:
        path: The file.
        name: Name of the file in the reason.

    Returns:
        An ok entry, or a failed one with the reason: missing, not an image, truncated, or without content.
    """
    try:
        image_facts(path)
    except DataError as error:
        return no_image(f"{name}: {error.what}")
    return SourceImage(path, GenerationStatus.OK)


def image_facts(path: Path) -> ImageRef:
    """Decode an image file and return its record, with the digest of its bytes and its path.

    Raises:
        DataError: The file is missing, not a regular file, not a complete image, or smaller than `MIN_SIDE`.
    """
    try:
        if not path.is_file():  # also excludes pipes, on which reading would block
            raise DataError("is not a file" if path.exists() else "is missing", where=str(path))
    except (OSError, ValueError) as error:
        raise DataError("is not a valid file name", where=one_line(path)) from error
    try:
        facts = inspect_image(path)
    except UnreadableImageError as error:
        raise DataError(f"does not open: {error.what}", where=str(path)) from error
    if min(facts.width, facts.height) < MIN_SIDE:
        raise DataError(f"is only {facts.width}x{facts.height} pixels", where=str(path))
    return ImageRef(**asdict(facts), path=path)


def digest_or_unreadable(path: Path) -> str:
    """Return the SHA-256 of a file, or `unreadable`; a device or a pipe, which may have no end, is not read."""
    try:
        if not path.is_file():
            return "unreadable"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # also a path that is not a valid file name
        return "unreadable"


class FolderSource:
    """A folder of images whose file names contain sample ids.

    Without a pattern, repeat 0 of sample `a` is `a.png`, `a_0.png` or `a/0.png`; repeat 1 is `a_1.png` or `a/1.png`. A
    stem that equals an id is always that id. Ids are compared in Unicode normal form C; the case of the extension does
    not matter. Hidden files and files of operating systems, such as `Thumbs.db`, are ignored.

    Args:
        path: The folder.
        ids: All sample ids of the task.
        pattern: Pattern of the file names, see `knowgen.interchange.name_pattern`.

    Raises:
        DataError: The path is not a folder, or two files are for the same sample and repeat.

    Attributes:
        name: Name of the folder.
        unknown: Images that are for no sample, as relative paths, sorted.
        others: Files that are not images by their extension, as relative paths, sorted.
        links: Linked folders, which are not followed, as relative paths, sorted.
        count: Number of images that are for a sample.
        missing: Samples without any image.
        repeats: One more than the highest repeat, at least 1.
    """

    def __init__(self, path: Path, ids: Iterable[str], pattern: NamePattern | None = None) -> None:
        if not path.is_dir():
            raise DataError("not a folder", where=str(path))
        self.path = path
        self.name = path.resolve().name
        self._pattern = pattern
        self.ids = {comparable_id(sample_id): sample_id for sample_id in ids}
        self._files: dict[tuple[str, int], str] = {}
        unknown: list[str] = []
        images, self.others, self.links = _files(path)
        for relative in images:
            place = self._place(relative)
            if place is None:
                unknown.append(relative)
            elif place in self._files:
                raise self._double(place, relative)
            else:
                self._files[place] = relative
        self.unknown = tuple(unknown)
        self.count = len(self._files)
        with_image = {sample_id for sample_id, _ in self._files}
        self.missing = tuple(sample_id for sample_id in self.ids.values() if sample_id not in with_image)
        self.repeats = 1 + max((repeat for _, repeat in self._files), default=0)

    def _double(self, place: tuple[str, int], relative: str) -> DataError:
        several = self._pattern is not None and "{repeat}" not in self._pattern.text
        return DataError(
            f"{_printable(self._files[place])} and {_printable(relative)} are both for sample {place[0]!r}"
            + (f", repeat {place[1]}" if place[1] else ""),
            where=str(self.path),
            fix="remove one of them" + (", or write {repeat} in the pattern" if several else ""),
        )

    def _place(self, relative: str) -> tuple[str, int] | None:
        if self._pattern is not None:
            return self._pattern.match(relative, self.ids)
        stem = comparable_id(relative.rpartition(".")[0])
        if stem in self.ids:
            return self.ids[stem], 0
        numbered = _REPEAT.fullmatch(stem)
        if numbered and numbered["id"] in self.ids:
            return self.ids[numbered["id"]], int(numbered["repeat"])
        return None

    @cached_property
    def revision(self) -> str:
        """Hash of the images that belong to samples, so that a changed image is another source."""
        content = [[*place, digest_or_unreadable(self.path / name)] for place, name in sorted(self._files.items())]
        return fingerprint(content)[:12]

    def generation(self, sample_id: str, repeat: int) -> SourceImage:
        """Return the image of a sample and repeat; one that the folder does not have is not run."""
        relative = self._files.get((sample_id, repeat))
        if relative is None:
            which = f", repeat {repeat}" if repeat else ""
            reason = f"no image for sample {sample_id!r}{which} in {_printable(self.name)}"
            return SourceImage(None, GenerationStatus.NOT_RUN, reason)
        return source_image(self.path / relative, _printable(relative))

    def passed_over(self) -> str:
        """Return what the folder has besides the images of samples, for a message; empty if there is nothing."""
        parts = [
            f"{count(len(self.unknown), 'image')} of no sample ({listed(self.unknown)})" if self.unknown else "",
            f"{count(len(self.others), 'other file')} ({listed(self.others)})" if self.others else "",
            f"{count(len(self.links), 'linked folder')}, not followed ({listed(self.links)})" if self.links else "",
        ]
        return ", ".join(part for part in parts if part)


def _files(root: Path) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Return the relative paths of images, of other files, and of linked folders, each sorted."""
    images: list[str] = []
    others: list[str] = []
    links: list[str] = []
    for folder, folders, names in os.walk(root):
        place = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".") and name != _RESOURCE_FORKS]
        links += [(place / name).relative_to(root).as_posix() for name in folders if (place / name).is_symlink()]
        for name in names:
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
                kind = images if Path(name).suffix.lower() in IMAGE_EXTENSIONS else others
                kind.append((place / name).relative_to(root).as_posix())
    return sorted(images), tuple(sorted(others)), tuple(sorted(links))


def _printable(name: str) -> str:
    """Return a file name as printable text on one line."""
    clean = name.encode("utf-8", "backslashreplace").decode()
    return clean if clean.isprintable() and clean.strip() else repr(clean)


class RunSource:
    """The images of another run directory; a context manager.

    Args:
        path: The run directory.

    Raises:
        DataError: It is not a run directory, or is damaged.

    Attributes:
        name: Generator of that run.
        revision: Hash of the parts of its specification that decide its images.
        store: The run, opened for reading.
    """

    def __init__(self, path: Path) -> None:
        self.store = RunStore.read(path)
        self.path = path
        self.name = self.store.spec.generator_names
        self.revision = fingerprint(self.store.spec.directory_identity())[:12]

    def close(self) -> None:
        """Close the run."""
        self.store.close()

    def __enter__(self) -> RunSource:
        """Return the source itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run."""
        self.close()

    def generation(self, sample_id: str, repeat: int) -> SourceImage:
        """Return the image of a sample and repeat with its status in that run, or the reason why there is none."""
        generation = self.store.latest_generation(sample_id, repeat)
        if generation is None or generation.status is GenerationStatus.NOT_RUN:
            reason = f"{self.path} has no generation of sample {sample_id!r}, repeat {repeat}"
            return SourceImage(None, GenerationStatus.NOT_RUN, reason)  # never attempted, so it is not a failure
        if generation.image is None:
            return SourceImage(None, generation.status, generation.reason, generation)
        if not self.store.image_ok(generation.image):
            file = self.store.image_path(generation.image)
            reason = f"{file}: is missing or damaged"
            return SourceImage(None, GenerationStatus.FAILED, reason, generation)
        return SourceImage(generation.image.path, generation.status, generation.reason, generation)
