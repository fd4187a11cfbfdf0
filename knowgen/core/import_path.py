"""Keep the current folder from hiding modules of the standard library and of installed packages.

`python -m knowgen` puts the current folder first on the import path, so that a file named `json.py` in it would be
imported instead of the standard library's. This module moves it to the end, where the user's own modules are still
found. It is the first import of the package and uses only modules that every interpreter has loaded already.
"""

from __future__ import annotations

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH120, PTH100
"""The folder that contains the package."""


def current_folder_last() -> None:
    """Make modules in the current folder importable, after all others."""
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return  # the folder was removed: nothing can be imported from it
    if here not in sys.path:
        sys.path.append(here)


def folder_last(folder: str) -> None:
    """Make modules in a folder importable, after all others."""
    if folder not in sys.path:
        sys.path.append(folder)


def child_path() -> list[str]:
    """Return the import path for a child process: the one of this process, with folders of scripts at the end.

    A child finds the same modules as this process, also in a notebook or from a checkout. The current folder and the
    folder of the main script come last, so that no file in them hides another module.
    """
    demoted = {"", _cwd()}
    if not sys.flags.safe_path:
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        if script:
            demoted.add(os.path.dirname(os.path.abspath(script)))  # noqa: PTH120, PTH100
    demoted.discard(_ROOT)
    first = [entry for entry in sys.path if entry not in demoted]
    last = [entry or _cwd() for entry in sys.path if entry in demoted]
    return list(dict.fromkeys([*first, *last]))


def child_environment() -> dict[str, str]:
    """Return the environment of a child process that imports what this process can import; see `child_path`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, child_path()))}


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a child process without putting the current folder first.

    Start it with `child_environment`.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""


def _demote_started_folder() -> None:
    """Move the folder that `python -m` put first to the end."""
    if sys.flags.safe_path or sys.argv[:1] != ["-m"] or not sys.path or sys.path[0] not in {"", _cwd()}:
        return
    sys.path.append(sys.path.pop(0) or _cwd())


_demote_started_folder()
