"""The folder of a site: written under a temporary name, and moved into place when it is complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError, DataError
from knowgen.core.text_files import read_text

MARKER = "knowgen-boards.txt"
"""File in every site, which lists its other entries; a folder without it is not a site and is not replaced."""

_HEAD = "A site of leaderboards written by knowgen, with these entries:"


@contextmanager
def site_draft(out: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of an earlier site at the end; readers never see a partial one.

    Args:
        out: Folder of the site.

    Raises:
        ConfigError: `out` is a file, or a folder with other content.
        DataError: The folder cannot be written.
    """
    out = out.resolve()
    check_replaceable(out)
    try:
        with folder_draft(out) as fresh:
            yield fresh
            names = sorted(path.name for path in fresh.iterdir())
            (fresh / MARKER).write_text("\n".join([_HEAD, *names]) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        where = str(error.filename or out)
        fix = "free space or name another folder"
        raise DataError(f"cannot be written: {error.strerror or error}", where=where, fix=fix) from error


def check_replaceable(out: Path) -> None:
    """Check that a folder is an earlier site, is empty, or does not exist.

    Raises:
        ConfigError: It is a file, or a folder with other content.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("not a folder", where=str(out), fix="name another folder with -o")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if MARKER not in names:
        fix = "name an empty or new folder with -o"
        raise ConfigError("the folder is not a site of leaderboards", where=str(out), fix=fix)
    own = {MARKER, *read_text(out / MARKER).splitlines()[1:]}
    others = [name for name in names if name not in own]
    if others:
        fix = "move it elsewhere, or name another folder with -o"
        raise ConfigError(f"the folder has {others[0]!r} beside an earlier site", where=str(out), fix=fix)
