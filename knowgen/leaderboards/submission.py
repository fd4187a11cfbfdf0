"""Make the result of a submission, and the replies of its judge, from a run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.images import open_rgb
from knowgen.core.records import Generation, ImageRef, ParsedScore, Row
from knowgen.core.secrets import mask_published_forms
from knowgen.core.steps import counted
from knowgen.core.version import __version__
from knowgen.leaderboards.images import SubmissionImages
from knowgen.leaderboards.records import (
    SubmissionResult,
    SubmittedAnswer,
    SubmittedCost,
    SubmittedGeneration,
    SubmittedImage,
    SubmittedReply,
    SubmittedSample,
    SubmittedScore,
)
from knowgen.search.leaks import perceptual_hash
from knowgen.stats.summary import Summary
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.rows import answer_cost, cost_unknown
from knowgen.store.run import UNPRICED_NOTE, RunStore


def result_of(store: RunStore, summary: Summary) -> SubmissionResult:
    """Return the result of a run, whose figures are those of a summary.

    Texts are published, so everything that looks like a key is masked in them.

    Args:
        store: The run, open for reading.
        summary: Its summary under the scorer and protocol of the board.

    Raises:
        DataError: An image does not open, or the scores are from several rubrics.
    """
    scorer = next(each for each in store.spec.scorers if each.name == summary.scorer)
    reader = _RunReader(store, scorer.name)
    samples = tuple(reader.samples())
    if len(reader.rubrics) > 1:
        fix = f"score it again: `knowgen score {store.path} --scorer {scorer.name} --fresh`"
        raise DataError(f"the scores of {scorer.name} are from {len(reader.rubrics)} rubrics", fix=fix)
    return SubmissionResult(
        format=1,
        knowgen=__version__,
        created=store.manifest.started,
        spec=store.spec,
        scorer=scorer,
        rubric=next(iter(reader.rubrics), ""),
        protocol=summary.protocol,
        protocol_version=summary.protocol_version,
        judges=dict(sorted(reader.judges.items())),
        claimed={name: figure.value for name, figure in summary.slice().figures.items()},
        coverage=summary.slice().coverage,
        cost=_costs(store, scorer.name, summary.cost),
        seconds=None if summary.seconds is None else _rounded(summary.seconds),
        machine=machine_words(store.manifest.machine),
        samples=samples,
    )


def with_images(store: RunStore, result: SubmissionResult, images: SubmissionImages) -> SubmissionResult:
    """Keep the images of a result, and return it with the names of their files.

    Args:
        store: The run, open for reading.
        result: Its result.
        images: Where to keep the images.

    Raises:
        DataError: An image does not open, or has other content than the one that was scored.
    """

    def kept(generation: SubmittedGeneration) -> SubmittedGeneration:
        image = generation.image
        if image is None:
            return generation
        ref = ImageRef(sha256=image.sha256, width=image.width, height=image.height, format=image.format)
        files = images.keep(ref, store.image_path(ref))
        return generation.model_copy(update={"image": image.model_copy(update=files)})

    samples = tuple(
        sample.model_copy(update={"generations": tuple(map(kept, sample.generations))})
        for sample in counted(result.samples, "copying images")
    )
    return result.model_copy(update={"samples": samples})


def replies_of(store: RunStore, scorer: str) -> Iterator[SubmittedReply]:
    """Yield every call of the judge for the current scores, oldest first within a score; none of one that measures."""
    for _, score in store.scores(scorer):
        for number, attempt in enumerate(score.attempts):
            yield SubmittedReply(
                sample=score.sample_id,
                repeat=score.repeat,
                judge_repeat=score.judge_repeat,
                attempt=number,
                model=attempt.model,
                reply=mask_published_forms(attempt.reply),
                error=mask_published_forms(attempt.error),
                refused=attempt.refused,
                reasoning=mask_published_forms(attempt.reasoning),
            )


def machine_words(facts: Mapping[str, Any]) -> str:
    """Return a machine in words, without its name and the version of its kernel, which a board does not need.

    Args:
        facts: `Manifest.machine`.

    Example:
        >>> facts = {"host": "lab-7", "system": "Linux-6.1.0-x86_64", "processor": "x86_64", "cores": 8}
        >>> machine_words({**facts, "accelerators": ["NVIDIA A100", "NVIDIA A100"]})
        '2 x NVIDIA A100; 8 cores; Linux x86_64'
    """
    accelerators = Counter(str(each) for each in facts.get("accelerators") or ())
    parts = [name if number == 1 else f"{number} x {name}" for name, number in sorted(accelerators.items())]
    parts += [f"{facts['cores']} cores"] if facts.get("cores") else []
    parts += [f"{facts['memory_gib']} GiB"] if facts.get("memory_gib") else []
    system = " ".join(filter(None, (str(facts.get("system", "")).partition("-")[0], str(facts.get("processor", "")))))
    return "; ".join(filter(None, (*parts, system)))


class _RunReader:
    """Reads the samples of a run, and counts judges and rubrics."""

    def __init__(self, store: RunStore, scorer: str) -> None:
        self.judges: Counter[str] = Counter()
        self.rubrics: Counter[str] = Counter()
        self._store, self._scorer = store, scorer
        self._unpriced = any(True for _ in store.notes(UNPRICED_NOTE))
        self._answers = {
            (answer.sample_id, answer.repeat): (answer.seconds, answer_cost(answer)) for _, answer in store.answers()
        }

    def samples(self) -> Iterator[SubmittedSample]:
        generations: list[SubmittedGeneration] = []
        name: str | None = None
        for expected in counted(self._store.expected_generations(self._scorer), "reading results and images"):
            if name is not None and expected.sample.id != name:
                yield SubmittedSample(id=name, generations=tuple(generations))
                generations = []
            name = expected.sample.id
            generations.append(self._generation(expected))
        if name is not None:
            yield SubmittedSample(id=name, generations=tuple(generations))

    def _generation(self, expected: ExpectedGeneration) -> SubmittedGeneration:
        rows = expected.rows()
        first, generation = rows[0], expected.generation
        self._count(expected)
        return SubmittedGeneration(
            repeat=expected.repeat,
            status=first.generation,
            reason=mask_published_forms(first.generation_reason),
            cause=first.generation_cause,
            image=self._image(generation) if generation is not None else None,
            used_prompt=mask_published_forms(generation.used_prompt) if generation is not None else "",
            seconds=self._seconds(expected),
            cost=self._cost(expected),
            answer=_answer(first),
            fallback=mask_published_forms(first.fallback),
            scores=tuple(
                SubmittedScore(
                    judge_repeat=row.judge_repeat,
                    strict=_masked(row.strict),
                    lenient=None if row.lenient is None else _masked(row.lenient),
                    cause=row.score_cause,
                    judge=row.judge_returned,
                )
                for row in rows
            ),
        )

    def _count(self, expected: ExpectedGeneration) -> None:
        for score in expected.scores:
            if score is not None:
                self.judges.update([score.judge_returned] if score.judge_returned else [])
                rubric = score.details.get("rubric_hash")
                self.rubrics.update([rubric] if isinstance(rubric, str) else [])

    def _seconds(self, expected: ExpectedGeneration) -> float | None:
        """Return the time of agent and image model; None for an image that was read and not timed."""
        own = expected.generation.seconds if expected.generation is not None else 0.0
        return _rounded(own + self._answer_of(expected)[0]) if own else None

    def _cost(self, expected: ExpectedGeneration) -> float | None:
        """Return the cost of agent and image model; 0 of a model without tokens in a run without unpriced calls."""
        if expected.generation is None:
            return None
        usage, answer = expected.generation.usage, self._answer_of(expected)[1]
        if answer is None or cost_unknown(usage, called=self._unpriced):
            return None
        return _dollars((usage.cost or 0.0) + answer)

    def _answer_of(self, expected: ExpectedGeneration) -> tuple[float, float | None]:
        return self._answers.get((expected.sample.id, expected.repeat), (0.0, 0.0))

    def _image(self, generation: Generation) -> SubmittedImage | None:
        if generation.image is None:
            return None
        ref = generation.image
        return SubmittedImage(
            sha256=ref.sha256,
            width=ref.width,
            height=ref.height,
            format=ref.format,
            perceptual=perceptual_hash(open_rgb(self._store.image_path(ref))).tobytes().hex(),
        )


def _answer(row: Row) -> SubmittedAnswer | None:
    if row.answer is None:
        return None
    reason = mask_published_forms(row.answer_reason)
    return SubmittedAnswer(status=row.answer, reason=reason, cause=row.answer_cause, ending=row.ending)


def _masked(score: ParsedScore) -> ParsedScore:
    texts = {name: mask_published_forms(getattr(score, name)) for name in ("rationale", "reason")}
    return score.model_copy(update=texts)


def _costs(store: RunStore, scorer: str, total: float | None) -> SubmittedCost:
    agent = _total(answer_cost(answer) for _, answer in store.answers())
    generation = _total(
        None if cost_unknown(each.usage, called=False) else each.usage.cost or 0.0
        for _, each in store.generations(paths=False)
    )
    scoring = _total(
        None
        if any(cost_unknown(attempt.usage, called=bool(attempt.reply)) for attempt in score.attempts)
        else score.usage.cost or 0.0
        for _, score in store.scores(scorer)
    )
    return SubmittedCost(
        agent=agent, generation=generation, scoring=scoring, total=None if total is None else _dollars(total)
    )


def _total(costs: Iterator[float | None]) -> float | None:
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return _dollars(total)


def _rounded(seconds: float) -> float:
    """Round a duration to milliseconds."""
    return round(seconds, 3)


def _dollars(cost: float) -> float:
    """Round a cost to a millionth of a dollar."""
    return round(cost, 6)
