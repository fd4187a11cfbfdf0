"""Everything about a board as CSV and JSON: complete, described, harmless in a spreadsheet, the same bytes anywhere."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import DataError
from knowgen.leaderboards.exports import write_exports
from knowgen.leaderboards.figures import board_figures
from knowgen.leaderboards.folder import SAMPLES_FILE, Board, read_board, read_boards
from knowgen.leaderboards.published import read_published
from tests.helpers.figure_boards import add_revision, spread, write_board

BOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
PUBLISHED = "system,kind,sk_visual,k_score\nOne,open,20.92,34.19\nTwo,agent,,0\n"
SOURCE = {"file": "published.csv", "source": "A paper", "url": "https://example.org/paper"}


def published_board(root: Path, text: str) -> Board:
    board = write_board(root, {"b": [*spread(0.7, 39, 1), None], "a": spread(0.3, 40, 2)}, published=SOURCE)
    (root / "published.csv").write_text(text, encoding="utf-8")
    return board


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def json_rows(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text(encoding="utf-8"))
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def test_every_table_is_there_in_both_forms_with_the_same_content(tmp_path: Path) -> None:
    files = write_exports(board_figures(published_board(tmp_path / "board", PUBLISHED)), tmp_path / "out")
    names = ["board", "parts", "pairs", "pairs_group", "pairs_category", "pairs_difficulty", "samples", "published",
             "systems/b", "systems/a"]  # fmt: skip
    assert [file.path for file in files] == [
        "README.md", *(f"{name}.{ending}" for name in names for ending in ("csv", "json"))
    ]  # fmt: skip
    for name in names:
        in_csv, in_json = csv_rows(tmp_path / f"out/{name}.csv"), json_rows(tmp_path / f"out/{name}.json")
        assert in_csv == [{key: as_csv(value) for key, value in row.items()} for row in in_json]
        assert in_csv, name
    assert {file.path: file.size for file in files} == {
        path.relative_to(tmp_path / "out").as_posix(): path.stat().st_size
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }


def as_csv(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def test_figures_are_those_of_the_board(tmp_path: Path) -> None:
    figures = board_figures(published_board(tmp_path / "board", PUBLISHED))
    write_exports(figures, tmp_path / "out")
    best, worst = json_rows(tmp_path / "out/board.json")
    whole = figures.systems[0].summary.headline
    assert (best["system"], best["rank_best"], best["rank_worst"]) == ("b", 1, 1)
    assert (best["overall"], best["overall_low"]) == (pytest.approx(whole.value), pytest.approx(whole.low))
    assert (best["expected"], best["scored"], worst["cost_per_image"]) == (40, 39, 0.25)
    (pair,) = (row for row in json_rows(tmp_path / "out/pairs.json") if row["figure"] == "overall")
    expected = figures.pairs["b", "a"]
    assert (pair["a"], pair["b"], pair["difference"], pair["p_corrected"], pair["n"]) == (
        "b", "a", expected.value, expected.p_corrected, 39,
    )  # fmt: skip
    ranks = {
        (row["part"], row["system"]): row["rank_best"]
        for row in json_rows(tmp_path / "out/parts.json")
        if (row["kind"], row["figure"]) == ("group", "overall")
    }
    assert ranks["science_and_knowledge", "b"] == 1 and ranks["pop_culture_and_news", "a"] == 2


def test_samples_of_a_system_have_states_values_and_reasons(tmp_path: Path) -> None:
    write_exports(board_figures(published_board(tmp_path / "board", PUBLISHED)), tmp_path / "out")
    rows = json_rows(tmp_path / "out/systems/b.json")
    assert [row["sample"] for row in rows] == [row["sample"] for row in json_rows(tmp_path / "out/samples.json")]
    assert rows[-1] | {"image_sha256": ""} == {
        "sample": "s039", "state": "score_failed", "missing": 1, "overall": None, "match": None, "images": 1,
        "cost_per_image": 0.25, "seconds_per_image": 2.0, "image_sha256": "", "reason": "the reply has no values",
        "rationale": "",
    }  # fmt: skip
    value = spread(0.7, 39, 1)[0]
    assert (rows[0]["state"], rows[0]["overall"], rows[0]["match"]) == ("scored", value, value)
    assert rows[0]["rationale"] == f"It is {value} right." and re.fullmatch(r"[0-9a-f]{64}", rows[0]["image_sha256"])


def test_a_board_that_is_not_pinned_yet_has_published_rows_only(tmp_path: Path) -> None:
    board = write_board(tmp_path / "board", {}, published=SOURCE)
    (board.path / "published.csv").write_text(PUBLISHED, encoding="utf-8")
    (board.path / SAMPLES_FILE).unlink()
    files = [file.path for file in write_exports(board_figures(read_board(board.path)), tmp_path / "out")]
    assert "published.csv" in files and "samples.csv" not in files
    assert "its task is not pinned yet" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("board", read_boards(BOARDS), ids=lambda board: board.name)
def test_the_bundled_boards_are_exported(tmp_path: Path, board: Board) -> None:
    figures = board_figures(board)
    write_exports(figures, tmp_path / "out")
    rows = json_rows(tmp_path / "out/board.json")
    assert [row["system"] for row in rows] == [system.submission.slug for system in figures.systems]
    if board.file.published is not None:
        assert len(json_rows(tmp_path / "out/published.json")) > 0


def test_the_readme_describes_every_column(tmp_path: Path) -> None:
    write_exports(board_figures(published_board(tmp_path / "board", PUBLISHED)), tmp_path / "out")
    sections = re.split(r"^## ", (tmp_path / "out/README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    described = {text.split("\n")[0]: re.findall(r"^\| `(\w+)` \| \S", text, flags=re.MULTILINE) for text in sections}
    for name, columns in described.items():
        path = tmp_path / "out" / f"{name.replace('<system>', 'a')}.csv"
        assert list(csv_rows(path)[0]) == columns, name
    assert len(described) == 9


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+1", "-1", "＝1+1"])
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    board = published_board(tmp_path / "board", f'system,k_score\n"{name}",20\n')
    add_revision(board, "hostile", [0.5] * 40, name=name, licence=f"{name}", authors=[name])
    write_exports(board_figures(board), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.csv"):
        for row in csv_rows(path):
            for column, cell in row.items():
                assert not cell.startswith(tuple("=+@＝")), (path.name, column)
                assert not cell.startswith("-") or float(cell) < 0
    assert "hostile" in {row["system"] for row in csv_rows(tmp_path / "out/board.csv") if row["name"] == f"'{name}"}


def test_published_numbers_stay_as_published(tmp_path: Path) -> None:
    published = read_published(published_board(tmp_path / "board", PUBLISHED))
    assert published is not None
    assert (published.source, published.url, published.columns) == (
        "A paper", "https://example.org/paper", ("sk_visual", "k_score")
    )  # fmt: skip
    assert [(row.system, row.kind, dict(row.values)) for row in published.rows] == [
        ("One", "open", {"sk_visual": 20.92, "k_score": 34.19}),
        ("Two", "agent", {"sk_visual": None, "k_score": 0.0}),
    ]


def test_a_board_without_published_rows_has_none(tmp_path: Path) -> None:
    assert read_published(write_board(tmp_path / "board", {})) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"published\.csv: has no rows"),
        ("system,kind,k_score\n", r"published\.csv: has no rows"),
        ("name,k_score\nOne,1\n", r"published\.csv:1: the header is 'name,k_score'; begin it with `system`"),
        ("system,kind\nOne,open\n", r"published\.csv:1: the header is"),
        ("system,K Score\nOne,1\n", r"published\.csv:1: the header is"),
        ("system,a,a\nOne,1,2\n", r"published\.csv:1: the header has a column twice"),
        ("system,a\nOne,1\nTwo,1,2\n", r"published\.csv:3: has 3 cells instead of 2"),
        ("system,a\nOne,1\none,2\n", r"published\.csv:3: the system 'one' is listed twice"),
        ("system,a\n ,1\n", r"published\.csv:2: the name of the system is empty"),
        ("system,a\nOne,101\n", r"published\.csv:2: a: '101' is not a number from 0 to 100"),
        ("system,a\nOne,-1\n", r"is not a number from 0 to 100"),
        ("system,a\nOne,nan\n", r"is not a number from 0 to 100"),
        ("system,a\nOne,1e1\n", r"is not a number from 0 to 100"),
        ('system,a\n"One,1\n', r"published\.csv:\d: is not CSV"),
    ],
)
def test_a_published_table_that_is_not_right_is_refused(tmp_path: Path, text: str, message: str) -> None:
    board = published_board(tmp_path / "board", text)
    with pytest.raises(DataError, match=message):
        read_published(board)


# -------------------------------------------------------------------------------------------------- the same bytes

PROGRAM = """
import random, sys
from pathlib import Path

