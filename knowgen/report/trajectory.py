"""The trajectory of an agent as the page shows it: plain data, with long texts shortened and images by digest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.records import AgentAnswer, Generation, ImageRef
from knowgen.report.details import LONGEST_TEXT, as_pairs, as_text, cut
from knowgen.report.image_files import ShownImage, image_entry

LONGEST_THOUGHT = 4_000
LONGEST_RESULT = 6_000
MAX_STEPS = 64
MAX_IMAGES = 24
"""Maximum number of images of a step that are shown; the rest is counted."""

_STEP_FIELDS = frozenset(
    {
        "round", "thought", "reply", "finish", "calls", "observation", "images", "new_images", "error", "blocked",
        "capped", "policy_seconds", "tool_seconds", "policy_usage", "tool_usage", "instruction",
    }
)  # fmt: skip


@dataclass(frozen=True)
class PackedTrajectory:
    """A trajectory that waits to be written: thousands of them are in memory at once.

    Attributes:
        outline: What the line that opens it says.
        packed: Its details as compressed JSON.
    """

    outline: dict[str, Any]
    packed: bytes

    def details(self) -> dict[str, Any]:
        """Return its details."""
        details: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return details


def pack(details: Mapping[str, Any]) -> PackedTrajectory:
    """Return the details of a trajectory in little memory."""
    steps = details["steps"]
    outline = {
        "ending": details["ending"] or details["status"],
        "steps": len(steps) + details["more_steps"],
        "calls": sum(len(step["calls"]) for step in steps),
        "chosen": len(details["chosen"]),
        "blocked": sum(len(step["blocked"]) for step in steps),
        "fallback": bool(details["fallback"]),
    }
    return PackedTrajectory(outline, zlib.compress(json.dumps(details).encode(), 1))


def trajectory_details(answer: AgentAnswer, fallback: str = "") -> dict[str, Any]:
    """Return the shown details of an agent's answer, and why it was not used."""
    return {
        "status": answer.status.value,
        "ending": answer.ending,
        "reason": cut(answer.reason),
        "fallback": cut(fallback),
        "prompt": cut(answer.prompt, LONGEST_RESULT),
        "seconds": answer.seconds,
        "attempts": answer.attempts,
        "parts": [
            [part.part, part.calls, part.usage.input_tokens, part.usage.output_tokens, part.usage.cost, part.seconds]
            for part in answer.usage
        ],
        "chosen": _chosen(answer.references, answer.reference_notes),
        **_steps(answer.trajectory),
    }


def with_pictures(details: Mapping[str, Any], shown: Mapping[str, ShownImage]) -> dict[str, Any]:
    """Return the details of a trajectory with the files of its images in place of their digests."""

    def pictures(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**each, "image": image_entry(each["image"], shown)} for each in images]

    steps = [{**step, "images": pictures(step["images"])} for step in details["steps"]]
    return {**details, "steps": steps, "chosen": pictures(details["chosen"])}


def recorded_details(generation: Generation) -> dict[str, Any] | None:
    """Return the details of a trajectory that is recorded with an image alone; None if it has none."""
    if not generation.trajectory:
        return None
    answer = AgentAnswer(
        ending=generation.ending, prompt=generation.used_prompt, trajectory=generation.trajectory, seconds=0.0
    )
    notes = [note for note in generation.references if isinstance(note.get("sha256"), str)]
    return {
        **trajectory_details(answer, generation.fallback),
        "status": "",
        "chosen": [_named_image(str(note["sha256"]), note) for note in notes],
    }


def seen_images(answer: AgentAnswer) -> Iterator[ImageRef]:
    """Yield the images that an answer shows: those that the agent saw, and those that it chose."""
    yield from answer.images
    yield from answer.references


