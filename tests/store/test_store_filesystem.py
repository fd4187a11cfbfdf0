"""The journal mode follows the file system: WAL needs shared memory, which network file systems do not have."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from knowgen.store.schema import filesystem_type, is_network, journal_mode, open_writer

MOUNTS = r"""
/dev/root / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/export /data nfs4 rw,vers=4.2 0 0
/dev/sdb /data/scratch xfs rw 0 0
me@host:/ /mnt/far\040away fuse.sshfs rw 0 0
10.0.0.1@tcp:/fs /lustre lustre rw 0 0
/dev/sdc /covered ext4 rw 0 0
//server/share /covered cifs rw 0 0
share /vm virtiofs rw 0 0
/dev/fuse /local fuse.mergerfs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "journal"),
    [
        ("/home/me/run", "ext4", "wal"),
        ("/dev/shm/run", "tmpfs", "wal"),
        ("/data/run", "nfs4", "delete"),
        ("/data", "nfs4", "delete"),
        ("/database/run", "ext4", "wal"),
        ("/data/scratch/run", "xfs", "wal"),
        ("/mnt/far away/run", "fuse.sshfs", "delete"),
        ("/lustre/me/run", "lustre", "delete"),
        ("/covered/run", "cifs", "delete"),
        ("/vm/run", "virtiofs", "delete"),
        ("/local/run", "fuse.mergerfs", "wal"),
    ],
)
def test_the_innermost_mount_decides(path: str, kind: str, journal: str) -> None:
    assert filesystem_type(Path(path), MOUNTS) == kind
    assert journal_mode(Path(path), MOUNTS) == journal


def test_the_type_of_a_local_folder_is_local_or_unknown(tmp_path: Path) -> None:
    kind = filesystem_type(tmp_path)
    assert kind == "" or not is_network(kind)
    assert filesystem_type(tmp_path, "") == ""


def test_the_database_has_a_rollback_journal_on_a_network_file_system(tmp_path: Path) -> None:
    network = open_writer(tmp_path / "a.sqlite", f"server:/x {tmp_path.resolve()} nfs rw 0 0\n")
    local = open_writer(tmp_path / "b.sqlite", f"/dev/x {tmp_path.resolve()} ext4 rw 0 0\n")
    assert _modes(network) == ("delete", 2)
    assert _modes(local) == ("wal", 1)
    network.close()
    local.close()


def _modes(connection: sqlite3.Connection) -> tuple[str, int]:
    journal = connection.execute("pragma journal_mode").fetchone()[0]
    return journal, connection.execute("pragma synchronous").fetchone()[0]
