"""Simulated benchmarks whose truth is known: correlated dimensions on the grid, levels of published systems."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from knowgen.core.records import DIMENSIONS, POP, SCIENCE, TEXT, GenerationStatus, ParsedScore, Row, ScoreStatus

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboards" / "knowgen-official" / "published.csv"
SIZES = (294, 336)
"""Samples of the benchmark: science and knowledge, pop culture and news."""

HALVES = {"faithfulness": 0.7, "visual_correctness": 0.7, "text_accuracy": 0.3, "aesthetics": 0.8}
"""Share of a dimension's spread that goes to the value 0.5; text is mostly right or wrong."""

WEIGHTS = {"faithfulness": 0.1, "visual_correctness": 0.4, "text_accuracy": 0.4, "aesthetics": 0.1}
PLACES = {"physics": SCIENCE, "news": POP}
WITHOUT_TEXT = (0.45, 0.1)
CORRELATION = 0.4


def published(system: str) -> list[dict[str, float]]:
    """Return the means of a published system in both groups, in [0, 1]."""
    with PUBLISHED.open(encoding="utf-8") as file:
        result = next(line for line in csv.DictReader(file) if line["system"] == system)
    return [
        {name: float(result[f"{group}_{name.split('_')[0]}"]) / 100 for name in DIMENSIONS} for group in ("sk", "pop")
    ]


def true_score(levels: list[dict[str, float]]) -> float:
    return sum(WEIGHTS[name] * level[name] for level in levels for name in DIMENSIONS) / 2


@dataclass
class Benchmark:
    """Generates what systems of given levels get; the prompts that need no text are the same for all of them."""

    levels: list[dict[str, float]]
    sizes: tuple[int, int]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.text = [self.rng.random(size) >= share for size, share in zip(self.sizes, WITHOUT_TEXT, strict=True)]
        self.hardness = [self.rng.standard_normal((size, 1)) for size in self.sizes]

    def system(self, shared: float = CORRELATION) -> list[Row]:
        """Rows of one system; systems of one benchmark find the same samples hard."""
        rows: list[Row] = []
        for group, (category, level) in enumerate(zip(PLACES, self.levels, strict=True)):
            own = self.rng.standard_normal((self.sizes[group], len(DIMENSIONS)))
            latent = self.hardness[group] * shared**0.5 + own * (1 - shared) ** 0.5
            values = np.column_stack(
                [on_grid(latent[:, place], level[name], HALVES[name]) for place, name in enumerate(DIMENSIONS)]
            )
            rows += [
                scored_row(f"{category}{place:03}", category, line, bool(text))
                for place, (line, text) in enumerate(zip(values.tolist(), self.text[group], strict=True))
            ]
        return rows


def on_grid(latent: NDArray[np.float64], mean: float, halves: float) -> NDArray[np.float64]:
    """Cut standard normal values into 0, .5 and 1 so that their expectation is `mean`."""
    half = halves * 2 * mean * (1 - mean)
    cuts = [NormalDist().inv_cdf(1 - (mean - half / 2) - half), NormalDist().inv_cdf(1 - (mean - half / 2))]
    return 0.5 * (latent > cuts[0]) + 0.5 * (latent > cuts[1])


def scored_row(sample: str, category: str, values: list[float], text: bool) -> Row:
    """Return a row like those of the store, without validation, which would be slow for thousands of benchmarks."""
    by_dimension = dict(zip(DIMENSIONS, values, strict=True))
    if not text:
        del by_dimension[TEXT]
    reading = ParsedScore.model_construct(
        status=ScoreStatus.OK, values=by_dimension, na=() if text else (TEXT,), rationale="", reason=""
    )
    return Row.model_construct(
        sample_id=sample, category=category, group=PLACES[category], difficulty="", text_required=text, repeat=0,
        judge_repeat=0, generation=GenerationStatus.OK, generation_reason="", strict=reading, lenient=None,
        judge_returned="",
    )  # fmt: skip
