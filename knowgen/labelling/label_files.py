"""Files of labels: one file for each rater, to which lines are only ever added."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from knowgen.core.errors import DataError, UsageError
from knowgen.core.text import error_message
from knowgen.core.text_files import read_bytes
from knowgen.labelling.records import StoredLabel

NAME_LENGTH = 40
"""Maximum length of a rater's name in characters."""

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")


def rater_name(text: str) -> str:
    """Return the name of a rater in one form: NFC, single spaces.

    Raises:
        UsageError: It is empty, too long, or has characters that cannot be printed.

    Example:
        >>> rater_name("  Ann   Lee ")
        'Ann Lee'
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise UsageError("the name of the rater is empty", fix="give a name")
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise UsageError(
            f"a rater's name has 1 to {NAME_LENGTH} printable characters", fix="give a shorter, plain name"
        )
    return name


def rater_key(name: str) -> str:
    """Return what identifies a rater: the name without regard to case."""
    return name.casefold()


def label_file(folder: Path, rater: str) -> Path:
    """Return the file of a rater: the name itself where it is plain, else with a hash, so that no two names share one.

    Example:
        >>> label_file(Path("labels"), "Ann").as_posix()
        'labels/ann.jsonl'
    """
    key = rater_key(rater)
    if _PLAIN.fullmatch(key) and not _RESERVED.fullmatch(key):
        return folder / f"{key}.jsonl"
    plain = re.sub(r"[^a-z0-9_]+", "-", unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode()).strip(
        "-"
    )
    return folder / f"{plain or 'rater'}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.jsonl"


def require_writable(folder: Path) -> None:
    """Check that labels can be written into a folder, which need not exist yet, before anybody labels.

    Raises:
        DataError: It, or the nearest folder above it that exists, cannot be written or is not a folder.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists() or each.is_symlink())
    fix = "name another folder with -o"
    if not there.is_dir():
        raise DataError("is not a folder", where=str(there), fix=fix)
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError("cannot be written", where=str(there), fix=fix)


def append_label(path: Path, label: StoredLabel) -> None:
    """Add a line to a file, on the disk when this returns.

    A half-written line of a killed process is ended first, so that it stays a line of its own.

    Raises:
        DataError: The file cannot be written.
    """
    line = label.model_dump_json().encode("utf-8") + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("a+b") as file:
            if file.tell() and _last_byte(path) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(path.parent)
    except OSError as error:
        fix = "free some space or make the folder writable; the label is not stored"
        raise DataError(f"cannot be written: {error.strerror or error}", where=str(path), fix=fix) from error


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class LabelLines:
    """Content of one or more files.

    Attributes:
        labels: All records, in the order of the files.
        notes: Lines that were left out, with their places.
    """

    labels: tuple[StoredLabel, ...]
    notes: tuple[str, ...] = ()


def read_label_file(path: Path) -> LabelLines:
    """Return the records of a file; a line that a killed process left half written is left out with a note.

    Raises:
        DataError: The file cannot be read, or a complete line is not a label.
    """
    labels: list[StoredLabel] = []
    notes: list[str] = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            fields = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            notes.append(f"{where}: half-written line left out")
            continue
        labels.append(_label(fields, where))
    return LabelLines(tuple(labels), tuple(notes))


def _label(fields: object, where: str) -> StoredLabel:
    try:
        label = StoredLabel.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"not a label: {place}: {first['msg']}" if place else f"not a label: {first['msg']}"
        raise DataError(what, where=where, fix="remove that line, or the file from this folder") from error
    if fault := _fault(label):
        raise DataError(f"not a label: {fault}", where=where, fix="remove that line, or the file from this folder")
    return label


def _fault(label: StoredLabel) -> str:
    """Return what is wrong with a label although each of its fields is right; empty if nothing is."""
    expected = 2 if label.mode == "pairs" else 1
    if not len(label.systems) == len(label.images) == expected:
        return "wrong number of systems or images"
    if any(not 0 <= value <= 1 for value in label.values.values()):
        return "values must be in [0, 1]"
    answered = bool(label.choice) if label.mode == "pairs" else bool(label.values)
    return "" if answered or label.skipped else "neither an answer nor a reason to skip"


def read_folders(folders: Sequence[Path]) -> LabelLines:
    """Return the records of all files of one or more folders.

    Raises:
        DataError: A folder is missing or has no labels, or a file is damaged.
    """
    labels: list[StoredLabel] = []
    notes: list[str] = []
    for folder in folders:
        try:
            files = sorted(each for each in folder.iterdir() if each.suffix == ".jsonl")
        except OSError as error:
            what = f"cannot be read: {error.strerror or error_message(error)}"
            raise DataError(what, where=str(folder), fix="name a folder of labels with --labels") from error
        if not files:
            raise DataError("holds no labels (no .jsonl file)", where=str(folder), fix="label something first")
        for path in files:
            read = read_label_file(path)
            labels += read.labels
            notes += read.notes
    return LabelLines(tuple(labels), tuple(notes))


def current_labels(labels: Iterable[StoredLabel]) -> list[StoredLabel]:
    """Return the labels that count: the latest of each rater about the same images, unless it was withdrawn.

    They are in the order in which they were given; those of one time keep the order of the files.
    """
    latest: dict[object, StoredLabel] = {}
    for label in sorted(labels, key=lambda one: one.at):
        key = (rater_key(label.rater), label.key)
        latest.pop(key, None)  # a label that is given again moves to the end
        latest[key] = label
    return [label for label in latest.values() if not label.undone]
