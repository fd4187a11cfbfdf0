"""Where prepared data lies on this machine, and which of it is current. Loads nothing but the standard library.

    DATA/NAME/current.json      which prepared folder is in use
    DATA/NAME/COMMIT/           one prepared commit, whole; `index.json` in it says where it came from
    DATA/NAME/.draft-*/         a preparation under way, or what a killed one left; never read

DATA is the folder that `KNOWGEN_DATA` names, else `$XDG_DATA_HOME/knowgen`, else `~/.local/share/knowgen`. Data that
came from a folder and not from the hub has no commit; its place is taken by `local-` and a hash of its content.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.atomic import write_file
from knowgen.core.errors import DataError

HOME = "KNOWGEN_DATA"
"""Environment variable that names the data folder."""

CURRENT_FILE = "current.json"
INDEX_FILE = "index.json"
INDEX_FORMAT = 1
"""Format of a prepared folder; data prepared in another one is prepared again."""

_FOLDER = re.compile(r"[0-9a-z][0-9a-z-]{0,79}\Z")


def data_home() -> Path:
    """Returns the folder of all prepared data; it may not exist yet."""
    if named := os.environ.get(HOME, "").strip():
        return Path(named).expanduser()
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "share") / "knowgen"


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set on this machine.

    Attributes:
        name: Of the data set.
        folder: Where it lies.
        index: What `index.json` says: repository, revision asked for, commit, rows, what was left out.
    """

    name: str
    folder: Path
    index: dict[str, Any]

    @property
    def commit(self) -> str:
        """The hub's commit, or `local-` and a hash."""
        return str(self.index["commit"])

    @property
    def revision(self) -> str:
        """The revision that was asked for, empty for data from a folder."""
        return str(self.index.get("revision", ""))

    @property
    def source(self) -> str:
        """The folder it was read from, empty for data from the hub."""
        return str(self.index.get("source", ""))


def find_prepared(name: str) -> PreparedData | None:
    """Returns the data set that is in use, None when none is.

    A folder that is gone, or was written in another format, counts as none.

    Raises:
        DataError: `current.json` or the index cannot be read.
    """
    place = data_home() / name
    current = _read(place / CURRENT_FILE)
    if current is None:
        return None
    folder = str(current.get("folder", ""))
    if not _FOLDER.match(folder):
        raise DataError(f"names no folder: {folder[:80]!r}", where=str(place / CURRENT_FILE), fix=prepare_again(name))
    return read_prepared(name, place / folder)


def read_prepared(name: str, folder: Path) -> PreparedData | None:
    """Returns what a folder holds, None when it holds nothing finished, or was written in another format.

    Raises:
        DataError: Its index cannot be read.
    """
    index = _read(folder / INDEX_FILE)
    if index is None or index.get("format") != INDEX_FORMAT or index.get("name") != name:
        return None
    return PreparedData(name, folder, index)


def need_prepared(name: str) -> PreparedData:
    """Returns the data set that is in use.

    Raises:
        DataError: It is not prepared; the message holds the command that does it.
    """
    found = find_prepared(name)
    if found is None:
        raise DataError("is not prepared on this machine", where=name, fix=f"type: knowgen task prepare {name}")
    return found


def prepare_again(name: str) -> str:
    """Returns the remedy for prepared data that is damaged."""
    return f"type: knowgen task prepare {name} --force"


def put_current(name: str, folder: str) -> None:
    """Makes a prepared folder the one in use, in one step."""
    write_json(data_home() / name / CURRENT_FILE, {"folder": folder})


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file so that a reader sees the old content or the new, never half of it."""
    write_file(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None when there is no file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise DataError("is no JSON", where=str(path), fix="remove it, and prepare the data set again") from error
    if not isinstance(data, dict):
        raise DataError("is no JSON object", where=str(path), fix="remove it, and prepare the data set again")
    return data
