"""Figures of a board: which revisions count, their order, the differences of all pairs, and the ranks that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from knowgen.core.errors import DataError
from knowgen.leaderboards.figures import WHOLE, BoardFigures, PairDifference, RankRange, board_figures, rank_ranges
from knowgen.leaderboards.folder import RESULT_FILE, Board, read_board
from knowgen.leaderboards.records import TieRule
from knowgen.leaderboards.rows import rows_of
from knowgen.leaderboards.site.build import build_site
from knowgen.stats.compare.all_pairs import SIGN_TEST, T_TEST
from knowgen.stats.compare.holm import holm
from knowgen.stats.compare.systems import compare
from tests.helpers.figure_boards import add_revision, spread, write_board

TIES = TieRule()


def slugs(figures: BoardFigures) -> list[str]:
    return [system.submission.slug for system in figures.systems]


def ranks(figures: BoardFigures) -> dict[str, tuple[int, int] | None]:
    return {
        one.submission.slug: (one.rank.best, one.rank.worst) if one.rank is not None else None
        for one in figures.systems
    }


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board with two strong systems that are alike, one in the middle, and one that is weak."""
    levels = {"weak": 0.2, "strong": 0.8, "middle": 0.5, "equal": 0.8}
    return write_board(
        tmp_path / "board", {name: spread(level, 60, seed) for seed, (name, level) in enumerate(levels.items())}
    )


def test_ranks_follow_from_the_pairs_that_differ() -> None:
    """Of a, b, c, d: d is better than all, a worse than c and d, and b differs from d alone."""
    apart, alike = PairDifference(value=0.1, p_corrected=0.01), PairDifference(value=0.1, p_corrected=0.2)
    pairs = {
        ("a", "b"): alike,
        ("a", "c"): apart,
        ("a", "d"): apart,
        ("b", "c"): alike,
        ("b", "d"): apart,
        ("d", "c"): replace(apart, value=-0.1),
    }
    assert rank_ranges("abcd", pairs, TIES) == {
        "a": RankRange(3, 4),  # two are better, none is worse
        "b": RankRange(2, 4),
        "c": RankRange(2, 3),
        "d": RankRange(1, 1),
    }


def test_a_difference_without_a_test_or_of_zero_is_a_tie() -> None:
    for pair in (PairDifference(value=0.9), PairDifference(value=0.0, p_corrected=0.0), PairDifference()):
        assert not pair.differs(TIES)
    assert PairDifference(value=-0.1, p_corrected=0.05).differs(TIES)
    assert not PairDifference(value=-0.1, p_corrected=0.05).differs(TieRule(level=0.01))


def test_systems_that_are_alike_share_ranks(board: Board) -> None:
    figures = board_figures(board)
    assert set(slugs(figures)[:2]) == {"strong", "equal"} and slugs(figures)[2:] == ["middle", "weak"]
    assert ranks(figures) == {"strong": (1, 2), "equal": (1, 2), "middle": (3, 3), "weak": (4, 4)}


