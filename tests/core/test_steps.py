"""The display of long steps: the innermost one, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from knowgen.core import steps
from knowgen.core.console import clean_streams
from knowgen.core.steps import LongStep, StepDisplay, counted, hidden_steps, showing_steps, step


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
        while "2/8 writing images" not in screen.getvalue():  # the outer step may have been drawn before
            assert screen.written.wait(60)
            screen.written.clear()


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


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "knowgen-steps"]


def test_an_abandoned_step_ends_the_display(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Screen(terminal=False))
    with pytest.raises(ValueError, match="stop"), showing_steps(), step("reading"):
        assert drawing_threads()
        raise ValueError("stop")
    assert not drawing_threads()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_short_steps_that_follow_each_other_are_one_piece_of_work() -> None:
    clock = Clock()
    display = StepDisplay(terminal=False, first=1000, gap=1000, clock=clock)
    with display.showing(LongStep("reading a", clock=clock)):
        clock.now += 900
        assert display.seconds_left() == 100
    clock.now += 0.5
    with display.showing(LongStep("reading b", clock=clock)):
        clock.now += 50
        assert display.seconds_left() == 49.5
    clock.now += 5  # something else was done meanwhile
    with display.showing(LongStep("reading c", clock=clock)):
        assert display.seconds_left() == 1000
    display.close()


def test_what_begins_while_an_item_is_awaited_is_a_part_of_it(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)

    def rows() -> Iterator[int]:
        yield from counted([1, 2], "reading rows")

    with showing_steps():
        for _ in counted(rows(), "writing rows", 2):
            assert screen.written.wait(60)
    assert "writing rows" in screen.getvalue() and "reading rows" not in screen.getvalue()


@pytest.mark.usefixtures("at_once")
def test_the_steps_of_a_single_item_are_shown_instead_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)

    def compared() -> Iterator[int]:
        with step("testing differences"):
            assert screen.written.wait(60)
        yield 1

    with showing_steps():
        list(counted(compared(), "comparing runs", 1))
    assert "testing differences" in screen.getvalue()


def test_a_bar_gives_way_to_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out, screen = Screen(terminal=True), Screen(terminal=True)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(steps, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(steps, "BAR_SECONDS", 1000)
    with clean_streams(), showing_steps(), step("sending files", 4):
        assert screen.written.wait(60)
        print("1 of 4 sent")
        drawn = screen.getvalue()
        assert "sending files" in drawn and drawn.endswith("\r")
    assert (out.getvalue(), screen.getvalue()) == ("1 of 4 sent\n", drawn)


@pytest.mark.usefixtures("at_once")
def test_work_with_a_display_of_its_own_hides_the_steps_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)
    with showing_steps(), step("verifying submissions"):
        assert screen.written.wait(60)
        with hidden_steps():
            before = screen.getvalue()
            with step("reading rows"):
                threading.Event().wait(0.02)
            assert screen.getvalue() == before
        screen.written.clear()
        assert screen.written.wait(60)


def test_a_function_can_be_a_step(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr("sys.stderr", screen)

    @step("computing figures")
    def compute(value: int) -> int:
        assert screen.written.wait(60)
        return value + 1

    with showing_steps():
        assert compute(1) == 2
    assert screen.getvalue().startswith("computing figures")


def test_a_process_without_stderr_shows_nothing(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, draw = threading.Event(), steps.StepDisplay._draw

    def recorded(display: steps.StepDisplay, shown: LongStep) -> None:
        draw(display, shown)
        tried.set()  # not where drawing fails

    monkeypatch.setattr(steps.StepDisplay, "_draw", recorded)
    monkeypatch.setattr("sys.stderr", None)
    with showing_steps(), step("reading"):
        assert tried.wait(60)
