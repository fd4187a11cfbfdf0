"""The workflow of leaderboards: pinned, with few rights, and its commands do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from knowgen.cli.board import command as board_command
from knowgen.cli.boards.check import command as check_command
from knowgen.leaderboards.folder import RESULT_FILE
from tests.helpers.checked_boards import make_board, make_result, write_submission

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github" / "workflows" / "leaderboards.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
    return found


def steps(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_actions_are_pinned_to_commits_with_their_version() -> None:
    uses = re.findall(r"uses: (.*)", TEXT)
    assert len(uses) >= 8
    assert [each for each in uses if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []


def test_a_pull_request_gets_no_secret_and_can_only_be_read(jobs: dict[str, Any]) -> None:
    workflow = yaml.safe_load(TEXT)
    assert "pull_request_target" not in TEXT and "secrets." not in TEXT
    assert workflow["permissions"] == {} and jobs["check"]["permissions"] == {"contents": "read"}
    checkout = next(step["with"] for step in jobs["check"]["steps"] if "checkout" in step.get("uses", ""))
    assert checkout["persist-credentials"] is False and checkout["path"] == "pull"
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]


def test_no_code_of_a_pull_request_runs(jobs: dict[str, Any]) -> None:
    commands = "\n".join(steps(jobs["check"]))
    assert re.findall(r"pip install (\S+)", commands) == ["./base"]
    assert "python -I -m knowgen" in commands  # the current folder is not on the import path
    assert not [each for job in jobs.values() for each in steps(job) if "${{" in each]  # no text of others in a shell
    assert not [each for each in jobs["comment"]["steps"] if "checkout" in each.get("uses", "")]


def test_only_main_publishes(jobs: dict[str, Any]) -> None:
    rights = {name: job["permissions"] for name, job in jobs.items()}
    assert rights["publish"] == {"pages": "write", "id-token": "write"} and rights["build"] == {"contents": "read"}
    assert jobs["publish"]["if"] == "github.ref == 'refs/heads/main'" and jobs["publish"]["needs"] == "build"


def test_the_commands_exist(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        for line in steps(job):
            words = shlex.split(line)
            if "knowgen" in words:
                verb, name, *options = words[words.index("knowgen") + 1 :]
                assert verb == "board" and name in board_command.list_commands(None)  # type: ignore[arg-type]
                if name == "check":
                    check_command.make_context("check", options)


@pytest.mark.slow
def test_the_check_of_a_pull_request_runs(jobs: dict[str, Any], tmp_path: Path) -> None:
    """The commands of the job, in a repository with a branch that was merged; the program is this checkout."""
    work = tmp_path / "work"
    pull = work / "pull"
    git = ["git", "-C", str(pull), "-c", "user.name=a", "-c", "user.email=a@example.org"]

    def say(*words: str) -> None:
        subprocess.run([*git, *words], check=True, capture_output=True)

    pull.mkdir(parents=True)
    say("init", "-q", "-b", "main")
    board = make_board(pull / "leaderboards")
    write_submission(board, make_result(board, "inked"), "inked")
    say("add", "-A")
    say("commit", "-qm", "base")
    say("checkout", "-qb", "request")
    folder = write_submission(board, make_result(board))
    (folder / RESULT_FILE).write_text((folder / RESULT_FILE).read_text().replace('"overall":0', '"overall":1'))
    say("add", "-A")
    say("commit", "-qm", "request")
    say("checkout", "-q", "main")
    say("merge", "-q", "--no-ff", "-m", "merge", "request")

    environment = {**os.environ, "GITHUB_WORKSPACE": str(work), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    environment["PYTHONPATH"] = str(ROOT)
    codes = []
    for line in steps(jobs["check"]):
        if "pip install" not in line:
            command = line.replace("python -I", shlex.quote(sys.executable))  # this checkout is not installed
            codes.append(subprocess.run(["bash", "-ec", command], cwd=work, env=environment, check=False).returncode)
    assert codes == [0, 0, 3, 0]
    summary = (tmp_path / "summary.md").read_text()
    assert "claimed.overall is 1" in summary and "inked" not in summary.partition("| --- |")[2].split("\n")[1]
