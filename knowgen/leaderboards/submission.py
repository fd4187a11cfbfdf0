"""Make the files of a submission from a run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from knowgen.core.images import open_rgb
from knowgen.core.records import Generation, Row
from knowgen.core.version import __version__
from knowgen.leaderboards.records import (
    SubmissionResult,
    SubmittedAnswer,
    SubmittedCost,
    SubmittedGeneration,
    SubmittedImage,
    SubmittedSample,
    SubmittedScore,
)
from knowgen.search.leaks import perceptual_hash
from knowgen.stats.summary import Summary
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.run import RunStore


def result_of(store: RunStore, summary: Summary) -> SubmissionResult:
    """Return the result of a run, whose figures are those of a summary.

    Args:
        store: The run, open for reading.
        summary: Its summary under the scorer and protocol of the board.
    """
    scorer = next(each for each in store.spec.scorers if each.name == summary.scorer)
    samples = tuple(_samples(store, scorer.name))
    judges = Counter(
        score.judge for sample in samples for one in sample.generations for score in one.scores if score.judge
    )
    return SubmissionResult(
        format=1,
        knowgen=__version__,
        created=store.manifest.started,
        spec=store.spec,
        scorer=scorer,
        protocol=summary.protocol,
        protocol_version=summary.protocol_version,
        judges=dict(sorted(judges.items())),
        claimed={name: figure.value for name, figure in summary.slice().figures.items()},
        coverage=summary.slice().coverage,
        cost=SubmittedCost(total=summary.cost),
        seconds=summary.seconds,
        samples=samples,
    )


def _samples(store: RunStore, scorer: str) -> Iterator[SubmittedSample]:
    generations: list[SubmittedGeneration] = []
    name = ""
    for expected in store.expected_generations(scorer):
        if name and expected.sample.id != name:
            yield SubmittedSample(id=name, generations=tuple(generations))
            generations = []
        name = expected.sample.id
        generations.append(_generation(store, expected))
    if name:
        yield SubmittedSample(id=name, generations=tuple(generations))


def _generation(store: RunStore, expected: ExpectedGeneration) -> SubmittedGeneration:
    rows = expected.rows()
    first, generation = rows[0], expected.generation
    return SubmittedGeneration(
        repeat=expected.repeat,
        status=first.generation,
        reason=first.generation_reason,
        cause=first.generation_cause,
        image=_image(store, generation) if generation is not None else None,
        used_prompt=generation.used_prompt if generation is not None else "",
        seconds=generation.seconds if generation is not None else 0.0,
        cost=generation.usage.cost if generation is not None else None,
        answer=_answer(first),
        fallback=first.fallback,
        scores=tuple(
            SubmittedScore(
                judge_repeat=row.judge_repeat,
                strict=row.strict,
                lenient=row.lenient,
                cause=row.score_cause,
                judge=row.judge_returned,
            )
            for row in rows
        ),
    )


def _answer(row: Row) -> SubmittedAnswer | None:
    if row.answer is None:
        return None
    return SubmittedAnswer(status=row.answer, reason=row.answer_reason, cause=row.answer_cause, ending=row.ending)


def _image(store: RunStore, generation: Generation) -> SubmittedImage | None:
    if generation.image is None:
        return None
    ref = generation.image
    return SubmittedImage(
        sha256=ref.sha256,
        width=ref.width,
        height=ref.height,
        format=ref.format,
        perceptual=perceptual_hash(open_rgb(store.image_path(ref))).tobytes().hex(),
    )
