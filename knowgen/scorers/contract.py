"""What a scorer is: its needs, and one of three methods, or a plain function.

    needs = frozenset({"image", "truth_image"})
    async def score(sample, truth, generation) -> Score | float | dict          judges that call a service
    def score(sample, truth, generation) -> Score | float | dict                measures, one image at a time
    score_batch(items) -> Iterator[Score]                                       measures, several images at a time

A number, or numbers by dimension, become a `Score` (see `short_form`). Measures run in worker processes, where they are
built from name and arguments, so they must be importable by name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from knowgen.core.errors import UsageError
from knowgen.core.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GroundTruth,
    Item,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
    Usage,
)
from knowgen.scorers.short_form import function_scorer, is_scoring_function

NEEDS = frozenset({"image", "truth_image", "required_text", "subjects", "references", "evidence"})
"""What a scorer may need: parts of a sample's ground truth or of its generation."""


class AsyncScorer(Protocol):
    """A scorer that waits for a service."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the required inputs, a subset of `NEEDS`."""
        ...

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Score one generation.

        Raises:
            TransientError: An error that may not happen again; the engine retries with backoff.
            UnscorableError: It cannot be scored, with the reason.
        """
        ...


class BatchScorer(Protocol):
    """A scorer that computes, in worker processes."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the required inputs, a subset of `NEEDS`."""
        ...

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yield one score per item as soon as it is done; `sample_id` and `repeat` say of which item."""
        ...


@dataclass(frozen=True)
class ScorerCapabilities:
    """What a scorer declares about itself.

    Attributes:
        shape: `score` if it waits for a service, `score_batch` if it computes, also one item at a time.
        needs: What it needs, out of `NEEDS`. A generation that lacks one of them is not applicable, which is not a
            failure.
        dimensions: The dimensions it gives values for.
        version: Version of rubric, arithmetic and parser together; part of every key.
        note: Shown with its figures in every table, such as "world check, not a VLM judge".
        concurrency: Concurrent scores (`score`), or items per call (`score_batch`).
        workers: Worker processes of a batch form; 0 for one per core.
        local: Whether it loads a model onto the accelerator; `--schedule phased` then closes the generator first.
        parser: Version of the code that parses replies; empty if it parses none.
        deadline: Time limit per score in seconds, for a scorer that limits its calls itself; 0 to use the run's limit.
            Neither counts the time that a score waits for its turn.
        reparse: Parses the attempts of several runs together: takes attempts and sample, returns the strict parsed
            score, the lenient one and the model's name. None if earlier replies do not count.
        checks_service: Whether it has `check_service()`, which is awaited once before anything is generated.
        gpus_per_worker: GPUs that a worker process of it sees. A class declares it by `gpu_limit(**arguments)` where it
            depends on arguments.
    """

    shape: Literal["score", "score_batch"]
    needs: frozenset[str]
    dimensions: tuple[str, ...] = DIMENSIONS
    version: str = ""
    note: str = ""
    concurrency: int = 16
    workers: int = 0
    local: bool = False
    parser: str = ""
    deadline: float = 0.0
    reparse: Callable[[Sequence[Attempt], Sample], tuple[ParsedScore, ParsedScore, str]] | None = None
    checks_service: bool = False
    gpus_per_worker: int = 1


def scorer_capabilities(target: Any) -> ScorerCapabilities:
    """Return what a scorer object, class or function declares, with defaults for what it does not.

    Raises:
        UsageError: It has none of the methods, needs something unknown, or names a dimension twice.

    Example:
        >>> class Sharpness:
        ...     dimensions = ("sharpness",)
        ...     def score(self, sample, truth, generation): return 0.5
        >>> capabilities = scorer_capabilities(Sharpness)
        >>> capabilities.shape, sorted(capabilities.needs), capabilities.dimensions
        ('score_batch', ['image'], ('sharpness',))
    """
    name = target.__name__ if inspect.isclass(target) or inspect.isfunction(target) else type(target).__name__
    if is_scoring_function(target):
        target = function_scorer(target)
    if callable(getattr(target, "score_batch", None)):
        shape: Literal["score", "score_batch"] = "score_batch"
    elif inspect.iscoroutinefunction(getattr(target, "score", None)):
        shape = "score"
    elif callable(getattr(target, "score", None)):
        shape = "score_batch"
    else:
        raise UsageError(
            "not a scorer",
            where=name,
            fix="give it `score(sample, truth, generation)` (a function takes `prompt` and `image` first)",
        )
    declared = getattr(target, "needs", ("image",))
    needs = frozenset((declared,) if isinstance(declared, str) else declared)
    if not needs <= NEEDS:
        raise UsageError(
            f"needs {', '.join(sorted(needs - NEEDS))}", where=name, fix=f"known needs are {', '.join(sorted(NEEDS))}"
        )
    return ScorerCapabilities(
        shape=shape,
        needs=needs,
        dimensions=_dimensions(target, name),
        version=str(getattr(target, "version", "")),
        note=str(getattr(target, "note", "")),
        concurrency=int(getattr(target, "concurrency", 16 if shape == "score" else 4)),
        workers=int(getattr(target, "workers", 0)),
        local=bool(getattr(target, "local", False)),
        parser=str(getattr(target, "parser", "")),
        deadline=float(getattr(target, "deadline", 0.0)),
        reparse=getattr(target, "reparse", None),
        checks_service=callable(getattr(target, "check_service", None)),
        gpus_per_worker=int(getattr(target, "gpus_per_worker", 1)),
    )


def _dimensions(target: Any, name: str) -> tuple[str, ...]:
    declared = getattr(target, "dimensions", DIMENSIONS)
    dimensions = (declared,) if isinstance(declared, str) else tuple(declared)
    if not dimensions or len(set(dimensions)) < len(dimensions):
        what = "names a dimension twice" if dimensions else "declares no dimension"
        raise UsageError(what, where=name, fix='name each once, such as dimensions = ("sharpness",)')
    return dimensions


def missing_needs(needs: frozenset[str], truth: GroundTruth, generation: Generation) -> list[str]:
    """Return the needs that a sample does not meet, sorted; empty if it can be scored."""
    have = {
        "image": generation.image is not None,
        "references": bool(generation.references),
        "evidence": bool(generation.evidence),
    }
    lacking = {need for need in needs - TRUTH_NEEDS if not have[need]}
    return sorted(lacking.union(missing_truth(needs, truth)))


TRUTH_NEEDS = frozenset({"truth_image", "required_text", "subjects"})
"""Needs that a ground truth meets; a generation meets the others."""


def missing_truth(needs: frozenset[str], truth: GroundTruth) -> list[str]:
    """Return the needs that a ground truth does not meet, sorted."""
    have = {
        "truth_image": truth.image is not None,
        "required_text": bool(truth.required_text) or truth.text_required is False,
        "subjects": bool(truth.subjects),
    }
    return sorted(need for need in needs & TRUTH_NEEDS if not have[need])


def ok_score(
    sample: Sample,
    generation: Generation,
    values: Mapping[str, float],
    *,
    na: Sequence[str] = (),
    rationale: str = "",
    attempts: Sequence[Attempt] = (),
    scorer: str = "",
    **fields: Any,
) -> Score:
    """Return the record of a score. Its tokens and cost are the sum of its attempts.

    Args:
        sample: The sample.
        generation: The generation that was scored.
        values: Value of each dimension, in [0, 1].
        na: Dimensions that do not apply to the sample.
        rationale: The judge's reasons.
        attempts: Calls that were made, in order.
        scorer: Name of the scorer; a run writes its own.
        **fields: Further fields of `Score`.

    Example:
        >>> sample = Sample(id="1", prompt="a red kite", category="Art", group="science_and_knowledge")
        >>> generation = Generation(sample_id="1", status="ok")
        >>> ok_score(sample, generation, {"faithfulness": 0.5}).strict.values
        {'faithfulness': 0.5}
    """
    parsed = ParsedScore(status=ScoreStatus.OK, values=dict(values), na=tuple(na), rationale=rationale)
    return Score(
        sample_id=sample.id,
        repeat=generation.repeat,
        scorer=scorer,
        status=ScoreStatus.OK,
        strict=parsed,
        attempts=tuple(attempts),
        usage=usage_of(attempts),
        **fields,
    )


def failed_score(sample_id: str, repeat: int, scorer: str, reason: str, **fields: Any) -> Score:
    """Return the record of a failed score; `fields` are further fields of `Score`."""
    parsed = ParsedScore(status=ScoreStatus.FAILED, reason=reason)
    return Score(sample_id=sample_id, repeat=repeat, scorer=scorer, status=ScoreStatus.FAILED, strict=parsed, **fields)


def not_applicable_score(sample_id: str, repeat: int, scorer: str, reason: str) -> Score:
    """Return the record of a sample that lacks what the scorer needs."""
    parsed = ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
    return Score(sample_id=sample_id, repeat=repeat, scorer=scorer, status=ScoreStatus.NOT_APPLICABLE, strict=parsed)


def usage_of(attempts: Sequence[Attempt]) -> Usage:
    """Return the total tokens and cost of some attempts; the cost is None if none of them has a known one."""
    known = [attempt.usage.cost for attempt in attempts if attempt.usage.cost is not None]
    return Usage(
        input_tokens=sum(attempt.usage.input_tokens for attempt in attempts),
        output_tokens=sum(attempt.usage.output_tokens for attempt in attempts),
        cost=math.fsum(known) if known else None,
    )


def with_earlier(capabilities: ScorerCapabilities, score: Score, sample: Sample, earlier: Sequence[Attempt]) -> Score:
    """Return a score together with earlier attempts: those that a `TransientError` carried, or stored ones.

    If the scorer has `reparse`, all attempts are parsed together again, because an earlier reply may be the first that
    the official protocol accepts, even if every run ended in an error. For other scorers the earlier attempts and their
    cost are put before its own.

    Args:
        capabilities: Capabilities of the scorer.
        score: Result of the last run, possibly failed.
        sample: The sample.
        earlier: Attempts made before those of `score`, oldest first.
    """
    if not earlier:
        return score
    attempts = (*earlier, *score.attempts)
    changes: dict[str, Any] = {"attempts": attempts, "usage": usage_of(attempts)}
    if capabilities.reparse is not None:
        strict, lenient, returned = capabilities.reparse(attempts, sample)
        if strict.status is ScoreStatus.FAILED and score.strict.reason:
            strict = strict.model_copy(update={"reason": score.strict.reason})
        changes |= {
            "status": strict.status, "strict": strict, "lenient": lenient, "judge_returned": returned,
            "parser": capabilities.parser,
        }  # fmt: skip
    return score.model_copy(update=changes)
