"""Ctrl-C while calls are in flight: one line, the command to resume, and no noise of libraries."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.image_servers import OPENAI, ImageServer
from tests.helpers.image_servers import Step as ImageStep
from tests.helpers.judge_server import JudgeServer, Step, good
from tests.helpers.processes import python_environment, start_python, wait_until

INTERRUPTED = "interrupted; finished results are saved\n"
RUN = ("-m", "knowgen", "run", "--task", "knowgen_mini", "--limit", 4, "--out", "out")


def interrupt(words: tuple[object, ...], in_flight: Callable[[], object], folder: Path, number: int) -> tuple[str, str]:
    """Start a command, send a signal once calls are in flight, and return what it printed."""
    environment = python_environment(PYTHONWARNINGS="default::ResourceWarning", PYTHONUNBUFFERED="1")
    process = start_python(*RUN, *words, cwd=folder, env=environment)
    try:
        wait_until(in_flight, process)
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    return out, error


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        ((), signal.SIGINT),
        pytest.param(("--workers", 0), signal.SIGINT, marks=pytest.mark.slow),
        pytest.param((), signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_waits_for_a_judge_ends_with_one_line(
    workers: tuple[object, ...], number: int, tmp_path: Path
) -> None:
    with JudgeServer(lambda call: Step(reply=good(), delay=120.0)) as server:
        words = ("--generator", "noise", "--scorer", "vlm:any", "-s", f"base_url={server.url}", *workers)
        out, error = interrupt(words, lambda: len(server.calls) >= 2, tmp_path, number)
    assert error == INTERRUPTED
    (resume,) = out.splitlines()
    assert resume.startswith("resume   ") and "--generator noise" in resume


def test_a_run_that_waits_for_an_image_service_ends_with_one_line(tmp_path: Path) -> None:
    with ImageServer(OPENAI, lambda call: ImageStep(delay=120.0)) as server:
        words = ("--generator", "openai:any", "-g", f"base_url={server.base}", "--scorer", "pixels")
        _, error = interrupt(words, lambda: server.calls, tmp_path, signal.SIGINT)
    assert error == INTERRUPTED


@pytest.mark.slow
def test_a_run_whose_calls_are_asked_again_ends_with_one_line(tmp_path: Path) -> None:
    """The run is interrupted while it waits to ask a busy judge again."""
    with JudgeServer(lambda call: Step(status=429, headers={"Retry-After": "60"})) as server:
        words = ("--generator", "noise", "--scorer", "vlm:any", "-s", f"base_url={server.url}")
        _, error = interrupt(words, lambda: server.calls, tmp_path, signal.SIGINT)
    assert error == INTERRUPTED
    assert (tmp_path / "out" / "run.sqlite").is_file()
