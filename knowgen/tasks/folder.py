"""A task in a folder: `task.yaml`, `samples.jsonl`, `truth.jsonl` and images.

    task.yaml       name, version, description, default_scorers, search (name of a backend)
    samples.jsonl   one sample per line
    truth.jsonl     one ground truth per line, with `image_file`, the relative path of its image; none while private
    text_required.json  optional: which prompts require text, as frozen by `knowgen task annotate`

Samples and ground truths are in separate files, so that a test can run generation with the ground truth removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.sample_ids import SeenIds, comparable_id, id_text
from knowgen.core.steps import counted
from knowgen.core.text_files import numbered_lines, parse_strict_json
from knowgen.core.yaml_files import read_yaml
from knowgen.tasks.private import private_truths_error
from knowgen.tasks.text_labels.labels import TEXT_FILE, FrozenText, read_frozen

TASK_FILE = "task.yaml"
SAMPLES_FILE = "samples.jsonl"
TRUTH_FILE = "truth.jsonl"
SEARCH_FOLDER = "search"
"""Folder of the search material. It is all that a search backend is given; truths are outside."""
_FETCH = "build or fetch the task again"
SEARCH_FILES = ("pages.jsonl", "pictures.jsonl")


_DIGESTS: dict[Path, tuple[int, int, str]] = {}
"""Size, modification time and digest of the images read in this process, so that each is hashed once."""


class ImageMismatchError(DataError):
    """A ground-truth image differs from the recorded digest.

    Attributes:
        truth: The ground truth as recorded, with the path of the differing image.
    """

    truth: GroundTruth


class TaskFile(BaseModel):
    """The content of `task.yaml`.

    Attributes:
        name: Name of the task.
        version: Its version, without the hash of the content.
        description: What it is.
        license: Its license.
        default_scorers: Scorers of a run that names none.
        search: Kind of the search backend of the folder `search`; empty without one.
        seed: Seed that it was drawn from.
        limit: Which samples `--limit` takes.
        commitment: Hash of what ground truths follow from, 64 hex digits. They may then be private: the file
            `truth.jsonl` is missing until they are revealed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    version: str = "1"
    description: str = ""
    license: str = ""
    default_scorers: tuple[str, ...] = ()
    search: str = ""
    seed: int | None = None
    limit: Literal["stratified", "first"] = "stratified"
    commitment: str = Field(default="", pattern=r"(?:[0-9a-f]{64})?")


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation as `field: message`, with the number of further problems."""
    first, more = error.errors()[0], len(error.errors()) - 1
    place = ".".join(str(part) for part in first["loc"]) or "record"
    return f"{place}: {first['msg']}" + (f" (and {more} more)" if more else "")


def read_task_file(path: Path) -> TaskFile:
    """Read `task.yaml`.

    Raises:
        DataError: The file is missing or invalid YAML, or has an invalid or unknown field.
    """
    if not path.exists():
        raise DataError(
            "not a task folder (task.yaml is missing)",
            where=str(path),
            fix="name a task, or a folder made by `knowgen world build`",
        )
    data = read_yaml(path).data
    if not isinstance(data, dict):
        raise DataError("must contain fields such as `name: my_task`", where=str(path))
    try:
        return TaskFile.model_validate(data)
    except ValidationError as error:
        raise DataError(first_problem(error), where=str(path), fix="fix that field") from error


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line that is not blank, with its number."""
    for number, line in numbered_lines(path, fix=_FETCH):
        data = parse_strict_json(line, f"{path}:{number}")
        if not isinstance(data, dict):
            raise DataError("must be a JSON object", where=f"{path}:{number}", fix="fix that line")
        yield number, data


