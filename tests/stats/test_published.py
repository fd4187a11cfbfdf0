"""The published table recomputes from its own columns, through the arithmetic that makes every headline."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from knowgen.core.records import DIMENSIONS, POP, SCIENCE
from knowgen.stats.combine import part_figures
from knowgen.stats.protocol import OFFICIAL
from tests.helpers.simulated_benchmarks import PUBLISHED

ROWS = list(csv.DictReader(PUBLISHED.open(encoding="utf-8")))


def k_score(line: dict[str, str]) -> float:
    """Return the K-Score, x 100, of given group means."""
    groups = np.array([SCIENCE, POP])
    means = {
        group: np.array([[float(line[f"{short}_{name.split('_')[0]}"]) / 100 for name in DIMENSIONS]])
        for group, short in ((SCIENCE, "sk"), (POP, "pop"))
    }
    figures = part_figures("all", groups, lambda mask: means[str(groups[mask][0])], DIMENSIONS, OFFICIAL, rounded=False)
    return 100 * float(figures[0, -1])


def test_there_are_twenty_one_systems() -> None:
    assert len(ROWS) == len({line["system"] for line in ROWS}) == 21
    assert {line["kind"] for line in ROWS} == {"closed", "open", "agent"}
    assert all(
        0 <= float(value) <= 100 for line in ROWS for key, value in line.items() if key not in ("system", "kind")
    )


@pytest.mark.parametrize("line", [line for line in ROWS if line["system"] != "BAGEL"], ids=lambda line: line["system"])
def test_a_published_score_equals_the_one_computed_from_its_columns(line: dict[str, str]) -> None:
    assert k_score(line) == pytest.approx(float(line["k_score"]), abs=0.01)


def test_one_published_score_is_known_to_differ() -> None:
    line = next(line for line in ROWS if line["system"] == "BAGEL")
    assert k_score(line) == pytest.approx(14.16, abs=0.005)
    assert float(line["k_score"]) == 13.85
