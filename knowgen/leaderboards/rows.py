"""The rows of a submission, from which the statistics compute every figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from knowgen.core.records import Row, group_of
from knowgen.leaderboards.records import BoardSample, SubmissionResult


def rows_of(result: SubmissionResult, samples: Iterable[BoardSample]) -> Iterator[Row]:
    """Yield one row for each sample, repeat and judge repeat of a submission.

    Category, difficulty and `text_required` come from the board. Samples that the board does not have are left out; the
    check reports them.

    Args:
        result: Result of the submission.
        samples: Samples of the board.
    """
    known: Mapping[str, BoardSample] = {sample.id: sample for sample in samples}
    for submitted in result.samples:
        sample = known.get(submitted.id)
        if sample is None:
            continue
        for generation in submitted.generations:
            answer = generation.answer
            for score in generation.scores:
                yield Row(
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
