"""Text that must not leave this machine: keys, folders of this machine, its host name.

Folders and the host are replaced in what a run has recorded about its work (reasons, notes, records). What decides a
result cannot be replaced, because keys are made from it; it is refused instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.secrets import find_key, find_secret
from knowgen.core.steps import counted
from knowgen.core.text import parse_json
from knowgen.store.schema import migrate

_SHORTEST_HOST = 4
_COMMON_HOSTS = frozenset({"localhost", "ubuntu", "debian", "docker", "host", "server", "computer", "runner", "node"})
"""Host names that occur as ordinary words."""

_HOME = re.compile(r"(?<![\w.~/-])(?:(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})([A-Za-z0-9_.-]+)|/root(?=/))")
"""A home folder of any machine, whose name is that of a user; not a part of an address such as `site.org/home/x`."""

_PLACEHOLDERS = frozenset({"you", "me", "user", "username", "name", "USER", "NAME"})
"""Names of users in documentation and examples."""


@dataclass(frozen=True)
class PrivateText:
    """Text of this machine, with what replaces it.

    Attributes:
        folders: Absolute paths, the longest first, each with its replacement.
        host: Host name; empty where it is too short or common to differ from a word.
    """

    folders: tuple[tuple[str, str], ...]
    host: str

    @classmethod
    def of_this_machine(cls, folder: Path) -> PrivateText:
        """Return the text to look for.

        Args:
            folder: Directory of the run.
        """
        named = {
            str(folder.absolute()): "[run]",
            str(folder.resolve()): "[run]",
            str(Path.cwd()): "[folder]",
            str(Path.home()): "~",
        }
        for path, name in ((tempfile.gettempdir(), "[tmp]"), (sys.prefix, "[python]"), (sys.base_prefix, "[python]")):
            if path.count("/") > 2:  # not `/usr/local`, of which any page may speak
                named.setdefault(path, name)
        for variable in ("KNOWGEN_DATA", "KNOWGEN_CACHE", "HF_HOME"):
            if os.environ.get(variable, "").startswith("/"):
                named[os.environ[variable].rstrip("/")] = f"[{variable}]"
        # not `/` or `/tmp`: a short path occurs inside others, and says nothing
        useful = {path: name for path, name in named.items() if path.count("/") > 1 or path == str(Path.home()) != "/"}
        host = socket.gethostname()
        known = len(host) >= _SHORTEST_HOST and host.lower().partition(".")[0] not in _COMMON_HOSTS
        return cls(tuple(sorted(useful.items(), key=lambda pair: -len(pair[0]))), host if known else "")

    def replaced(self, text: str) -> str:
        """Return a text without folders of this machine and without its host name.

        Example:
            >>> PrivateText((("/home/ann", "~"),), "gpu-17").replaced("no file /home/ann/x.png on gpu-17")
            'no file ~/x.png on [host]'
        """
        for path, name in self._forms():
            if path in text:
                text = name.join(re.split(rf"{re.escape(path)}(?![\w-])", text))
        if self.host and self.host in text:
            text = re.sub(rf"(?<![\w-]){re.escape(self.host)}(?![\w-])", "[host]", text)
        return _HOME.sub(lambda found: found[0] if found[1] in _PLACEHOLDERS else "~", text)

    def _forms(self) -> Iterator[tuple[str, str]]:
        """Yield each folder as it is, and as it is written in JSON."""
        for path, name in self.folders:
            yield path, name
            if (escaped := json.dumps(path)[1:-1]) != path:
                yield escaped, name

    def found(self, text: str, *, homes: bool = True) -> str:
        """Return what of this machine is in a text, in words without the text itself; empty for nothing.

        Args:
            text: The text.
            homes: Whether a home folder of any machine counts too.
        """
        for path, name in self._forms():
            if path in text and self.replaced(text) != text:
                return f"a folder of this machine ({name})"
        if self.host and re.search(rf"(?<![\w-]){re.escape(self.host)}(?![\w-])", text):
            return "the name of this machine"
        return "a user's home folder" if homes and self.replaced(text) != text else ""


def scrub_database(source: Path, target: Path, private: PrivateText) -> int:
    """Write a consistent copy of run.sqlite without folders and the name of this machine.

    The same content gives the same bytes. Samples and ground truths are kept as they are, apart from the paths of
    ground-truth images, which are on this machine.

    Args:
        source: The database; a writer may have it open.
        target: File to write.
        private: What is replaced.

    Returns:
        The number of values that were changed.
    """
    draft = target.with_suffix(".draft")
    reader = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    writer = sqlite3.connect(draft)
    try:
        reader.backup(writer)
        writer.create_function("scrubbed", 1, private.replaced, deterministic=True)
        migrate(writer, draft)
        changed = writer.execute("update samples set truth_file = '' where truth_file != ''").rowcount
        for table, column in counted(_text_columns(writer), f"copying {source.name} without folders of this machine"):
            sql = f'update "{table}" set "{column}" = scrubbed("{column}") where "{column}" != scrubbed("{column}")'
            changed += writer.execute(sql).rowcount
        writer.commit()
        writer.execute("pragma journal_mode=delete")
        target.unlink(missing_ok=True)
        writer.execute("vacuum into ?", (str(target),))
    finally:
        reader.close()
        writer.close()
        for each in target.parent.glob(f"{draft.name}*"):
            each.unlink()
    return changed


def _text_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the text columns of the tables of results."""
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    return [
        (table, str(column[1]))
        for table in tables
        if table != "samples"
        for column in connection.execute(f'pragma table_info("{table}")')
        if str(column[2]).lower() == "text" and column[1] not in ("key", "sample_id", "image", "scorer_hash")
    ]


