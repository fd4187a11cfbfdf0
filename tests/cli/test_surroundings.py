"""The command line in hostile surroundings: no streams, no home, names that control a terminal, folders of others."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from knowgen.cli import main
from knowgen.core import cache
from knowgen.core.cache import Cache, FileCache
from knowgen.tasks.load import load_task
from tests.helpers.processes import python_environment

RUN = ("run", "--task", "knowgen_mini", "--generator", "noise", "--scorer", "pixels", "--limit", "1", "--out", "out")
ESCAPES = "\x1b]0;owned\x07\u202e\x9b31m"


def in_shell(
    folder: Path, words: tuple[str, ...], redirection: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line with redirections of a shell."""
    line = f"{shlex.join([sys.executable, '-m', 'knowgen', *words])} {redirection}"
    environment = python_environment(**changes)
    return subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("redirection", ["2>&-", pytest.param("1>&- 2>&- 0<&-", marks=pytest.mark.slow)])
def test_a_run_without_standard_streams_is_complete(tmp_path: Path, redirection: str) -> None:
    ended = in_shell(tmp_path, RUN, redirection)
    assert ended.returncode == 0
    assert (tmp_path / "out" / "report" / "index.html").is_file()
    assert ended.stdout.startswith("\nsystem") or "1>&-" in redirection


def test_output_that_cannot_be_written_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    ended = in_shell(tmp_path, ("list", "scorers"), ">/dev/full")
    assert (ended.returncode, ended.stderr) == (
        3,
        "knowgen: standard output: cannot be written: No space left on device\n",
    )
    assert in_shell(tmp_path, ("list", "scorers"), "2>/dev/full >/dev/full").returncode == 3


def test_text_that_the_encoding_does_not_have_is_escaped(tmp_path: Path) -> None:
    ended = in_shell(tmp_path, ("list", "scorers"), "", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0 and "(CLIP, DINO, \\u2026)" in ended.stdout


# ---------------------------------------------------------------------------------------------------- names and errors


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a small run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main.run([*RUN[:-1], str(out)]) == 0
    return out


def make_run(folder: Path, **spec: object) -> None:
    folder.mkdir(parents=True)
    fields = {"task": "t", "generator": {"name": "g"}, "scorers": [{"name": "s"}], **spec}
    (folder / "run.json").write_text(json.dumps({"spec": fields}))


def assert_clean(text: str) -> None:
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}, ascii(text)


