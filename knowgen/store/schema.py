"""The tables of run.sqlite, as numbered migrations, and how the file is opened.

Each table contains the full record as JSON beside the columns used for look-ups, so that the file can be inspected with
`sqlite3 run.sqlite "select sample_id, status, reason from generations"`.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.scratch import ScratchFolder
from knowgen.store.database import explain_sqlite_error

T = TypeVar("T")

APPLICATION_ID = 0x4B4E5747
"""Application id of the file: `KNWG`."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """create table samples (
            place integer primary key,
            sample_id text not null unique,
            category text not null,
            category_group text not null,
            difficulty text not null,
            text_required integer,
            sample text not null,
            truth text not null,
            truth_file text not null
        )""",
        """create table generations (
            number integer primary key,
            key text not null unique,
            sample_id text not null,
            repeat integer not null,
            status text not null,
            reason text not null,
            image text not null,
            seconds real not null,
            cost real,
            attempts integer not null,
            record text not null
        )""",
        "create index generations_by_sample on generations (sample_id, repeat)",
        """create table scores (
            number integer primary key,
            key text not null unique,
            sample_id text not null,
            repeat integer not null,
            scorer text not null,
            scorer_hash text not null,
            judge_repeat integer not null,
            image text not null,
            status text not null,
            reason text not null,
            strict_values text not null,
            seconds real not null,
            cost real,
            tries integer not null,
            record text not null
        )""",
        "create index scores_by_sample on scores (sample_id, scorer)",
        """create table reservations (
            number integer primary key,
            who text not null,
            at real not null,
            reserved real not null,
            settled real
        )""",
        """create table sessions (
            number integer primary key,
            started real not null,
            seen real not null,
            outcome text not null
        )""",
    ),
    (
        """create table notes (
            number integer primary key,
            at real not null,
            who text not null,
            what text not null,
            record text not null
        )""",
    ),
    (
        """create table answers (
            number integer primary key,
            key text not null unique,
            sample_id text not null,
            repeat integer not null,
            status text not null,
            reason text not null,
            ending text not null,
            seconds real not null,
            cost real,
            attempts integer not null,
            record text not null
        )""",
        "create index answers_by_sample on answers (sample_id, repeat)",
    ),
)
"""Statements from each schema version to the next; the version is `pragma user_version`."""

READABLE_FROM = 1
"""Oldest schema version that can be read without migration; later versions only added tables."""

BUSY_SECONDS = 20.0


def journal_mode(folder: Path, mounts: str | None = None) -> str:
    """Return `wal` on a local disk and `delete` on a network file system.

    Args:
        folder: The run directory.
        mounts: Mount table, see `filesystem_type`.
    """
    return "delete" if is_network(filesystem_type(folder, mounts)) else "wal"


def open_writer(path: Path, mounts: str | None = None) -> sqlite3.Connection:
    """Open run.sqlite for writing; create it if it does not exist, and migrate its tables.

    Raises:
        DataError: The file is damaged, of another program, or written by a newer version.
        ConfigError: It cannot be written.
    """
    return _guarded(path, lambda: _open_writer(path, journal_mode(path.parent, mounts)))


def _open_writer(path: Path, mode: str) -> sqlite3.Connection:
    connection = _connect(path.absolute().as_uri())
    try:
        migrate(connection, path)
        connection.execute(f"pragma journal_mode={mode}")
        # WAL: a killed process loses nothing; a power failure may lose the last commits, but never the consistency
        connection.execute(f"pragma synchronous={'normal' if mode == 'wal' else 'full'}")
        connection.execute("pragma cache_size=-16000")
        connection.execute("pragma wal_autocheckpoint=4000")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> tuple[sqlite3.Connection, ScratchFolder | None]:
    """Open run.sqlite without changing it, even in a directory that cannot be written.

    Returns:
        The connection, and a temporary folder to clean up afterwards if the file had to be copied: SQLite cannot read
        the log of a killed run in place on a read-only file system.

    Raises:
        DataError: The file does not exist, is damaged, of another program, or written by a newer version.
    """
    if not path.is_file():
        raise DataError("not a run directory (run.sqlite is missing)", where=str(path.parent))
    return _guarded(path, lambda: _open_reader(path))


def _open_reader(path: Path) -> tuple[sqlite3.Connection, ScratchFolder | None]:
    uri = path.absolute().as_uri()
    log = path.with_name(path.name + "-wal")
    has_log = log.is_file() and log.stat().st_size > 0
    if not has_log and not os.access(path.parent, os.W_OK):
        return _checked(_connect(uri + "?mode=ro&immutable=1"), path), None
    try:
        return _checked(_connect(uri + "?mode=ro"), path), None
    except sqlite3.OperationalError:
        if not has_log:
            raise
    folder = ScratchFolder("knowgen.copy.")
    copy = folder.path / path.name
    shutil.copyfile(path, copy)
    shutil.copyfile(log, copy.with_name(log.name))
    return _checked(_connect(copy.as_uri()), path), folder


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        if check_version(connection, path) == 0:
            raise DataError("contains no results yet", where=str(path), fix="start the run again")
        if check_version(connection, path) < READABLE_FROM:
            raise DataError("was written by an older knowgen", where=str(path), fix="start the run once to update it")
        connection.execute("pragma query_only=on")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of a file; 0 for an empty file.

    Raises:
        DataError: It is the database of another program, or written by a newer version.
    """
    version = int(connection.execute("pragma user_version").fetchone()[0])
    mark = int(connection.execute("pragma application_id").fetchone()[0])
    tables = int(connection.execute("select count(*) from sqlite_master").fetchone()[0])
    if mark != APPLICATION_ID and (version or tables or mark):
        raise DataError("is the database of another program", where=str(path), fix="choose another --out")
    if version > len(MIGRATIONS):
        raise DataError(
            f"was written by a newer knowgen (schema {version}, this one knows {len(MIGRATIONS)})",
            where=str(path),
            fix="update knowgen",
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate the tables to the current schema in one transaction.

    Raises:
        DataError: See `check_version`.
    """
    version = check_version(connection, path)
    if version == len(MIGRATIONS):
        return
    connection.execute("begin immediate")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"pragma application_id={APPLICATION_ID}")
        connection.execute(f"pragma user_version={len(MIGRATIONS)}")
        connection.execute("commit")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _guarded(path: Path, open_it: Callable[[], T]) -> T:
    try:
        return open_it()
    except KnowgenError:
        raise
    except sqlite3.Error as error:
        raise explain_sqlite_error(error, path) from error


NETWORK_TYPES = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "smb", "smb2", "smb3", "smbfs",
    "virtiofs", "wekafs",
})  # fmt: skip
"""Type names of the kernel for network and shared file systems, on which WAL is not safe."""

NETWORK_HELPERS = re.compile(
    r"^fuse\.(sshfs|s3fs|rclone|gcsfuse|goofys|glusterfs|ceph|juicefs|lustre|davfs|smb|cifs|nfs|blobfuse)"
)
"""Names of network file systems that use FUSE."""

MOUNT_TABLE = Path("/proc/mounts")


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """Return the file system type of a path, such as `ext4` or `nfs4`; empty if it is unknown.

    Args:
        path: A path; it need not exist.
        mounts: Text of a mount table in the format of /proc/mounts; that of this machine if None.

    Example:
        >>> filesystem_type(Path("/data/run"), "server:/x /data nfs4 rw 0 0")
        'nfs4'
    """
    if mounts is None:
        if not MOUNT_TABLE.is_file():
            return ""
        mounts = MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    target = path.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_unescape(fields[1]))
        depth = len(point.parts)
        # of several mounts on the same point, the last one is visible
        if depth >= best and (target == point or point in target.parents):
            best, kind = depth, fields[2]
    return kind


def is_network(kind: str) -> bool:
    """Return whether a file system type is that of a network file system."""
    return kind.lower() in NETWORK_TYPES or NETWORK_HELPERS.match(kind.lower()) is not None


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits.group(1), 8)), field)
