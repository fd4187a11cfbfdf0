"""Read the files of a submission with every fault of their schema: field, line, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.records import Record
from knowgen.core.text import one_line
from knowgen.core.text_files import read_text
from knowgen.core.yaml_files import read_yaml
from knowgen.core.yaml_schema import yaml_errors, yaml_record
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.folder import parsed_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

R = TypeVar("R", bound=Record)

MOST_FAULTS = 20
"""Number of faults of one file that are listed."""

_WORDS = 100
Place = tuple[int | str, ...]


def checked_yaml(kind: type[R], path: Path) -> tuple[R | None, list[BoardFinding]]:
    """Return the record of a YAML file, or None with what is wrong.

    Args:
        kind: Schema of the file.
        path: The file.
    """
    try:
        file = read_yaml(path, fix=f"write {path.name}, see the guide on leaderboards")
        faults = yaml_errors(kind, file)
    except KnowgenError as fault:
        return None, [_unreadable(path, fault)]
    if faults:
        return None, [_unreadable(path, fault) for fault in faults[:MOST_FAULTS]]
    return yaml_record(kind, file), []


def checked_json(kind: type[R], path: Path) -> tuple[R | None, list[BoardFinding]]:
    """Return the record of a JSON file, or None with what is wrong. Arguments as in `checked_yaml`."""
    try:
        text = read_text(path, fix="write it with `knowgen board add`")
        data = parsed_json(text, path.name)
    except DataError as fault:
        return None, [_unreadable(path, fault)]

    def where(place: Place) -> str:
        line = _json_line(text, place)
        return f"{path.name}:{line}" if line else path.name

    return _validated(kind, data, where)


def _unreadable(path: Path, fault: KnowgenError) -> BoardFinding:
    """Return the finding for a file that cannot be read, with the place relative to its folder."""
    where = fault.where.replace(f"{path.parent}/", "")
    return error("schema", where or path.name, fault.what, fault.fix)


def _validated(kind: type[R], data: Any, where: Callable[[Place], str]) -> tuple[R | None, list[BoardFinding]]:
    try:
        return kind.model_validate(data), []
    except ValidationError as fault:
        faults = _innermost(fault.errors())
        findings = [_fault(kind, data, each, where) for each in faults[:MOST_FAULTS]]
        if len(faults) > MOST_FAULTS:
            findings.append(error("schema", where(()), f"{len(faults) - MOST_FAULTS} more faults", "fix these first"))
        return None, findings


def _innermost(faults: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return the faults without those of a list that is too short only because an entry of it is wrong."""
    outer = {each["loc"][:depth] for each in faults for depth in range(len(each["loc"]))}
    return [each for each in faults if each["loc"] not in outer]


def _fault(kind: type[Record], data: Any, fault: ErrorDetails, where: Callable[[Place], str]) -> BoardFinding:
    place = fault["loc"]
    field = ".".join(str(part) for part in place) or "the file"
    if len(place) > 1 and place[0] == "samples" and isinstance(place[1], int):
        field = f"sample {_sample_name(data, place[1])!r}, " + ".".join(str(part) for part in place[2:])
    what, fix = fault["msg"].removeprefix("Value error, "), "correct it"
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), list(kind.model_fields), n=1) if len(place) == 1 else []
        what, fix = "is not a known field", f"did you mean {near[0]!r}?" if near else "remove it"
    elif fault["type"] == "missing":
        what, fix = "is missing", "write it"
    elif isinstance(fault["input"], str | int | float | bool):
        what = f"{what}, got {_shown(fault['input'])}"
    return error("schema", where(place), f"{_shown(field, quoted=False)}: {what}", fix)


def _sample_name(data: Any, place: int) -> str:
    try:
        return one_line(data["samples"][place]["id"], _WORDS)
    except (KeyError, IndexError, TypeError):
        return f"number {place}"


def _shown(value: object, *, quoted: bool = True) -> str:
    text = one_line(value, _WORDS)
    return repr(text) if quoted else text


def _json_line(text: str, place: Place) -> int:
    """Return the line of a value in a file that has one line for each field and sample; 0 if that is not known."""
    if not place:
        return 0
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if line.startswith(f'"{place[0]}":')), None)
    if start is None:
        return 0
    if place[0] != "samples" or len(place) < 2 or not isinstance(place[1], int):
        return start + 1
    number = start + 1 + place[1]
    return number + 1 if lines[start].endswith("[") and number < len(lines) and lines[number].startswith("{") else 0