@dataclass(frozen=True)
class PrivateFinding:
    """Something that must not be sent.

    Attributes:
        where: File, with the table and row of a database.
        what: What it is, without the text itself.
        is_key: Whether it is a key, and not a folder or a host name.
    """

    where: str
    what: str
    is_key: bool


def findings_in_file(path: Path, where: str, private: PrivateText) -> Iterator[PrivateFinding]:
    """Yield what a file has that must not be sent; an image is not read."""
    if path.suffix == ".sqlite":
        yield from _in_database(path, where, private)
    elif path.suffix in (".json", ".jsonl", ".yaml", ".md", ".csv", ".txt"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json" and path.name == "run.json":
            plain = parse_json(text)
            if secret := find_secret(plain if isinstance(plain, dict) else {"file": plain}):
                yield PrivateFinding(f"{where}: {'.'.join(map(str, secret.place))}", secret.what, True)
        yield from _in_text(text, where, private)


def _in_text(text: str, where: str, private: PrivateText) -> Iterator[PrivateFinding]:
    for number, line in enumerate(text.splitlines(), 1):
        if key := find_key(line):
            yield PrivateFinding(f"{where}:{number}", key.what, True)
        if what := private.found(line):
            yield PrivateFinding(f"{where}:{number}", what, False)


def _in_database(path: Path, where: str, private: PrivateText) -> Iterator[PrivateFinding]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for table in ("samples", "answers", "generations", "scores", "notes"):
            columns = [str(row[1]) for row in connection.execute(f'pragma table_info("{table}")')]
            names = ", ".join(f'"{name}"' for name in columns)
            rows = connection.execute(f'select {names} from "{table}"') if columns else ()
            for row in counted(rows, f"looking for private text in {table}"):
                place = f"{where}, {table}, {row[columns.index('sample_id')] if 'sample_id' in columns else row[0]}"
                text = "\n".join(value for value in row if isinstance(value, str))
                if key := find_key(text):
                    yield PrivateFinding(place, key.what, True)
                # samples are the task's own text, which may speak of folders
                if what := private.found(text, homes=table != "samples"):
                    yield PrivateFinding(place, what, False)
    finally:
        connection.close()
