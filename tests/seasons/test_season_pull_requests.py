"""A season's board in a repository: closing and revealing it pass the check of what changed, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from knowgen.leaderboards.check import check_boards
from knowgen.leaderboards.checks.findings import CheckReport
from knowgen.seasons.reveal import close
from tests.helpers.seasons import Season, fixed

KEY = "half-right/1"


@pytest.fixture
def before(scored: Season, tmp_path: Path) -> Path:
    """Return the folder of boards with an open season."""
    return boards(scored.places.board, tmp_path / "before")


@pytest.fixture
def after(revealed: Season, tmp_path: Path) -> Path:
    """Return the folder of boards with the revealed season."""
    return boards(revealed.places.board, tmp_path / "after")


def boards(board: Path, root: Path) -> Path:
    shutil.copytree(board, root / "spring")
    return root


def errors(report: CheckReport) -> list[str]:
    found = [*report.findings, *(each for one in report.submissions for each in one.findings)]
    return [each.text for each in found if each.level == "error"]


def change_yaml(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_closing_a_season_passes_the_check(before: Path, tmp_path: Path) -> None:
    now = boards(before / "spring", tmp_path / "now")
    close(now / "spring", "2027-01-31")
    report = check_boards(now, against=before)
    assert errors(report) == [] and report.submissions == ()
    assert report.notes == ("spring: season spring was closed on 2027-01-31",)


def test_a_reveal_passes_the_check_with_its_images_and_texts(before: Path, after: Path) -> None:
    report = check_boards(after, against=before)
    assert errors(report) == [] and [each.key for each in report.submissions] == [KEY]
    assert "was revealed" in report.notes[0]


def raised_score(root: Path) -> None:
    path = root / "spring" / KEY / "result.json"
    data = json.loads(path.read_text())
    data["samples"][1]["generations"][0]["scores"][0]["strict"]["values"]["visual_correctness"] = 1.0
    path.write_text(json.dumps(data))


def other_prompt(root: Path) -> None:
    path = root / "spring" / "samples.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "prompt": "an easier one"}), *rest]) + "\n")


def other_seed(root: Path) -> None:
    change_yaml(root / "spring/season.yaml", lambda data: data["revealed"].update(seed=fixed("another")))


def other_announcement(root: Path) -> None:
    change_yaml(root / "spring/season.yaml", lambda data: data.update(revisions=9))


def not_closed(root: Path) -> None:
    change_yaml(root / "spring/season.yaml", lambda data: data.pop("closed"))


def text_file(root: Path) -> None:
    (root / "spring" / KEY / "replies.jsonl").write_text("")


def other_name(root: Path) -> None:
    change_yaml(root / "spring" / KEY / "system.yaml", lambda data: data.update(notes="better"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (raised_score, f"unchanged: spring/{KEY}/result.json: was changed"),
        (other_prompt, "1 file of the board changed"),
        (other_seed, "the revealed seed and nonce do not give the commitment"),
        (other_announcement, "revisions changed after the season was announced"),
        (not_closed, "is revealed, but was not closed"),
        (text_file, f"unchanged: spring/{KEY}/replies.jsonl: was added to a revision"),
        (other_name, f"unchanged: spring/{KEY}/system.yaml: was changed"),
    ],
)
def test_nothing_else_may_change_with_a_reveal(
    before: Path, after: Path, change: Callable[[Path], None], line: str
) -> None:
    change(after)
    report = check_boards(after, against=before)
    lines = [each.text for each in report.findings]
    assert [each for each in lines if line in each], lines


def test_a_closed_season_takes_no_submission(before: Path, tmp_path: Path) -> None:
    close(before / "spring", "2027-01-31")
    now = boards(before / "spring", tmp_path / "now")
    shutil.copytree(now / "spring" / KEY, now / "spring" / "half-right" / "2")
    assert "season: spring/half-right/2: season spring was closed on 2027-01-31, and takes no more submissions" in (
        "".join(errors(check_boards(now, against=before)))
    )
