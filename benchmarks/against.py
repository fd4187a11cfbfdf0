"""Run a benchmark on this commit and on an earlier one, in turn, so that the load of the machine affects both."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

HELP = "an earlier commit that is measured in turn with this one"


@dataclass(frozen=True)
class Cost:
    """What a process and its children took.

    Attributes:
        seconds: Wall time.
        cpu: Processor time of user and system, in seconds.
        memory: Highest memory of a single process so far, in MiB.
        output: Standard output.
    """

    seconds: float
    cpu: float
    memory: float
    output: str


@contextlib.contextmanager
def checkouts(commit: str | None) -> Iterator[dict[str, Path]]:
    """Yield the folders to measure by their names: this one, and a temporary worktree of the commit if one is given."""
    if commit is None:
        yield {"now": ROOT}
        return
    with tempfile.TemporaryDirectory(prefix="knowgen.against.") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            shutil.rmtree(tree / "benchmarks")  # both are measured by the same scripts
            shutil.copytree(ROOT / "benchmarks", tree / "benchmarks")
            yield {commit: tree, "now": ROOT}
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def environment(tree: Path) -> dict[str, str]:
    """Return the environment of a process that imports the package of a folder."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def python(tree: Path, *arguments: str) -> Cost:
    """Run Python with the package of a folder and return what it took."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, env=environment(tree), cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Cost(seconds, cpu, after.ru_maxrss / unit, done.stdout)


def compared(name: str, values: Mapping[str, Sequence[float]], unit: str) -> str:
    """Return one line: the median of this commit, with its range, and its ratio to the earlier commit, if there is one.

    Example:
        >>> compared("wall time", {"0123abc": [4.0, 4.2, 4.1], "now": [2.0, 2.1, 2.05]}, "s")
        'wall time: 2.05 s (2.00 to 2.10), 0.50 of 0123abc (4.10 s)'
    """
    now = values["now"]
    text = f"{name}: {statistics.median(now):.2f} {unit}"
    if len(now) > 1:
        text += f" ({min(now):.2f} to {max(now):.2f})"
    for commit, earlier in values.items():
        if commit != "now":
            usual = statistics.median(earlier)
            text += f", {statistics.median(now) / usual:.2f} of {commit} ({usual:.2f} {unit})"
    return text


def load() -> str:
    """Return a line about the load of the machine, without which times say little."""
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"{cores} cores, load {busy:.1f}: {'loaded, trust ratios and processor time' if busy > 0.5 else 'idle'}"
