"""Agreement of raters, against published examples, brute force and libraries."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import cohen_kappa_score

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import DIMENSIONS, Row
from knowgen.stats.aggregate import aggregate
from knowgen.stats.agreement.krippendorff import Metric, alpha, interval_alphas
from knowgen.stats.agreement.labels import read_labels
from knowgen.stats.agreement.measures import pair_agreements, quadratic_kappa, squared_kappas
from knowgen.stats.agreement.panel_agreement import RatedSystem, agreement
from knowgen.stats.agreement.ranks import kendalls, spearmans
from knowgen.stats.agreement.records import Agreement
from tests.helpers.score_rows import FAILED, reading, row

GRID = (0.0, 0.5, 1.0)
NAN = math.nan

# Krippendorff 2011, section D: four observers, twelve units, data missing.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(metric: Metric, value: float) -> None:
    assert alpha(PUBLISHED, metric) == pytest.approx(value, abs=0.0006)


def test_alpha_of_a_worked_example() -> None:
    """Two raters, units (0, 0), (0, 1), (1, 1): disagreement 2 of 6 pairs; three 0 and three 1 make 18 of 30 expected.

    alpha = 1 - (2 / 6) / (18 / 30) = 4 / 9.
    """
    ratings = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    for metric in ("nominal", "ordinal", "interval"):
        assert alpha(ratings, metric) == pytest.approx(4 / 9)


def brute_alpha(ratings: np.ndarray, metric: Metric) -> float:
    """Compute alpha from its definition: pairs of ratings within units against all pairs."""
    units = [[value for value in column if not math.isnan(value)] for column in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    count = {value: values.count(value) for value in values}

    def apart(one: float, other: float) -> float:
        if metric == "nominal":
            return float(one != other)
        if metric == "interval":
            return (one - other) ** 2
        low, high = min(one, other), max(one, other)
        between = sum(count[value] for value in count if low <= value <= high)
        return 0.0 if one == other else (between - (count[low] + count[high]) / 2) ** 2

    observed = sum(sum(apart(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    expected = sum(apart(a, b) for a, b in itertools.permutations(values, 2))
    n = len(values)
    return 1 - (observed / n) / (expected / (n * (n - 1))) if expected else math.nan


RATING = st.sampled_from([0.0, 0.5, 1.0, NAN])


@settings(deadline=None, max_examples=150)
@given(st.integers(2, 4), st.integers(1, 9), st.data())
def test_alpha_equals_its_definition(raters: int, units: int, data: st.DataObject) -> None:
    flat = data.draw(st.lists(RATING, min_size=raters * units, max_size=raters * units))
    ratings = np.array(flat).reshape(raters, units)
    for metric in ("nominal", "ordinal", "interval"):
        paired = (np.isfinite(ratings).sum(axis=0) > 1).any()
        expected = brute_alpha(ratings, metric) if paired else NAN
        assert alpha(ratings, metric) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    sampled = np.array([[data.draw(st.integers(0, 3)) for _ in range(units)] for _ in range(3)], dtype=float)
    for counts, result in zip(sampled, interval_alphas(ratings, sampled), strict=True):
        copied = np.repeat(ratings, counts.astype(int), axis=1)
        paired = (np.isfinite(copied).sum(axis=0) > 1).any()
        expected = brute_alpha(copied, "interval") if paired else NAN
        assert result == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_kappa_of_a_worked_example() -> None:
    """Compute kappa of the ratings x 0 .5 1 1 and y 0 0 1 .5.

    The mean squared distance is 2 x .25 / 4 = .125, the variances are .171875 each, the means differ by .25:
    kappa = 1 - .125 / (.171875 + .171875 + .0625) = 1 - .125 / .40625.
    """
    x, y = np.array([0, 0.5, 1, 1]), np.array([0, 0, 1, 0.5])
    assert quadratic_kappa(x, y) == pytest.approx(1 - 0.125 / 0.40625)
    assert math.isnan(quadratic_kappa(np.ones(4), np.ones(4)))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(GRID), st.sampled_from(GRID)), min_size=2, max_size=12))
def test_kappa_from_sums_equals_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    table = np.array(pairs).T
    result = float(squared_kappas(table, np.ones((1, len(pairs))))[0])
    codes = (table * 2).astype(int)
    if len(np.unique(codes)) == 1:
        assert math.isnan(result)
        return
    expected = cohen_kappa_score(codes[0], codes[1], labels=[0, 1, 2], weights="quadratic")
    assert result == pytest.approx(expected, abs=1e-9)
    assert quadratic_kappa(table[0], table[1]) == pytest.approx(expected, abs=1e-9)


LEVELS = st.lists(st.integers(0, 4), min_size=3, max_size=7)


@settings(deadline=None, max_examples=80)
@given(LEVELS, st.data())
def test_rank_correlations_of_resamples_equal_scipy(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)))
    if len(set(first)) == 1 or len(set(second)) == 1:
        return
    one, other = np.array([first]) / 10, np.array([second]) / 10
    assert kendalls(one, other)[0] == pytest.approx(kendalltau(first, second).statistic)
    assert spearmans(one, other)[0] == pytest.approx(spearmanr(first, second).statistic)


def some_rows(chance: random.Random, size: int, *, skill: float = 0.5) -> list[Row]:
    def value() -> float:
        return GRID[sum(chance.random() < skill for _ in range(2))]

    return [
        row(
            f"s{index:03}",
            ("physics", "news")[index % 2],
            reading(value(), value(), value(), value()),
            text_required=True,
        )
        for index in range(size)
    ]


def nearly(rows: list[Row], chance: random.Random, share: float = 0.2) -> list[Row]:
    """Return the ratings of another judge that disagrees on a share of the images."""
    return [
        one.model_copy(update={"strict": reading(*(chance.choice(GRID) for _ in range(4)))})
        if chance.random() < share
        else one
        for one in rows
    ]


def two_judges(size: int = 60) -> RatedSystem:
    rows = some_rows(random.Random(1), size)
    return RatedSystem("plain", "t", "1", {"vlm:a": rows, "vlm:b": nearly(rows, random.Random(2))})


BOTH = {"vlm:a": DIMENSIONS, "vlm:b": DIMENSIONS}


def test_two_judges_of_one_run_are_compared() -> None:
    system = two_judges()
    result = agreement([system], BOTH, resamples=400)
    assert (result.raters, result.together, result.ranks) == (("vlm:a", "vlm:b"), {}, ())
    one = result.pairs[0].dimensions["faithfulness"]
    pairs = [
        (a.strict.values["faithfulness"], b.strict.values["faithfulness"])
        for a, b in zip(*system.rows.values(), strict=True)
    ]
    codes = [[int(2 * value) for value in side] for side in zip(*pairs, strict=True)]
    assert one.exact.value == pytest.approx(sum(a == b for a, b in pairs) / 60)
    assert one.kappa.value == pytest.approx(cohen_kappa_score(*codes, weights="quadratic"))
    assert one.alpha.value == pytest.approx(brute_alpha(np.array(pairs).T, "interval"))
    for figure in (one.exact, one.kappa, one.alpha):
        assert figure.n == 60 and figure.low is not None and figure.value is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert result == agreement([system], BOTH, resamples=400)
    assert Agreement.model_validate_json(result.model_dump_json()) == result


def plain_kappa(pairs: list[tuple[float, float]]) -> float:
    """Compute quadratic kappa from the table of two raters."""
    table = np.zeros((3, 3))
    for first, second in pairs:
        table[int(2 * first), int(2 * second)] += 1
    weights = np.square(np.subtract.outer(np.arange(3), np.arange(3)))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return 1 - float((weights * table).sum() / (weights * expected).sum())


def test_the_interval_of_kappa_equals_a_plain_loop() -> None:
    """With two images per sample, the bootstrap samples pairs of images."""
    chance = random.Random(5)
    first = {("x", f"s{s}", r): {"d": chance.choice(GRID)} for s in range(30) for r in range(2)}
    second = {key: values if chance.random() < 0.7 else {"d": chance.choice(GRID)} for key, values in first.items()}
    result = pair_agreements({"a": first, "b": second}, {"a": ("d",), "b": ("d",)}, resamples=6000)[0].dimensions["d"]
    resampled = []
    for _ in range(3000):
        keys = [("x", f"s{s}", r) for s in chance.choices(range(30), k=30) for r in range(2)]
        resampled.append(plain_kappa([(first[key]["d"], second[key]["d"]) for key in keys]))
    from knowgen.stats.bootstrap import expanded_tail

    tail = expanded_tail(30)
    assert (result.kappa.low, result.kappa.high) == pytest.approx(
        tuple(np.quantile(resampled, [tail, 1 - tail])), abs=0.03
    )
    assert result.kappa.n == 60


def test_few_samples_or_no_spread_give_no_interval() -> None:
    few = agreement([two_judges(19)], BOTH).pairs[0].dimensions["aesthetics"]
    assert few.kappa.value is not None and few.kappa.low is None and few.kappa.note == "n too small"
    flat = [one.model_copy(update={"strict": reading(1, 1, 1, 1)}) for one in some_rows(random.Random(1), 30)]
    level = (
        agreement([RatedSystem("x", "t", "1", {"vlm:a": flat, "vlm:b": flat})], BOTH).pairs[0].dimensions["aesthetics"]
    )
    assert level.exact.value == 1.0 and level.exact.note == "n too small"
    assert (level.kappa.value, level.kappa.note, level.alpha.note) == (None, "no spread", "no spread")


def test_images_that_only_one_rater_rated_are_counted_separately() -> None:
    a = [row("1", "art", reading(1, 1, None, 1)), row("2", "art", reading(1, 0, 1, 1)), row("3", "art", FAILED)]
    b = [
        row("1", "art", reading(1, 0, 1, 1)),
        row("2", "art", reading(1, 0, 1, 0)),
        row("3", "art", reading(1, 1, 1, 1)),
    ]
    result = agreement([RatedSystem("x", "t", "1", {"vlm:a": a, "vlm:b": b})], BOTH).pairs[0].dimensions
    text = result["text_accuracy"]
    assert (text.exact.n, text.only_first, text.only_second) == (1, 0, 2)
    assert (result["aesthetics"].exact.value, result["aesthetics"].exact.n) == (0.5, 2)
    lenient = [one.model_copy(update={"lenient": reading(0, 0, 0, 0)}) for one in a]
    official = agreement([RatedSystem("x", "t", "1", {"vlm:a": lenient, "vlm:b": b})], BOTH, protocol="official")
    assert official.pairs[0].dimensions["text_accuracy"].exact.n == 3


def test_the_first_successful_score_of_several_counts() -> None:
    a = [
        row("1", "art", FAILED, judge_repeat=0),
        row("1", "art", reading(1, 1, 1, 1), judge_repeat=1),
        row("1", "art", reading(0, 0, 0, 0), judge_repeat=2),
    ]
    b = [row("1", "art", reading(1, 1, 1, 1))]
    result = agreement([RatedSystem("x", "t", "1", {"vlm:a": a, "vlm:b": b})], BOTH)
    assert result.pairs[0].dimensions["aesthetics"].exact.value == 1.0
    assert "if an image has several scores of one scorer, the first one that is ok counts" in result.notes


def systems_of(skills: list[float], *, turned: bool = False) -> list[RatedSystem]:
    results = []
    for number, skill in enumerate(skills):
        rows = some_rows(random.Random(number), 40, skill=skill)
        other = some_rows(random.Random(50 + number), 40, skill=1 - skill if turned else skill)
        results.append(RatedSystem(f"system {number}", "t", "1", {"vlm:a": rows, "vlm:b": other}))
    return results


@pytest.mark.parametrize("turned", [False, True])
def test_rank_correlations_of_a_worked_example(turned: bool) -> None:
    systems = systems_of([0.1, 0.3, 0.5, 0.7, 0.9], turned=turned)
    result = agreement(systems, BOTH, resamples=300).ranks[0]
    scores = [[aggregate(system.rows[judge]).headline.value for system in systems] for judge in ("vlm:a", "vlm:b")]
    assert result.kendall.value == pytest.approx(kendalltau(*scores).statistic)
    assert result.spearman.value == pytest.approx(spearmanr(*scores).statistic)
    assert result.kendall.value == (-1.0 if turned else 1.0)
    assert (result.kendall.n, result.samples) == (5, 40)
    assert result.kendall.low is None and result.kendall.note == "the same in every resample"


def test_similar_systems_have_a_wide_rank_interval() -> None:
    result = agreement(systems_of([0.45, 0.5, 0.5, 0.55]), BOTH, resamples=300).ranks[0]
    for figure in (result.kendall, result.spearman):
        assert figure.low is not None and figure.value is not None and figure.high is not None
        assert -1 <= figure.low <= figure.value <= figure.high <= 1 and figure.high - figure.low > 0.5


def test_two_systems_have_no_rank_correlation() -> None:
    result = agreement(systems_of([0.2, 0.8]), BOTH).ranks[0]
    assert (result.kendall.value, result.kendall.note, result.kendall.n) == (None, "n too small", 2)


def test_three_raters_have_a_joint_alpha() -> None:
    rows = some_rows(random.Random(1), 40)
    judges = {name: nearly(rows, random.Random(number)) for number, name in enumerate(("vlm:a", "vlm:b", "vlm:c"))}
    result = agreement([RatedSystem("x", "t", "1", judges)], dict.fromkeys(judges, DIMENSIONS), resamples=200)
    assert len(result.pairs) == 3
    values = np.array([[one.strict.values["aesthetics"] for one in rows] for rows in judges.values()])
    assert result.together["aesthetics"].value == pytest.approx(brute_alpha(values, "interval"))


def test_different_tasks_and_a_single_rater_are_refused() -> None:
    one = two_judges()
    with pytest.raises(UsageError, match="plain and plain: different tasks: t 1 and t 2"):
        agreement([one, RatedSystem("plain", "t", "2", one.rows)], BOTH)
    with pytest.raises(UsageError, match="one rater .vlm:a. is not enough to measure agreement"):
        agreement([RatedSystem("x", "t", "1", {"vlm:a": one.rows["vlm:a"]})], {"vlm:a": DIMENSIONS})


def test_a_scorer_without_a_common_dimension_is_named() -> None:
    one = two_judges(30)
    rows = {**one.rows, "pixels": one.rows["vlm:a"]}
    result = agreement([RatedSystem("x", "t", "1", rows)], {**BOTH, "pixels": ("likeness",)}, resamples=0)
    assert "pixels: no dimension in common with another rater" in result.notes


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_human_labels_are_raters(tmp_path: Path) -> None:
    rows = some_rows(random.Random(1), 30)
    lines = [f"{one.sample_id},anna,{one.strict.values['aesthetics']:g},,good" for one in rows]
    lines += [f"{rows[0].sample_id},ben,1,0.5,", "elsewhere,ben,1,1,"]
    file = write(tmp_path / "labels.csv", "\n".join(["sample_id,rater,aesthetics,text_accuracy,comment", *lines]))
    result = agreement([RatedSystem("x", "t", "1", {"vlm:a": rows})], {"vlm:a": DIMENSIONS}, labels=file, resamples=200)
    assert result.raters == ("vlm:a", "human:anna", "human:ben")
    anna = result.pairs[0].dimensions
    assert set(anna) == {"text_accuracy", "aesthetics"}
    assert (anna["aesthetics"].exact.value, anna["aesthetics"].kappa.value) == (1.0, 1.0)
    assert (anna["text_accuracy"].exact.n, anna["text_accuracy"].exact.note) == (0, "nothing rated by both")
    assert "1 label of images that the runs do not have: left out" in result.notes
    assert "ignored columns of labels.csv: comment" in result.notes


def test_labels_of_several_runs_name_the_run(tmp_path: Path) -> None:
    systems = systems_of([0.2, 0.5, 0.8])
    file = write(tmp_path / "l.csv", "sample_id,system,aesthetics\ns000,system 1,1\ns001,system 2,0\n")
    result = agreement(systems, BOTH, labels=file, resamples=0)
    assert result.raters[-1] == "human" and result.pairs[1].dimensions["aesthetics"].exact.n == 2
    bare = write(tmp_path / "b.csv", "sample_id,aesthetics\ns000,1\n")
    with pytest.raises(DataError, match=r"b\.csv:2: the label does not name one of the runs; add a column"):
        agreement(systems, BOTH, labels=bare, resamples=0)
    other = write(tmp_path / "o.csv", "sample_id,system,aesthetics\ns000,nobody,1\n")
    with pytest.raises(DataError, match=r"o\.csv:2: unknown system 'nobody'"):
        agreement(systems, BOTH, labels=other, resamples=0)
    stray = write(tmp_path / "s.csv", "sample_id,system,aesthetics\nzzz,system 1,1\n")
    with pytest.raises(DataError, match="no label matches an image of the runs"):
        agreement(systems, BOTH, labels=stray, resamples=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv: file is empty"),
        ("id,aesthetics\n1,1\n", "labels.csv:1: column sample_id is missing"),
        ("sample_id,note\n1,x\n", "labels.csv:1: no column of a dimension; known dimensions: faithfulness"),
        ("sample_id,aesthetic\n1,1\n", "labels.csv:1: unknown column 'aesthetic'; did you mean 'aesthetics'?"),
        ("sample_id,aesthetics,aesthetics\n1,1,1\n", "labels.csv:1: duplicate column 'aesthetics'"),
        ("sample_id,aesthetics\n1,1\n\n2,good\n", "labels.csv:4: aesthetics must be a number from 0 to 1, got 'good'"),
        ("sample_id,aesthetics\n1,1.5\n", "labels.csv:2: aesthetics must be a number from 0 to 1, got '1.5'"),
        ("sample_id,aesthetics\n1,nan\n", "labels.csv:2: aesthetics must be a number from 0 to 1, got 'nan'"),
        ("sample_id,aesthetics\n,1\n", "labels.csv:2: sample_id is blank"),
        ("sample_id,repeat,aesthetics\n1,-1,1\n", "labels.csv:2: repeat must be a whole number >= 0, got '-1'"),
        ("sample_id,aesthetics\n1,1\n1,0\n", "labels.csv:3: second label of sample '1', after line 2"),
        ("sample_id,aesthetics\n1,1,1\n", "labels.csv:2: 3 cells for 2 columns; with a decimal comma"),
        ('sample_id,aesthetics\n1,"1\n', "labels.csv:2: not valid CSV"),
        ("sample_id,aesthetics\n1,\n", "labels.csv: no labels: all values are blank"),
    ],
)
def test_a_malformed_file_gives_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "labels.csv", text)
    with pytest.raises(DataError) as caught:
        read_labels(file, DIMENSIONS)
    assert str(caught.value).startswith(f"{tmp_path}/{message}") and "\n" not in str(caught.value)


def test_an_unreadable_label_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_labels(tmp_path / "none.csv", DIMENSIONS)
    (tmp_path / "latin.csv").write_bytes(b"sample_id,aesthetics\n\xe9,1\n")
    with pytest.raises(DataError, match=r"latin\.csv:2: byte 22 of the file \(0xe9\) is not UTF-8"):
        read_labels(tmp_path / "latin.csv", DIMENSIONS)
    with pytest.raises(DataError, match="is a folder"):
        read_labels(tmp_path, DIMENSIONS)


def test_a_file_from_a_spreadsheet_can_be_read(tmp_path: Path) -> None:
    """With a byte-order mark, spaces, quotes and Windows line ends."""
    (tmp_path / "l.csv").write_bytes(b'\xef\xbb\xbfsample_id , aesthetics\r\n"a,b", 0.5 \r\n')
    label = read_labels(tmp_path / "l.csv", DIMENSIONS).labels[0]
    assert (label.sample, label.values, label.repeat, label.rater) == ("a,b", {"aesthetics": 0.5}, 0, "human")


@pytest.mark.slow
@pytest.mark.parametrize("size", [20, 40, 100])
def test_intervals_of_kappa_contain_the_true_value(size: int) -> None:
    """Two judges rate the same images with noise; the true value is the kappa of 400,000 images."""

    def ratings_of_two(rng: np.random.Generator, n: int) -> np.ndarray:
        seen = rng.standard_normal(n)
        return np.stack(
            [0.5 * (view > -0.2) + 0.5 * (view > 0.9) for view in (seen + 0.6 * rng.standard_normal((2, n)))]
        )

    big = ratings_of_two(np.random.default_rng(99), 400_000)
    truth = float(squared_kappas(big, np.ones((1, 400_000)))[0])
    covered, shown, rounds = 0, 0, 600
    for number in range(rounds):
        table = ratings_of_two(np.random.default_rng(number), size)
        sides = [{("x", f"s{i:03}", 0): {"d": float(v)} for i, v in enumerate(side)} for side in table]
        pair = pair_agreements(dict(zip("ab", sides, strict=True)), {"a": "d", "b": "d"}, resamples=400)[0]
        figure = pair.dimensions["d"].kappa
        if figure.low is not None and figure.high is not None:
            shown += 1
            covered += figure.low <= truth <= figure.high
    assert shown > 0.9 * rounds
    assert 0.91 <= covered / shown <= 0.98


TABLE = "sample_id{0}aesthetics{0}rater\ns1{0}0.5{0}a\ns2{0}1{0}b\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_labels_are_the_same_with_every_separator(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    (tmp_path / "l.csv").write_bytes(TABLE.format(separator).replace("\n", end).encode(encoding))
    labels = read_labels(tmp_path / "l.csv", DIMENSIONS).labels
    assert [(each.line, each.sample, each.rater, each.values) for each in labels] == [
        (2, "s1", "human:a", {"aesthetics": 0.5}), (3, "s2", "human:b", {"aesthetics": 1.0}),
    ]  # fmt: skip


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_decimal_comma_is_read_where_the_separator_is_another(tmp_path: Path, separator: str) -> None:
    text = TABLE.format(separator).replace("0.5", "0,5")
    for table in (text, f"sep={separator}\n{text}"):
        (tmp_path / "l.csv").write_text(table)
        first = read_labels(tmp_path / "l.csv", DIMENSIONS).labels[0]
        assert first.values == {"aesthetics": 0.5} and first.line == 1 + table.count("\n") - 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "sample_id,aesthetics\ns1,0,5\n",
            r"l\.csv:2: 3 cells for 2 columns; with a decimal comma, separate",
        ),
        ('sample_id,aesthetics\ns1,"0,5"\n', r"l\.csv:2: aesthetics has a decimal comma, '0,5', in a file that is sep"),
        ("sample_id;aesthetics\ns1;1.000,5\n", r"l\.csv:2: aesthetics must be a number from 0 to 1, got '1\.000,5'"),
        (
            "id;aesthetics\ns1;1\n",
            r"column sample_id is missing; separated by a semicolon, the first line has 'id'",
        ),
        ("id\taesthetics\n", "separated by a tab, the first line has 'id', 'aesthetics'"),
    ],
)
def test_an_ambiguous_or_unknown_table_is_an_error_that_names_the_separator(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / "l.csv", DIMENSIONS)


def test_labels_of_one_sample_in_two_unicode_forms_are_duplicates(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("sample_id,aesthetics\n\u00e9,1\ne\u0301,0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"l\.csv:3: second label of sample"):
        read_labels(tmp_path / "l.csv", DIMENSIONS)
