"""`knowgen.json` in a repository: what is in it, with the hash of every file, and which paths are allowed.

README.md             data card
knowgen.json          this listing, written by the last commit of a push
data/<scorer>.parquet rows for the hub's viewer (a board: data/results.jsonl)
run/…                 the run directory (a board: board/…)
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from knowgen.core.errors import DataError
from knowgen.core.records import Record
from knowgen.core.text import parse_json

LISTING_FILE = "knowgen.json"
CARD_FILE = "README.md"
DATA_FOLDER = "data"
FORMAT = 1

Kind = Literal["run", "board"]

MOST_FILES = 200_000
"""Maximum number of files in a listing that is read."""

LONGEST_PATH = 300

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]*", re.ASCII)
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.IGNORECASE)


class ListedFile(Record):
    """A file of a repository.

    Attributes:
        sha256: SHA-256 hex digest of its content.
        size: Bytes.
    """

    sha256: str = Field(pattern=r"[0-9a-f]{64}")
    size: int = Field(ge=0)


class Listing(Record):
    """The content of `knowgen.json`.

    Attributes:
        format: Version of the format.
        kind: `run` or `board`.
        name: Name for readers: the system, or the board's title.
        identity: What the directory is bound to; another run has another identity.
        knowgen: Version that wrote it.
        images: Whether the images are in it.
        left_out: What the copy lacks, in words.
        files: Every other file by its path.
    """

    format: Literal[1]
    kind: Kind
    name: str = Field(max_length=2000)
    identity: str = Field(pattern=r"[0-9a-f]{64}")
    knowgen: str
    images: bool
    left_out: tuple[str, ...] = ()
    files: dict[str, ListedFile] = Field(max_length=MOST_FILES)

    @property
    def content(self) -> dict[str, ListedFile]:
        """The files of the run or board itself, by their paths in its directory."""
        start = f"{self.kind}/"
        return {path.removeprefix(start): file for path, file in self.files.items() if path.startswith(start)}


def read_listing(data: bytes, where: str) -> Listing:
    """Return the listing of a repository, whose content is not trusted.

    Raises:
        DataError: It is not a listing, was written by a newer version, or names a path that is not allowed.
    """
    try:
        plain: Any = parse_json(data)
    except ValueError as error:
        raise DataError(f"is damaged ({error})", where=where) from error
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
        raise DataError("was written by a newer knowgen", where=where, fix="update knowgen")
    try:
        listing = Listing.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise DataError(f"is damaged ({field}: {first['msg']})", where=where) from error
    seen: set[str] = set()
    for path in listing.files:
        if not allowed_path(path):
            raise DataError(f"names a path that is not allowed: {path!r}", where=where)
        if path.lower() in seen:
            raise DataError(f"names {path!r} twice, apart from upper and lower case", where=where)
        seen.add(path.lower())
    return listing


def allowed_path(path: str) -> bool:
    """Return whether a path may be in a repository: relative, plain names, no hidden file, nothing above it.

    Example:
        >>> [allowed_path(path) for path in ("run/images/ab/ab12.png", "run/../x", "/etc/x", "a/.b")]
        [True, False, False, False]
    """
    if len(path) > LONGEST_PATH:
        return False
    parts = path.split("/")
    return all(_SEGMENT.fullmatch(part) and not part.endswith(".") and not _RESERVED.match(part) for part in parts)


def listed(path: Path) -> ListedFile:
    """Return hash and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return ListedFile(sha256=digest.hexdigest(), size=path.stat().st_size)


def git_blob(path: Path) -> str:
    """Return the id that git gives a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
