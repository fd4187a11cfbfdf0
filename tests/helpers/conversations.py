"""Files of conversations, and a tiny model to train on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "green", "blue")


def row(number: int, turns: Sequence[tuple[str, str]], images: Sequence[str] = ()) -> dict[str, Any]:
    """Return a line of a file of conversations, from roles and contents."""
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": f"c{number}", "row": number + 1, "messages": messages, "images": list(images)}


def searching(number: int, *, image: bool = True) -> dict[str, Any]:
    """Return a conversation in which the policy searches and answers with the colour that it saw, or without one."""
    colour = COLOURS[number % len(COLOURS)]
    turns = [
        ("system", "You search."),
        ("user", f"Draw the harbour {number}."),
        ("assistant", '<tool_call>\n{"name": "image_search"}\n</tool_call>'),
        ("user", f"{'<image>' if image else ''}<tool_response>\nIMG_001\n</tool_response>"),
        ("assistant", f"<think>\nIt is there.\n</think>\n<answer>{colour}</answer>"),
    ]
    return row(number, turns, [f"{colour}.png"] if image else [])


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write conversations and the images of all colours into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, colour in enumerate(COLOURS):
        Image.new("RGB", (64 + 32 * place, 96), colour).save(folder / f"{colour}.png")
    lines = "".join(json.dumps(each) + "\n" for each in rows)
    (folder / "conversations.jsonl").write_text(lines, encoding="utf-8")
    return folder
