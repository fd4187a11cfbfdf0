#!/usr/bin/env python3
"""`knowgen run` as a script. Without arguments it runs `knowgen demo`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def _use_project_environment() -> None:
    """Restart with the Python of `.venv` when this one lacks the package's dependencies."""
    python = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
    if importlib.util.find_spec("pydantic") and importlib.util.find_spec("click"):
        return
    if python.exists() and Path(sys.executable) != python:
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.exit("run_eval.py: the dependencies are not installed; run `make demo` once, or `pip install -e .`")


def main() -> int:
    """Run `knowgen run` with the arguments of this script, or `knowgen demo` without arguments."""
    _use_project_environment()
    from knowgen.cli.common import program_of_this_process
    from knowgen.cli.main import run as run_command

    arguments = sys.argv[1:]
    return run_command(["demo"] if not arguments else ["run", *arguments], program=program_of_this_process())


if __name__ == "__main__":
    sys.exit(main())
