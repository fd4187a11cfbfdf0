"""Processes that tests start, which find this package and the tests, and waiting for what they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds until a test gives up on a process that does nothing."""


def python_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a Python process that imports `knowgen` and `tests` from this checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}


def start_python(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start Python with both outputs piped.

    Args:
        arguments: What follows the name of the interpreter.
        options: Further options of `Popen`.
    """
    command = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{"env": python_environment(), **pipes, **options})


def run_python(*arguments: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and return what it printed.

    Args:
        arguments: What follows the name of the interpreter.
        check: Raise for an exit code other than 0.
        options: Further options of `subprocess.run`.
    """
    command = [sys.executable, *map(str, arguments)]
    options = {"env": python_environment(), "timeout": 2 * PATIENCE, **options}
    return subprocess.run(command, capture_output=True, text=True, check=check, **options)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until a condition holds or a process has ended.

    Raises:
        AssertionError: Neither happened within `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
