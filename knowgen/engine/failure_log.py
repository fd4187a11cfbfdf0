"""The log of errors that plugins raise: `logs/errors.log` in the run directory, bounded in size."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from pathlib import Path

from knowgen.core.errors import KnowgenError
from knowgen.core.records import FailureCause
from knowgen.core.secrets import mask_secrets
from knowgen.core.tracebacks import place_of, traceback_text
from knowgen.engine.retry import (
    CallTimeoutError,
    ContractError,
    DeviceDisabledError,
    PluginDisabledError,
    PluginError,
    StoppedError,
    cause_of,
    describe,
    is_transient,
)

NAME = "errors.log"
MAX_BYTES = 4 * 1024 * 1024
"""Maximum size of the log in bytes."""
MAX_EQUAL = 3
"""Times an equal traceback is written."""

_OWN_ERRORS = (
    CallTimeoutError, ContractError, DeviceDisabledError, KnowgenError, PluginDisabledError, StoppedError,
)  # fmt: skip


class FailureLog:
    """Writes tracebacks of a plugin's errors. Used in one thread.

    Args:
        folder: The run directory.
        where: Name of the plugin.
    """

    def __init__(self, folder: Path, where: str) -> None:
        self._path = folder / "logs" / NAME
        self._where = where
        self._written: Counter[str] = Counter()

    def record(self, error: BaseException) -> BaseException:
        """Write the traceback of an error, and return the error to report: one that names file, line and log.

        Errors of this project, which a plugin raises on purpose, are returned as they are. So are transient errors, but
        their tracebacks are written.
        """
        if isinstance(error, _OWN_ERRORS):
            return error
        if isinstance(error, PluginError):
            place, text = error.place, error.traceback
        else:
            place, text = place_of(error), traceback_text(error)
        if not text or not place:
            return error
        written = self._write(text)
        if is_transient(error):
            return error
        note = f" ({place})" + (f"; see logs/{NAME}" if written else "")
        machine = cause_of(error) is FailureCause.INFRASTRUCTURE
        return PluginError(describe(error) + note, machine=machine, place=place)

    def _write(self, text: str) -> bool:
        """Write a traceback; return whether the log has it."""
        key = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        self._written[key] += 1
        if self._written[key] > MAX_EQUAL:
            return True
        try:
            self._path.parent.mkdir(exist_ok=True)
            if self._path.is_file() and self._path.stat().st_size > MAX_BYTES:
                self._path.unlink()  # so that the newest errors are seen
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"--- {self._where}\n{mask_secrets(text.rstrip())}\n\n")
        except OSError as error:
            logging.getLogger("knowgen.engine").warning("%s cannot be written: %s", self._path, error)
            return False
        return True
