"""A trajectory as text for a terminal: one short block a step, or everything that was said and shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from knowgen.core.records import AgentAnswer, Sample
from knowgen.core.text import count, duration_text, escape_controls, one_line
from knowgen.store.rows import answer_cost

LINE = 160
"""Longest line of a short text, in characters."""


def trajectory_text(sample: Sample, answer: AgentAnswer, *, full: bool = False) -> str:
    """Return a trajectory as text, in which characters that control a terminal are visible escapes.

    Args:
        sample: The sample.
        answer: Its answer.
        full: Whether replies and results are whole; else a step is a few lines.
    """
    return "\n".join(escape_controls(line) for line in _lines(sample, answer, full))


def _lines(sample: Sample, answer: AgentAnswer, full: bool) -> Iterator[str]:
    repeat = f", repeat {answer.repeat + 1}" if answer.repeat else ""
    yield f"{sample.id}{repeat}: {_text(sample.prompt, full)}"
    known: dict[str, str] = {}
    for number, step in enumerate(answer.trajectory, 1):
        for each in step.get("new_images") or ():
            known[str(each.get("id"))] = str(each.get("title") or "")
        yield from _step(step, number, known, full)
    yield from _end(answer, full)


def _step(step: Mapping[str, Any], number: int, known: Mapping[str, str], full: bool) -> Iterator[str]:
    turn = step.get("round", number)
    names = ", ".join(dict.fromkeys(str(call.get("name")) for call in step.get("calls") or ()))
    times = [
        f"{words} {_seconds(step[field])}"
        for words, field in (("policy", "policy_seconds"), ("tools", "tool_seconds"))
        if step.get(field)
    ]
    head = "  last call" if turn == 0 else f"  round {turn}"
    spent = f"  ({', '.join(times)})" if times else ""
    yield f"{head}{f': {names}' if names else ''}{spent}"
    if full and step.get("instruction"):
        yield from _block("asked", str(step["instruction"]))
    if step.get("thought"):
        yield from _said("thought", str(step["thought"]), full)
    if full and step.get("reply"):
        yield from _block("reply", str(step["reply"]))
    for call in () if full else step.get("calls") or ():
        yield from _said(str(call.get("name")), json.dumps(call.get("arguments"), ensure_ascii=False), full)
    yield from _problems(step)
    if images := [f"{name} {known.get(name, '')}".strip() for name in step.get("images") or ()]:
        yield from _said("images", "; ".join(images), full)
    if step.get("observation"):
        shown = str(step["observation"])
        yield from _block("shown", shown) if full else [f"    shown: {count(len(shown), 'character')}"]


def _problems(step: Mapping[str, Any]) -> Iterator[str]:
    if step.get("error"):
        yield f"    error: {one_line(step['error'])}"
    for reason, times in Counter(str(each) for each in step.get("blocked") or ()).items():
        yield f"    blocked: {one_line(reason)}{f' ({times} times)' if times > 1 else ''}"
    if step.get("capped"):
        yield f"    cut: {count(int(step['capped']), 'token')} of the results"
    if step.get("finish") == "length":
        yield "    cut: the reply reached its maximum length"


def _end(answer: AgentAnswer, full: bool) -> Iterator[str]:
    calls = sum(len(step.get("calls") or ()) for step in answer.trajectory)
    cost = answer_cost(answer)
    facts = [
        count(len(answer.trajectory), "round"),
        count(calls, "call"),
        _seconds(answer.seconds),
        "unknown cost" if cost is None else f"${cost:.4f}" if cost else "$0",
    ]
    reason = f", {one_line(answer.reason)}" if answer.reason else ""
    yield f"  ended: {answer.ending or answer.status.value}{reason} ({', '.join(facts)})"
    if answer.prompt:
        yield from _said("prompt", answer.prompt, full)
    for note in answer.reference_notes:
        words = " ".join(str(note[field]) for field in ("img_id", "title") if note.get(field))
        yield from _said("reference", f"{words}: {note['note']}" if note.get("note") else words, full)


def _said(name: str, text: str, full: bool) -> Iterator[str]:
    yield from _block(name, text) if full and "\n" in text else [f"    {name}: {_text(text, full)}"]


def _text(text: str, full: bool) -> str:
    return one_line(text, None if full else LINE)


def _block(name: str, text: str) -> Iterator[str]:
    yield f"    {name}:"
    yield from (f"      {line}" for line in text.splitlines())


def _seconds(seconds: Any) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration_text(seconds)
