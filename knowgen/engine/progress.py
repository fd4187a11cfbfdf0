"""Counts of a run, and their display on stderr: a bar on a terminal, otherwise a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from knowgen.core.records import AgentAnswer, AnswerStatus, Generation, GenerationStatus, Score, ScoreStatus
from knowgen.core.steps import BAR_LAYOUT, LINE_SECONDS
from knowgen.core.text import count, duration_text
from knowgen.engine.options import RunOutcome
from knowgen.engine.work_plan import WorkItem


class RunCounts:
    """Counts items, answers, generations and scores. Written in the engine's loop, read from any thread.

    Args:
        expected: Samples x repeats.
        passes: Number of passes over the samples: one per stage of a phased run, else 1.
        pays_for_generations: Whether generations cost this run anything. Those that exist already do not.

    Attributes:
        outcome: The counts that a run returns.
        total: Items of all passes: `expected` times `passes`.
        done: Items that have ended, with or without usable results.
        failed: Those among them that lack a usable image or score.
        cached: Those among them whose results all existed before, and are usable.
        not_run: Items that were started and remain not run.
        recorded_cost: US dollars according to the records of this run.
    """

    def __init__(self, expected: int, *, passes: int, pays_for_generations: bool) -> None:
        self._pays_for_generations = pays_for_generations
        self.outcome = RunOutcome(expected=expected)
        self.total = expected * passes
        self.done = self.failed = self.cached = self.not_run = 0
        self.recorded_cost = 0.0

    def end(self, *, failed: bool) -> None:
        """Count an item that has ended."""
        self.done += 1
        self.failed += failed

    def end_stored(self, item: WorkItem) -> None:
        """Count an item that was complete already."""
        usable = item.stored_results_usable
        self.cached += usable
        self.end(failed=not usable)

    def add_stored(self, item: WorkItem, *, generations: bool) -> None:
        """Count the results of an item that were in the store.

        Args:
            item: The item.
            generations: Whether its generation counts in this pass; not in the scoring pass of a phased run.
        """
        if generations and item.generation is not None:
            self.outcome.fallbacks += bool(item.generation.fallback)
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

    def add_answer(self, answer: AgentAnswer, *, made: bool) -> None:
        """Count an answer.

        Args:
            answer: The answer.
            made: Whether this run made it; otherwise it was stored before.
        """
        if answer.status is AnswerStatus.FAILED:
            self.outcome.answer_failed += 1
        elif made:
            self.outcome.answered += 1
        else:
            self.outcome.answer_cached += 1
        if answer.ending:
            self.outcome.endings[answer.ending] = self.outcome.endings.get(answer.ending, 0) + 1
        if made:
            self.recorded_cost += sum(part.usage.cost or 0.0 for part in answer.usage)

    def add_generation(self, generation: Generation) -> None:
        """Count a generation made by this run."""
        if generation.status is GenerationStatus.OK:
            self.outcome.generated += 1
        else:
            self.outcome.generation_failed += 1
        self.outcome.fallbacks += bool(generation.fallback)
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


class Progress:
    """Shows on stderr how many samples are done, and at what rate.

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

    def show(self, counts: RunCounts | None, cost: float, waiting: str = "") -> None:
        """Update the display. Cheap enough to be called ten times a second.

        Args:
            counts: The counts, None before there are any.
            cost: US dollars spent by this run.
            waiting: What the run waits for, such as `waiting for vlm:gpt-4.1, 42 s`; empty when it does not.
        """
        if counts is None or not self._enabled:
            return
        if self._terminal:
            self._show_bar(counts, cost, waiting)
        elif self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            sys.stderr.write(f"{counts.done}/{counts.total} {self._details(counts, cost, waiting)}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_bar(self, counts: RunCounts, cost: float, waiting: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=counts.total, bar_format=BAR_LAYOUT, leave=False, dynamic_ncols=True)
        self._bar.set_description_str(self._details(counts, cost, waiting), refresh=False)
        self._bar.n = counts.done
        self._bar.refresh()

    def _details(self, counts: RunCounts, cost: float, waiting: str) -> str:
        """Return what follows the number of samples, such as `done, 2 failed, 1 cached, $0.12, 3.1/s, ETA 2 s`."""
        made, seconds = counts.done - counts.cached, self._clock() - self._started
        rate = made / seconds if seconds > 0 else 0.0
        numbers = ((counts.failed, "failed"), (counts.cached, "cached"), (counts.not_run, "not run"))
        parts = ["done", *(f"{number} {word}" for number, word in numbers if number), *self._agent_details(counts)]
        if cost > 0:
            parts.append(f"${cost:.4f}" if cost < 1 else f"${cost:.2f}")
        if rate > 0:
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
        left = counts.total - counts.done - counts.not_run
        parts.append(f"ETA {duration_text(left / rate)}" if rate > 0 else "ETA unknown")
        return ", ".join([*parts, waiting] if waiting else parts)

    @staticmethod
    def _agent_details(counts: RunCounts) -> list[str]:
        """Return how the agent ended so far, such as `answers: 11 answer, 1 repeated_response` and `1 fallback`."""
        outcome = counts.outcome
        endings = ", ".join(f"{number} {ending}" for ending, number in sorted(dict(outcome.endings).items()))
        return [
            *([f"answers: {endings}"] if endings else []),
            *([count(outcome.fallbacks, "fallback")] if outcome.fallbacks else []),
        ]


class WaitingNotice(Progress):
    """Writes one line on stderr when a run begins to wait for a service, for runs whose results are shown otherwise."""

    def __init__(self) -> None:
        super().__init__(enabled=True)
        self._waits = False

    def show(self, counts: RunCounts | None, cost: float, waiting: str = "") -> None:
        """Write what the run waits for, once for each wait; arguments as in `Progress.show`."""
        if waiting and not self._waits:
            sys.stderr.write(f"{waiting.rpartition(',')[0]}; Ctrl-C ends it\n")
            sys.stderr.flush()
        self._waits = bool(waiting)
