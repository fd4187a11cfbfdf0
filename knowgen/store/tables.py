"""Records as table rows: the whole record as JSON, and beside it the columns that look-ups need."""

from __future__ import annotations

import json

from knowgen.records import Generation, GroundTruth, Sample, Score
from knowgen.store.plain import as_json

Statement = tuple[str, tuple[object, ...]]

_SAMPLE = "insert into samples values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_GENERATION = (
    "insert or replace into generations (key, sample_id, repeat, status, reason, image, seconds, cost, attempts,"
    " record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SCORE = (
    "insert or replace into scores (key, sample_id, repeat, scorer, scorer_hash, judge_repeat, image, status, reason,"
    " strict_values, seconds, cost, tries, record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_VALUES = json.JSONEncoder(allow_nan=False)


def sample_row(place: int, sample: Sample, truth: GroundTruth) -> Statement:
    """Returns the statement that writes a sample at its place in the selection.

    Raises:
        PydanticSerializationError: It holds text or values that are no UTF-8 JSON.
    """
    file = truth.image.path if truth.image else None
    return _SAMPLE, (
        place,
        sample.id,
        sample.category,
        sample.group,
        sample.difficulty,
        sample.text_required,
        sample.model_dump_json(),
        truth.model_dump_json(),
        str(file.absolute()) if file else "",
    )


def generation_row(key: str, generation: Generation) -> Statement:
    """Returns the statement that writes a drawing; one that replaces another counts as the later."""
    generation, record = as_json(generation)
    return _GENERATION, (
        key,
        generation.sample_id,
        generation.repeat,
        generation.status.value,
        generation.reason,
        generation.image.sha256 if generation.image else "",
        generation.seconds,
        generation.usage.cost,
        generation.attempts,
        record,
    )


def score_row(key: str, score: Score, scorer_hash: str) -> Statement:
    """Returns the statement that writes a judgement.

    Raises:
        ValueError: A value of the strict reading is no finite number.
    """
    score, record = as_json(score)
    return _SCORE, (
        key,
        score.sample_id,
        score.repeat,
        score.scorer,
        scorer_hash,
        score.judge_repeat,
        score.image,
        score.status.value,
        score.strict.reason,
        _VALUES.encode(score.strict.values),
        score.seconds,
        score.usage.cost,
        score.tries,
        record,
    )
