"""What a run has done so far, counted as it happens."""

from __future__ import annotations

from knowgen.engine.options import Outcome
from knowgen.engine.plan import Job
from knowgen.records import Generation, GenerationStatus, Score, ScoreStatus


class Tally:
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
        self.outcome = Outcome(expected=expected)
        self.total = expected * passes
        self.done = 0
        self.paid = 0.0

    def standing(self, job: Job, *, drawing: bool) -> None:
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

    def settled(self, job: Job) -> None:
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
