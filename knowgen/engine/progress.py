"""Counts of a run, and their display on stderr: a bar on a terminal, otherwise a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from knowgen.core.records import Generation, GenerationStatus, Score, ScoreStatus
from knowgen.engine.options import RunOutcome
from knowgen.engine.work_plan import WorkItem

LINE_SECONDS = 30.0
"""Seconds between two lines where stderr is not a terminal."""


class RunCounts:
    """Counts items, generations and scores. Written in the engine's loop, read from any thread.

    Args:
        expected: Samples x repeats.
        passes: 2 for a phased run, else 1.
        pays_for_generations: Whether generations cost this run anything. Those that exist already do not.

    Attributes:
        outcome: The counts that a run returns.
        total: Items of all passes: `expected` times `passes`.
        done: Items that have ended.
        recorded_cost: US dollars according to the records of this run.
    """

    def __init__(self, expected: int, *, passes: int, pays_for_generations: bool) -> None:
        self._pays_for_generations = pays_for_generations
        self.outcome = RunOutcome(expected=expected)
        self.total = expected * passes
        self.done = 0
        self.recorded_cost = 0.0

    def add_stored(self, item: WorkItem, *, generations: bool) -> None:
        """Count the results of an item that were in the store.

        Args:
            item: The item.
            generations: Whether its generation counts in this pass; not in the scoring pass of a phased run.
        """
        if generations and item.generation is not None:
            if item.generation.status is GenerationStatus.OK:
                self.outcome.generation_cached += 1
            else:
                self.outcome.generation_failed += 1
        self.add_stored_scores(item)

    def add_stored_scores(self, item: WorkItem) -> None:
        """Count the scores of an item that were in the store."""
        for score in item.stored_scores:
            if score.status is ScoreStatus.NOT_APPLICABLE:
                self.outcome.not_applicable += 1
            elif score.status is ScoreStatus.FAILED:
                self.outcome.score_failed += 1
            else:
                self.outcome.score_cached += 1

    def add_generation(self, generation: Generation) -> None:
        """Count a generation made by this run."""
        if generation.status is GenerationStatus.OK:
            self.outcome.generated += 1
        else:
            self.outcome.generation_failed += 1
        if self._pays_for_generations:
            self.recorded_cost += generation.usage.cost or 0.0

    def add_score(self, score: Score, earlier: Score | None) -> None:
        """Count a score made by this run; the cost of `earlier`, the failed score it replaces, is not counted again."""
        if score.status is ScoreStatus.NOT_APPLICABLE:
            self.outcome.not_applicable += 1
        elif score.status is ScoreStatus.FAILED:
            self.outcome.score_failed += 1
        else:
            self.outcome.scored += 1
        earlier_cost = (earlier.usage.cost or 0.0) if earlier is not None else 0.0
        self.recorded_cost += (score.usage.cost or 0.0) - earlier_cost

    @property
    def cached(self) -> int:
        """Return the number of generations and scores that existed before this run."""
        return self.outcome.generation_cached + self.outcome.score_cached


class Progress:
    """Shows `done/total ok failed cached cost rate ETA` on stderr.

    Args:
        enabled: Whether to show anything.
        clock: Current time in seconds.
    """

    def __init__(self, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._clock = clock
        self._terminal = enabled and sys.stderr.isatty()
        self._bar: Any = None
        self._started = self._last_line = self._clock()

    def show(self, counts: RunCounts | None, cost: float) -> None:
        """Update the display. Cheap enough to be called ten times a second.

        Args:
            counts: The counts, None before there are any.
            cost: US dollars spent by this run.
        """
        if counts is None or not self._enabled:
            return
        if self._terminal:
            self._show_bar(counts, cost)
        elif self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            sys.stderr.write(self._line(counts, cost) + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_bar(self, counts: RunCounts, cost: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            layout = "{n_fmt}/{total_fmt} {bar:20} {postfix} {rate_fmt} ETA {remaining}"
            self._bar = tqdm(total=counts.total, unit="", bar_format=layout, leave=False, dynamic_ncols=True)
        self._bar.set_postfix_str(_summary(counts, cost), refresh=False)
        self._bar.n = counts.done
        self._bar.refresh()

    def _line(self, counts: RunCounts, cost: float) -> str:
        seconds = self._clock() - self._started
        rate = counts.done / seconds if seconds > 0 else 0.0
        left = f"{(counts.total - counts.done) / rate:.0f} s" if rate > 0 else "unknown"
        return f"{counts.done}/{counts.total} {_summary(counts, cost)} {rate:.2f}/s ETA {left}"


def _summary(counts: RunCounts, cost: float) -> str:
    outcome = counts.outcome
    parts = [f"ok {outcome.generated + outcome.generation_cached}", f"failed {outcome.failed}"]
    if counts.cached:
        parts.append(f"cached {counts.cached}")
    if cost > 0:
        parts.append(f"${cost:.4f}" if cost < 1 else f"${cost:.2f}")
    return " ".join(parts)
