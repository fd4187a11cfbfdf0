"""Parsing a judge's reply, strictly and leniently.

`read_lenient` reproduces the published evaluator of KnowGen, including its handling of malformed values.
`read_strict` enforces the contract of `knowgen.scorers.vlm.rubric`, and says what is wrong in words to send back to the
judge. Both parse the stored reply, so that old replies can be parsed again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from knowgen.core.records import DIMENSIONS, TEXT, Attempt, ParsedScore, ScoreStatus
from knowgen.core.text import clean_text
from knowgen.scorers.vlm.rubric import CONTRACT, na_flag

PARSER_VERSION = "knowgen-parser-2"
"""Version of both parsers. Increment it with any change that could parse a reply differently."""

RATIONALE_LIMIT = CONTRACT.rationale_limit
_TRAILING_COMMA = re.compile(r",\s*([}\]])")
_FENCED = re.compile(r"\A```[A-Za-z0-9]*\s*(.*?)\s*```\Z", re.DOTALL)
_OFFICIAL_NA = (True, "true", "True", 1)


@dataclass(frozen=True)
class ReplyError:
    """What is wrong with a reply that breaks the contract.

    Attributes:
        faults: Faults in words to send back to the judge; never empty.
    """

    faults: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.faults)


class _NotJsonError(ValueError):
    """The text cannot be parsed as JSON."""


def read_lenient(text: str) -> ParsedScore | None:
    """Parse a reply as the official evaluator does.

    The text from the first `{` to the last `}` is parsed by Python's `json`, NaN and Infinity included, and if that
    fails once more without commas before closing brackets. A missing dimension is 0. Numbers, numeric strings and
    booleans are clipped to [0, 1] and rounded to 2 decimals; NaN becomes 1. Any other value makes text accuracy N/A,
    and fails the sample in the other dimensions. A number beyond the range of a float fails the sample.

    Args:
        text: Raw reply.

    Returns:
        The parsed score, possibly a failed one; None where the official evaluator asks again: for a reply that is
        empty, not JSON, or not a JSON object.

    Example:
        >>> read_lenient('Sure: {"faithfulness": "0.75", "aesthetics": 7,}').values
        {'faithfulness': 0.75, 'visual_correctness': 0.0, 'text_accuracy': 0.0, 'aesthetics': 1.0}
        >>> read_lenient("I cannot judge this.") is None
        True
    """
    reply = read_object_leniently(text)
    if reply is None:
        return None
    try:
        values, na = _lenient_values(reply)
        rationale = str(reply.get(CONTRACT.rationale, ""))
    except _InvalidValueError as error:
        return ParsedScore(status=ScoreStatus.FAILED, reason=str(error))
    except RecursionError:
        return ParsedScore(status=ScoreStatus.FAILED, reason="the rationale is nested too deeply to be written out")
    return ParsedScore(status=ScoreStatus.OK, values=values, na=na, rationale=clean_text(rationale[:RATIONALE_LIMIT]))


class _InvalidValueError(Exception):
    """A value with which the official evaluator fails the sample."""


def read_object_leniently(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a reply as the official evaluator finds it; None where it asks again."""
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        return None
    body = text[start : end + 1]
    for candidate in (body, _TRAILING_COMMA.sub(r"\1", body)):
        try:
            reply = _parse(candidate)
        except _NotJsonError:
            continue
        return reply if isinstance(reply, dict) else None
    return None