class FolderTask:
    """A task in a folder with `task.yaml`, `samples.jsonl`, `truth.jsonl` and the images of the ground truths.

    Each line of `samples.jsonl` is a `Sample`; each line of `truth.jsonl` is a `GroundTruth` with a further field
    `image_file`, the path of its image relative to the folder.

    Args:
        path: The folder.
        name: Name of the task; the name in `task.yaml` if empty.

    Raises:
        DataError: `task.yaml` is missing or invalid.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.file = read_task_file(path / TASK_FILE)
        self.name = name or self.file.name
        self.description = self.file.description
        self.default_scorers = self.file.default_scorers
        self.limit = self.file.limit
        self.search = f"{self.file.search}:{path / SEARCH_FOLDER}" if self.file.search else ""

    @cached_property
    def version(self) -> str:
        """The version with a hash of samples, ground truths and frozen answers, such as `1-3f2a9c0d1b2e`.

        With a commitment, that takes the place of the ground truths, so that the version is the same before and after
        they are revealed.
        """
        frozen = (TEXT_FILE,) if (self.path / TEXT_FILE).is_file() else ()
        if commitment := self.file.commitment:
            return f"{self.file.version}-{_hash_files(self.path, (SAMPLES_FILE, *frozen), commitment)}"
        return f"{self.file.version}-{_hash_files(self.path, (SAMPLES_FILE, TRUTH_FILE, *frozen))}"

    @property
    def private_truths(self) -> bool:
        """Whether the ground truths are not here, but committed to, so that images cannot be scored here."""
        return bool(self.file.commitment) and not (self.path / TRUTH_FILE).exists()

    @cached_property
    def search_version(self) -> str:
        """Hash of the content of the task's search backend; empty if it has none."""
        return _hash_files(self.path / SEARCH_FOLDER, SEARCH_FILES) if self.file.search else ""

    def __len__(self) -> int:
        return sum(1 for _ in numbered_lines(self.path / SAMPLES_FILE, fix=_FETCH))

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in file order, without reading any ground truth.

        Raises:
            DataError: A line is not a valid sample, an id is a duplicate, or the frozen answers are for other prompts.
        """
        frozen = self._frozen
        for sample in counted(self.samples_as_written(), f"reading samples of {self.name}"):
            yield sample if frozen is None else frozen.apply(sample)

    def samples_as_written(self) -> Iterator[Sample]:
        """Yield the samples in file order, without the frozen answers.

        Raises:
            DataError: A line is not a valid sample, or an id is a duplicate.
        """
        path, seen = self.path / SAMPLES_FILE, SeenIds()
        for number, data in _records(path):
            where = f"{path}:{number}"
            if "id" in data:
                data["id"] = id_text(data["id"], where)
            try:
                sample = Sample.model_validate(data)
            except ValidationError as error:
                raise DataError(first_problem(error), where=where, fix="fix that line") from error
            seen.add(sample.id, f"line {number}", where)
            yield sample

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample, with the path of its image.

        Raises:
            ImageMismatchError: The image differs from the recorded digest.
            DataError: The sample has no ground truth, its image is missing, or ground truths are private.
        """
        if self.private_truths:
            raise private_truths_error(self.name)
        row = self._truths.get(comparable_id(sample_id))
        if row is None:
            raise DataError(f"no ground truth for sample {sample_id!r}", where=str(self.path / TRUTH_FILE))
        number, data = row
        where = f"{self.path / TRUTH_FILE}:{number}"
        fields = {key: value for key, value in data.items() if key != "image_file"} | {"sample_id": sample_id}
        try:
            truth = GroundTruth.model_validate(fields)
        except ValidationError as error:
            raise DataError(first_problem(error), where=where, fix="fix that line") from error
        if truth.text_required is None and self._frozen is not None:
            truth = truth.model_copy(update={"text_required": self._frozen.label_of(sample_id)})
        if truth.image is None:
            return truth
        path = self._inside(str(data.get("image_file", "")), where)
        image = truth.image.model_copy(update={"path": path})
        truth = truth.model_copy(update={"image": image})
        self._check_digest(truth, image.sha256, path)
        return truth

    def _check_digest(self, truth: GroundTruth, recorded: str, path: Path) -> None:
        """Raise `ImageMismatchError` if an image's bytes differ from the recorded digest."""
        if _digest(path) == recorded:
            return
        relative = path.relative_to(self.path.resolve())
        error = ImageMismatchError(
            f"the ground-truth image {relative} differs from the recorded digest and must not be compared with",
            where=str(self.path / TRUTH_FILE),
            fix="prepare or build the task again",
        )
        error.truth = truth
        raise error

    def _inside(self, relative: str, where: str) -> Path:
        """Return the absolute path of an image, checking that it is an existing file in the task's folder."""
        if not relative:
            raise DataError("image_file is missing", where=where, fix="give the image's path relative to the folder")
        path = (self.path / relative).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise DataError(
                f"image_file {relative!r} is outside the task's folder",
                where=where,
                fix="copy the image into the folder; links out of it are not followed",
            )
        if not path.is_file():
            raise DataError(f"the ground-truth image {relative} is missing", where=where, fix="fetch the task again")
        return path

    @cached_property
    def _frozen(self) -> FrozenText | None:
        return read_frozen(self.path / TEXT_FILE)

    @cached_property
    def _truths(self) -> dict[str, tuple[int, dict[str, Any]]]:
        path, rows = self.path / TRUTH_FILE, dict[str, tuple[int, dict[str, Any]]]()
        for number, data in counted(_records(path), f"reading ground truths of {self.name}"):
            where = f"{path}:{number}"
            if "sample_id" not in data:
                raise DataError("has no sample_id", where=where, fix="fix that line")
            sample_id = comparable_id(id_text(data["sample_id"], where, field="sample_id"))
            if sample_id in rows:
                raise DataError(f"a second truth for sample {sample_id!r}", where=where)
            rows[sample_id] = (number, data)
        return rows


def _digest(path: Path) -> str:
    """Return an image's SHA-256; a file that has not changed is not read again."""
    try:
        status = path.stat()
        known = _DIGESTS.get(path)
        if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            known = _DIGESTS[path] = (status.st_size, status.st_mtime_ns, digest)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return known[2]


def _hash_files(folder: Path, names: tuple[str, ...], commitment: str = "") -> str:
    """Return 12 hex digits of the SHA-256 over names and contents of files, and a commitment."""
    digest = hashlib.sha256(commitment.encode())
    for name in names:
        path = folder / name
        if not path.is_file():
            raise DataError("is missing", where=str(path), fix="build or fetch the task again")
        digest.update(f"{name}\0".encode())
        with path.open("rb") as file:
            for block in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                digest.update(block)
    return digest.hexdigest()[:12]
