"""What a scorer is: what it needs, and one of three methods, or a plain function.

    needs = frozenset({"image", "truth_image"})
    async def score(sample, truth, generation) -> Score | float | dict          judges that wait for a service
    def score(sample, truth, generation) -> Score | float | dict                measures, one image at a time
    score_batch(items) -> Iterator[Score]                                       measures, several images at a time

A number, or numbers by dimension, become a `Score` (see `short_form`). Measures run in worker processes, where they are
rebuilt from name and arguments, so they must be importable by name.
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
"""What a scorer may need of a sample before it can look at it."""


class AsyncScorer(Protocol):
    """A scorer that waits, for a service or a server."""

    @property
    def needs(self) -> frozenset[str]:
        """Return what it needs of a sample, out of `NEEDS`."""
        ...

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        """Judges one generation.

        Raises:
            TransientError: A fault that may pass; the engine tries again with backoff.
            UnscorableError: It cannot be judged, with the reason.
        """
        ...


class BatchScorer(Protocol):
    """A scorer that computes, in worker processes."""

    @property
    def needs(self) -> frozenset[str]:
        """Return what it needs of a sample, out of `NEEDS`."""
        ...

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        """Yields one score an item, each as it is done; sample_id and repeat tell which."""
        ...


@dataclass(frozen=True)
class ScorerCapabilities:
    """What a scorer declares about itself.

    Attributes:
        shape: `score` where it waits, `score_batch` where it computes, also one item at a time.
        needs: Out of `NEEDS`; a generation that lacks one is not applicable, which is shown and is no failure.
        dimensions: The dimensions it gives values for.
        version: Of the rubric, the arithmetic and the parser together; part of every key.
        note: What every table says beside its figures, such as "world check, not a VLM judge".
        concurrency: Judgements that may wait at once (score), items a call takes (score_batch).
        workers: Processes a batch form wants; 0 lets the engine choose by the cores.
        parser: Version of the code that reads its replies; empty where nothing is parsed.
        reparse: Reads attempts of several tries together: from attempts and the sample to the strict reading, the
            lenient one and the model's name. None where an earlier reply has no say.
        deadline: Seconds one judgement may take at most, where the scorer bounds its calls itself and may have to wait
            for its turn; the run's own bound when 0.
        local: Does it load a model into the accelerator? Then `--schedule phased` closes the generator first.
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


def scorer_capabilities(target: Any) -> ScorerCapabilities:
    """Reads what a scorer object, class or function declares.

    Raises:
        UsageError: It has neither method, or needs something unknown.
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
    )


def _dimensions(target: Any, name: str) -> tuple[str, ...]:
    declared = getattr(target, "dimensions", DIMENSIONS)
    dimensions = (declared,) if isinstance(declared, str) else tuple(declared)
    if not dimensions or len(set(dimensions)) < len(dimensions):
        what = "names a dimension twice" if dimensions else "declares no dimension"
        raise UsageError(what, where=name, fix='name each once, such as dimensions = ("sharpness",)')
    return dimensions


def missing_needs(needs: frozenset[str], truth: GroundTruth, generation: Generation) -> list[str]:
    """Returns which needs a sample leaves unmet, in a fixed order; empty when the scorer can look."""
    have = {
        "image": generation.image is not None,
        "truth_image": truth.image is not None,
        "required_text": bool(truth.required_text) or truth.text_required is False,
        "subjects": bool(truth.subjects),
        "references": bool(generation.references),
        "evidence": bool(generation.evidence),
    }
    return [need for need in sorted(needs) if not have[need]]


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
    """Return the record of a score, whose tokens and cost are those of its attempts.

    Args:
        sample: The sample.
        generation: What was scored.
        values: By dimension, each in [0, 1].
        na: Dimensions that do not apply to the sample.
        rationale: Why, in the judge's words.
        attempts: Calls that were made, in order.
        scorer: Name of the scorer; a run writes its own.
        **fields: Further fields of `Score`.
    """
    reading = ParsedScore(status=ScoreStatus.OK, values=dict(values), na=tuple(na), rationale=rationale)
    return Score(
        sample_id=sample.id,
        repeat=generation.repeat,
        scorer=scorer,
        status=ScoreStatus.OK,
        strict=reading,
        attempts=tuple(attempts),
        usage=usage_of(attempts),
        **fields,
    )


def failed_score(sample_id: str, repeat: int, scorer: str, reason: str, **fields: Any) -> Score:
    """Makes the record of a judgement that failed; `fields` are further fields of `Score`."""
    reading = ParsedScore(status=ScoreStatus.FAILED, reason=reason)
    return Score(sample_id=sample_id, repeat=repeat, scorer=scorer, status=ScoreStatus.FAILED, strict=reading, **fields)


def not_applicable_score(sample_id: str, repeat: int, scorer: str, reason: str) -> Score:
    """Makes the record of a sample that lacks what the scorer needs."""
    reading = ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
    return Score(sample_id=sample_id, repeat=repeat, scorer=scorer, status=ScoreStatus.NOT_APPLICABLE, strict=reading)


def usage_of(attempts: Sequence[Attempt]) -> Usage:
    """Returns tokens and cost of several attempts; the cost is None when none of them has a known one."""
    known = [attempt.usage.cost for attempt in attempts if attempt.usage.cost is not None]
    return Usage(
        input_tokens=sum(attempt.usage.input_tokens for attempt in attempts),
        output_tokens=sum(attempt.usage.output_tokens for attempt in attempts),
        cost=math.fsum(known) if known else None,
    )


def with_earlier(traits: ScorerCapabilities, score: Score, sample: Sample, earlier: Sequence[Attempt]) -> Score:
    """Returns a score that also holds the attempts of tries before it: those a `TransientError` carried, or stored ones.

    Where the scorer says how (`reparse`), all attempts are read anew together, because an earlier reply may be the first
    that the official reading takes, even where every try ended in a fault. For any other scorer the attempts and what
    they cost are put before its own.

    Args:
        traits: Of the scorer.
        score: What its last try gave, failed ones included.
        sample: The sample.
        earlier: Attempts made before those of `score`, oldest first.
    """
    if not earlier:
        return score
    attempts = (*earlier, *score.attempts)
    changes: dict[str, Any] = {"attempts": attempts, "usage": usage_of(attempts)}
    if traits.reparse is not None:
        strict, lenient, returned = traits.reparse(attempts, sample)
        if strict.status is ScoreStatus.FAILED and score.strict.reason:
            strict = strict.model_copy(update={"reason": score.strict.reason})
        changes |= {
            "status": strict.status, "strict": strict, "lenient": lenient, "judge_returned": returned,
            "parser": traits.parser,
        }  # fmt: skip
    return score.model_copy(update=changes)