def test_pairs_are_those_of_a_comparison_and_corrected_for_all_of_them(board: Board) -> None:
    figures = board_figures(board)
    order = slugs(figures)
    assert list(figures.pairs) == [(a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    rows = {one.submission.slug: list(rows_of(one.submission.read_result(), board.samples)) for one in figures.systems}
    for (a, b), pair in figures.pairs.items():
        expected = compare(rows[a], rows[b], "strict", dimensions=("match",), permutations=0).headline
        assert (pair.value, pair.low, pair.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert pair.p is not None and pair.low is not None and pair.high is not None
        assert (pair.p < 0.05) == (not pair.low <= 0 <= pair.high)
        assert pair.test == T_TEST
    p_values = [pair.p or 0.0 for pair in figures.pairs.values()]
    assert [pair.p_corrected for pair in figures.pairs.values()] == pytest.approx(holm(p_values))


def test_a_board_without_a_correction_takes_p_values_as_they_are(board: Board) -> None:
    figures = board_figures(replace(board, file=board.file.model_copy(update={"ties": TieRule(correction="none")})))
    assert all(pair.p_corrected == pair.p for pair in figures.pairs.values())


def test_parts_have_ranks_and_pairs_of_their_own(tmp_path: Path) -> None:
    """`even` is better on one group and `odd` on the other, so that they are equal on the whole alone."""
    high, low = spread(0.8, 60, 1), spread(0.4, 60, 2)
    mixed = [[high[place] if place % 2 == side else low[place] for place in range(60)] for side in (0, 1)]
    figures = board_figures(write_board(tmp_path / "board", {"even": mixed[0], "odd": mixed[1]}))
    science, pop = (figures.parts["group", name] for name in ("science_and_knowledge", "pop_culture_and_news"))
    assert science.order == ("even", "odd") and pop.order == ("odd", "even")
    assert science.ranks == {"even": RankRange(1, 1), "odd": RankRange(2, 2)}
    assert pop.ranks == {"odd": RankRange(1, 1), "even": RankRange(2, 2)}
    assert set(figures.parts[WHOLE].ranks.values()) == {RankRange(1, 2)}
    assert figures.parts[WHOLE].pairs == figures.pairs == figures.by_figure["overall"]
    assert list(figures.parts)[:3] == [WHOLE, ("group", "science_and_knowledge"), ("group", "pop_culture_and_news")]
    assert ("difficulty", "easy") in figures.parts and ("category", "game") in figures.parts
    (key,) = figures.pairs
    assert set(science.pairs) == set(pop.pairs) == {key}, "the same order of a pair on all parts"


def test_a_dimension_may_rank(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"a": spread(0.3, 40, 1), "b": spread(0.6, 40, 2)}, ranking="match")
    figures = board_figures(board)
    assert slugs(figures) == ["b", "a"]
    assert figures.pairs == figures.by_figure["match"] and figures.by_figure["overall"].keys() == figures.pairs.keys()


def test_systems_that_always_differ_by_the_same_amount_differ(tmp_path: Path) -> None:
    """Without a spread nothing makes an interval, but 40 samples of 40 are not chance: 2 * (1/2)^40."""
    figures = board_figures(write_board(tmp_path / "board", {"all": [1.0] * 40, "none": [0.0] * 40}))
    pair = figures.pairs["all", "none"]
    assert (pair.value, pair.low, pair.note, pair.test) == (-1.0, None, "all values equal", SIGN_TEST)
    assert pair.p == round(2 * 0.5**40, 10) == 0.0
    assert ranks(figures) == {"all": (1, 1), "none": (2, 2)}


def test_three_samples_that_differ_are_not_enough(tmp_path: Path) -> None:
    values = [1.0] * 40
    figures = board_figures(write_board(tmp_path / "board", {"a": values, "b": [0.0] * 3 + values[3:]}))
    pair = figures.pairs["a", "b"]
    assert (pair.note, pair.test, pair.p) == ("too few different values", SIGN_TEST, 0.25)
    assert ranks(figures) == {"a": (1, 2), "b": (1, 2)}


def test_equal_systems_are_ordered_by_folder_and_tied(tmp_path: Path) -> None:
    same = spread(0.5, 40, 3)
    figures = board_figures(write_board(tmp_path / "board", {"c": same, "a": same, "b": same}))
    assert slugs(figures) == ["a", "b", "c"]
    assert set(ranks(figures).values()) == {(1, 3)}
    assert {pair.p for pair in figures.pairs.values()} == {1.0}


def test_withdrawn_and_older_revisions_are_left_out(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {})
    add_revision(board, "a", [0.1] * 4, revision="1", created="2026-03-01T00:00:00+00:00")
    add_revision(board, "a", [0.9] * 4, revision="2", created="2026-03-01T00:30:00+01:00")  # 23:30 on the day before
    add_revision(board, "a", [1.0] * 4, revision="3", created="2026-09-01T00:00:00+00:00", withdrawn="wrong weights")
    add_revision(board, "gone", [1.0] * 4, withdrawn="asked for")
    figures = board_figures(board)
    assert [one.submission.key for one in figures.systems] == ["a/1"]
    assert ranks(figures) == {"a": (1, 1)}


def test_a_system_of_another_task_version_is_listed_apart_with_the_reason(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"old": [0.5] * 4}, task={"name": "made_up", "version": "2-def"})
    assert board_figures(board).systems == ()
    build_site([board], tmp_path / "site")
    page = (tmp_path / "site/board/index.html").read_text(encoding="utf-8")
    assert "made with another version of the task: 1-abc" in page


def test_a_time_of_creation_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"a": [0.1] * 4})
    add_revision(board, "a", [0.9] * 4, revision="2", created="yesterday")
    with pytest.raises(DataError, match=r"result\.json: created: 'yesterday' is not a time"):
        board_figures(board)


