"""Import code of others in the process that needs it: a call of `os._exit` becomes an error, and a long import says so.

A run imports code of others in worker processes and in those of `knowgen.workflows.plugin_process`, where a crash
reaches nothing else. With `--workers 0`, and where a plugin is checked, this module is all the protection there is.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from knowgen.core.text import count
from knowgen.core.tracebacks import is_local

NOTICE_SECONDS = 30.0
"""Time after which an import that has not ended is reported. Large libraries on a slow disk may take as long."""

_log = logging.getLogger("knowgen.plugins")


class HardExit(SystemExit):
    """Raised in place of the end of the process."""


@contextmanager
def guarded_import(where: str) -> Iterator[None]:
    """Guard the imports in the body of a `with` statement.

    `os._exit`, which ends a process without a word, raises `HardExit` in this thread; in other threads, and in
    processes that the code forks, it does what it always does. An import that takes long is logged as a warning with
    the line where it is; interrupting it remains with the user.

    Args:
        where: The plugin, for the warning.

    Raises:
        HardExit: The code called `os._exit`.
    """
    process, thread, leave = os.getpid(), threading.get_ident(), os._exit
    over = threading.Event()

    def refuse(status: int) -> NoReturn:
        # a module that was imported here may have kept this function, as a default for example
        if over.is_set() or (os.getpid(), threading.get_ident()) != (process, thread):
            leave(status)
        raise HardExit(f"it called os._exit({status})")

    notice = threading.Timer(NOTICE_SECONDS, _report, (where, thread, NOTICE_SECONDS))
    notice.daemon = True
    notice.start()
    os._exit = refuse
    try:
        yield
    finally:
        over.set()
        if os._exit is refuse:  # a plugin that replaced it as well keeps its own
            os._exit = leave
        notice.cancel()


def _report(where: str, thread: int, seconds: float) -> None:
    place = _place(sys._current_frames().get(thread))
    _log.warning(
        "%s has not been imported after %s%s; Ctrl-C ends the command",
        where, count(round(seconds), "second"), f" (at {place})" if place else "",
    )  # fmt: skip


def _place(frame: FrameType | None) -> str:
    """Return file name and line of the innermost frame in the user's own code; empty without one."""
    while frame is not None and not is_local(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else ""
