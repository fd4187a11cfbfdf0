"""All reports of a folder: what is rewritten, what is left alone, what fails, and the index over them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from knowgen.cli.main import run as run_cli
from knowgen.core.errors import ConfigError
from knowgen.store.lock import RunLock
from knowgen.workflows import rewrite
from knowgen.workflows.rewrite import Rewritten, found_directories, rewrite_reports
from knowgen.workflows.run import Run, load_run
from tests.helpers.report_runs import RunMaker
from tests.helpers.training_runs import TrainingMaker


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewrite in this process, which is quicker than starting others."""
    monkeypatch.setattr(
        rewrite, "_in_processes", lambda paths, folder: (rewrite._rewrite(path, folder) for path in paths)
    )


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """Return a builder of runs in a folder of runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return RunMaker(folder)


def made(maker: RunMaker, folder: str, system: str = "painter", samples: int = 3) -> Run:
    """Make a run with its outputs, and return it."""
    run = load_run(maker.run(system, maker.samples(samples), 0.7, folder=folder).store.path)
    run.write_outputs()
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of a folder by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("here")
def test_summary_tables_and_report_are_written_again_and_nothing_else(maker: RunMaker, tmp_path: Path) -> None:
    run = made(maker, "a")
    (run.path / "notes.txt").write_text("mine")
    before = contents(run.path)
    for name in ("summary.json", "tables/world_check-strict.md", "report/index.html", "report/data/index.js"):
        (run.path / name).write_text("old")
    shutil.rmtree(run.path / "report" / "static")
    lines: list[str] = []
    assert rewrite_reports(maker.folder, None, lines.append) == 0
    assert contents(run.path) == before, "also no lock is left"
    assert re.match(r"a: written: K-Score 0\.\d{3}", lines[0]) and lines[1:] == ["1 written"]


@pytest.mark.usefixtures("here")
def test_the_protocol_of_the_headline_stays(maker: RunMaker) -> None:
    run = made(maker, "a")
    run.protocol = "official"
    run.write_outputs()
    rewrite_reports(maker.folder, None, lambda _: None)
    summaries = json.loads((run.path / "summary.json").read_text())["summaries"]
    assert [each["protocol"] for each in summaries] == ["official", "strict"]


@pytest.mark.usefixtures("here")
def test_a_run_that_is_being_executed_is_left_alone(maker: RunMaker) -> None:
    run = made(maker, "a")
    (run.path / "summary.json").write_text("old")
    lock = RunLock(run.path)
    lines: list[str] = []
    try:
        assert rewrite_reports(maker.folder, None, lines.append) == 0
    finally:
        lock.release()
    assert re.match(rf"a: skipped: is in use by process {os.getpid()} on ", lines[0]) and lines[1] == "1 skipped"
    assert (run.path / "summary.json").read_text() == "old"


@pytest.mark.usefixtures("here")
def test_each_failure_has_its_line_and_does_not_stop_the_others(
    maker: RunMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "deep/er/b", "c"):
        (maker.folder / name).parent.mkdir(parents=True, exist_ok=True)
        made(maker, name)
    (maker.folder / "a" / "run.json").write_text("{")
    (maker.folder / "c" / "report" / "mine.txt").write_text("kept")
    unscored = maker.run("painter", maker.samples(2), 0.5, scorers=(maker.CHECK,), folder="d").store.path
    manifest = json.loads((unscored / "run.json").read_text())
    manifest["spec"]["scorers"] = []
    (unscored / "run.json").write_text(json.dumps(manifest))
    TrainingMaker(maker.folder).run("trained", 2, evaluated=(), prompts=1)
    (maker.folder / "elsewhere").mkdir()
    assert run_cli(["report", "--all", str(maker.folder), "-o", str(tmp_path / "index")]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines[:-2]] == [
        ["a", "failed"], ["c", "failed"], ["d", "skipped"], ["deep/er/b", "written"], ["trained", "written"]
    ]  # fmt: skip
    assert "run.json" in lines[0] and "'mine.txt' beside an earlier report" in lines[1]
    assert lines[-2:] == ["2 written, 1 skipped, 2 failed", str(tmp_path / "index" / "index.html")]
    assert (maker.folder / "c" / "report" / "mine.txt").read_text() == "kept"
    page = (tmp_path / "index" / "index.html").read_text()
    links = re.findall(r'<a href="([^"#]+)"', page)
    assert [(tmp_path / "index" / link).resolve() for link in links] == [
        maker.folder / name / "report" / "index.html" for name in ("deep/er/b", "trained")
    ]
    assert all(Path(tmp_path / "index" / link).is_file() for link in links)
    assert "it has not been scored" in page and "1 run, 1 training, 3 without a report" in page


@pytest.mark.usefixtures("here")
def test_runs_that_cannot_be_compared_are_in_tables_of_their_own(maker: RunMaker, tmp_path: Path) -> None:
    made(maker, "a")
    made(maker, "b", "other")
    made(maker, "fewer", samples=2)
    maker.version = "2-000000000000"
    made(maker, "new")
    assert rewrite_reports(maker.folder, tmp_path / "index", lambda _: None) == 0
    page = (tmp_path / "index" / "index.html").read_text()
    tables = [re.findall(r"<bdi>([\w/]+)</bdi></a>", table) for table in page.split("<table")[1:]]
    assert [sorted(each) for each in tables] == [["a", "b"], ["fewer"], ["new"]]
    assert "lighthouses, world_check (3)" in page and "2-000000000000" in page


def test_the_folder_is_searched_at_every_depth_but_not_inside_a_run(maker: RunMaker) -> None:
    run = made(maker, "a")
    shutil.copytree(run.path, run.path / "copy")
    shutil.copytree(run.path, maker.folder / ".a.new-1")
    training = TrainingMaker(maker.folder).run("trained", 2, evaluated=(), prompts=1)
    shutil.copytree(run.path, training.path / "evaluations" / "2")
    runs, trainings = found_directories(maker.folder)
    assert runs == [run.path, training.path / "evaluations" / "2"] and trainings == [training.path]


def test_a_folder_without_runs_and_an_index_in_the_way_are_refused(
    maker: RunMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report", "--all", str(maker.folder)]) == 2
    assert "no run or training is in this folder" in capsys.readouterr().err
    run = made(maker, "a")
    before = contents(run.path)
    with pytest.raises(ConfigError, match="the folder is not a report"):
        rewrite_reports(maker.folder, maker.folder, lambda _: None)
    assert contents(run.path) == before


def killed(path: Path, folder: Path) -> Rewritten:
    """Rewrite a directory in a process that is killed where its name says so."""
    if "killed" in path.name:
        os.kill(os.getpid(), 9)
    return Rewritten(path, "written", "all right")


@pytest.mark.slow
def test_a_killed_process_fails_its_own_run_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    work: Callable[..., Rewritten] = killed
    monkeypatch.setattr(rewrite, "_rewrite", work)
    paths = [tmp_path / name for name in ("a", "b-killed", "c")]
    results = {result.path.name: result.state for result in rewrite._in_processes(paths, tmp_path)}
    assert results == {"a": "written", "b-killed": "failed", "c": "written"}


@pytest.mark.slow
def test_the_command_uses_other_processes(maker: RunMaker, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        made(maker, name)
    assert run_cli(["report", "--all", str(maker.folder)]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "c", "3 written"]
