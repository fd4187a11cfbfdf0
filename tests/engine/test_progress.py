"""The progress display: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import io

import pytest

from knowgen.engine.progress import LINE_SECONDS, Progress, RunCounts


def example_counts() -> RunCounts:
    counts = RunCounts(10, passes=1, pays_for_generations=True)
    counts.done = 4
    counts.outcome.generated, counts.outcome.generation_cached, counts.outcome.generation_failed = 2, 1, 1
    return counts


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    progress = Progress(True)
    progress.show(example_counts(), 0.5)
    progress.close()
    text = screen.getvalue()
    for words in ("4/10", "ok 3", "failed 1", "cached 1", "$0.5000", "ETA"):
        assert words in text


def test_without_a_terminal_a_plain_line_is_written_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    progress = Progress(True, clock=lambda: now[0])
    now[0] += LINE_SECONDS - 1
    progress.show(example_counts(), 0.0)
    assert capsys.readouterr().err == ""
    now[0] += 1
    progress.show(example_counts(), 0.0)
    line = capsys.readouterr().err
    assert line.startswith("4/10 ok 3 failed 1 cached 1 ")
    assert "ETA" in line and "$" not in line and line.count("\n") == 1


def test_nothing_is_shown_when_progress_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(False)
    progress.show(example_counts(), 0.0)
    progress.close()
    assert capsys.readouterr().err == ""