def _parse(
    text: str,
    constant: Callable[[str], Any] | None = None,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse JSON.

    Args:
        text: JSON text.
        constant: As `parse_constant` of `json.loads`.
        pairs: As `object_pairs_hook` of `json.loads`.

    Raises:
        _NotJsonError: It is not JSON, is nested too deeply, or contains an integer with too many digits.
    """
    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise _NotJsonError(str(error)) from error


def _lenient_values(reply: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    values: dict[str, float] = {}
    na: tuple[str, ...] = ()
    for name in DIMENSIONS:
        if name == TEXT and reply.get(na_flag(TEXT)) in _OFFICIAL_NA:
            na = (TEXT,)
            continue
        value = reply.get(name, 0)
        try:
            values[name] = _lenient_number(value)
        except (TypeError, ValueError):
            if name != TEXT:
                raise _InvalidValueError(f"{name} is {quoted(value)}, which is not a number") from None
            na = (TEXT,)
        except OverflowError:
            raise _InvalidValueError(f"{name} is a number too large to be read") from None
    return values, na


def _lenient_number(value: Any) -> float:
    number = float(value)
    if math.isnan(number):
        return 1.0
    return round(min(1.0, max(0.0, number)), 2)


def quoted(value: Any) -> str:
    """Return a value from a reply as text for an error message, at most 40 characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = clean_text(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 40 else f"{text[:40]}…"


def read_strict(text: str, *, text_required: bool | None) -> ParsedScore | ReplyError:
    """Parse a reply by the contract.

    The reply must be one JSON object, at most with white space and one code fence around it. Every dimension must be a
    number of the grid (0, 0.5 or 1; not a boolean or string). Only the flag decides N/A, and it must be true or false:
    with true, text accuracy may be null or a number of the grid, which is ignored; with false it must be a number.
    Where the task version says whether text is required, the flag must agree. A duplicate key is a fault; unknown keys
    are ignored.

    Args:
        text: Raw reply.
        text_required: Whether the task version requires text in the image; None where it does not say.

    Returns:
        A parsed score with status ok, or what is wrong.

    Example:
        >>> reply = '{"rationale": "", "faithfulness": 1, "visual_correctness": 0.5, "text_accuracy": null, '
        >>> reply += '"aesthetics": 1, "text_accuracy_na": true}'
        >>> read_strict(reply, text_required=None).na
        ('text_accuracy',)
        >>> print(read_strict(reply.replace("0.5", "0.7"), text_required=None))
        "visual_correctness" must be the number 0, 0.5 or 1, not 0.7
    """
    reply = read_object(text)
    if isinstance(reply, ReplyError):
        return reply
    faults: list[str] = []
    rationale = reply.get(CONTRACT.rationale)
    if not isinstance(rationale, str):
        faults.append(f'"{CONTRACT.rationale}" must be a string')
        rationale = ""
    na = tuple(name for name in CONTRACT.na_names if _read_na_flag(reply, name, text_required, faults))
    values: dict[str, float] = {}
    for name in CONTRACT.names:
        value = _read_grid_value(reply, name, name in na, faults)
        if value is not None and name not in na:
            values[name] = value
    if faults:
        return ReplyError(tuple(faults))
    return ParsedScore(status=ScoreStatus.OK, values=values, na=na, rationale=clean_text(rationale[:RATIONALE_LIMIT]))


def read_attempts(attempts: Sequence[Attempt], text_required: bool | None) -> tuple[ParsedScore, ParsedScore, str]:
    """Parse the attempts of one score strictly and leniently. Replies of refused attempts are ignored.

    Args:
        attempts: Attempts in order.
        text_required: As for `read_strict`.

    Returns:
        The strict score: from the first reply that meets the contract, else failed with the last fault. The lenient
        score: from the first reply for which the official evaluator would not ask again, else failed. The model name
        returned with the reply used for the strict score, else for the lenient score, else with the last reply.
    """
    return first_valid(attempts, lambda text: read_strict(text, text_required=text_required), read_lenient)


def first_valid(
    attempts: Sequence[Attempt],
    strictly: Callable[[str], ParsedScore | ReplyError],
    leniently: Callable[[str], ParsedScore | None],
) -> tuple[ParsedScore, ParsedScore, str]:
    """Return the strict and the lenient score of the attempts, and the model name; see `read_attempts`.

    Args:
        attempts: Attempts in order.
        strictly: Parses a reply by the contract.
        leniently: Parses a reply leniently; None where the judge would be asked again.
    """
    strict: tuple[ParsedScore, str] | None = None
    lenient: tuple[ParsedScore, str] | None = None
    last_fault, last_model = "the judge was not asked", ""
    for attempt in attempts:
        if attempt.refused:
            last_fault, last_model = attempt.error or "the judge refused", attempt.model or last_model
            continue
        if lenient is None and (loose := leniently(attempt.reply)) is not None:
            lenient = (loose, attempt.model)
        parsed = strictly(attempt.reply)
        last_fault, last_model = attempt.error or str(parsed), attempt.model or last_model
        if isinstance(parsed, ParsedScore):
            strict = (parsed, attempt.model)
            break
    failed = ParsedScore(status=ScoreStatus.FAILED, reason=last_fault)
    returned = next((score[1] for score in (strict, lenient) if score), last_model)
    return strict[0] if strict else failed, lenient[0] if lenient else failed, returned


def read_object(text: str) -> dict[str, Any] | ReplyError:
    """Return the one JSON object of a reply, as strictly as `read_strict`, or what is wrong."""
    body = text.strip()
    fenced = _FENCED.match(body)
    if fenced is not None:
        body = fenced.group(1)
    if not body:
        return ReplyError(("the reply was empty",))
    try:
        reply = _parse(body, constant=_no_constant, pairs=_no_duplicates)
    except _NotJsonError as error:
        return ReplyError((f"the reply is not one JSON object: {_shorten(str(error))}",))
    if not isinstance(reply, dict):
        return ReplyError(("the reply must be a JSON object, not a list or a single value",))
    return reply


def _no_constant(name: str) -> NoReturn:
    raise _NotJsonError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    reply = dict(pairs)
    if len(reply) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise _NotJsonError(f'the key "{clean_text(twice)[:40]}" is given twice')
    return reply


def _shorten(text: str) -> str:
    return " ".join(clean_text(text).split())[:160]


def _read_na_flag(reply: Mapping[str, Any], name: str, text_required: bool | None, faults: list[str]) -> bool:
    """Return the N/A flag of a dimension; add what is wrong with it to `faults`."""
    key = na_flag(name)
    flag = reply.get(key)
    if not isinstance(flag, bool):
        faults.append(f'"{key}" must be true or false')
        return False
    if name == TEXT and text_required is not None and flag is text_required:
        faults.append(
            f'the prompt asks for written text, so "{key}" must be false'
            if text_required
            else f'the prompt asks for no written text, so "{key}" must be true'
        )
    return flag


def _read_grid_value(reply: Mapping[str, Any], name: str, na: bool, faults: list[str]) -> float | None:
    """Return the value of a dimension; None where it is N/A, or wrong, which is added to `faults`."""
    if name not in reply:
        faults.append(f'"{name}" is missing')
        return None
    value = reply[name]
    if value is None and na:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in CONTRACT.grid:
        faults.append(f'"{name}" must be the number {CONTRACT.grid_words}, not {quoted(value)}')
        return None
    return float(value) + 0.0  # -0.0 becomes 0.0
