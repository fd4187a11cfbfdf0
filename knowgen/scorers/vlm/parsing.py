"""Parsing a judge's reply, strictly and leniently.

`read_lenient` reproduces the published evaluator of KnowGen, including its handling of malformed values.
`read_strict` enforces the contract of `knowgen.scorers.vlm.rubric`, and says what is wrong in words to send back to the
judge. Both parse the stored reply, so that old replies can be parsed again. A score says which part of the reply its
values were read from (`ParsedScore.read_from`): the strict parser sets a model's reasoning aside, the lenient one does
what the published evaluator does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from knowgen.clients.chat.reasoning import split_reasoning
from knowgen.core.records import DIMENSIONS, TEXT, Attempt, ParsedScore, ScoreStatus
from knowgen.core.text import clean_text
from knowgen.scorers.vlm.rubric import CONTRACT, na_flag

PARSER_VERSION = "knowgen-parser-3"
"""Version of both parsers. Increment it with any change that could parse a reply differently."""

RATIONALE_LIMIT = CONTRACT.rationale_limit
_TRAILING_COMMA = re.compile(r",\s*([}\]])")
_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z0-9]*")
_OFFICIAL_NA = (True, "true", "True", 1)

UNREADABLE = "the official evaluator cannot read it"
"""Begins the fault of a reply that the official evaluator could not parse."""


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
    return ParsedScore(
        status=ScoreStatus.OK,
        values=values,
        na=na,
        rationale=clean_text(rationale[:RATIONALE_LIMIT]),
        read_from=lenient_part(text),
    )


class _InvalidValueError(Exception):
    """A value with which the official evaluator fails the sample."""


def lenient_part(text: str) -> str:
    """Return which part of a reply the lenient parser reads, empty for the whole."""
    body = text.strip()
    return "" if body.startswith("{") and body.endswith("}") else "from the first { to the last }"


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

    The reply must be one JSON object, at most with white space and one code fence around it, or with reasoning or an
    introduction before a fence, which are set aside (`find_answer`). Every dimension must be a number of the grid (0,
    0.5 or 1; not a boolean or string). Only the flag decides N/A, and it must be true or false: with true, text
    accuracy may be null or a number of the grid, which is ignored; with false it must be a number. Where the task
    version says whether text is required, the flag must agree. A duplicate key is a fault; unknown keys are ignored.

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
    answer = find_answer(text)
    if isinstance(answer, ReplyError):
        return answer
    reply, read_from = answer
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
    return ParsedScore(
        status=ScoreStatus.OK,
        values=values,
        na=na,
        rationale=clean_text(rationale[:RATIONALE_LIMIT]),
        read_from=read_from,
    )


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
        last_model = attempt.model or last_model
        if attempt.refused:
            last_fault = attempt.error or "the judge refused"
            continue
        if lenient is None and (loose := leniently(attempt.reply)) is not None:
            lenient = (loose, attempt.model)
        parsed = strictly_read(attempt, strictly)
        if isinstance(parsed, ParsedScore):
            strict = (parsed, attempt.model)
            break
        last_fault = attempt.error or str(parsed)
    strict_score = strict[0] if strict else ParsedScore(status=ScoreStatus.FAILED, reason=last_fault)
    reason = UNREADABLE if strict else last_fault
    lenient_score = lenient[0] if lenient else ParsedScore(status=ScoreStatus.FAILED, reason=reason)
    returned = next((score[1] for score in (strict, lenient) if score), last_model)
    return strict_score, lenient_score, returned


def strictly_read(attempt: Attempt, strictly: Callable[[str], ParsedScore | ReplyError]) -> ParsedScore | ReplyError:
    """Parse an attempt by the contract: its reply, or its reasoning where the endpoint returned nothing else.

    Args:
        attempt: Attempt that was not refused.
        strictly: Parses a text by the contract.
    """
    if attempt.reply.strip() or not attempt.reasoning:
        return strictly(attempt.reply)
    parsed = strictly(attempt.reasoning)
    if isinstance(parsed, ReplyError):
        return ReplyError(("the reply is empty: all of it is reasoning",))
    parts = ["the reasoning, as the reply is empty", *([parsed.read_from] if parsed.read_from else [])]
    return parsed.model_copy(update={"read_from": ", ".join(parts)})


def find_answer(text: str) -> tuple[dict[str, Any], str] | ReplyError:
    """Return the one JSON object of a reply and the part it was read from, or what is wrong.

    The whole reply is tried first. Where it is not one object, reasoning at its start is set aside
    (`knowgen.clients.chat.reasoning`), and then words around one code fence.

    Args:
        text: Raw reply.

    Example:
        >>> find_answer('<think>Is it {red}?</think>{"answer": 1}')
        ({'answer': 1}, 'after <think>')
        >>> find_answer('Here is it:\\n```json\\n{"answer": 1}\\n```')
        ({'answer': 1}, 'the code fence')
    """
    whole = read_object(text)
    if not isinstance(whole, ReplyError):
        return whole, ""
    split = split_reasoning(text)
    if split.unfinished:
        return ReplyError((f"the reply ends within its reasoning ({split.marks})",))
    place = f"after {split.marks}" if split.marks else ""
    if split.answer != text.strip():
        reply = read_object(split.answer)
        if not isinstance(reply, ReplyError):
            return reply, place
        whole = reply
    fenced = _only_fence(split.answer)
    if fenced is not None and not isinstance(reply := read_object(fenced), ReplyError):
        return reply, f"{place}, the code fence" if place else "the code fence"
    return whole


def _only_fence(text: str) -> str | None:
    """Return the content of the one code fence in a text without other braces; None for any other text."""
    pieces = text.split(_FENCE, 3)
    if len(pieces) != 3 or any(brace in pieces[0] + pieces[2] for brace in "{}"):
        return None
    return _without_language(pieces[1])


def _without_language(fenced: str) -> str:
    language = _LANGUAGE.match(fenced)
    return fenced[language.end() if language else 0 :].strip()


def read_object(text: str) -> dict[str, Any] | ReplyError:
    """Return the one JSON object that a text is, at most with white space and a code fence around it, or a fault."""
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE) and len(body) >= 2 * len(_FENCE):
        body = _without_language(body[len(_FENCE) : -len(_FENCE)])
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
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
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
