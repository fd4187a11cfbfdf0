"""Progress on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from knowgen.core.records import Generation, GenerationStatus, Score, ScoreStatus
from knowgen.engine.options import RunOutcome
from knowgen.engine.work_plan import WorkItem

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

    def show(self, tally: RunCounts | None, cost: float) -> None:
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

    def _show_bar(self, tally: RunCounts, cost: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            form = "{n_fmt}/{total_fmt} {bar:20} {postfix} {rate_fmt} ETA {remaining}"
            self._bar = tqdm(total=tally.total, unit="", bar_format=form, leave=False, dynamic_ncols=True)
        self._bar.set_postfix_str(_counts(tally, cost), refresh=False)
        self._bar.n = tally.done
        self._bar.refresh()

    def _line(self, tally: RunCounts, cost: float) -> str:
        seconds = self._clock() - self._began
        rate = tally.done / seconds if seconds > 0 else 0.0
        left = f"{(tally.total - tally.done) / rate:.0f} s" if rate > 0 else "unknown"
        return f"{tally.done}/{tally.total} {_counts(tally, cost)} {rate:.2f}/s ETA {left}"

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _counts(tally: RunCounts, cost: float) -> str:
    outcome = tally.outcome
    parts = [f"ok {outcome.generated + outcome.generation_cached}", f"failed {outcome.failed}"]
    if tally.cached:
        parts.append(f"cached {tally.cached}")
    if cost > 0:
        parts.append(f"${cost:.4f}" if cost < 1 else f"${cost:.2f}")
    return " ".join(parts)


class RunCounts:
    """Counts walks, drawings and judgements; written in the engine's loop, read from any thread.

    Args:
        expected: Samples x repeats.
        passes: 2 for a phased run, else 1.
        draws: Does this run draw, and pay for it? Drawings made elsewhere were paid for there.

    Attributes:
        outcome: What is told at the end.
        total: Walks there are: samples x repeats, twice that for a phased run.
        done: Walks that came to their end.
        paid: US dollars the records of this run name.
    """

    def __init__(self, expected: int, passes: int, *, draws: bool) -> None:
        self._draws = draws
        self.outcome = RunOutcome(expected=expected)
        self.total = expected * passes
        self.done = 0
        self.paid = 0.0

    def standing(self, job: WorkItem, *, drawing: bool) -> None:
        """Counts what a job found in the store.

        Args:
            job: The job.
            drawing: Do drawings count in this pass? Not in the scoring pass of a phased run.
        """
        if drawing and job.generation is not None:
            if job.generation.status is GenerationStatus.OK:
                self.outcome.generation_cached += 1
            else:
                self.outcome.generation_failed += 1
        self.settled(job)

    def settled(self, job: WorkItem) -> None:
        """Counts judgements that stand already."""
        for score in job.settled:
            if score.status is ScoreStatus.NOT_APPLICABLE:
                self.outcome.not_applicable += 1
            elif score.status is ScoreStatus.FAILED:
                self.outcome.score_failed += 1
            else:
                self.outcome.score_cached += 1

    def drawn(self, generation: Generation) -> None:
        """Counts a drawing of this run."""
        if generation.status is GenerationStatus.OK:
            self.outcome.generated += 1
        else:
            self.outcome.generation_failed += 1
        if self._draws:
            self.paid += generation.usage.cost or 0.0

    def judged(self, score: Score, earlier: Score | None) -> None:
        """Counts a judgement of this run."""
        if score.status is ScoreStatus.NOT_APPLICABLE:
            self.outcome.not_applicable += 1
        elif score.status is ScoreStatus.FAILED:
            self.outcome.score_failed += 1
        else:
            self.outcome.scored += 1
        self.paid += (score.usage.cost or 0.0) - ((earlier.usage.cost or 0.0) if earlier is not None else 0.0)

    @property
    def cached(self) -> int:
        """Returns drawings and judgements that were there already."""
        return self.outcome.generation_cached + self.outcome.score_cached
