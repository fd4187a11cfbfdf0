"""A process that is forked during a run holds neither the lock of the run directory nor its signal handlers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from knowgen.store.lock import RunLock
from tests.helpers.processes import run_python, start_python

HOLDER = """
import os, sys, time
from pathlib import Path
from knowgen.store.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
started, starts = os.pipe()
child = os.fork()
if child == 0:
    os.close(1)
    os.write(starts, b"1")
    time.sleep(60)
    os._exit(0)
os.read(started, 1)  # until the child runs, it is still being forked
print(child, flush=True)
os._exit(1)  # ends like a process that is killed
"""

SIGNALS = """
import os, signal, time
from knowgen.engine.run_state import SignalHandler
with SignalHandler(lambda: None):
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    process = start_python("-c", HOLDER, tmp_path)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait()
    try:
        RunLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_forked_child_ends_at_a_signal_that_the_run_handles() -> None:
    assert int(run_python("-c", SIGNALS).stdout) == signal.SIGTERM
