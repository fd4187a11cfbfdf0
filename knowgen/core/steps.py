"""Long steps of a command, shown on stderr: what is done, how far it is, and how long it takes.

Code says what it does with `step` or `counted`; who called it decides with `showing_steps` whether that is shown. Of
work that ends within a moment nothing is shown. The display is that of a run: a bar on a terminal, otherwise a line
every half minute.

Of steps within steps the innermost is shown, with one exception: what begins while `counted` waits for its next item is
part of that item. So the readers of a run directory count what they read, and where their caller counts too, its own
words are shown.

Example:
    >>> with showing_steps():
    ...     for number in counted(range(3), "reading pages"):
    ...         pass
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, TypeVar

from knowgen.core.console import before_writes
from knowgen.core.text import duration_text

T = TypeVar("T")

FIRST_SECONDS = 1.0
"""Seconds of work after which a step is shown on a terminal."""

PAUSE_SECONDS = 1.0
"""Longest pause between two steps of one piece of work, in seconds."""

BAR_SECONDS = 0.2
"""Seconds between two updates of the bar."""

LINE_SECONDS = 30.0
"""Seconds between two lines where stderr is not a terminal."""

BAR_LAYOUT = "{n_fmt}/{total_fmt} {bar:20} {desc}"
"""Layout of every progress bar, in terms of tqdm."""


class LongStep:
    """One step.

    Args:
        text: What is done, such as `writing images`.
        total: Number of things to do; None where it is not known.
        clock: Current time in seconds.

    Attributes:
        done: Number of things done so far.
        fetching: Whether the step waits for its next item, so that what begins now is a part of it.
    """

    def __init__(self, text: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.text, self.total = text, total
        self.done = 0
        self.fetching = False
        self._clock, self._started = clock, clock()
        self._lock = threading.Lock()

    def advance(self, by: int = 1) -> None:
        """Count things that are done. Thread-safe."""
        with self._lock:
            self.done += by

    def details(self) -> str:
        """Return what follows the count, such as `writing images, 310.5/s, ETA 20 s`."""
        seconds = self._clock() - self._started
        rate = self.done / seconds if seconds > 0 else 0.0
        if not rate:
            return f"{self.text}, {duration_text(seconds)}"
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        if self.total is None:
            return f"{self.text}, {speed}"
        return f"{self.text}, {speed}, ETA {duration_text(max(0, self.total - self.done) / rate)}"

    def line(self) -> str:
        """Return the whole line, such as `1200/5000 writing images, 310.5/s, ETA 20 s`."""
        if self.total is not None:
            return f"{self.done}/{self.total} {self.details()}"
        return f"{self.done} {self.details()}" if self.done else self.details()


class StepDisplay:
    """Shows the innermost of the steps that run.

    Steps that follow each other closely count as one piece of work: what is shown is that the program works, however
    short each of its steps is.

    Args:
        terminal: Whether stderr is a terminal.
        first: Seconds of work after which a step is shown for the first time.
        gap: Seconds between two updates.
        clock: Current time in seconds.
    """

    def __init__(self, terminal: bool, first: float, gap: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal, self._first, self._gap, self._clock = terminal, first, gap, clock
        self._steps: list[LongStep] = []
        self._changed = threading.Condition()
        self._working_since = self._idle_since = self._drawn = -math.inf
        self._thread: threading.Thread | None = None
        self._closed = self._is_drawing = False
        self._bar: Any = None

    @contextlib.contextmanager
    def showing(self, step: LongStep) -> Iterator[None]:
        """Show a step while the block runs; one inside it takes its place for a time."""
        shown = self._begin(step)
        try:
            yield
        finally:
            if shown:
                self._end(step)

    def _begin(self, step: LongStep) -> bool:
        """Show a step from now on, and return whether it is shown at all."""
        with self._changed:
            if self._steps:
                if self._steps[-1].fetching:
                    return False  # a part of the item that the other step waits for
            elif (now := self._clock()) - self._idle_since > PAUSE_SECONDS:
                self._working_since = now
            self._steps.append(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._draw_until_closed, name="knowgen-steps", daemon=True)
                self._thread.start()
            elif len(self._steps) == 1:
                self._changed.notify()
            return True

    def _end(self, step: LongStep) -> None:
        with self._changed:
            self._steps.remove(step)
            if not self._steps:
                self._idle_since = self._clock()
                self.clear()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Draw nothing during the block."""
        with self._changed:
            steps, self._steps = self._steps, []
            self.clear()
        try:
            yield
        finally:
            with self._changed:
                self._steps = steps
                self._changed.notify()

    def clear(self) -> None:
        """Remove the bar from the terminal, so that something else can be written; an update draws it again."""
        if not self._terminal:
            return
        with self._changed:
            if self._bar is not None and not self._is_drawing:
                with self._drawing():
                    self._bar.close()
                self._bar = None

    def close(self) -> None:
        """End the display."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def seconds_left(self) -> float:
        """Return the seconds until the next update, if a step runs then."""
        return max(self._working_since + self._first, self._drawn + self._gap) - self._clock()

    def _draw_until_closed(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._steps:
                    self._changed.wait()
                elif (wait := self.seconds_left()) > 0:
                    self._changed.wait(wait)
                else:
                    with self._drawing():
                        self._draw(self._steps[-1])
                    self._drawn = self._clock()

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[None]:
        """Mark that what is written is the display itself."""
        self._is_drawing = True
        try:
            yield
        finally:
            self._is_drawing = False

    def _draw(self, step: LongStep) -> None:
        if sys.stderr is None:
            return
        if not self._terminal:
            sys.stderr.write(f"{step.line()}\n")
            sys.stderr.flush()
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=step.total, bar_format=BAR_LAYOUT, leave=False, dynamic_ncols=True)
        self._bar.bar_format = BAR_LAYOUT if step.total is not None else "{desc}"
        self._bar.total, self._bar.n = step.total, step.done
        self._bar.set_description_str(step.details() if step.total is not None else step.line(), refresh=False)
        self._bar.refresh()


_display: ContextVar[StepDisplay | None] = ContextVar("knowgen_steps", default=None)


@contextlib.contextmanager
def showing_steps(enabled: bool = True) -> Iterator[None]:
    """Show on stderr the steps inside the block; inside another such block nothing changes unless it is `enabled`.

    Args:
        enabled: Whether they are shown. False leaves the decision to whoever called.
    """
    if not enabled or _display.get() is not None:
        yield
        return
    terminal = sys.stderr is not None and sys.stderr.isatty()
    gap = BAR_SECONDS if terminal else LINE_SECONDS
    display = StepDisplay(terminal, FIRST_SECONDS if terminal else LINE_SECONDS, gap)
    token = _display.set(display)
    try:
        with before_writes(display.clear):
            yield
    finally:
        _display.reset(token)
        display.close()


def hide_steps() -> None:
    """Show no more steps of the current context, for work that shows its progress in another way."""
    _display.set(None)


@contextlib.contextmanager
def hidden_steps() -> Iterator[None]:
    """Show no steps during the block, not even those that it is a part of, because it shows its progress itself."""
    display = _display.get()
    if display is None:
        yield
        return
    token = _display.set(None)
    try:
        with display.hidden():
            yield
    finally:
        _display.reset(token)


if hasattr(os, "register_at_fork"):  # the thread that draws is not there in the child
    os.register_at_fork(after_in_child=hide_steps)


@contextlib.contextmanager
def step(text: str, total: int | None = None) -> Iterator[LongStep]:
    """Show that something is done, and yield the step to count what is done of it. Also a decorator of functions.

    Args:
        text: What is done, such as `reading results`.
        total: Number of things to do; None where it is not known.

    Example:
        >>> @step("adding numbers")
        ... def total(numbers: list[int]) -> int:
        ...     return sum(numbers)
        >>> total([1, 2])
        3
    """
    made, display = LongStep(text, total), _display.get()
    if display is None:
        yield made
        return
    with display.showing(made):
        yield made


def counted(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield items and show how many of them are done.

    Args:
        items: The items.
        text: What is done with them.
        total: Their number; that of `items` when None, if it has one.
    """
    if _display.get() is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    with step(text, total) as shown:
        fetching = total != 1  # of a single item its own steps say more
        shown.fetching = fetching
        for item in items:
            shown.fetching = False
            yield item
            shown.advance()
            shown.fetching = fetching
