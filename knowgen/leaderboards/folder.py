"""Read and write the folders of leaderboards.

leaderboards/<board>/board.yaml, samples.jsonl, published.csv
leaderboards/<board>/<system>/<revision>/system.yaml, result.json, images/, replies.jsonl, withdrawn.yaml
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import Record
from knowgen.core.spec import canonical
from knowgen.core.text_files import numbered_lines, parse_strict_json, read_text
from knowgen.core.yaml_files import read_yaml
from knowgen.core.yaml_schema import yaml_record
from knowgen.leaderboards.records import (
    SLUG,
    BoardFile,
    BoardSample,
    SubmissionResult,
    SystemFile,
    Withdrawal,
)

BOARD_FILE = "board.yaml"
SAMPLES_FILE = "samples.jsonl"
SYSTEM_FILE = "system.yaml"
RESULT_FILE = "result.json"
WITHDRAWN_FILE = "withdrawn.yaml"
IMAGES = "images"
REPLIES_FILE = "replies.jsonl"

R = TypeVar("R", bound=Record)

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of a character of a surrogate pair, or of half of one."""


@dataclass(frozen=True)
class StatedRun:
    """What a result says of its run.

    Attributes:
        created: When the run directory was created.
        task_version: Version of the task.
    """

    created: str
    task_version: str


@dataclass(frozen=True)
class Submission:
    """One revision of a system on a board.

    Attributes:
        path: Its folder.
        board: Name of the board's folder.
        slug: Name of the system's folder.
        revision: Name of the revision's folder.
    """

    path: Path
    board: str
    slug: str
    revision: str

    @property
    def key(self) -> str:
        """`system/revision`, which is unique on a board."""
        return f"{self.slug}/{self.revision}"

    @cached_property
    def system(self) -> SystemFile:
        """What the submitter says of the system.

        Raises:
            DataError: The file is missing or not valid.
        """
        return _from_yaml(SystemFile, self.path / SYSTEM_FILE)

    @cached_property
    def withdrawal(self) -> Withdrawal | None:
        """Why it was withdrawn; None if it was not.

        Raises:
            DataError: The file is not valid.
        """
        path = self.path / WITHDRAWN_FILE
        return _from_yaml(Withdrawal, path) if path.exists() else None

    @cached_property
    def stated(self) -> StatedRun:
        """When the run was created, and its task version.

        They are read without a check of the rest of the file, and kept.

        Raises:
            DataError: The file is missing or not valid.
        """
        path = self.path / RESULT_FILE
        data = parsed_json(read_text(path), str(path))
        try:
            return StatedRun(str(data["created"]), str(data["spec"]["task_version"]))
        except (KeyError, TypeError):
            result = validated(SubmissionResult, data, path)  # names the field that is missing
            return StatedRun(result.created, result.spec.task_version)

    def read_result(self) -> SubmissionResult:
        """Return the result, which may be megabytes: it is not kept.

        Raises:
            DataError: The file is missing or not valid.
        """
        path = self.path / RESULT_FILE
        return validated(SubmissionResult, parsed_json(read_text(path), str(path)), path)


