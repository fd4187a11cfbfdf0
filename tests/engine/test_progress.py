"""The progress display: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import io

import pytest

from knowgen.core.records import AgentAnswer
from knowgen.core.steps import LINE_SECONDS
from knowgen.engine.progress import Progress, RunCounts, WaitingNotice


def example_counts() -> RunCounts:
    """Return the counts of a run in which 6 of 10 samples have ended: 3 good ones, 1 of them stored, and 3 failed."""
    counts = RunCounts(10, passes=1, pays_for_generations=True)
    counts.done, counts.failed, counts.cached = 6, 3, 1
    counts.outcome.generated, counts.outcome.scored, counts.outcome.score_failed = 5, 9, 12
    return counts


def lines_of(counts: RunCounts, capsys: pytest.CaptureFixture[str], *, cost: float = 0.0, waiting: str = "") -> str:
    now = [100.0]
    progress = Progress(True, clock=lambda: now[0])
    now[0] += LINE_SECONDS - 1
    progress.show(counts, cost, waiting)
    assert capsys.readouterr().err == ""
    now[0] += 1
    progress.show(counts, cost, waiting)
    return capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    progress = Progress(True)
    progress.show(example_counts(), 0.5, "waiting for vlm:x, 42 s")
    progress.close()
    text = screen.getvalue()
    for words in ("6/10", "done, 3 failed, 1 cached, $0.5000", "ETA", "waiting for vlm:x, 42 s"):
        assert words in text
    assert " ," not in text


def test_without_a_terminal_a_line_counts_samples_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(example_counts(), capsys) == "6/10 done, 3 failed, 1 cached, 10.0/min, ETA 24 s\n"


def test_the_counts_add_up_where_samples_remain_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    counts = example_counts()
    counts.not_run = 4
    assert (
        lines_of(counts, capsys, cost=12.0) == "6/10 done, 3 failed, 1 cached, 4 not run, $12.00, 10.0/min, ETA 0 s\n"
    )


def test_the_line_says_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    counts = RunCounts(10, passes=1, pays_for_generations=True)
    line = lines_of(counts, capsys, waiting="waiting for vlm:x, 42 s")
    assert line == "0/10 done, ETA unknown, waiting for vlm:x, 42 s\n"


def test_the_line_counts_how_an_agent_ended(capsys: pytest.CaptureFixture[str]) -> None:
    counts = example_counts()
    for ending in ("answer", "answer", "no_answer"):
        counts.add_answer(AgentAnswer(ending=ending), made=True)
    counts.outcome.fallbacks = 2
    line = lines_of(counts, capsys)
    assert line.startswith("6/10 done, 3 failed, 1 cached, answers: 2 answer, 1 no_answer, 2 fallbacks, 10.0/min")


def test_nothing_is_shown_when_progress_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(False)
    progress.show(example_counts(), 0.0)
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_wait_is_written_once_where_results_are_shown_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    notice = WaitingNotice()
    for waiting in ("", "waiting for openai:x, 0 s", "waiting for openai:x, 1 s", "", "waiting for openai:x, 0 s"):
        notice.show(example_counts(), 0.1, waiting)
    notice.close()
    assert capsys.readouterr().err == "waiting for openai:x; Ctrl-C ends it\n" * 2
