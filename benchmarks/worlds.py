"""Measure how long `knowgen world build` takes, and that the world is the same as that of an earlier commit.

    python benchmarks/worlds.py [--samples 480] [--seed 7] [--times 1] [--against COMMIT]

Prints wall time, processor time and highest memory of one process, and the hash of all files of the world. With
`--against` both commits build the same world in turn; another hash or a missed goal (60 s for 480 samples on two idle
cores) ends the command with exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from benchmarks.against import HELP, Cost, checkouts, compared, load, python

GOAL = 0.125
"""Seconds a sample: 480 in 60 s."""


def content_hash(folder: Path) -> str:
    """Return the hash of names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(tree: Path, out: Path, samples: int, seed: int) -> Cost:
    """Build a world with the package of a folder."""
    arguments = ("--seed", str(seed), "--samples", str(samples), "--out", str(out))
    return python(tree, "-m", "knowgen", "world", "build", *arguments)


def main() -> int:
    """Measure, and return 1 if a world differs or the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=480)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--times", type=int, default=1, help="how often each commit builds the world")
    parser.add_argument("--against", metavar="COMMIT", help=HELP)
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {}
    hashes: set[str] = set()
    print(load())
    # deleted only at the end: ext4 creates files slowly for half a minute after many were deleted
    with checkouts(options.against) as trees, tempfile.TemporaryDirectory(prefix="knowgen.worlds.") as folder:
        for number in range(options.times):
            for name, tree in trees.items():
                out = Path(folder) / f"{number}-{name}"
                costs.setdefault(name, []).append(build(tree, out, options.samples, options.seed))
                hashes.add(content_hash(out))
    print(compared("wall time", {name: [each.seconds for each in own] for name, own in costs.items()}, "s"))
    print(compared("processor time", {name: [each.cpu for each in own] for name, own in costs.items()}, "s"))
    print(f"memory of a process: {max(each.memory for each in costs['now']):.0f} MiB at most")
    print(f"world: {', '.join(sorted(hashes))}: {'the same bytes' if len(hashes) == 1 else 'NOT THE SAME'}")
    met = min(each.seconds for each in costs["now"]) <= GOAL * options.samples
    print(f"goal ({GOAL * options.samples:.0f} s): {'met' if met else 'MISSED'}")
    return int(not met or len(hashes) > 1)


if __name__ == "__main__":
    sys.exit(main())
