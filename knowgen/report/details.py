"""What a reader sees when a sample is opened: plain data, cut to lengths a page can bear, with nothing interpreted."""

from __future__ import annotations

import json
from typing import Any

from knowgen.core.records import Attempt, Generation, GroundTruth, ParsedScore, Score, Usage

LONGEST_REPLY = 8_000
LONGEST_TEXT = 1_200
MOST = 24
"""At most this many entries of a list are shown; the rest is counted."""

EMPTY: tuple[object, ...] = (None, "", [], {}, ())
"""What is not worth a line."""

READ_AS = ("recognised", "recognised_text", "lines")
"""Name under which scorers keep the text they read in a image: strings, or records with a `text`."""


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """Shorten a text and says by how much."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest} more characters in the run directory)"


def as_pairs(values: dict[str, Any]) -> list[list[str]]:
    """Turn a mapping into pairs of name and text, in order; entries without content are left out."""
    return [[key, cut(as_text(value))] for key, value in values.items() if value not in EMPTY]


def as_text(value: Any) -> str:
    """Write any plain value for people: lists of short things in a line, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and all(isinstance(entry, str | int | float) for entry in value):
        return " · ".join(as_text(entry) for entry in value)
    if isinstance(value, list | tuple) and all(isinstance(entry, dict) for entry in value):
        return "\n".join(as_text(entry) for entry in value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        kept = {key: as_text(held) for key, held in value.items() if held not in EMPTY}
        return ", ".join(f"{key.replace('_', ' ')} {held}" for key, held in kept.items())
    return json.dumps(value, ensure_ascii=False, default=str)


def _usage(usage: Usage) -> dict[str, Any]:
    return {"input": usage.input_tokens, "output": usage.output_tokens, "cost": usage.cost}


def _records(entries: tuple[dict[str, Any], ...]) -> list[list[list[str]]]:
    shown = [as_pairs(entry) for entry in entries[:MOST]]
    return shown if len(entries) <= MOST else [*shown, [["and", f"{len(entries) - MOST} more in the run directory"]]]


def generation_details(generation: Generation) -> dict[str, Any]:
    """Return what is shown of a generation."""
    return {
        "status": generation.status.value,
        "reason": cut(generation.reason),
        "used_prompt": cut(generation.used_prompt, LONGEST_REPLY),
        "references": _records(generation.references),
        "evidence": _records(generation.evidence),
        "steps": len(generation.trajectory),
        "seed": generation.seed,
        "settings": as_pairs(generation.settings),
        "seconds": generation.seconds,
        "usage": _usage(generation.usage),
        "attempts": generation.attempts,
    }


def truth_details(truth: GroundTruth) -> dict[str, Any]:
    """Return what is shown of a ground truth."""
    return {
        "required_text": [cut(text) for text in truth.required_text[:MOST]],
        "text_required": truth.text_required,
        "subjects": _records(truth.subjects),
        "evidence": [cut(text) for text in truth.evidence[:MOST]],
    }


def _reading(name: str, reading: ParsedScore) -> dict[str, Any]:
    return {
        "name": name,
        "status": reading.status.value,
        "values": reading.values,
        "na": list(reading.na),
        "rationale": cut(reading.rationale, LONGEST_REPLY),
        "reason": cut(reading.reason),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "reply": cut(attempt.reply, LONGEST_REPLY),
        "error": cut(attempt.error),
        "model": attempt.model,
        "finish": attempt.finish_reason,
        "seconds": attempt.seconds,
        "usage": _usage(attempt.usage),
    }


def recognised(details: dict[str, Any]) -> list[str]:
    """Return the text that a scorer read in the image, line by line; empty when it reads none."""
    for name in READ_AS:
        lines = details.get(name)
        if isinstance(lines, list | tuple):
            texts = [line.get("text") if isinstance(line, dict) else line for line in lines]
            return [cut(text) for text in texts[:MOST] if isinstance(text, str)]
    return []


def score_details(score: Score) -> dict[str, Any]:
    """Return what is shown of a score, raw replies included."""
    readings = [_reading("strict", score.strict)]
    if score.lenient is not None:
        readings.append(_reading("lenient", score.lenient))
    return {
        "scorer": score.scorer,
        "judge_repeat": score.judge_repeat,
        "readings": readings,
        "asked": score.judge_asked,
        "returned": score.judge_returned,
        "parser": score.parser,
        "recognised": recognised(score.details),
        "found": as_pairs({name: value for name, value in score.details.items() if name not in READ_AS}),
        "attempts": [_attempt(attempt) for attempt in score.attempts],
        "seconds": score.seconds,
        "usage": _usage(score.usage),
    }