@pytest.mark.parametrize(("protocol", "version"), [("strict", "2"), ("official", "1")])
def test_a_system_with_too_few_scores_has_no_rank(tmp_path: Path, protocol: str, version: str) -> None:
    values = spread(0.5, 40, 4)
    board = write_board(
        tmp_path / "board",
        {"full": values, "short": [None] * 4 + [1.0] * 36, "other": spread(0.6, 40, 5)},
        protocol=protocol,
        protocol_version=version,
    )
    figures = board_figures(board)
    assert slugs(figures) == ["other", "full", "short"]
    assert figures.systems[-1].rank is None and "4 of 40 scores failed" in figures.systems[-1].summary.no_result
    assert list(figures.pairs) == [("other", "full")]
    assert all("short" not in part.ranks for part in figures.parts.values())


def test_the_board_decides_the_least_coverage(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"short": [None, None, None, None, *spread(0.5, 36, 6)]}, min_coverage=0.9)
    assert ranks(board_figures(board)) == {"short": (1, 1)}


def test_samples_that_a_submission_leaves_out_are_missing(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"full": spread(0.5, 40, 7)})
    add_revision(board, "part", [1.0] * 30)
    figures = board_figures(board)
    assert ranks(figures) == {"full": (1, 1), "part": None}
    assert "10 of 40 scores not run yet" in figures.systems[1].summary.no_result


def test_the_order_of_samples_in_a_submission_does_not_matter(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"a": spread(0.5, 40, 8), "b": spread(0.6, 40, 9)})
    before = board_figures(board)
    path = board.path / "a" / "1" / RESULT_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["samples"].reverse()
    path.write_text(json.dumps(content), encoding="utf-8")
    after = board_figures(read_board(board.path))
    assert after.pairs == before.pairs
    assert [one.summary for one in after.systems] == [one.summary for one in before.systems]


def test_cost_and_time_are_those_of_an_image(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"a": [[0.5, 0.7], [0.5, 0.7], [0.1, 0.2]]})
    (system,) = board_figures(board).systems
    assert (system.cost, system.seconds, system.summary.repeats) == (0.25, 2.5, 2)


def test_an_empty_board_and_one_with_a_single_system_have_figures(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {})
    empty = board_figures(board)
    assert (empty.systems, empty.pairs) == ((), {})
    add_revision(board, "only", [0.5, 1.0, 0.5, 1.0])
    single = board_figures(board)
    assert ranks(single) == {"only": (1, 1)} and single.pairs == {}
    assert single.parts["group", "science_and_knowledge"].ranks == {"only": RankRange(1, 1)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"ranking": "beauty"},
            r"board\.yaml: ranking: 'beauty' is not a figure of the board; choose one of overall",
        ),
        ({"protocol_version": "1"}, r"board\.yaml: protocol_version: the board has '1'"),
    ],
)
def test_a_board_that_cannot_be_computed_is_refused(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        board_figures(write_board(tmp_path / "board", {"a": [0.5] * 4}, **fields))


def test_a_sample_that_is_listed_twice_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {"a": [0.5] * 4})
    path = board.path / "a" / "1" / RESULT_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["samples"].append(content["samples"][0])
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"a/1/result\.json, sample 's000'.*duplicate row"):
        board_figures(board)