listed, found = Path.iterdir, Path.glob
def shuffled(paths):
    paths = list(paths)
    random.Random(int(sys.argv[4])).shuffle(paths)
    return iter(paths)
Path.iterdir = lambda path: shuffled(listed(path))
Path.glob = lambda path, *words, **options: shuffled(found(path, *words, **options))

from knowgen.leaderboards.exports import write_exports
from knowgen.leaderboards.figures import board_figures
from knowgen.leaderboards.folder import read_boards

if __name__ == "__main__":
    (board,) = read_boards(Path(sys.argv[1]))
    write_exports(board_figures(board, processes=int(sys.argv[3])), Path(sys.argv[2]))
"""


def exported(root: Path, out: Path, processes: int, order: int, **environment: str) -> dict[str, bytes]:
    """Return the files of an export that another interpreter made in these surroundings."""
    program = out.with_suffix(".py")
    program.write_text(PROGRAM, encoding="utf-8")
    subprocess.run(
        [sys.executable, str(program), str(root), str(out), str(processes), str(order)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        cwd=out.parent,
        check=True,
    )
    return content_of(out)


def varied_board(root: Path) -> Board:
    """Return a board with several revisions, repeats, a failed score and letters beyond ASCII."""
    board = published_board(root, PUBLISHED)
    add_revision(board, "third", [[0.1, 0.9], *([0.5, value] for value in spread(0.6, 39, 3))], name="Ångström ½")
    add_revision(board, "a", spread(0.4, 40, 4), revision="2", created="2026-05-01T00:00:00+00:00")
    return board


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copied_backwards(source: Path, target: Path) -> None:
    """Copy a folder, last file first, so that a file system may list it in another order."""
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def test_the_order_in_which_files_are_listed_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = varied_board(tmp_path / "board")
    write_exports(board_figures(board), tmp_path / "first")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    write_exports(board_figures(read_board(board.path)), tmp_path / "second")
    assert content_of(tmp_path / "first") == content_of(tmp_path / "second")


@pytest.mark.slow
def test_the_same_board_gives_the_same_bytes_in_other_surroundings(tmp_path: Path) -> None:
    """Folder, order of files, locale and encoding, time zone, hash seed, number of processes and threads differ."""
    board = varied_board(tmp_path / "one" / "board")
    copied = tmp_path / "two" / "elsewhere" / "board"
    copied_backwards(board.path, copied)
    first = exported(tmp_path / "one", tmp_path / "first", 1, 1, PYTHONHASHSEED="0", TZ="UTC", LC_ALL="C.UTF-8")
    second = exported(
        copied.parent,
        tmp_path / "second",
        2,
        2,
        PYTHONHASHSEED="4711",
        TZ="Asia/Kathmandu",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        OMP_NUM_THREADS="2",
    )
    assert first == second
    assert "Ångström ½".encode() in first["board.csv"]
    assert not any(str(tmp_path).encode() in content or b"\r\n" in content for content in first.values())
