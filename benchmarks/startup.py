"""How long the command line takes to start: medians of ten.

    python benchmarks/startup.py

Goals: `--help` under 0.2 s, `list generators` under 0.3 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 10
GOALS = {("--help",): 0.2, ("list", "generators"): 0.3, ("run", "--help"): 0.2, ("--version",): 0.2}


def seconds(words: tuple[str, ...]) -> float:
    """Returns the wall time of one call."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "knowgen", *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Prints the median of each command beside its goal and the bare interpreter's."""
    bare = statistics.median(_bare() for _ in range(REPEATS))
    print(f"{'python -c pass':<20} {bare:.3f} s")
    for words, goal in GOALS.items():
        seconds(words)  # warm the file cache
        median = statistics.median(seconds(words) for _ in range(REPEATS))
        verdict = "ok" if median < goal else "TOO SLOW"
        print(f"{' '.join(words):<20} {median:.3f} s  goal {goal} s  ratio {median / goal:.2f}  {verdict}")


def _bare() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
