"""`system.yaml` of a submission: its template, its errors, and names that lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from knowgen.leaderboards.folder import Board
from knowgen.leaderboards.records import Adapter, SystemFile
from knowgen.workflows.run import Run
from tests.helpers.board_runs import (
    Painted,
    add,
    added,
    make_board,
    make_run,
    refusals,
    small_task,
    submissions,
    write_system,
)


@pytest.fixture
def board(tmp_path: Path, small_runs: Path) -> Board:
    return make_board(tmp_path, task={"name": str(small_task(small_runs))})


def test_without_a_system_a_template_is_written_once(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path, generator=Painted(size=80))
    template = made.path / "system.yaml"
    assert add(board, made.path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"wrote {template}" in line
    assert f"--system {template}" in line
    text = template.read_text()
    assert "size" in text
    template.write_text(f"# mine\n{text}")
    assert add(board, made.path) == 2
    assert f"{template} exists: fill it in" in capsys.readouterr().err
    assert template.read_text() == f"# mine\n{text}"
    assert submissions(board) == []


def test_the_template_explains_every_field_and_names_those_that_are_empty(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(board, made.path)
    capsys.readouterr()
    template = made.path / "system.yaml"
    lines = template.read_text().splitlines()
    for kind, indent in ((SystemFile, ""), (Adapter, "  ")):
        for name in kind.model_fields:
            place = next(number for number, line in enumerate(lines) if line.startswith(f"{indent}{name}:"))
            assert lines[place - 1].startswith(f"{indent}# "), name
    assert add(board, made.path, template) == 3
    empty = ("authors", "licence", "open_weights", "parameters", "training_data", "contact")
    places = {name: 1 + next(n for n, line in enumerate(lines) if line.startswith(f"{name}:")) for name in empty}
    assert refusals(capsys) == [f"{template}:{places[name]}: {name}: is empty; fill it in" for name in empty]


def test_the_template_proposes_the_next_revision(board: Board, tmp_path: Path) -> None:
    named = make_run(tmp_path, name="Painted")
    added(board, named.path)
    add(board, named.path)
    assert 'revision: "2"' in (named.path / "system.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("licence", "licenze: unknown field; did you mean 'licence'?"),
        ("kind", "kind: Input should be 'image_model', 'agent' or 'baseline'; fix that field"),
        ("link", "links.0.url: must begin with https:// or http://; fix that field"),
        ("key", "looks like a key"),
        ("twice", "duplicate field 'name'; remove one of them"),
    ],
)
def test_an_error_in_system_yaml_names_file_line_and_field(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    system = write_system(made.path, tmp_path, links=[{"title": "paper", "url": "https://example.org"}])
    changed = {
        "licence": ("licence: MIT", "licence: MIT\nlicenze: MIT"),
        "kind": ("kind: image_model", "kind: model"),
        "link": ("https://example.org", "javascript:alert(1)"),
        "key": ("a@example.org", "sk-proj-abcdefghijkl"),
        "twice": ("revision: '1'", "revision: '1'\nname: again"),
    }[text]
    assert changed[0] in system.read_text()
    system.write_text(system.read_text().replace(*changed, 1))
    assert add(board, made.path, system) == 3
    (line,) = refusals(capsys)
    assert re.match(rf"{re.escape(str(system))}:\d+: ", line)
    assert reason in line
    assert "abcdefghijkl" not in line


def test_system_yaml_must_agree_with_the_record_of_the_run(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path, generator=Painted(size=80))
    system = write_system(
        made.path, tmp_path, adapter__generator="other", adapter__arguments={"size": 81}, adapter__revision="7"
    )
    assert add(board, made.path, system) == 3
    lines = refusals(capsys)
    assert any(line.startswith("system.yaml: adapter.generator is 'other', the run has ") for line in lines)
    assert "system.yaml: adapter.arguments.size is 81, the run has size=80" in lines
    assert "system.yaml: adapter.revision is '7', the run has '1'" in lines


def test_a_name_that_reads_like_that_of_another_system_is_refused(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added(board, made.path, name="Painted 2")
    capsys.readouterr()
    for name, words in (("Pain ted 2", "reads like that of the system 'Painted 2'"), ("x\u200b", "visible characters")):
        assert add(board, made.path, write_system(made.path, tmp_path, name=name)) == 3
        (line,) = refusals(capsys)
        assert words in line


def test_no_name_leads_out_of_the_board(made: Run, board: Board, tmp_path: Path) -> None:
    names = ("../../evil", "/etc/passwd", "..", "C:\\evil", "a\nb", "日本", "<b>x</b>")
    codes = [add(board, made.path, write_system(made.path, tmp_path, name=name)) for name in names]
    assert codes == [0, 0, 3, 0, 3, 3, 0]
    assert submissions(board) == ["b-x-b/1", "c-evil/1", "etc-passwd/1", "evil/1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboards", "system.yaml"]
    assert [path.name for path in board.path.parent.iterdir()] == ["small"]


def test_no_revision_leads_out_of_the_board(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for revision in ("../1", "1/2", ".", "..", "", "A", "1\n", "/tmp"):
        assert add(board, made.path, write_system(made.path, tmp_path, revision=revision)) == 3
        (line,) = refusals(capsys)
        assert "revision: " in line


def test_a_folder_that_is_a_link_is_not_followed(
    made: Run, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (board.path / "painted").symlink_to(tmp_path / "elsewhere")
    assert add(board, made.path, write_system(made.path, tmp_path)) == 3
    assert "is a link, which submissions must not follow" in refusals(capsys)[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []
