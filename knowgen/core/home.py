"""The user's home folder, which a process may not have: `HOME` unset and a user id without an entry."""

from __future__ import annotations

from pathlib import Path


def home_folder() -> Path | None:
    """Return the home folder of the user; None when there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expand_user(path: str | Path) -> Path:
    """Return a path with a leading `~` replaced by a home folder; unchanged when that folder is not known.

    Example:
        >>> expand_user("models/own").as_posix()
        'models/own'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
