"""The samples of a submission: complete, each state consistent, each value one that the scorer can give."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from knowgen.core.records import DIMENSIONS, TEXT, GenerationStatus, ParsedScore, ScoreStatus
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.findings import BoardFinding, error
from knowgen.leaderboards.folder import RESULT_FILE, Board
from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration, SubmittedSample, SubmittedScore
from knowgen.stats.protocol import get_protocol

MOST_IDS = 5
"""Number of ids that a finding names."""

CLOCK_ERROR = timedelta(hours=1)
"""How far a clock may be ahead."""

_AGAIN = "make the file again with `knowgen board add`"
_HASH_DIGITS = 64


def check_ids(result: SubmissionResult, board: Board) -> Iterator[BoardFinding]:
    """Yield missing, unknown and repeated samples, repeats and judge repeats, and samples out of order."""
    known = [sample.id for sample in board.samples]
    ids = [sample.id for sample in result.samples]
    if missing := sorted(set(known) - set(ids)):
        what = f"{count(len(missing), 'sample')} of the board missing: {named(missing)}"
        yield error("ids", RESULT_FILE, what, "a submission covers all samples, the failed ones included")
    if unknown := sorted(set(ids) - set(known)):
        what = f"{count(len(unknown), 'sample')} that the board does not have: {named(unknown)}"
        yield error("ids", RESULT_FILE, what, "remove them, or submit to the board of their task")
    if double := sorted(name for name, number in Counter(ids).items() if number > 1):
        yield error("ids", RESULT_FILE, f"{count(len(double), 'sample')} more than once: {named(double)}", _AGAIN)
    if not missing and not unknown and not double and ids != known:
        yield error("ids", RESULT_FILE, "the samples are not in the order of the task", _AGAIN)
    for sample in result.samples:
        yield from _check_repeats(sample, result)


def _check_repeats(sample: SubmittedSample, result: SubmissionResult) -> Iterator[BoardFinding]:
    repeats = [one.repeat for one in sample.generations]
    wanted = range(result.spec.repeats)
    if not _equal_numbers(repeats, wanted):
        yield error("ids", _place(sample), f"has repeats {_numbers(repeats)} instead of {_numbers(wanted)}", _AGAIN)
    wanted = range(result.spec.judge_repeats_of(result.scorer))
    for generation in sample.generations:
        numbers = [score.judge_repeat for score in generation.scores]
        if not _equal_numbers(numbers, wanted):
            what = f"has judge repeats {_numbers(numbers)} instead of {_numbers(wanted)}"
            yield error("ids", _place(sample, generation), what, _AGAIN)


def _equal_numbers(numbers: Sequence[int], wanted: range) -> bool:
    """Return whether numbers are those of a range, whose length a submission states and which may be any."""
    return wanted.stop == len(numbers) and all(own == number for own, number in zip(numbers, wanted, strict=True))


def _numbers(numbers: Sequence[int]) -> str:
    """Return the first numbers, and that there are more."""
    shown = ", ".join(str(number) for number in numbers[:MOST_IDS]) or "none"
    return shown if not numbers[MOST_IDS:] else f"{shown} and more"


def named(ids: Sequence[str]) -> str:
    """Return the first ids of a list, and how many more there are."""
    shown = ", ".join(repr(one_line(each, 60)) for each in ids[:MOST_IDS])
    return shown if len(ids) <= MOST_IDS else f"{shown} and {len(ids) - MOST_IDS} more"


def _place(sample: SubmittedSample, generation: SubmittedGeneration | None = None, score: int | None = None) -> str:
    """Return file, sample, repeat and judge repeat; a number of 0 is left out."""
    place = f"{RESULT_FILE}, sample {one_line(sample.id, 60)!r}"
    if generation is not None and generation.repeat:
        place += f", repeat {generation.repeat}"
    return f"{place}, judge repeat {score}" if score else place


def check_states(result: SubmissionResult, board: Board) -> Iterator[BoardFinding]:
    """Yield states that contradict each other: an image that is missing, a score without one, a value out of range."""
    for sample in result.samples:
        for generation in sample.generations:
            where = _place(sample, generation)
            yield from _check_generation(generation, result, where)
            for score in generation.scores:
                yield from _check_score(score, generation, board, _place(sample, generation, score.judge_repeat))


def _check_generation(generation: SubmittedGeneration, result: SubmissionResult, where: str) -> Iterator[BoardFinding]:
    ok = generation.status is GenerationStatus.OK
    if ok and generation.image is None:
        yield error("states", where, "the generation is ok and has no image", _AGAIN)
    if not ok and generation.image is not None:
        yield error("states", where, f"the generation is {generation.status.value} and has an image", _AGAIN)
    if ok and generation.cause is not None:
        yield error("states", where, "the generation is ok and has a cause of failure", _AGAIN)
    if generation.status in (GenerationStatus.FAILED, GenerationStatus.REFUSED) and not generation.reason.strip():
        yield error("states", where, f"the generation {generation.status.value} without a reason", "write the reason")
    if generation.image is not None and not _is_hash(generation.image.perceptual):
        yield error("states", where, "the perceptual hash is not one of 64 hexadecimal digits", _AGAIN)
    agent = result.spec.agent is not None
    if agent != (generation.answer is not None):
        what = "has no answer of the agent" if agent else "has an answer, and the run has no agent"
        yield error("states", where, what, _AGAIN)
    if generation.fallback and not agent:
        yield error("states", where, "has a fallback, and the run has no agent", _AGAIN)


def _is_hash(text: str) -> bool:
    try:
        return len(text) == _HASH_DIGITS and len(bytes.fromhex(text)) == _HASH_DIGITS // 2
    except ValueError:
        return False


def _check_score(
    score: SubmittedScore, generation: SubmittedGeneration, board: Board, where: str
) -> Iterator[BoardFinding]:
    if score.cause is not None and score.strict.status is not ScoreStatus.FAILED:
        yield error("states", where, f"the score is {score.strict.status.value} and has a cause of failure", _AGAIN)
    for reading, parsed in (("strict", score.strict), ("lenient", score.lenient)):
        if parsed is None:
            continue
        name = "score" if score.lenient is None else f"{reading} score"
        if generation.status is not GenerationStatus.OK and parsed.status is not ScoreStatus.NOT_RUN:
            what = f"the {name} is {parsed.status.value}, without an image"
            yield error("states", where, what, "a score without an image is `not_run`")
        elif parsed.status is not ScoreStatus.OK and parsed.values:
            yield error("states", where, f"the {name} is {parsed.status.value} and has values", _AGAIN)
        elif parsed.status is ScoreStatus.OK:
            grid = reading == "strict" and score.lenient is not None
            yield from _check_values(parsed, board, name, where, grid=grid)
        elif parsed.status is ScoreStatus.FAILED and not parsed.reason.strip():
            yield error("states", where, f"the {name} failed without a reason", "write the reason")
        elif parsed.status is ScoreStatus.NOT_APPLICABLE and reading == "strict" and _is_k_score(board):
            yield error("states", where, f"the {name} is not applicable", "the K-Score applies to every image")
    if score.judge and not board.file.scorer.judges:
        yield error("states", where, "names a judge, and the board's scorer has none", _AGAIN)


def _check_values(parsed: ParsedScore, board: Board, name: str, where: str, *, grid: bool) -> Iterator[BoardFinding]:
    dimensions = board.file.scorer.dimensions
    if unknown := sorted({*parsed.values, *parsed.na} - set(dimensions)):
        fix = f"the board's scorer gives {', '.join(dimensions)}"
        yield error("values", where, f"the {name} has the unknown dimension {named(unknown)}", fix)
    if both := sorted(set(parsed.values) & set(parsed.na)):
        yield error("values", where, f"{', '.join(both)} of the {name} is not applicable and has a value", _AGAIN)
    if left_out := sorted(set(parsed.na) & set(dimensions) - {TEXT}) if _is_k_score(board) else []:
        what = f"{', '.join(left_out)} of the {name} is not applicable"
        yield error("values", where, what, f"of the K-Score only {TEXT} may not apply to an image")
    if absent := [each for each in dimensions if each not in parsed.values and each not in parsed.na]:
        fix = "score the image again: an ok score has every dimension"
        yield error("values", where, f"{', '.join(absent)} of the {name} is missing", fix)
    protocol = get_protocol(board.file.protocol)
    on_grid = grid and protocol.off_grid == "fail" and _is_k_score(board)
    for dimension, value in parsed.values.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            yield error(
                "values", where, f"{one_line(dimension, 60)} of the {name} is {value:g}", "values are in [0, 1]"
            )
        elif on_grid and value not in protocol.grid:
            allowed = ", ".join(f"{each:g}" for each in protocol.grid)
            what = f"{one_line(dimension, 60)} of the {name} is {value:g}"
            yield error("values", where, what, f"a judge gives one of {allowed}")


def _is_k_score(board: Board) -> bool:
    return set(board.file.scorer.dimensions) == set(DIMENSIONS)


def check_facts(result: SubmissionResult, now: datetime) -> Iterator[BoardFinding]:
    """Yield costs and times that cannot be.

    Args:
        result: Result of the submission.
        now: The current time, with its time zone.
    """
    for name, value in result.cost.model_dump().items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield error("facts", RESULT_FILE, f"cost.{name} is {value:g}", "a cost is 0 or more US dollars")
    created = created_at(result.created)
    if created is None:
        what = f"created is {one_line(result.created, 60)!r}"
        yield error(
            "facts", RESULT_FILE, what, "write a date and time with its zone, such as 2026-01-31T12:00:00+00:00"
        )
    elif created > now + CLOCK_ERROR:
        fix = "correct the clock of that machine, and make the submission again"
        yield error("facts", RESULT_FILE, f"created in the future: {one_line(result.created, 60)}", fix)


def created_at(text: str) -> datetime | None:
    """Return the time of an ISO 8601 text with its time zone; None if it is none.

    Example:
        >>> created_at("2026-01-31T12:00:00+00:00").year, created_at("yesterday")
        (2026, None)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo is not None else None
