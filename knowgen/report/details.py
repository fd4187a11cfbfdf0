"""Details shown when a sample is opened: plain data, with long texts shortened."""

from __future__ import annotations

import json
from typing import Any

from knowgen.core.records import Attempt, Generation, GroundTruth, ParsedScore, Score, Usage

LONGEST_REPLY = 8_000
LONGEST_TEXT = 1_200
MAX_ENTRIES = 24
"""Maximum number of shown entries of a list; the rest is counted."""

EMPTY: tuple[object, ...] = (None, "", [], {}, ())
"""Values that are not shown."""

READ_AS = ("recognised", "recognised_text", "lines")
"""Names of details with text recognised in an image: strings, or records with a `text`."""


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text, shortened with a note if it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest} more characters in the run directory)"


def as_pairs(values: dict[str, Any]) -> list[list[str]]:
    """Return the entries of a mapping as pairs of name and text; entries without content are left out."""
    return [[key, cut(as_text(value))] for key, value in values.items() if value not in EMPTY]


def as_text(value: Any) -> str:
    """Return any plain value as text: lists of short values on one line, other values as JSON."""
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
        texts = {key: as_text(entry) for key, entry in value.items() if entry not in EMPTY}
        return ", ".join(f"{key.replace('_', ' ')} {text}" for key, text in texts.items())
    return json.dumps(value, ensure_ascii=False, default=str)


def _usage(usage: Usage) -> dict[str, Any]:
    return {"input": usage.input_tokens, "output": usage.output_tokens, "cost": usage.cost}


def _records(entries: tuple[dict[str, Any], ...]) -> list[list[list[str]]]:
    shown = [as_pairs(entry) for entry in entries[:MAX_ENTRIES]]
    return (
        shown
        if len(entries) <= MAX_ENTRIES
        else [*shown, [["and", f"{len(entries) - MAX_ENTRIES} more in the run directory"]]]
    )


def generation_details(generation: Generation) -> dict[str, Any]:
    """Return the shown details of a generation."""
    return {
        "status": generation.status.value,
        "reason": cut(generation.reason),
        "image_notes": list(generation.image_notes),
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
    """Return the shown details of a ground truth."""
    return {
        "required_text": [cut(text) for text in truth.required_text[:MAX_ENTRIES]],
        "text_required": truth.text_required,
        "subjects": _records(truth.subjects),
        "evidence": [cut(text) for text in truth.evidence[:MAX_ENTRIES]],
    }


def _parsed_score(name: str, parsed: ParsedScore) -> dict[str, Any]:
    return {
        "name": name,
        "status": parsed.status.value,
        "values": parsed.values,
        "na": list(parsed.na),
        "rationale": cut(parsed.rationale, LONGEST_REPLY),
        "reason": cut(parsed.reason),
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
    """Return the lines of text that a scorer recognised in the image; empty if it recognises none."""
    for name in READ_AS:
        lines = details.get(name)
        if isinstance(lines, list | tuple):
            texts = [line.get("text") if isinstance(line, dict) else line for line in lines]
            return [cut(text) for text in texts[:MAX_ENTRIES] if isinstance(text, str)]
    return []


def rubric_words(score: Score) -> str:
    """Return the rubric that a judge was given, with the hash of its texts; empty if the score names none."""
    name, digest = score.details.get("rubric"), score.details.get("rubric_hash")
    return f"{name}, SHA-256 {digest}" if name and digest else str(name or "")


def score_details(score: Score) -> dict[str, Any]:
    """Return the shown details of a score, including raw replies."""
    readings = [_parsed_score("strict", score.strict)]
    if score.lenient is not None:
        readings.append(_parsed_score("lenient", score.lenient))
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
