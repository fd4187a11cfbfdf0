"""What became of each sample of a submission: its state, what it counts as, its images, reasons and rationales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.records import GenerationStatus, ParsedScore
from knowgen.leaderboards.folder import Board, Submission
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration, SubmittedImage, SubmittedScore
from knowgen.leaderboards.rows import rows_of
from knowgen.stats.combine import observed
from knowgen.stats.intervals import DECIMALS
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.values import STATES, plain_mean, read_values


@dataclass(frozen=True)
class SampleOutcome:
    """What became of one sample.

    Attributes:
        sample: Id of the sample.
        state: `scored` if it has any score, otherwise its most frequent state; one of `knowgen.stats.values.STATES`.
        missing: Number of expected scores without values.
        overall: What the sample counts as, in [0, 1]: the weighted mean of the dimensions that apply; None if it is
            left out.
        values: What it counts as by dimension, in [0, 1]; None where it is left out.
        images: Its images, by repeat.
        cost: US dollars for each image; None if unknown.
        seconds: Mean seconds for each image; None if unknown.
        reason: First reason why an image or a score is missing; empty if none is.
        rationales: Explanations of the scores, by repeat and judge repeat; those that are empty are left out.
    """

    sample: str
    state: str
    missing: int
    overall: float | None
    values: tuple[float | None, ...]
    images: tuple[SubmittedImage, ...]
    cost: float | None
    seconds: float | None
    reason: str
    rationales: tuple[str, ...]


def sample_outcomes(submission: Submission, board: Board, protocol: ScoringProtocol) -> tuple[SampleOutcome, ...]:
    """Return what became of each sample of a board, in its order; the submission is read and not kept.

    Args:
        submission: The submission.
        board: Its board.
        protocol: Scoring protocol of the board.

    Raises:
        DataError: The result is missing or not valid, or lists a score twice.
    """
    return result_outcomes(submission.read_result(), board, protocol)


def result_outcomes(result: SubmissionResult, board: Board, protocol: ScoringProtocol) -> tuple[SampleOutcome, ...]:
    """Return what became of each sample of a board in a result; see `sample_outcomes`."""
    dimensions = board.file.scorer.dimensions
    read = read_values(rows_of(result, board.samples), protocol, dimensions)
    counted = observed(read.table, dimensions, protocol)
    places = {unit.id: place for place, unit in enumerate(read.units)}
    generations = {sample.id: sample.generations for sample in result.samples}
    return tuple(
        _outcome(
            sample.id,
            read.coverage[places[sample.id], : len(STATES)].tolist(),
            counted[places[sample.id]].tolist(),
            generations.get(sample.id, ()),
            protocol,
        )
        for sample in board.samples
    )


def _outcome(
    sample: str,
    counts: Sequence[int],
    counted: Sequence[float],
    generations: Sequence[SubmittedGeneration],
    protocol: ScoringProtocol,
) -> SampleOutcome:
    values = [None if math.isnan(value) else round(value, DECIMALS) for value in counted]
    with_image = [one for one in generations if one.image is not None]
    costs = [one.cost for one in with_image if one.cost is not None]
    times = [one.seconds for one in with_image if one.seconds is not None]
    scores = [score for one in generations for score in one.scores]
    missing = sum(counts) - counts[0]
    return SampleOutcome(
        sample=sample,
        state=STATES[0] if counts[0] else STATES[counts.index(max(counts))],
        missing=missing,
        overall=values[-1],
        values=tuple(values[:-1]),
        images=tuple(one.image for one in with_image if one.image is not None),
        cost=round(plain_mean(costs), DECIMALS) if costs and len(costs) == len(with_image) else None,
        seconds=round(plain_mean(times), DECIMALS) if times and len(times) == len(with_image) else None,
        reason=next(filter(None, (_reason(one, protocol) for one in generations)), "") if missing else "",
        rationales=tuple(filter(None, (_reading(score, protocol).rationale for score in scores))),
    )


def _reason(generation: SubmittedGeneration, protocol: ScoringProtocol) -> str:
    """Return why a generation has no image, or the first of its scores is missing; empty if nothing is."""
    if generation.status != GenerationStatus.OK:
        return generation.reason
    return next(filter(None, (_reading(score, protocol).reason for score in generation.scores)), "")


def _reading(score: SubmittedScore, protocol: ScoringProtocol) -> ParsedScore:
    """Return the reading of a score that counts under a protocol."""
    return score.lenient if protocol.reading == "lenient" and score.lenient is not None else score.strict
