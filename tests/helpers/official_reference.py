"""An independent implementation of the official protocol, from raw replies to the three summary rows.

It was written from the description of the protocol and shares no code with the package.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

SCIENCE = [
    "astronomy", "biology", "chemistry", "physics", "engineering", "medicine", "industry", "architecture", "history",
    "geography", "religion", "politics", "culture", "art", "sports",
]  # fmt: skip
POP = [
    "anime", "game", "film", "celebrities", "posters", "multi-subject-anime", "multi-subject-celebrities",
    "multi-subject-game", "news",
]  # fmt: skip
NAMES = ["faithfulness", "visual_correctness", "text_accuracy", "aesthetics"]


@dataclass
class Case:
    """A sample: its category, whether an image was generated, and the judge's replies in order."""

    id: str
    category: str
    success: bool = True
    replies: list[str] = field(default_factory=list)


def as_object(reply: str) -> dict[str, Any] | None:
    text = reply.strip()
    if text.startswith("```"):
        text = re.sub(r"^```\w*", "", text)
        text = re.sub(r"```$", "", text.rstrip())
    if "{" not in text or "}" not in text:
        return None
    text = text[text.index("{") : text.rindex("}") + 1]
    try:
        data = json.loads(text)
    except ValueError:
        try:
            data = json.loads(re.sub(r",(\s*)(?=[}\]])", r"\1", text))
        except ValueError:
            return None
    return data if isinstance(data, dict) else None


def as_number(value: Any) -> float | None:
    """Convert a value by the table of the protocol; None for null, lists, objects and other strings."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
    elif isinstance(value, bool):
        number = 1.0 if value else 0.0
    elif isinstance(value, int | float):
        number = float(value)
    else:
        return None
    if number != number or number == float("inf"):
        return 1.0
    if number < 0:
        number = 0.0
    if number > 1:
        number = 1.0
    return round(number, 2)


def judge(replies: list[str]) -> dict[str, float | None] | None:
    """Parse the first reply that is an object. A None value is N/A, a None result a failed sample."""
    for reply in replies:
        data = as_object(reply)
        if data is None:
            continue  # retried
        values: dict[str, float | None] = {}
        for name in NAMES:
            values[name] = as_number(data[name]) if name in data else 0.0
            if values[name] is None and name != "text_accuracy":
                return None
        flag = data.get("text_accuracy_na")
        na = flag in ("true", "True") if isinstance(flag, str) else not isinstance(flag, list | dict) and flag == 1
        if na:
            values["text_accuracy"] = None
        return values
    return None


def group_summary(scored: list[dict[str, float | None]]) -> dict[str, float]:
    if not scored:
        return {**dict.fromkeys(NAMES, 0.0), "overall": 0.0}
    result = {}
    for name in NAMES:
        total, number = 0.0, 0
        for values in scored:
            value = values[name]
            if value is not None:
                total += value
                number += 1
        result[name] = round(total / number, 4) if number else 0.5
    f, v, t, a = (result[name] for name in NAMES)
    result["overall"] = round(0.1 * f + 0.4 * v + 0.4 * t + 0.1 * a, 4)
    return result


def summary_rows(cases: list[Case]) -> list[dict[str, Any]]:
    """Return the three summary rows of the official result file."""
    groups: dict[str, list[dict[str, float | None]]] = {"science_and_knowledge": [], "pop_culture_and_news": []}
    for case in cases:
        values = judge(case.replies) if case.success else None
        if values is None:
            continue
        if case.category in SCIENCE:
            groups["science_and_knowledge"].append(values)
        elif case.category in POP:
            groups["pop_culture_and_news"].append(values)
    science, pop = (group_summary(scored) for scored in groups.values())
    rows = [
        {"summary_type": name, "avg_scores": figures, "count": len(groups[name])}
        for name, figures in zip(groups, (science, pop), strict=True)
    ]
    whole = {name: round((science[name] + pop[name]) / 2, 4) for name in science}
    return [*rows, {"summary_type": "overall_avg", "avg_scores": whole, "count": sum(map(len, groups.values()))}]
