"""Records as JSON text and as rows of run.sqlite, even if a model or plugin returned text that is not valid Unicode."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from knowgen.core.errors import DataError
from knowgen.core.records import AgentAnswer, Generation, GroundTruth, Record, Sample, Score, Usage
from knowgen.core.secrets import mask_secrets

R = TypeVar("R", bound=Record)

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 1000


def as_json(record: R) -> tuple[R, str]:
    """Return a record and its JSON text.

    A lone surrogate becomes U+FFFD; bytes and objects of other types become text. The returned record equals the text,
    so a paid result is never lost because of one character. Secrets are masked here, because a plugin may repeat one in
    its output.
    """
    try:
        text = record.model_dump_json()
    except PydanticSerializationError:
        record = type(record).model_validate(_plain(record.model_dump()))
        text = record.model_dump_json()
    masked = mask_secrets(text)
    return (record, text) if masked == text else (type(record).model_validate_json(masked), masked)


def from_json(kind: type[R], text: str) -> R:
    """Return the record of a JSON text.

    Raises:
        DataError: The text is damaged, or from another version of the records.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise DataError(
            f"contains a damaged {kind.__name__} ({field}: {first['msg']})",
            where="run.sqlite",
            fix="restore a copy or start again with --fresh",
        ) from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a scalar of an array library
        return _plain(value.item())
    return _SURROGATE.sub("\ufffd", str(value))[:_SHOWN]


Statement = tuple[str, tuple[object, ...]]
"""SQL text and its parameters."""
_SAMPLE = "insert into samples values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_GENERATION = (
    "insert or replace into generations (key, sample_id, repeat, status, reason, image, seconds, cost, attempts,"
    " record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ANSWER = (
    "insert or replace into answers (key, sample_id, repeat, status, reason, ending, seconds, cost, attempts, record)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SCORE = (
    "insert or replace into scores (key, sample_id, repeat, scorer, scorer_hash, judge_repeat, image, status, reason,"
    " strict_values, seconds, cost, tries, record) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_VALUES = json.JSONEncoder(allow_nan=False)


def sample_row(place: int, sample: Sample, truth: GroundTruth) -> Statement:
    """Return the statement that inserts a sample at its place in the selection.

    Raises:
        PydanticSerializationError: The sample contains text or values that are not valid UTF-8 JSON.
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


def answer_cost(answer: AgentAnswer) -> float | None:
    """Return the cost of an agent's answer in US dollars; None where the price of a paid call is not known."""
    total = 0.0
    for part in answer.usage:
        if part.usage.cost is not None:
            total += part.usage.cost
        elif part.calls or part.usage != Usage():
            return None
    return total


def cost_unknown(usage: Usage, *, called: bool) -> bool:
    """Return whether something was paid at an unknown price.

    Args:
        usage: What was used. Without tokens it may be a model that is not billed.
        called: Whether a service that is paid by the call has answered.
    """
    return usage.cost is None and (called or usage.input_tokens + usage.output_tokens > 0)


def answer_row(key: str, answer: AgentAnswer) -> Statement:
    """Return the statement that inserts an answer; it replaces one with the same key and becomes the latest."""
    answer, record = as_json(answer)
    return _ANSWER, (
        key,
        answer.sample_id,
        answer.repeat,
        answer.status.value,
        answer.reason,
        answer.ending,
        answer.seconds,
        answer_cost(answer),
        answer.attempts,
        record,
    )


def generation_row(key: str, generation: Generation) -> Statement:
    """Return the statement that inserts a generation; it replaces one with the same key and becomes the latest."""
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
    """Return the statement that inserts a score.

    Raises:
        ValueError: A strict value is not a finite number.
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
