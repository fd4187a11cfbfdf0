"""Write the files of a run directory, with one-line errors that name the fix."""

from __future__ import annotations

import errno
from pathlib import Path

from knowgen.core.atomic import write_file
from knowgen.core.errors import ConfigError, DataError, KnowgenError


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically and durably.

    Raises:
        ConfigError: The folder cannot be written.
        DataError: The disk is full.
    """
    try:
        write_file(path, text)
    except OSError as error:
        raise explain_os_error(error, path.parent) from error


def explain_os_error(error: OSError, where: Path) -> KnowgenError:
    """Return the error to raise for a failed write: one line, with its fix."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DataError(
            f"the disk is full ({error.strerror})",
            where=str(where),
            fix="free some space and run the same command again: committed results are preserved",
        )
    return ConfigError(
        f"cannot be written ({error.strerror})", where=str(where), fix="fix its permissions or choose another --out"
    )
