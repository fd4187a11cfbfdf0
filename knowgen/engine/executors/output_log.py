"""The log of a worker process: what its plugin prints, bounded in size."""

from __future__ import annotations

import os
import threading
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""Maximum size of a log file; what a plugin prints after that is dropped."""

_CHUNK = 1 << 16


class OutputLog:
    """Copies what a worker process prints to a file.

    The process writes to a pipe and knows no path of the run directory.

    Args:
        path: The log file. Earlier content is kept unless the file is full.

    Attributes:
        writer: Descriptor that becomes the standard streams of the process; close it after the start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(exist_ok=True)
        if path.is_file() and path.stat().st_size >= MAX_BYTES:
            path.unlink()  # so that the new output is seen
        reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(reader,), name="knowgen log", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until what a process printed before its end is in the file, or for some seconds.

        Processes that the plugin left behind may keep the pipe open for longer.
        """
        self._thread.join(seconds)

    def _copy(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as pipe, self.path.open("ab", buffering=0) as file:
            size = file.tell()
            while chunk := pipe.read(_CHUNK):
                if size < MAX_BYTES:
                    kept = chunk[: MAX_BYTES - size]
                    file.write(kept)
                    size += len(kept)
                    if size >= MAX_BYTES:
                        file.write(b"\n[further output is dropped]\n")
