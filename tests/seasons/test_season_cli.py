"""A private season as maintainer and participants hold it, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from knowgen.leaderboards.figures import board_figures
from knowgen.leaderboards.folder import read_board
from knowgen.leaderboards.season import SECRET_FILE, read_secret
from knowgen.workflows.run import load_run

ROOT = Path(__file__).resolve().parents[2]
SEASON = ("board", "season")
BOARD, PRIVATE = ("--board", "board"), ("--private", "private")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program in a folder, as a user does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KNOWGEN_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "knowgen", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def done(folder: Path, *words: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    result = command(folder, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def filled(path: Path) -> Path:
    """Fill in a template of a system.yaml."""
    given = {"authors": ["knowgen"], "licence": "Apache-2.0", "open_weights": True, "parameters": "none"}
    given |= {"training_data": "none", "contact": "https://example.org"}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | given))
    return path


@pytest.mark.slow
def test_a_season_is_played_through(tmp_path: Path) -> None:
    """Publish, take part with two systems, score, close, reveal, build again."""
    at = tmp_path
    publish = (*SEASON, "publish", "spring", "--samples", "8", "--public", "public", *BOARD, *PRIVATE)
    printed = done(at, *publish, "--closes", "2027-01-31")
    assert "published  public: 8 prompts" in printed and "commitment" in printed
    secret = read_secret(at / "private" / SECRET_FILE)

    for name in ("closed_book", "open_book"):
        printed += done(at, "run", "--task", "public", "--generator", name, "--out", name)
    assert printed.count("images   8 of 8, not scored: the ground truths are private") == 2
    assert command(at, "run", "--task", "public", "--generator", "oracle", "--out", "o").returncode == 2
    assert command(at, "score", "open_book", "--scorer", "world_check").returncode == 3

    for name in ("closed_book", "open_book"):
        template = command(at, "board", "add", name, "--board", "board")
        assert template.returncode == 2 and "send it with the run" in template.stderr
        system = filled(at / name / "system.yaml")
        printed += done(at, *SEASON, "score", name, *BOARD, *PRIVATE, "--system", str(system))
    assert "added    board/open-book-painter/1" in printed
    assert "open, closes on 2027-01-31" in done(at, *SEASON, "status", *BOARD)
    figures = {
        each.submission.slug: each.summary.headline.value for each in board_figures(read_board(at / "board")).systems
    }
    assert list(figures) == ["open-book-painter", "closed-book"]

    printed += done(at, *SEASON, "close", *BOARD, "--date", "2027-01-31")
    refused = command(at, *SEASON, "score", "open_book", *BOARD, *PRIVATE, "--system", str(system))
    assert refused.returncode == 2 and "takes no more submissions" in refused.stderr
    published = [path for folder in ("public", "board") for path in (at / folder).rglob("*") if path.is_file()]
    logs = [path for name in ("closed_book", "open_book") for path in (at / name).rglob("*") if path.is_file()]
    for path in (*published, *logs, *(at / "private" / "runs").rglob("*.json"), *(at / "private").rglob("*.sqlite")):
        assert secret.seed.encode() not in path.read_bytes() and secret.nonce.encode() not in path.read_bytes(), path
    assert secret.seed not in printed and secret.nonce not in printed

    done(at, *SEASON, "reveal", *BOARD, *PRIVATE)
    (at / "private").rename(at / "gone")
    printed = done(at, *SEASON, "verify", *BOARD, "--public", "public", "--out", "rebuilt")
    assert printed.count("8 images scored again, with the same values") == 2 and "0 findings" in printed
    done(at, "score", "open_book", "--task", "rebuilt", "--out", "again")
    assert load_run(at / "again").summary.headline.value == figures["open-book-painter"]

    board = at / "board" / "season.yaml"
    board.write_text(board.read_text().replace(secret.nonce, secret.seed))
    assert command(at, *SEASON, "verify", *BOARD).returncode == 3
