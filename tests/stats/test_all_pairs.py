"""Differences of all pairs at once are those of `compare` for each pair, whatever is missing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations

import pytest

from knowgen.core.records import DIMENSIONS, FailureCause, GenerationStatus, ParsedScore, Row, ScoreStatus, group_of
from knowgen.stats.compare.all_pairs import T_TEST, all_pairs
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.summary import OVERALL
from knowgen.stats.values import read_values
from tests.helpers.score_rows import reading

CATEGORIES = ("biology", "physics", "game", "architecture", "celebrity", "unheard_of")


def unbound(name: str) -> ScoringProtocol:
    """Return a protocol without its limit on coverage, so that a pair with few scores keeps its figures."""
    return get_protocol(name).model_copy(update={"min_coverage": 0.0})


def score_of(rng: random.Random, level: float, text: bool | None) -> ParsedScore:
    values = [rng.choice((0, 0.5, 1)) if rng.random() < 0.7 else float(rng.random() < level) for _ in DIMENSIONS]
    no_text = text is False or (text is None and rng.random() < 0.3)
    return reading(values[0], values[1], None if no_text else values[2], values[3])


def system_rows(
    rng: random.Random, samples: int, *, repeats: int = 1, judge_repeats: int = 1, missing: float = 0.0
) -> Iterator[Row]:
    """Yield the rows of a system, of which a share has no image, no score, or is absent altogether."""
    level = rng.random()
    for number in range(samples):
        category = CATEGORIES[number % len(CATEGORIES)]
        text = (True, False, None)[number % 3]
        if rng.random() < missing / 2:
            continue
        for repeat in range(repeats):
            state = rng.choices((0, 1, 2, 3), (1 - missing, missing / 2, missing / 4, missing / 4))[0]
            for judge_repeat in range(judge_repeats):
                failed = ParsedScore(status=ScoreStatus.FAILED, reason="no reply")
                score = failed if state == 3 else score_of(rng, level, text)
                yield Row(
                    sample_id=f"s{number:03}",
                    category=category,
                    group=group_of(category),
                    difficulty=("easy", "hard")[number % 2],
                    text_required=text,
                    repeat=repeat,
                    judge_repeat=judge_repeat,
                    generation=GenerationStatus.FAILED if state in (1, 2) else GenerationStatus.OK,
                    generation_cause=FailureCause.INFRASTRUCTURE if state == 2 else None,
                    strict=ParsedScore(status=ScoreStatus.NOT_RUN) if state in (1, 2) else score,
                    lenient=None if state in (1, 2) else score,
                )


def assert_as_compared(
    systems: Sequence[Sequence[Row]], protocol: ScoringProtocol, dimensions: Sequence[str] = DIMENSIONS
) -> int:
    """Check every figure of every pair on every subset against `compare`; return the number of intervals."""
    values = [read_values(rows, protocol, dimensions) for rows in systems]
    intervals = 0
    for figure in (*dimensions, OVERALL):
        found = {(part.kind, part.name): part.pairs for part in all_pairs(values, protocol, dimensions, figure)}
        for a, b in combinations(range(len(systems)), 2):
            compared = compare(systems[a], systems[b], protocol, dimensions=dimensions, permutations=0)
            for part in compared.slices:
                expected, pair = part.figures[figure], found[part.kind, part.name][a, b]
                assert (pair.n, pair.note) == (expected.n, expected.note), (figure, part.kind, part.name)
                for own, other in (
                    (pair.value, expected.value),
                    (pair.low, expected.low),
                    (pair.high, expected.high),
                ):
                    assert own == pytest.approx(other, abs=1e-9), (figure, part.kind, part.name, expected)
                intervals += pair.low is not None
                assert (pair.test == T_TEST) == (pair.low is not None)
    return intervals


@pytest.mark.parametrize("protocol", ["strict", "official", "na-renormalise", "genevolve-micro"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_figures_are_those_of_each_pair_alone(protocol: str, missing: float) -> None:
    rng = random.Random(f"{protocol} {missing}")
    systems = [list(system_rows(rng, 96, missing=missing)) for _ in range(4)]
    assert assert_as_compared(systems, unbound(protocol)) > 50


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_systems_may_differ_in_repeats(protocol: str) -> None:
    rng = random.Random(3)
    systems = [
        list(system_rows(rng, 60, repeats=repeats, judge_repeats=judge_repeats, missing=0.1))
        for repeats, judge_repeats in ((1, 1), (2, 1), (1, 2), (2, 1))
    ]
    assert assert_as_compared(systems, unbound(protocol)) > 50
