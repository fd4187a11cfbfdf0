"""The display of long steps: the innermost one, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import threading

import pytest

from knowgen.core import steps
from knowgen.core.steps import LongStep, StepDisplay, counted, showing_steps, step


class Screen(io.StringIO):
    """Stderr of a test, which says when something was written.

    Args:
        terminal: Whether it is a terminal.
    """

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        length = super().write(text)
        self.written.set()
        return length


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show steps without delay."""
    for name in ("FIRST_SECONDS", "BAR_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(steps, name, 0.001)


def test_a_line_counts_what_is_done_and_says_how_long_it_takes() -> None:
    now = [10.0]
    shown = LongStep("writing images", 5000, clock=lambda: now[0])
    now[0] += 4
    assert shown.line() == "0/5000 writing images, 4 s"
    shown.advance(1000)
    assert shown.line() == "1000/5000 writing images, 250.0/s, ETA 16 s"
    unbounded = LongStep("reading scores", clock=lambda: now[0])
    now[0] += 60
    assert unbounded.line() == "reading scores, 60 s"
    unbounded.advance(30)
    assert unbounded.line() == "30 reading scores, 30.0/min"


@pytest.mark.usefixtures("at_once")
def test_elsewhere_than_on_a_terminal_the_innermost_step_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)
    with showing_steps(), step("writing the report"), step("writing images", 8) as inner:
        inner.advance(2)
        assert screen.written.wait(60)
    assert screen.getvalue().startswith("2/8 writing images")


@pytest.mark.usefixtures("at_once")
def test_a_terminal_gets_a_bar_that_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=True)
    monkeypatch.setattr("sys.stderr", screen)
    with showing_steps():
        for _ in counted(range(3), "reading pages"):
            assert screen.written.wait(60)
    assert "/3" in screen.getvalue() and "reading pages" in screen.getvalue()
    assert screen.getvalue().endswith("\r")


def test_nothing_is_written_of_short_steps_or_when_nobody_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_steps():
        assert list(counted(iter([1, 2]), "reading pages")) == [1, 2]
    with showing_steps(enabled=False), step("writing"):
        pass
    assert capsys.readouterr().err == ""


def test_an_abandoned_step_ends_the_display(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Screen(terminal=False))
    display = StepDisplay(terminal=False, first=0.001, gap=0.001)
    with pytest.raises(ValueError, match="stop"), display.showing(LongStep("reading")):
        raise ValueError("stop")
    assert not [thread for thread in threading.enumerate() if thread.name == "knowgen-steps"]