def recorded_images(generation: Generation) -> Iterator[tuple[ImageRef, Path]]:
    """Yield the reference images of a generation that are stored files, with their paths."""
    for note in generation.references:
        digest, form, path = (note.get(name) for name in ("sha256", "format", "path"))
        width, height = _whole(note.get("width")), _whole(note.get("height"))
        if isinstance(digest, str) and isinstance(form, str) and isinstance(path, str) and width > 0 and height > 0:
            yield ImageRef(sha256=digest, width=width, height=height, format=form), Path(path)


def _chosen(references: Sequence[ImageRef], notes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    padded = [*notes, *({} for _ in references[len(notes) :])]
    return [_named_image(image.sha256, note) for image, note in zip(references, padded, strict=False)]


def _named_image(digest: str, note: Mapping[str, Any]) -> dict[str, Any]:
    names = {"id": "img_id", "title": "title", "note": "note", "url": "url", "page": "page_url"}
    return {"image": digest, **{name: cut(_text(note.get(field)), 600) for name, field in names.items()}}


def _steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the steps, and how many are not shown."""
    titles: dict[str, dict[str, Any]] = {}
    shown = []
    for number, step in enumerate(steps[:MAX_STEPS], 1):
        for each in _mappings(step.get("new_images")):
            image = each.get("image")
            digest = _text(image.get("sha256")) if isinstance(image, Mapping) else ""
            titles.setdefault(_text(each.get("id")), _named_image(digest, {**each, "img_id": each.get("id")}))
        shown.append(_step(step, number, titles))
    return {"steps": shown, "more_steps": max(0, len(steps) - MAX_STEPS)}


def _step(step: Mapping[str, Any], number: int, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    new = {_text(each.get("id")) for each in _mappings(step.get("new_images"))}
    # images that were shown, and those that were listed but not shown, such as the sixth of a result
    listed = [*dict.fromkeys([*map(_text, _sequence(step.get("images"))), *sorted(new)])]
    images = [{**known[name], "new": name in new} for name in listed if name in known]
    turn = step.get("round")
    return {
        "round": turn if isinstance(turn, int) and not isinstance(turn, bool) else number,
        "thought": cut(_text(step.get("thought")), LONGEST_THOUGHT),
        "calls": [_call(call) for call in _mappings(step.get("calls"))],
        "reply": cut(_text(step.get("reply")), LONGEST_RESULT),
        "finish": _text(step.get("finish")),
        "instruction": cut(_text(step.get("instruction")), LONGEST_TEXT),
        "result": cut(_text(step.get("observation")), LONGEST_RESULT),
        "images": images[:MAX_IMAGES],
        "more_images": max(0, len(images) - MAX_IMAGES),
        "error": cut(_text(step.get("error"))),
        "blocked": [cut(_text(reason), 200) for reason in _sequence(step.get("blocked"))],
        "capped": _whole(step.get("capped")),
        "policy": _spent(step.get("policy_seconds"), step.get("policy_usage")),
        "tools": _spent(step.get("tool_seconds"), step.get("tool_usage")),
        "other": as_pairs({str(name): value for name, value in step.items() if name not in _STEP_FIELDS}),
    }


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments")
    pairs = as_pairs({str(name): value for name, value in arguments.items()}) if isinstance(arguments, Mapping) else []
    text = "" if pairs or arguments in (None, {}, "") else cut(_text(arguments))
    return {"name": _text(call.get("name")) or "call", "arguments": pairs, "text": text}


def _spent(seconds: Any, usage: Any) -> dict[str, Any]:
    used = usage if isinstance(usage, Mapping) else {}
    cost = used.get("cost")
    return {
        "seconds": float(seconds) if isinstance(seconds, int | float) else 0.0,
        "input": _whole(used.get("input_tokens")),
        "output": _whole(used.get("output_tokens")),
        "cost": float(cost) if isinstance(cost, int | float) else None,
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    return as_text(value) if isinstance(value, str | int | float | list | dict) else json.dumps(value, default=str)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in _sequence(value) if isinstance(each, Mapping)]
