"""A task kept in a folder: `task.yaml`, `samples.jsonl`, `truth.jsonl` and pictures.

    task.yaml       name, version, description, default_scorers, search (name of a backend that serves this folder)
    samples.jsonl   one sample a line
    truth.jsonl     one ground truth a line, with `image_file`, the relative path of its picture
    text_required.json  where it is there: which prompts ask for written text, as `knowgen task annotate` froze it

Samples and truths are apart, so that a generator's side of a run can be shown to work with the truth moved away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, Sample
from knowgen.tasks.text_labels.labels import TEXT_FILE, FrozenText, read_frozen

TASK_FILE = "task.yaml"
SAMPLES_FILE = "samples.jsonl"
TRUTH_FILE = "truth.jsonl"
SEARCH_FILES = ("pages.jsonl", "pictures.jsonl")


_DIGESTS: dict[Path, tuple[int, int, str]] = {}
"""Size, time of change and digest of the pictures that were read in this process, so that each is hashed once."""


class ImageMismatchError(DataError):
    """A ground-truth picture is not the one that is recorded.

    Attributes:
        truth: The ground truth as recorded, its picture with the path of the other one.
    """

    truth: GroundTruth


class TaskFile(BaseModel):
    """The content of `task.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    version: str = "1"
    description: str = ""
    license: str = ""
    default_scorers: tuple[str, ...] = ()
    search: str = ""
    seed: int | None = None


def one_line(error: ValidationError) -> str:
    """Returns the first complaint of pydantic as `field: what`, with the number of further ones."""
    first, more = error.errors()[0], len(error.errors()) - 1
    place = ".".join(str(part) for part in first["loc"]) or "record"
    return f"{place}: {first['msg']}" + (f" (and {more} more)" if more else "")


def read_task_file(path: Path) -> TaskFile:
    """Reads `task.yaml`.

    Raises:
        DataError: It is missing, is no YAML, or has a wrong or unknown field.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            "there is no task here", where=str(path), fix="name a task, or a folder made by `knowgen world build`"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it is not UTF-8 text"
        raise DataError(f"broken YAML: {problem}", where=where, fix="mend that line") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not isinstance(data, dict):
        raise DataError("must hold fields such as `name: my_task`", where=str(path))
    try:
        return TaskFile.model_validate(data)
    except ValidationError as error:
        raise DataError(one_line(error), where=str(path), fix="mend that field") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise DataError("is missing", where=str(path), fix="build or fetch the task again") from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=str(path)) from error


class FolderTask:
    """A task read from a folder; see the module's docstring for its files.

    Args:
        path: The folder.
        name: How users call it; the name in `task.yaml` when empty.

    Raises:
        DataError: `task.yaml` is missing or wrong.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.file = read_task_file(path / TASK_FILE)
        self.name = name or self.file.name
        self.description = self.file.description
        self.default_scorers = self.file.default_scorers
        self.search = f"{self.file.search}:{path}" if self.file.search else ""

    @cached_property
    def version(self) -> str:
        """The version with the hash of samples, truths and frozen answers, such as `1-3f2a9c0d1b2e`."""
        frozen = (TEXT_FILE,) if (self.path / TEXT_FILE).is_file() else ()
        return f"{self.file.version}-{_hash_files(self.path, (SAMPLES_FILE, TRUTH_FILE, *frozen))}"

    @cached_property
    def search_version(self) -> str:
        """The hash of what the task's search backend answers from; empty when it has none."""
        return _hash_files(self.path, SEARCH_FILES) if self.file.search else ""

    def __len__(self) -> int:
        return sum(1 for _ in _lines(self.path / SAMPLES_FILE))

    def samples(self) -> Iterator[Sample]:
        """Yields the samples in file order, without touching the truth.

        Raises:
            DataError: A line is no sample, an id comes twice, or the frozen answers are of other prompts.
        """
        frozen = self._frozen
        for sample in self.samples_as_written():
            yield sample if frozen is None else frozen.settle(sample)

    def samples_as_written(self) -> Iterator[Sample]:
        """Yields the samples in file order, without what was frozen beside them.

        Raises:
            DataError: A line is no sample, or an id comes twice.
        """
        path, seen = self.path / SAMPLES_FILE, dict[str, int]()
        for number, line in _lines(path):
            where = f"{path}:{number}"
            try:
                sample = Sample.model_validate_json(line)
            except ValidationError as error:
                raise DataError(one_line(error), where=where, fix="mend that line") from error
            if sample.id in seen:
                first = seen[sample.id]
                raise DataError(f"the id {sample.id!r} is already on line {first}", where=where, fix="make ids unique")
            seen[sample.id] = number
            yield sample

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a sample, its picture with a path.

        Raises:
            ImageMismatchError: Its picture is not the one that is recorded.
            DataError: There is none, or its picture is missing.
        """
        row = self._truths.get(sample_id)
        if row is None:
            raise DataError(f"no ground truth for sample {sample_id!r}", where=str(self.path / TRUTH_FILE))
        number, data = row
        where = f"{self.path / TRUTH_FILE}:{number}"
        fields = {key: value for key, value in data.items() if key != "image_file"}
        try:
            truth = GroundTruth.model_validate(fields)
        except ValidationError as error:
            raise DataError(one_line(error), where=where, fix="mend that line") from error
        if truth.text_required is None and self._frozen is not None:
            truth = truth.model_copy(update={"text_required": self._frozen.of(sample_id)})
        if truth.image is None:
            return truth
        picture = self._inside(str(data.get("image_file", "")), where)
        image = truth.image.model_copy(update={"path": picture})
        truth = truth.model_copy(update={"image": image})
        self._hold_to_record(truth, image.sha256, picture)
        return truth

    def _hold_to_record(self, truth: GroundTruth, recorded: str, picture: Path) -> None:
        """Refuses a picture whose bytes are not those that are recorded."""
        if _digest(picture) == recorded:
            return
        relative = picture.relative_to(self.path.resolve())
        error = ImageMismatchError(
            f"the ground-truth picture {relative} is not the one recorded, so nothing may be compared with it",
            where=str(self.path / TRUTH_FILE),
            fix="prepare or build the task again",
        )
        error.truth = truth
        raise error

    def _inside(self, relative: str, where: str) -> Path:
        if not relative:
            raise DataError("image_file is missing", where=where, fix="name the picture by its path in the folder")
        picture = (self.path / relative).resolve()
        if not picture.is_relative_to(self.path.resolve()):
            raise DataError(
                f"image_file {relative!r} lies outside the task's folder",
                where=where,
                fix="copy the picture into the folder; links out of it are not followed",
            )
        if not picture.is_file():
            raise DataError(f"the ground-truth picture {relative} is missing", where=where, fix="fetch the task again")
        return picture

    @cached_property
    def _frozen(self) -> FrozenText | None:
        return read_frozen(self.path / TEXT_FILE)

    @cached_property
    def _truths(self) -> dict[str, tuple[int, dict[str, Any]]]:
        path, found = self.path / TRUTH_FILE, dict[str, tuple[int, dict[str, Any]]]()
        for number, line in _lines(path):
            where = f"{path}:{number}"
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"is no JSON: {error.msg}", where=where, fix="mend that line") from error
            if not isinstance(data, dict) or not isinstance(data.get("sample_id"), str):
                raise DataError("has no sample_id", where=where, fix="mend that line")
            if data["sample_id"] in found:
                raise DataError(f"a second truth for sample {data['sample_id']!r}", where=where)
            found[data["sample_id"]] = (number, data)
        return found


def _digest(picture: Path) -> str:
    """Returns a picture's digest; a file that has not changed since is not read again."""
    try:
        status = picture.stat()
        known = _DIGESTS.get(picture)
        if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
            with picture.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            known = _DIGESTS[picture] = (status.st_size, status.st_mtime_ns, digest)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(picture)) from error
    return known[2]


def _hash_files(folder: Path, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        if not path.is_file():
            raise DataError("is missing", where=str(path), fix="build or fetch the task again")
        digest.update(f"{name}\0".encode())
        with path.open("rb") as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                digest.update(block)
    return digest.hexdigest()[:12]
