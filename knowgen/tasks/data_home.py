"""The folder of prepared data on this machine. Imports only the standard library and `core`.

    DATA/NAME/current.json      names the prepared folder in use
    DATA/NAME/COMMIT/           one prepared commit, complete; its `index.json` records its origin
    DATA/NAME/.draft-*/         a preparation in progress or interrupted; never read

DATA is `$KNOWGEN_DATA`, else `$XDG_DATA_HOME/knowgen`, else `~/.local/share/knowgen`. Data from a local folder has no
commit; its folder is named `local-` and a hash of its content.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.atomic import write_file
from knowgen.core.errors import ConfigError, DataError
from knowgen.core.home import expand_user, home_folder
from knowgen.core.text import parse_json

HOME = "KNOWGEN_DATA"
"""Environment variable that names the data folder."""

CURRENT_FILE = "current.json"
INDEX_FILE = "index.json"
INDEX_FORMAT = 1
"""Format of a prepared folder. Data in another format must be prepared again."""

_FOLDER = re.compile(r"[0-9a-z][0-9a-z-]{0,79}\Z")


def data_home() -> Path:
    """Return the folder of all prepared data; it may not exist.

    Raises:
        ConfigError: No variable names it, and the user has no home folder.
    """
    if named := os.environ.get(HOME, "").strip():
        return expand_user(named)
    if base := os.environ.get("XDG_DATA_HOME", "").strip():
        return Path(base) / "knowgen"
    home = home_folder()
    if home is None:
        raise ConfigError("the user has no home folder", where="prepared data", fix=f"set {HOME} to a folder for them")
    return home / ".local" / "share" / "knowgen"


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set on this machine.

    Attributes:
        name: Name of the data set.
        folder: The prepared folder.
        index: Content of `index.json`: repository, requested revision, commit, number of rows, rows left out.
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
        """The requested revision; empty for data from a local folder."""
        return str(self.index.get("revision", ""))

    @property
    def source(self) -> str:
        """The local folder it was read from; empty for data from the hub."""
        return str(self.index.get("source", ""))


def find_prepared(name: str) -> PreparedData | None:
    """Return the version of a data set that is in use; None if it is not prepared.

    A folder that is missing or has another format counts as not prepared.

    Raises:
        DataError: `current.json` or the index cannot be read.
    """
    place = data_home() / name
    current = _read(place / CURRENT_FILE)
    if current is None:
        return None
    folder = str(current.get("folder", ""))
    if not _FOLDER.match(folder):
        raise DataError(
            f"invalid folder name {folder[:80]!r}", where=str(place / CURRENT_FILE), fix=prepare_again(name)
        )
    return read_prepared(name, place / folder)


def read_prepared(name: str, folder: Path) -> PreparedData | None:
    """Return the data set in a folder; None if it is unfinished or has another format.

    Raises:
        DataError: The index cannot be read.
    """
    index = _read(folder / INDEX_FILE)
    if index is None or index.get("format") != INDEX_FORMAT or index.get("name") != name:
        return None
    return PreparedData(name, folder, index)


def need_prepared(name: str) -> PreparedData:
    """Return the version of a data set that is in use.

    Raises:
        DataError: The data set is not prepared. The message contains the command that prepares it.
    """
    prepared = find_prepared(name)
    if prepared is None:
        raise DataError(
            "is not prepared on this machine", where=f"data set {name}", fix=f"run: knowgen task prepare {name}"
        )
    return prepared


def prepare_again(name: str) -> str:
    """Return the fix for damaged prepared data, for error messages."""
    return f"run: knowgen task prepare {name} --force"


def put_current(name: str, folder: str) -> None:
    """Make a prepared folder the version in use, atomically."""
    write_json(data_home() / name / CURRENT_FILE, {"folder": folder})


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: a reader sees the old or the new content."""
    write_file(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; return None if the file does not exist."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise DataError("invalid JSON", where=str(path), fix="remove it, and prepare the data set again") from error
    if not isinstance(data, dict):
        raise DataError("must be a JSON object", where=str(path), fix="remove it, and prepare the data set again")
    return data
