"""The rows of a submission, from which the statistics compute every figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from knowgen.core.records import GenerationStatus, Row, group_of
from knowgen.leaderboards.records import (
    BoardSample,
    SubmissionResult,
    SubmittedGeneration,
    SubmittedSample,
    SubmittedScore,
)

_NOT_RUN = SubmittedScore()


def rows_of(result: SubmissionResult, samples: Iterable[BoardSample]) -> Iterator[Row]:
    """Yield one row for each sample, repeat and judge repeat of a submission, in the order of the board.

    Category, difficulty and `text_required` come from the board. A sample that the submission does not have, and a
    generation without scores, have not run: they are missing in the coverage, so that leaving samples out raises no
    figure unnoticed. Samples that the board does not have are left out; the check reports them.

    Args:
        result: Result of the submission.
        samples: Samples of the board.
    """
    submitted: dict[str, list[SubmittedSample]] = {}
    for one in result.samples:
        submitted.setdefault(one.id, []).append(one)
    for sample in samples:
        own = submitted.get(sample.id)
        if own is None:
            yield _row(sample, SubmittedGeneration(status=GenerationStatus.NOT_RUN), _NOT_RUN)
            continue
        for generation in (each for one in own for each in one.generations):
            for score in generation.scores or (_NOT_RUN,):
                yield _row(sample, generation, score)


def _row(sample: BoardSample, generation: SubmittedGeneration, score: SubmittedScore) -> Row:
    answer = generation.answer
    return Row(
        sample_id=sample.id,
        category=sample.category,
        group=group_of(sample.category),
        difficulty=sample.difficulty,
        text_required=sample.text_required,
        repeat=generation.repeat,
        judge_repeat=score.judge_repeat,
        generation=generation.status,
        generation_reason=generation.reason,
        generation_cause=generation.cause,
        score_cause=score.cause,
        strict=score.strict,
        lenient=score.lenient,
        judge_returned=score.judge,
        answer=answer.status if answer else None,
        answer_reason=answer.reason if answer else "",
        answer_cause=answer.cause if answer else None,
        ending=answer.ending if answer else "",
        fallback=generation.fallback,
    )
