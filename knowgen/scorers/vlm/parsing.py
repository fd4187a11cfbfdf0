"""Reads a judge's reply, in two ways.

`read_lenient` is the official reading of the KnowGen protocol, faults included: whatever it makes of a strange value is
what the published evaluator makes of it. `read_strict` holds to the contract of `knowgen.scorers.vlm.rubric` and says what
is wrong in words that can be sent back to the judge. Both read the same stored text, so old replies can be read anew.
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
"""Raised whenever a reply could be read differently than before."""

RATIONALE_LIMIT = CONTRACT.rationale_limit
_TRAILING_COMMA = re.compile(r",\s*([}\]])")
_FENCED = re.compile(r"\A```[A-Za-z0-9]*\s*(.*?)\s*```\Z", re.DOTALL)
_OFFICIAL_NA = (True, "true", "True", 1)


@dataclass(frozen=True)
class ReplyError:
    """A reply that does not meet the contract.

    Attributes:
        faults: What is wrong, each in words a judge can act on; never empty.
    """

    faults: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.faults)


class _NotJsonError(ValueError):
    """The text is no JSON that can be read."""


def read_lenient(text: str) -> ParsedScore | None:
    """Reads a reply as the official evaluator does.

    From the first `{` to the last `}` (which also drops any fence); parsed as Python's `json` does, NaN and Infinity
    included; if that fails, once more without the commas that stand before a closing bracket. A dimension that is
    missing is 0; numbers, numeric strings and booleans are clipped to [0, 1] and rounded to 2 decimals, NaN becoming 1.
    Any other value makes text accuracy N/A and fails the sample in the other dimensions. A number beyond the range of
    a float fails the sample in every dimension.

    Args:
        text: The raw reply.

    Returns:
        The reading, which may be a failed one; None where the official evaluator asks again: an empty reply, one that
        is not JSON, or JSON that is not an object.
    """
    found = _official_object(text)
    if found is None:
        return None
    try:
        values, na = _official_values(found)
        rationale = str(found.get(CONTRACT.rationale, ""))
    except _UnusableError as error:
        return ParsedScore(status=ScoreStatus.FAILED, reason=str(error))
    except RecursionError:
        return ParsedScore(status=ScoreStatus.FAILED, reason="the rationale is nested too deeply to be written out")
    return ParsedScore(status=ScoreStatus.OK, values=values, na=na, rationale=clean_text(rationale[:RATIONALE_LIMIT]))


class _UnusableError(Exception):
    """A value that fails the sample under the official reading."""


def _official_object(text: str) -> dict[str, Any] | None:
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        return None
    body = text[start : end + 1]
    for candidate in (body, _TRAILING_COMMA.sub(r"\1", body)):
        try:
            found = _parse(candidate)
        except _NotJsonError:
            continue
        return found if isinstance(found, dict) else None
    return None


def _parse(
    text: str,
    constant: Callable[[str], Any] | None = None,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parses JSON; nesting or digits without end are no JSON that can be read."""
    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise _NotJsonError(str(error)) from error


