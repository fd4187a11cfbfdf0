"""Compare two generators sample by sample: is the difference real, and how large is it?

Two of the baseline systems, with the same painter. `closed_book` knows the prompt; `open_book` searches first.
"""

from __future__ import annotations

import knowgen

SAMPLES = 12
"""Enough for a first look. An interval needs 18 samples of each group; a real comparison uses the whole task."""


def main() -> None:
    """Run both systems on the same samples and print the paired difference of the K-Score."""
    closed = knowgen.evaluate("knowgen_mini", "closed_book", limit=SAMPLES, out="reports/closed_book")
    opened = knowgen.evaluate("knowgen_mini", "open_book", limit=SAMPLES, out="reports/open_book")

    comparison = knowgen.compare(closed, opened)
    overall = comparison.headline
    print(f"closed_book {overall.a:.3f}   open_book {overall.b:.3f}   over {overall.n} paired samples")
    print(f"difference  {overall.value:+.3f}")
    if overall.low is not None and overall.high is not None:
        print(f"95 % interval [{overall.low:+.3f}, {overall.high:+.3f}]")
    else:
        print(f"no interval: {overall.note}")
    if overall.p is not None:
        print(f"permutation test: p = {overall.p:.4f}")


if __name__ == "__main__":
    main()