def test_a_list_of_runs_shows_names_without_obeying_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / f"a{ESCAPES}\nb", task=f"t{ESCAPES}", generator={"name": f"g\n{ESCAPES}"})
    assert main.run(["list", "runs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert_clean(output)
    assert output.count("\n") == 1 and "\\u001b]0;owned\\u0007\\u202e\\u009b31m" in output


def test_errors_and_forecasts_show_names_without_obeying_them(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"my{ESCAPES}.py"
    shutil.copy(workspace / "my_generator.py", workspace / name)
    assert main.run(["run", "--task", f"small{ESCAPES}", "--generator", "noise"]) != 0
    assert main.run([f"{ESCAPES}"]) == 2
    for words in (["--dry-run"], []):
        command = ["run", "--task", "small", "--generator", f"{name}:Picky", "--scorer", "pixels", "--out", ESCAPES]
        main.run([*command, *words])
    output = capsys.readouterr()
    assert "\\u001b]0;owned" in output.out
    assert_clean(output.out)
    assert_clean(output.err)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
        lambda path: path.write_text('{"spec": 3}'),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
    ],
    ids=["nested", "fields", "encoding", "folder", "pipe", "device"],
)
def test_a_run_that_cannot_be_read_is_named_and_the_others_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad" / "run.json")
    assert main.run(["list", "runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert any("bad" in line and "cannot be read: " in line for line in lines)
    assert any("good" in line and "not finished" in line for line in lines)


def test_commands_name_a_run_whose_record_is_nested_too_deeply(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    for words in (["compare", str(tmp_path), str(tmp_path)], ["score", str(tmp_path), "--scorer", "pixels"]):
        assert main.run(words) == 3
        assert "run.json: is damaged (nested too deeply)" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- home and caches


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without a home folder."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("KNOWGEN_CACHE", "KNOWGEN_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(Path, "expanduser", lambda path: no_home() if str(path).startswith("~") else path)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what caches warn of, whatever other tests of this process left of the logging configuration."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger = logging.Logger("caches", logging.WARNING)
    logger.addHandler(Collector())
    monkeypatch.setattr(cache, "_log", logger)
    monkeypatch.setattr(cache, "_warned", set())
    return messages


@pytest.mark.usefixtures("homeless")
def test_without_a_home_nothing_is_cached_and_one_warning_says_so(warnings: list[str]) -> None:
    for name in ("replies", "images", "embeddings"):
        one = Cache(name)
        one.put("key", b"value")
        assert one.get("other") is None and one.error
        one.close()
    assert warnings == ["knowgen: no cache: the user has no home folder; set KNOWGEN_CACHE to a folder for caches"]


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_commands_that_need_one_say_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cache"]) == 0
    assert capsys.readouterr().out == (
        "caches are off: the user has no home folder; set KNOWGEN_CACHE to a folder for caches\n"
    )
    assert main.run(["task", "prepare", "knowgen"]) == 3
    assert capsys.readouterr().err.strip() == (
        "knowgen: prepared data: the user has no home folder; set KNOWGEN_DATA to a folder for them"
    )
    assert len(load_task("knowgen_mini")) == 48


def test_a_cache_turned_off_is_not_warned_of(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    assert Cache("replies").error and warnings == []


def test_a_cache_folder_that_cannot_be_used_is_said_once(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").write_text("")
    for name in ("replies", "images", "replies"):
        one = Cache(name, tmp_path / "file" / "cache")
        one.put("key", b"value")
        one.close()
        assert one.get("key") is None
    assert len(warnings) == 1 and "Not a directory" in warnings[0]


def test_the_time_of_use_follows_a_clock_that_was_set_back(tmp_path: Path) -> None:
    now = [2_000_000.0]
    one = Cache("replies", tmp_path, clock=lambda: now[0])
    one.put("a", b"x")
    one.flush()
    now[0] = 1_000_000.0
    assert one.get("a") is not None  # used now, by the clock that was set back
    one.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "replies.sqlite")) as connection:
        assert connection.execute("select used from entries where key = 'a'").fetchone() == (now[0],)
    files = FileCache("images", tmp_path)
    path = files.path("ab" * 32, ".jpg")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.utime(path, (4_000_000_000, 4_000_000_000))
    assert files.find("ab" * 32, ".jpg") == path
    assert path.stat().st_mtime < 4_000_000_000


# ----------------------------------------------------------------------------------------------------- other's folders


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_does_not_write_into_a_folder_of_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "mine.png").write_bytes(b"mine")
    assert main.run([*RUN, *(["--fresh"] if fresh else [])]) == 3
    assert capsys.readouterr().err.strip() == (
        f"knowgen: {tmp_path / 'out'}: contains 'images' and is not a run directory; "
        "choose an empty or new folder with --out"
    )
    assert [path.name for path in sorted((tmp_path / "out").rglob("*"))] == ["images", "mine.png"]


def test_a_run_writes_into_an_empty_folder_and_one_that_an_early_kill_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.lock").write_text("host 1\n")
    (tmp_path / "out" / ".gitignore").write_text("*\n")
    assert main.run(list(RUN)) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("report", "run", "-o", "other"),
        ("export", "run", "--format", "csv", "-o", "other"),
        ("world", "build", "--seed", "1", "--samples", "1", "--out", "other"),
        ("suite", "suite.yaml", "--out", "other"),
        pytest.param(
            ("judge-check", "--scorer", "world_check", "--samples", "1", "--out", "other"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda words: words[0],
)
def test_no_command_writes_into_a_folder_of_other_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: Path,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(finished)
    (tmp_path / "suite.yaml").write_text("tasks: [knowgen_mini]\nsystems: [noise]\nscorers: [pixels]\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    assert main.run(list(words)) in {2, 3}
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "other" in error, error
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]
