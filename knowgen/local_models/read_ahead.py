"""Read the files of a model side by side while it is loaded.

Libraries map them into memory, so that they are read piece by piece when weights are moved to a device. Disks and
network file systems are faster with several requests at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from knowgen.local_models.host_memory import host_memory

THREADS = 8
BLOCK_BYTES = 16 * 2**20

SHARE = 0.8
"""Share of the free main memory that files may take; larger ones would push each other out of it."""


@contextmanager
def read_ahead(files: Sequence[Path]) -> Iterator[None]:
    """Read files into the cache of the system during a `with` block, which does not wait for it.

    Nothing is read where the free memory is unknown or too small. Errors are left to whoever loads a file.

    Args:
        files: The files, in the order in which they are needed.
    """
    memory = host_memory()
    if memory is None or sum(file.stat().st_size for file in files) > SHARE * memory.free:
        yield
        return
    waiting: SimpleQueue[Path] = SimpleQueue()
    for file in files:
        waiting.put(file)
    stop = threading.Event()
    for _ in range(min(THREADS, len(files))):
        threading.Thread(target=_read, args=(waiting, stop), name="knowgen read ahead", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _read(waiting: SimpleQueue[Path], stop: threading.Event) -> None:
    """Read files until none waits, or until `stop` is set."""
    block = bytearray(BLOCK_BYTES)
    while not stop.is_set():
        try:
            path = waiting.get_nowait()
        except Empty:
            return
        try:
            with path.open("rb", buffering=0) as file:
                while not stop.is_set() and file.readinto(block):
                    pass
        except OSError:
            continue  # whoever loads it says what is wrong
