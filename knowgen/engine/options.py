"""How a run is carried out, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EngineOptions:
    """How a run is carried out. Nothing here decides a result, so nothing here is part of a key.

    Attributes:
        concurrency: Calls of an async generator or scorer that may wait at once; None takes what each declares.
            Generators and scorers that compute keep to what they declare.
        schedule: `stream` scores a picture as soon as it is drawn; `phased` draws all, closes the generator, then
            scores, for one accelerator that cannot hold both.
        budget: US dollars that may be spent in this run directory, over all runs; None for no limit.
        timeout: Seconds one drawing may take.
        score_timeout: Seconds one judgement may take.
        tries: Tries within this run for faults that may pass.
        max_attempts: Tries over all runs of the directory; what still fails then keeps its last record.
        workers: Worker processes of the generator; 0 runs it in this process.
        progress: Show progress on stderr: a bar on a terminal, elsewhere a line every half minute.
    """

    concurrency: int | None = None
    schedule: Literal["stream", "phased"] = "stream"
    budget: float | None = None
    timeout: float = 600.0
    score_timeout: float = 300.0
    tries: int = 4
    max_attempts: int = 12
    workers: int = 0
    progress: bool = True


@dataclass
class RunOutcome:
    """What a run did, and what stands at its end.

    Attributes:
        expected: Samples x repeats.
        generated: Pictures drawn by this run.
        generation_cached: Pictures that were there already.
        generation_failed: Drawings that stand as failed or refused, from this run or an earlier one.
        scored: Judgements made by this run.
        score_cached: Judgements that were there already.
        score_failed: Judgements that stand as failed, from this run or an earlier one.
        not_applicable: Judgements whose sample lacks what the scorer needs.
        cost: US dollars spent by this run: what the books say or what the records say, whichever is more.
        seconds: Wall time.
        refusal: Why the budget admitted no further call; empty when it did.
        stopped: Empty when all was done; else `budget`, `interrupted`, or the reason.
    """

    expected: int = 0
    generated: int = 0
    generation_cached: int = 0
    generation_failed: int = 0
    scored: int = 0
    score_cached: int = 0
    score_failed: int = 0
    not_applicable: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    refusal: str = ""
    stopped: str = ""

    @property
    def failed(self) -> int:
        """Returns how many drawings and judgements stand as failed."""
        return self.generation_failed + self.score_failed

    @property
    def all_cached(self) -> bool:
        """Tells whether everything was there already."""
        return not (self.stopped or self.generated or self.scored or self.failed)
