"""Properties of figures of any rows."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowgen.core.records import GROUPS, TEXT, Row
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.systems import compare
from tests.helpers.score_rows import FAILED, NOT_APPLICABLE, NOT_RUN, UNBOUND, reading, row

CATEGORIES = ["physics", "art", "sports", "news", "anime", "volcanology"]
GRID = st.sampled_from([0.0, 0.5, 1.0])
READINGS = st.one_of(
    st.builds(reading, GRID, GRID, st.one_of(st.none(), GRID), GRID),
    st.builds(reading, GRID, GRID, GRID, GRID),
    st.sampled_from([FAILED, NOT_RUN, NOT_APPLICABLE]),
)
GENERATIONS = st.sampled_from(["ok", "ok", "ok", "ok", "failed", "refused", "not_run"])
UNTIMED = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
PROTOCOLS = st.sampled_from(["strict", "official", "na-renormalise", "genevolve-micro"])


@st.composite
def some_rows(draw: st.DrawFn, categories: list[str] = CATEGORIES) -> list[Row]:
    """Rows of up to twelve samples with up to two repeats and two judge repeats."""
    repeats, judge_repeats = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rows = []
    for index in range(draw(st.integers(1, 12))):
        category, text = draw(st.sampled_from(categories)), draw(st.sampled_from([True, True, False, None]))
        difficulty = draw(st.sampled_from(["easy", "hard"]))
        for repeat in range(repeats):
            generation = draw(GENERATIONS)
            for judge in range(judge_repeats):
                score = draw(READINGS) if generation == "ok" else NOT_RUN
                rows.append(
                    row(
                        f"s{index}", category, score, generation, repeat=repeat, judge_repeat=judge,
                        difficulty=difficulty, text_required=text,
                    )
                )  # fmt: skip
    return rows


@UNTIMED
@given(some_rows(), st.randoms(use_true_random=False))
def test_strict_does_not_depend_on_the_order_of_rows(rows: list[Row], chance: random.Random) -> None:
    mixed = list(rows)
    chance.shuffle(mixed)
    assert aggregate(rows) == aggregate(mixed)


@UNTIMED
@given(some_rows(), st.sampled_from(CATEGORIES), st.sampled_from([True, False, None]), st.sampled_from([0, 1]))
def test_another_failed_generation_never_raises_the_strict_score(
    rows: list[Row], category: str, text: bool | None, repeat: int
) -> None:
    before = aggregate(rows, UNBOUND).headline.value
    failed = row("another", category, generation="failed", text_required=text, repeat=repeat)
    after = aggregate([*rows, failed], UNBOUND).headline.value
    if before is not None:
        # None: nothing was scored yet, and the other samples have no generations of that repeat yet
        assert (after is None and before == 0) or (after is not None and after <= before + 1e-12)


@UNTIMED
@given(some_rows(), st.data())
def test_a_failure_instead_of_a_scored_image_never_raises_the_strict_score(
    rows: list[Row], data: st.DataObject
) -> None:
    """Refusing a hard prompt gains nothing."""
    before = aggregate(rows, UNBOUND).headline.value
    scored = [one for one in rows if one.generation == "ok" and one.strict.status == "ok"]
    if not scored or before is None:
        return
    victim = data.draw(st.sampled_from(scored))
    if victim.text_required is None:
        return  # without a settled text the judge's N/A of the other judge repeats moves with the generation
    generation = [one for one in rows if (one.sample_id, one.repeat) == (victim.sample_id, victim.repeat)]
    worse = [
        one.model_copy(update={"generation": "failed", "strict": NOT_RUN}) if one in generation else one for one in rows
    ]
    after = aggregate(worse, UNBOUND).headline.value
    assert after is None or after <= before + 1e-12


@UNTIMED
@given(some_rows(), PROTOCOLS)
def test_figures_are_bounded_and_counts_add_up(rows: list[Row], protocol: str) -> None:
    summary = aggregate(rows, protocol)
    samples = {one.sample_id for one in rows}
    expected = len(samples) * summary.repeats * summary.judge_repeats
    assert summary.slice().coverage.expected == expected
    assert summary.slice().samples == len(samples)
    for part in summary.slices:
        counts = part.coverage.model_dump()
        total, text = counts.pop("expected"), counts.pop("scored_text")
        assert total == sum(counts.values()) and text <= counts["scored"]
        for figure in part.figures.values():
            assert 0 <= figure.n <= part.samples
            assert figure.value is None or 0 <= figure.value <= 1
            if figure.low is not None and figure.high is not None:
                assert 0 <= figure.low <= figure.high <= 1
            elif figure.value is not None:
                assert figure.note
    if protocol == "strict":
        for kind in ("group", "category", "difficulty"):
            parts = [part for part in summary.slices if part.kind == kind]
            assert sum(part.samples for part in parts) == len(samples)
            assert sum(part.coverage.expected for part in parts) == expected


@UNTIMED
@given(some_rows())
def test_the_strict_headline_is_the_mean_of_its_groups(rows: list[Row]) -> None:
    summary = aggregate(rows, UNBOUND)
    groups = [part for part in summary.slices if part.kind == "group" and part.name in GROUPS]
    values = [part.figures["overall"].value for part in groups if part.figures["overall"].value is not None]
    assert summary.headline.value == (sum(values) / len(values) if values else None)


@UNTIMED
@given(st.integers(1, 20), st.integers(0, 20), st.booleans(), PROTOCOLS)
def test_all_perfect_is_exactly_one(science: int, pop: int, text: bool, protocol: str) -> None:
    if protocol == "official":
        pop = max(pop, 1)
    if protocol in ("official", "genevolve-micro"):
        text = True  # published arithmetic gives .5 for text where no prompt needs any
    perfect = reading(1, 1, 1 if text else None, 1)
    rows = [row(f"s{i}", "physics", perfect, text_required=text) for i in range(science)]
    rows += [row(f"p{i}", "news", perfect, text_required=text) for i in range(pop)]
    summary = aggregate(rows, protocol)
    assert summary.headline.value == 1.0
    # where nothing varies, nothing is known of the spread
    assert summary.headline.low is None and summary.headline.note in ("n too small", "all values equal")


@UNTIMED
@given(some_rows(), PROTOCOLS)
def test_a_run_compared_with_itself_shows_no_difference(rows: list[Row], protocol: str) -> None:
    result = compare(rows, rows, protocol, permutations=50)
    assert result.better == result.worse == 0 and result.equal == (0 if result.no_result else result.paired)
    for part in result.slices:
        for figure in part.figures.values():
            assert figure.value in (None, 0.0)
            assert figure.low is None and figure.p in (None, 1.0)


@UNTIMED
@given(some_rows(), some_rows(), PROTOCOLS)
def test_exchanging_the_systems_changes_the_sign(rows: list[Row], others: list[Row], protocol: str) -> None:
    known = {one.sample_id: one for one in rows}
    agreed = [
        one.model_copy(
            update={name: getattr(known[one.sample_id], name) for name in ("category", "difficulty", "text_required")}
        )
        if one.sample_id in known
        else one
        for one in others
    ]
    there = compare(rows, agreed, protocol, permutations=0)
    back = compare(agreed, rows, protocol, permutations=0)
    assert (there.better, there.worse, there.paired) == (back.worse, back.better, back.paired)
    assert there.only_a == back.only_b
    for dimension in (*there.dimensions, "overall"):
        one, other = there.slice().figures[dimension], back.slice().figures[dimension]
        assert (one.a, one.b) == (other.b, other.a)
        if dimension != TEXT and one.value is not None and other.value is not None:
            assert one.value == -other.value