@dataclass(frozen=True)
class Board:
    """A board: its file, its samples and its submissions.

    Attributes:
        path: Its folder.
        file: Content of `board.yaml`.
    """

    path: Path
    file: BoardFile

    @property
    def name(self) -> str:
        """Name of the board: its folder."""
        return self.path.name

    def beside(self, name: str) -> str:
        """Return the name of a task or scorer as it loads from anywhere: a folder or file is relative to the board's.

        Args:
            name: Such as `birds`, `../birds`, `birds.py:Birds` or `module:Class`.
        """
        base, colon, rest = name.partition(":")
        is_file = base.endswith(".py") and (self.path / base).is_file()
        is_task = not colon and (self.path / base / "task.yaml").is_file()
        return f"{self.path / base}{colon}{rest}" if is_file or is_task else name

    @cached_property
    def samples(self) -> tuple[BoardSample, ...]:
        """The samples in the order of the task.

        Raises:
            DataError: The file is missing, because the board's task is not pinned, or not valid.
        """
        path = self.path / SAMPLES_FILE
        found: dict[str, BoardSample] = {}
        for number, line in numbered_lines(path, fix="pin the board's task: `knowgen board pin BOARD`"):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            sample = validated(BoardSample, parsed_json(line, where), where)
            if sample.id in found:
                raise DataError(f"duplicate sample {sample.id!r}", where=where, fix="pin the board's task again")
            found[sample.id] = sample
        return tuple(found.values())

    def submissions(self) -> Iterator[Submission]:
        """Yield the submissions, by system and revision, withdrawn ones included.

        Folders whose names begin with a dot are passed over: a submission is prepared in one.

        Raises:
            DataError: A folder has a name that is not allowed.
        """
        for system in _folders(self.path):
            for revision in _folders(system):
                for part in (system, revision):
                    if not re.fullmatch(SLUG, part.name):
                        fix = "use lower-case letters, digits, `.`, `_` and `-`"
                        raise DataError(f"the name {part.name!r} is not allowed", where=str(part), fix=fix)
                yield Submission(revision, self.name, system.name, revision.name)

    def submission(self, key: str) -> Submission:
        """Return a submission by `system/revision`, or by `system` if it has a single revision.

        Raises:
            UsageError: There is none.
        """
        every = list(self.submissions())
        found = [each for each in every if key in (each.key, each.slug)]
        if len(found) == 1:
            return found[0]
        if found:
            revisions = ", ".join(each.key for each in found)
            raise UsageError(f"{key!r} has several revisions", where=self.name, fix=f"name one: {revisions}")
        known = ", ".join(each.key for each in every) or "none"
        raise UsageError(f"no submission {key!r}", where=self.name, fix=f"the board has {known}")


def read_board(path: Path) -> Board:
    """Return the board of a folder.

    Raises:
        DataError: It has no `board.yaml`, or one that is not valid.
    """
    return Board(path, _from_yaml(BoardFile, path / BOARD_FILE))


def read_boards(root: Path) -> tuple[Board, ...]:
    """Return the boards of a folder of boards, by name.

    Raises:
        DataError: The folder has no board, or one that is not valid.
    """
    found = sorted(path.parent for path in root.glob(f"*/{BOARD_FILE}"))
    if not found:
        raise DataError("has no board", where=str(root), fix=f"make a folder with a {BOARD_FILE} in it")
    return tuple(read_board(path) for path in found)


def validated(kind: type[R], data: Any, where: Path | str) -> R:
    """Return a record from the data of a file.

    Raises:
        DataError: The data is not valid; the error names the first field.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "top level"
        raise DataError(f"{name}: {first['msg'].removeprefix('Value error, ')}", where=str(where)) from error


def parsed_json(text: str, where: str) -> Any:
    """Return the value of a JSON text, whose texts must be such that they can be written again.

    Raises:
        DataError: It is not JSON, or has half of a character (`\\ud800` alone).
    """
    data = parse_strict_json(text, where)
    if _HALF_CHARACTER.search(text):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            what = f"a text has {half} alone, which is half of a character"
            raise DataError(what, where=where, fix="write it with a JSON library") from error
    return data


def result_text(result: SubmissionResult) -> str:
    """Return the text of `result.json`: sorted keys, one line for each field and each sample.

    Fields of samples that have their default are left out. The specification is written in full, so that another
    default of a later version does not change what the file says.
    """
    plain = result.model_dump(mode="json", exclude={"samples"})
    samples = [canonical(each.model_dump(mode="json", exclude_defaults=True)) for each in result.samples]
    lines = [f"{json.dumps(name)}: {canonical(value)}" for name, value in sorted({**plain, "samples": None}.items())]
    joined = ",\n".join(samples)
    lines = [line if line != '"samples": null' else f'"samples": [\n{joined}\n]' for line in lines]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _folders(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))


def _from_yaml(kind: type[R], path: Path) -> R:
    return yaml_record(kind, read_yaml(path))
