"""Progress on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from knowgen.engine.tally import Tally

LINE_SECONDS = 30.0


class Progress:
    """Shows `done/total ok failed cached cost rate ETA`.

    Args:
        wanted: Show anything at all?
        clock: Current time in seconds.
    """

    def __init__(self, wanted: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted = wanted
        self._terminal = wanted and sys.stderr.isatty()
        self._bar: Any = None
        self._began = self._told = self._clock()

    def show(self, tally: Tally | None, cost: float) -> None:
        """Brings the display up to date; cheap enough to be called ten times a second.

        Args:
            tally: The counts, None before there are any.
            cost: US dollars spent by this run.
        """
        if tally is None or not self._wanted:
            return
        if self._terminal:
            self._show_bar(tally, cost)
        elif self._clock() - self._told >= LINE_SECONDS:
            self._told = self._clock()
            sys.stderr.write(self._line(tally, cost) + "\n")
            sys.stderr.flush()

    def _show_bar(self, tally: Tally, cost: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            form = "{n_fmt}/{total_fmt} {bar:20} {postfix} {rate_fmt} ETA {remaining}"
            self._bar = tqdm(total=tally.total, unit="", bar_format=form, leave=False, dynamic_ncols=True)
        self._bar.set_postfix_str(_counts(tally, cost), refresh=False)
        self._bar.n = tally.done
        self._bar.refresh()

    def _line(self, tally: Tally, cost: float) -> str:
        seconds = self._clock() - self._began
        rate = tally.done / seconds if seconds > 0 else 0.0
        left = f"{(tally.total - tally.done) / rate:.0f} s" if rate > 0 else "unknown"
        return f"{tally.done}/{tally.total} {_counts(tally, cost)} {rate:.2f}/s ETA {left}"

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _counts(tally: Tally, cost: float) -> str:
    outcome = tally.outcome
    parts = [f"ok {outcome.generated + outcome.generation_cached}", f"failed {outcome.failed}"]
    if tally.cached:
        parts.append(f"cached {tally.cached}")
    if cost > 0:
        parts.append(f"${cost:.4f}" if cost < 1 else f"${cost:.2f}")
    return " ".join(parts)
