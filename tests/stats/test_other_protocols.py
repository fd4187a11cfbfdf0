"""The two protocols with figures other than the K-Score: worked cases and a second implementation."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowgen.api import PROTOCOLS as WRITTEN_BY_DEFAULT
from knowgen.core.records import GROUPS, TEXT, Row
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import PROTOCOLS, get_protocol
from tests.helpers.score_rows import perfect, reading, row

# overall of each sample            na-renormalise               genevolve-micro
#   1 physics      F1 V.5 T1 A.5    .1 + .2 + .4 + .05 = .75     the same
#   2 biology      F.5 V1 -  A1     (.05 + .4 + .1) / .6         .05 + .4 + .4 x .5 + .1 = .75
#   3 art          generation failed   0                            left out
#   4 news         F1 V0 T.5 A1     .1 + 0 + .2 + .1 = .4        the same
#   5 volcanology  perfect          not part of the headline     1
FIVE = [
    row("1", "physics", reading(1, 0.5, 1, 0.5), text_required=True),
    row("2", "biology", reading(0.5, 1, None, 1), text_required=False),
    row("3", "art", generation="failed", text_required=True),
    row("4", "news", reading(1, 0, 0.5, 1), text_required=True),
    perfect("5", "volcanology"),
]


def test_na_renormalise_weights_each_sample_over_its_applicable_dimensions() -> None:
    summary = aggregate(FIVE, "na-renormalise")
    science = (0.75 + 0.55 / 0.6 + 0) / 3
    assert summary.slice("group", "science_and_knowledge").figures["overall"].value == pytest.approx(science)
    assert summary.headline.value == pytest.approx((science + 0.4) / 2)
    assert aggregate(FIVE, "strict").headline.value == pytest.approx((0.5 + 0.4) / 2)  # T is (1 + 0) / 2 there
    text = summary.slice().figures[TEXT]
    assert text.value == pytest.approx((0.5 + 0.5) / 2) and text.n == 3  # dimensions are as under strict
    assert summary.slice("group", "unknown").figures["overall"].value == 1.0


def test_genevolve_micro_is_the_plain_mean_over_samples() -> None:
    summary = aggregate(FIVE, "genevolve-micro")
    assert summary.headline.value == pytest.approx((0.75 + 0.75 + 0.4 + 1) / 4)
    assert summary.headline.n == 4
    text = summary.slice().figures[TEXT]
    assert text.value == pytest.approx((1 + 0.5 + 0.5 + 1) / 4) and text.n == 4
    assert summary.slice().coverage.scored_text == 3
    assert not [note for note in summary.notes if "group" in note and "left out" in note]


@pytest.mark.parametrize("protocol", ["na-renormalise", "genevolve-micro"])
def test_other_protocols_are_not_fit_for_a_leaderboard_and_give_the_reason(protocol: str) -> None:
    rows = [perfect(f"p{i}", "physics") for i in range(4)] + [perfect(f"n{i}", "news") for i in range(4)]
    assert aggregate(rows, "strict").fit_for_board
    summary = aggregate(rows, protocol)
    assert not summary.fit_for_board and summary.notes[0].startswith(f"{protocol} does not give a K-Score")
    assert summary.headline.value == 1.0


def test_other_protocols_are_available_but_not_written_by_default() -> None:
    assert set(PROTOCOLS) == {"strict", "official", "na-renormalise", "genevolve-micro"}
    assert WRITTEN_BY_DEFAULT == ("strict", "official")
    assert get_protocol("genevolve-micro").combination == "mean_of_samples"


def test_a_comparison_uses_the_same_arithmetic() -> None:
    better = [one.model_copy(update={"strict": reading(1, 1, 1, 1)}) if one.sample_id == "4" else one for one in FIVE]
    result = compare(FIVE, better, "genevolve-micro")
    assert result.headline.value == pytest.approx((1 - 0.4) / 4)
    assert compare(FIVE, better, "na-renormalise").headline.value == pytest.approx((1 - 0.4) / 2)


GRID = st.sampled_from([0.0, 0.5, 1.0])
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["physics", "art", "news", "anime", "volcanology"]),
        st.tuples(GRID, GRID, st.one_of(st.none(), GRID), GRID),
        st.sampled_from(["ok", "ok", "ok", "failed", "refused"]),
        st.sampled_from([True, False, None]),
    ),
    min_size=1,
    max_size=14,
)
Generated = list[tuple[str, tuple[float, float, float | None, float], str, bool | None]]


def as_rows(samples: Generated) -> list[Row]:
    return [
        row(f"s{number:02}", category, reading(*values), generation, text_required=text)
        for number, (category, values, generation, text) in enumerate(samples)
    ]


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(SAMPLES)
def test_genevolve_micro_equals_a_plain_computation(samples: Generated) -> None:
    overalls = []
    for _, (f, v, t, a), generation, _ in samples:
        if generation == "ok":
            overalls.append(0.1 * f + 0.4 * v + 0.4 * (0.5 if t is None else t) + 0.1 * a)
    assert aggregate(as_rows(samples), "genevolve-micro").headline.value == pytest.approx(mean(overalls))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(SAMPLES)
def test_na_renormalise_equals_a_plain_computation(samples: Generated) -> None:
    any_image = any(generation == "ok" for _, _, generation, _ in samples)
    all_failed = all(generation != "ok" for _, _, generation, _ in samples)
    by_group: dict[str, list[float]] = {}
    for category, (f, v, t, a), generation, text in samples:
        group = next((name for name, members in GROUPS.items() if category in members), "")
        if not group or not (any_image or all_failed):
            continue
        if generation != "ok":
            by_group.setdefault(group, []).append(0.0)
            continue
        if text is True and t is None:
            t = 0.0
        if text is False or t is None:
            by_group.setdefault(group, []).append((0.1 * f + 0.4 * v + 0.1 * a) / 0.6)
        else:
            by_group.setdefault(group, []).append(0.1 * f + 0.4 * v + 0.4 * t + 0.1 * a)
    expected = mean([sum(values) / len(values) for values in by_group.values()])
    result = aggregate(as_rows(samples), "na-renormalise").headline.value
    assert result == (None if expected is None else pytest.approx(expected))