def _official_values(found: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    values: dict[str, float] = {}
    na: tuple[str, ...] = ()
    for name in DIMENSIONS:
        if name == TEXT and found.get(na_flag(TEXT)) in _OFFICIAL_NA:
            na = (TEXT,)
            continue
        value = found.get(name, 0)
        try:
            values[name] = _official_number(value)
        except (TypeError, ValueError):
            if name != TEXT:
                raise _UnusableError(f"{name} is {_shown(value)}, which is no number") from None
            na = (TEXT,)
        except OverflowError:
            raise _UnusableError(f"{name} is a number too large to be read") from None
    return values, na


def _official_number(value: Any) -> float:
    number = float(value)
    if math.isnan(number):
        return 1.0
    return round(min(1.0, max(0.0, number)), 2)


def _shown(value: Any) -> str:
    """Writes a value from a reply for an error message, shortened."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = clean_text(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 40 else f"{text[:40]}…"


def read_strict(text: str, *, text_required: bool | None) -> ParsedScore | ReplyError:
    """Reads a reply by the contract.

    The reply must be one JSON object; white space and one code fence around it are tolerated, words before or after
    are not. Every dimension must be there and be a number of the grid (0, 0.5, 1; no booleans, no strings).
    N/A is taken from the flag alone, which must be true or false: with true, text accuracy may be null or a number of
    the grid, which is then not used; with false it must be a number. Where the task settled whether text is required,
    the flag must agree. A key given twice is a fault; keys the contract does not know are ignored.

    Args:
        text: The raw reply.
        text_required: What the task version settled; None where it has not.

    Returns:
        An ok reading, or what is wrong.
    """
    found = _contract_object(text)
    if isinstance(found, ReplyError):
        return found
    faults: list[str] = []
    rationale = found.get(CONTRACT.rationale)
    if not isinstance(rationale, str):
        faults.append(f'"{CONTRACT.rationale}" must be a string')
        rationale = ""
    na = tuple(name for name in CONTRACT.na_names if _flag(found, name, text_required, faults))
    values: dict[str, float] = {}
    for name in CONTRACT.names:
        value = _grid_value(found, name, name in na, faults)
        if value is not None and name not in na:
            values[name] = value
    if faults:
        return ReplyError(tuple(faults))
    return ParsedScore(status=ScoreStatus.OK, values=values, na=na, rationale=clean_text(rationale[:RATIONALE_LIMIT]))


def read_attempts(attempts: Sequence[Attempt], text_required: bool | None) -> tuple[ParsedScore, ParsedScore, str]:
    """Reads the attempts of one judgement both ways. From a refused one nothing is read, whatever its reply holds.

    Returns:
        The strict reading: the first reply that meets the contract, else failed with the last fault. The lenient one:
        the first reply that the official evaluator would not ask again, else failed. And the model name that came
        with the reply that was read (strict before lenient before the last).
    """
    strict: tuple[ParsedScore, str] | None = None
    lenient: tuple[ParsedScore, str] | None = None
    last_fault, last_model = "the judge was not asked", ""
    for attempt in attempts:
        if attempt.refused:
            last_fault, last_model = attempt.error or "the judge refused", attempt.model or last_model
            continue
        if lenient is None and (official := read_lenient(attempt.reply)) is not None:
            lenient = (official, attempt.model)
        found = read_strict(attempt.reply, text_required=text_required)
        last_fault, last_model = attempt.error or str(found), attempt.model or last_model
        if isinstance(found, ParsedScore):
            strict = (found, attempt.model)
            break
    readings = (
        strict[0] if strict else ParsedScore(status=ScoreStatus.FAILED, reason=last_fault),
        lenient[0] if lenient else ParsedScore(status=ScoreStatus.FAILED, reason=last_fault),
    )
    return *readings, next((found[1] for found in (strict, lenient) if found), last_model)


def _contract_object(text: str) -> dict[str, Any] | ReplyError:
    body = text.strip()
    fenced = _FENCED.match(body)
    if fenced is not None:
        body = fenced.group(1)
    if not body:
        return ReplyError(("the reply was empty",))
    try:
        found = _parse(body, constant=_no_constant, pairs=_no_duplicates)
    except _NotJsonError as error:
        return ReplyError((f"the reply is not one JSON object: {_first_words(str(error))}",))
    if not isinstance(found, dict):
        return ReplyError(("the reply must be a JSON object, not a list or a single value",))
    return found


def _no_constant(name: str) -> NoReturn:
    raise _NotJsonError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise _NotJsonError(f'the key "{clean_text(twice)[:40]}" is given twice')
    return found


def _first_words(text: str) -> str:
    return " ".join(clean_text(text).split())[:160]


def _flag(found: Mapping[str, Any], name: str, text_required: bool | None, faults: list[str]) -> bool:
    """Returns the N/A flag of a dimension, noting what is wrong with it."""
    key = na_flag(name)
    flag = found.get(key)
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


def _grid_value(found: Mapping[str, Any], name: str, na: bool, faults: list[str]) -> float | None:
    """Returns a dimension's value, or None when it is N/A or wrong, in which case the fault is noted."""
    if name not in found:
        faults.append(f'"{name}" is missing')
        return None
    value = found[name]
    if value is None and na:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in CONTRACT.grid:
        faults.append(f'"{name}" must be the number {CONTRACT.grid_words}, not {_shown(value)}')
        return None
    return float(value) + 0.0  # -0.0 becomes 0.0


def read_object(text: str) -> dict[str, Any] | ReplyError:
    """Reads the one JSON object that any contract asks for, as strictly as `read_strict`, or says what is wrong."""
    return _contract_object(text)


def read_object_leniently(text: str) -> dict[str, Any] | None:
    """Reads a JSON object as the official evaluator does: see `read_lenient`. None where it would ask again."""
    return _official_object(text)


def shown(value: Any) -> str:
    """Writes a value from a reply for an error message, shortened."""
    return _shown(value)
