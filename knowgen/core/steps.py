"""Long steps of a command, shown on stderr: what is done, how far it is, and how long it takes.

Code says what it does with `step` or `counted`; who called it decides with `showing_steps` whether that is shown. Of a
step that ends within a moment nothing is shown. The display is that of a run: a bar on a terminal, otherwise a line
every half minute.

Example:
    >>> with showing_steps():
    ...     for number in counted(range(3), "reading pages"):
    ...         pass
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, TypeVar

from knowgen.core.text import duration_text

T = TypeVar("T")

FIRST_SECONDS = 1.0
"""Seconds after which a step is shown on a terminal."""

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
    """

    def __init__(self, text: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.text, self.total = text, total
        self.done = 0
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

    Args:
        terminal: Whether stderr is a terminal.
        first: Seconds after which a step is shown for the first time.
        gap: Seconds between two updates.
    """

    def __init__(self, terminal: bool, first: float, gap: float) -> None:
        self._terminal, self._first, self._gap = terminal, first, gap
        self._steps: list[LongStep] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None

    @contextlib.contextmanager
    def showing(self, step: LongStep) -> Iterator[None]:
        """Show a step while the block runs; one inside it takes its place for a time."""
        with self._lock:
            self._steps.append(step)
            if self._thread is None:
                self._ended.clear()
                self._thread = threading.Thread(target=self._draw_until_ended, name="knowgen-steps", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._steps.remove(step)
                idle = None if self._steps else self._thread
            if idle is not None:
                self._ended.set()
                idle.join()
                self._thread = None

    def _draw_until_ended(self) -> None:
        wait = self._first
        while not self._ended.wait(wait):
            wait = self._gap
            with self._lock:
                if self._steps:
                    self._draw(self._steps[-1])
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, step: LongStep) -> None:
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
    token = _display.set(StepDisplay(terminal, FIRST_SECONDS if terminal else LINE_SECONDS, gap))
    try:
        yield
    finally:
        _display.reset(token)


@contextlib.contextmanager
def step(text: str, total: int | None = None) -> Iterator[LongStep]:
    """Show that something is done, and yield the step to count what is done of it.

    Args:
        text: What is done, such as `reading results`.
        total: Number of things to do; None where it is not known.
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
    if total is None and isinstance(items, Sized):
        total = len(items)
    with step(text, total) as shown:
        for item in items:
            yield item
            shown.advance()
