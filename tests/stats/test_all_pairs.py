"""Differences of all pairs at once are those of `compare` for each pair, whatever is missing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations

import pytest

from benchmarks.board_false_alarms import false_alarms
from benchmarks.interval_coverage import SIZES, SYSTEMS
from knowgen.core.errors import DataError
from knowgen.core.records import DIMENSIONS, FailureCause, GenerationStatus, ParsedScore, Row, ScoreStatus, group_of
from knowgen.stats.compare.all_pairs import SIGN_TEST, T_TEST, PairedFigure, all_pairs
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.summary import ALL_EQUAL, OVERALL, TOO_FEW_DIFFERENT, TOO_SMALL
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


def measured(values: Sequence[float]) -> list[Row]:
    """Return rows of one group with the single dimension `ssim`."""
    scores = [ParsedScore(status=ScoreStatus.OK, values={"ssim": value}) for value in values]
    return [
        Row(sample_id=f"{place:03}", category="biology", generation=GenerationStatus.OK, strict=score)
        for place, score in enumerate(scores)
    ]


def pair_of(a: Sequence[float], b: Sequence[float]) -> PairedFigure:
    """Return the difference of the whole of two systems."""
    protocol = get_protocol("strict")
    values = [read_values(measured(one), protocol, ("ssim",)) for one in (a, b)]
    return all_pairs(values, protocol, ("ssim",), parts=False)[0].pairs[0, 1]


def test_a_single_dimension_is_compared_like_several() -> None:
    rng = random.Random(5)
    systems = [measured([rng.choice((0.0, 0.25, 0.5, 1.0)) for _ in range(40)]) for _ in range(4)]
    assert assert_as_compared(systems, get_protocol("strict"), ("ssim",)) > 20


def test_the_p_value_is_that_of_the_interval() -> None:
    """A 95 % interval that touches 0 has the p-value .05."""
    rng = random.Random(6)
    a = [rng.random() * 0.4 + 0.2 for _ in range(60)]
    noise = [rng.gauss(0, 0.1) for _ in range(60)]

    def moved(by: float) -> PairedFigure:
        return pair_of(a, [one + other + by for one, other in zip(a, noise, strict=True)])

    start = moved(0.0)
    assert start.low is not None
    touching = moved(-start.low)
    assert touching.low == pytest.approx(0, abs=0.002) and touching.p == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("differing", "p_value"),
    [
        ((), 1.0),
        ((1.0,) * 3, 2 * 0.5**3),
        ((-1.0,) * 3, 2 * 0.5**3),
        ((1.0, 1.0, -1.0), 2 * (1 + 3) / 2**3),
        ((1.0, -1.0), 1.0),
        ((-1.0, 0.1, 0.1), 1.0),  # the majority is better, the mean is worse
    ],
)
def test_pairs_that_hardly_differ_have_a_sign_test(differing: tuple[float, ...], p_value: float) -> None:
    base = [1.0 if gap < 0 else 0.0 for gap in differing] + [0.5] * (40 - len(differing))
    other = [one + gap for one, gap in zip(base, differing, strict=False)] + base[len(differing) :]
    pair = pair_of(base, other)
    assert (pair.test, pair.low) == (SIGN_TEST, None)
    assert pair.note in (ALL_EQUAL, TOO_FEW_DIFFERENT)
    assert pair.p == pytest.approx(min(1.0, p_value))


def test_too_few_samples_have_no_test() -> None:
    pair = pair_of([0.0] * 5, [1.0] * 5)
    assert (pair.value, pair.p, pair.test, pair.note) == (1.0, None, "", TOO_SMALL)


def test_systems_without_common_samples_have_no_difference() -> None:
    protocol = get_protocol("strict")
    rows = measured([0.5] * 40)
    values = [read_values(part, protocol, ("ssim",)) for part in (rows[:20], rows[20:])]
    pair = all_pairs(values, protocol, ("ssim",))[0].pairs[0, 1]
    assert (pair.value, pair.low, pair.p, pair.n, pair.note) == (None, None, None, 0, "no scores")


def test_a_pair_does_not_depend_on_the_other_systems() -> None:
    rng = random.Random(7)
    protocol = unbound("strict")
    values = [read_values(system_rows(rng, 60, missing=0.1), protocol, DIMENSIONS) for _ in range(25)]
    together = {(part.kind, part.name): part.pairs for part in all_pairs(values, protocol, DIMENSIONS)}
    for part in all_pairs([values[3], values[20]], protocol, DIMENSIONS):
        assert part.pairs[0, 1] == together[part.kind, part.name][3, 20]


def test_samples_must_be_the_same_in_all_systems() -> None:
    protocol = get_protocol("strict")
    rows = measured([0.5] * 4)
    other = [row.model_copy(update={"difficulty": "hard"}) for row in rows]
    with pytest.raises(DataError, match="different categories, difficulties"):
        all_pairs([read_values(one, protocol, ("ssim",)) for one in (rows, other)], protocol, ("ssim",))


@pytest.mark.slow
@pytest.mark.parametrize(("level", "size"), [("weak", "18 + 30"), ("middle", "18 + 30"), ("strong", "294 + 336")])
def test_equal_systems_are_rarely_called_different(level: str, size: str) -> None:
    """Of 300 boards at most 5 % may have a false alarm; 24 are three standard errors above."""
    found = false_alarms(SYSTEMS[level], SIZES[size], systems=10, rounds=300, seed=1)
    assert found.boards <= 24 / 300
    assert 0.02 < found.pairs < 0.065 and found.tested > 0.95
