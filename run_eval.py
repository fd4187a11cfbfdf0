#!/usr/bin/env python3
"""`knowgen run`, as a script: `python run_eval.py` alone runs the demo on the embedded world."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def _use_own_environment() -> None:
    """Starts again with the Python of `.venv`, when this one lacks the package's dependencies."""
    own = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
    if importlib.util.find_spec("pydantic") and importlib.util.find_spec("click"):
        return
    if own.exists() and Path(sys.executable) != own:
        os.execv(own, [str(own), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.exit("run_eval.py: the dependencies are not installed; run `make demo` once, or `pip install -e .`")


def main() -> int:
    """Runs the demo without arguments, `knowgen run` with them."""
    _use_own_environment()
    from knowgen.cli.main import run as run_command

    arguments = sys.argv[1:]
    return run_command(["demo"] if not arguments else ["run", *arguments])


if __name__ == "__main__":
    sys.exit(main())
