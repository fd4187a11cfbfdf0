"""What kind of file system a path lies on; SQLite's write-ahead log needs shared memory, which a network lacks."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK_TYPES = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "smb", "smb2", "smb3", "smbfs",
    "virtiofs", "wekafs",
})  # fmt: skip
"""Types as the kernel names them, where several machines may see one file, or shared memory cannot be trusted."""

NETWORK_HELPERS = re.compile(
    r"^fuse\.(sshfs|s3fs|rclone|gcsfuse|goofys|glusterfs|ceph|juicefs|lustre|davfs|smb|cifs|nfs|blobfuse)"
)
"""The same through FUSE."""

MOUNT_TABLE = Path("/proc/mounts")


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """Returns the type of the file system a path lies on, such as `ext4` or `nfs4`; empty when it cannot be told.

    Args:
        path: An existing path, or one whose parents may exist.
        mounts: Text of a mount table in the form of /proc/mounts; read from this machine when None.
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
        # the last line wins among equals: a later mount covers an earlier one on the same point
        if depth >= best and (target == point or point in target.parents):
            best, kind = depth, fields[2]
    return kind


def is_network(kind: str) -> bool:
    """Tells whether a type named by `filesystem_type` is a network file system."""
    return kind.lower() in NETWORK_TYPES or NETWORK_HELPERS.match(kind.lower()) is not None


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)
