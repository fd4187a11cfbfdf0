"""Measure how long the command line takes to start.

    python benchmarks/startup.py

Prints the median of ten starts of each command, its goal, the ratio of both, and whether the goal is met: under 0.2 s
for `--help`, `run --help` and `--version`, under 0.3 s for `list generators`. The first line is a bare interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 10
GOALS = {("--help",): 0.2, ("list", "generators"): 0.3, ("run", "--help"): 0.2, ("--version",): 0.2}


def seconds(arguments: tuple[str, ...]) -> float:
    """Return the wall time of one call of `knowgen`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "knowgen", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the median of each command and its goal."""
    bare = statistics.median(_bare() for _ in range(REPEATS))
    print(f"{'python -c pass':<20} {bare:.3f} s")
    for arguments, goal in GOALS.items():
        seconds(arguments)  # warm the file cache
        median = statistics.median(seconds(arguments) for _ in range(REPEATS))
        verdict = "met" if median < goal else "MISSED"
        print(f"{' '.join(arguments):<20} {median:.3f} s  goal {goal} s  ratio {median / goal:.2f}  {verdict}")


def _bare() -> float:
    """Return the wall time of an interpreter that does nothing."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
