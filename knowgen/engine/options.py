"""How a run is carried out, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.core.run_config import EngineConfig, declared_fields


@dataclass(frozen=True, kw_only=True)
class EngineOptions(EngineConfig):
    """What the engine is given beside the run's specification: the user's options and its own limits.

    `schedule="phased"` generates all images, closes the generator, then scores, for one accelerator that cannot hold
    both. `concurrency` applies to async generators and scorers; those that compute keep to what they declare.

    Attributes:
        score_timeout: Time limit of one score in seconds.
        tries: Attempts within this run at what failed with a transient error.
        max_attempts: Attempts over all runs of the directory; after that a failure is final.
        workers: Worker processes of the generator; 0 runs it in this process.
    """

    score_timeout: float = 300.0
    tries: int = 4
    max_attempts: int = 12
    workers: int = 0

    @classmethod
    def of(cls, config: EngineConfig, *, workers: int = 0) -> EngineOptions:
        """Return the options of a run's configuration.

        Args:
            config: The user's options.
            workers: Worker processes of the generator, now that their number is known.
        """
        given = {name: getattr(config, name) for name in declared_fields(EngineConfig)}
        return cls(**{**given, "workers": workers})


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
