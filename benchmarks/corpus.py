"""Measure how long a corpus takes to build and to answer.

    python benchmarks/corpus.py [--pages 200000] [--words 250] [--queries 200] [--folder DIR]

Writes made-up pages as JSON lines, with words that are as unequally frequent as those of a language (Zipf), and builds
a corpus of them as `knowgen corpus build` does. Then asks queries of four words, half of them common ones, at the
search backend. Prints seconds, memory, and the median and the 95th percentile of the answer time, first query apart.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

from knowgen.search.corpus.backend import CorpusSearch
from knowgen.search.corpus.build import build_corpus

VOCABULARY = 200_000


def words(count: int, seed: int) -> list[str]:
    """Return different made-up words."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choices(letters, k=rng.randint(3, 10)))] = None
    return list(found)


def write_pages(folder: Path, pages: int, length: int, vocabulary: list[str]) -> None:
    """Write pages as JSON lines."""
    rng = random.Random(1)
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(vocabulary))))
    with (folder / "pages.jsonl").open("w", encoding="utf-8") as file:
        for number in range(pages):
            chosen = rng.choices(vocabulary, cum_weights=weights, k=length)
            row = {"url": f"https://example.org/{number}", "title": " ".join(chosen[:4]), "text": " ".join(chosen)}
            file.write(json.dumps(row) + "\n")


async def answer_times(folder: Path, queries: list[str]) -> tuple[float, list[float]]:
    """Return the time of the first query, which opens the files, and those of the others, in seconds."""
    backend = CorpusSearch(str(folder))
    times = []
    for query in queries:
        start = time.perf_counter()
        hits = await backend.search(query, 10)
        times.append(time.perf_counter() - start)
        assert hits, f"nothing found for {query!r}"
    await backend.close()
    return times[0], times[1:]


def main() -> None:
    """Build, query and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=250)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        vocabulary = words(VOCABULARY, seed=0)
        write_pages(folder, arguments.pages, arguments.words, vocabulary)
        built = build_corpus(folder)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        size = sum(path.stat().st_size for path in built.folder.rglob("*") if path.is_file()) / 1e9
        print(f"{built.pages} pages of {arguments.words} words: built in {built.seconds:.0f} s, {size:.2f} GB on disk")
        print(f"peak memory {memory:.2f} GB")
        rng = random.Random(2)
        common, rare = vocabulary[:200], vocabulary[200:20_000]
        queries = [" ".join([*rng.choices(common, k=2), *rng.choices(rare, k=2)]) for _ in range(arguments.queries + 1)]
        first, times = asyncio.run(answer_times(folder, queries))
        late = statistics.quantiles(times, n=20)[-1]
        middle = statistics.median(times)
        print(f"first query {1000 * first:.0f} ms; then median {1000 * middle:.1f} ms, p95 {1000 * late:.1f} ms")


if __name__ == "__main__":
    main()
