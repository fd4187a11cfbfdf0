"""Any single value of a result that is changed is found, or changes no figure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.arithmetic import recompute
from knowgen.leaderboards.folder import RESULT_FILE, SYSTEM_FILE, Board
from knowgen.leaderboards.records import SubmissionResult
from tests.helpers.checked_boards import failed, honest, make_board, make_result, with_generation, write_submission

Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board with one valid submission, of which one generation failed."""
    board = make_board(tmp_path_factory.mktemp("property"))
    write_submission(board, honest(with_generation(make_result(board), 2, failed), board))
    return board


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every single value."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, (*place, name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*place, number))
    else:
        yield place


def changed(data: Any, place: Place, value: Any) -> Any:
    made = copy.deepcopy(data)
    part = made
    for step in place[:-1]:
        part = part[step]
    if value is REMOVED and isinstance(part, dict):
        del part[place[-1]]
    else:
        part[place[-1]] = None if value is REMOVED else value
    return made


REMOVED = object()
VALUES = st.one_of(
    st.sampled_from(
        [REMOVED, None, 0, 1, 0.5, 2, -1, 1e-6, 1.0 + 1e-6, True, "", "ok", "failed", "refused", "not_run"]
    ),
    st.sampled_from(["not_applicable", "infrastructure", "system", "refusal", "s01", "s02", "judge-2026-01-01"]),
    st.floats(0, 1),
    st.text(max_size=5),
)


def figures(result: SubmissionResult, board: Board) -> list[Any]:
    """Return what the board shows of a result: its figures with their coverage, of the whole and of every part."""
    return [each.model_dump() for each in recompute(result, board).slices if each.kind != "judge"]


def is_found(board: Board, text: str) -> bool:
    path = board.path / "painted" / "1" / RESULT_FILE
    before = path.read_text()
    try:
        path.write_text(text)
        return not check_boards(board.path.parent, now=datetime(2026, 6, 1, tzinfo=UTC)).ok
    finally:
        path.write_text(before)


def assert_found_or_harmless(board: Board, data: Any, made: Any) -> None:
    if is_found(board, json.dumps(made)):
        return
    now, before = (SubmissionResult.model_validate(each) for each in (made, data))
    assert figures(now, board) == figures(before, board)
    assert now.claimed == pytest.approx(before.claimed, abs=1e-9)


def data_of(board: Board) -> Any:
    return json.loads((board.path / "painted" / "1" / RESULT_FILE).read_text())


def examples(number: int) -> settings:
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=number, deadline=None, suppress_health_check=shared)


def one_change(board: Board, draw: st.DataObject) -> None:
    data = data_of(board)
    part = draw.draw(st.sampled_from(["samples", "samples", "claimed", "coverage", "judges"]))
    place = draw.draw(st.sampled_from([each for each in places(data) if each[0] == part]))
    assert_found_or_harmless(board, data, changed(data, place, draw.draw(VALUES)))


@examples(15)
@given(draw=st.data())
def test_a_changed_value_is_found_or_changes_no_figure(board: Board, draw: st.DataObject) -> None:
    one_change(board, draw)


@pytest.mark.slow
@examples(1500)
@given(draw=st.data())
def test_many_changed_values_are_found_or_change_no_figure(board: Board, draw: st.DataObject) -> None:
    one_change(board, draw)


def test_a_score_that_is_changed_is_found(board: Board) -> None:
    data = data_of(board)
    scores = [place for place in places(data) if place[0] == "samples" and "strict" in place and "values" in place]
    assert len(scores) > 30
    for place in scores[::5]:
        part = data
        for step in place:
            part = part[step]
        raised = part + 0.5 if part < 1 else 0.5
        assert is_found(board, json.dumps(changed(data, place, raised))), place


ODD = st.one_of(
    VALUES,
    st.sampled_from(
        [[], {}, [[]], {"a": 1}, 2**70, 1e300, "../../etc/passwd", "\u202e\x1b[31m", "0001-01-01T00:00:00+23:59"]
    ),
)


@pytest.mark.slow
@examples(400)
@given(draw=st.data())
def test_whatever_a_file_holds_is_a_finding_and_not_a_crash(board: Board, draw: st.DataObject) -> None:
    folder = board.path / "painted" / "1"
    name = draw.draw(st.sampled_from([RESULT_FILE, SYSTEM_FILE]))
    before = (folder / name).read_text()
    data = yaml.safe_load(before) if name == SYSTEM_FILE else json.loads(before)
    inner = {place[:depth] for place in places(data) for depth in range(1, len(place) + 1)}
    made = changed(data, draw.draw(st.sampled_from(sorted(inner, key=str))), draw.draw(ODD))
    try:
        (folder / name).write_text(yaml.safe_dump(made) if name == SYSTEM_FILE else json.dumps(made))
        report = check_boards(board.path.parent, now=datetime(2026, 6, 1, tzinfo=UTC))
    finally:
        (folder / name).write_text(before)
    assert all(str(each).isprintable() for each in report.every)
