"""Telling a model's reasoning from its answer, where both come as one text.

Servers that know a model's format put its reasoning into a field of its own, `reasoning_content` (DeepSeek, vLLM until
0.11, SGLang, Qwen) or `reasoning` (OpenRouter, vLLM since 0.12, Ollama). Others leave the model's marks in the reply:
tags such as `<think>` (DeepSeek, Qwen, GLM, MiniMax), `[THINK]` (Magistral), channels (gpt-oss). Formats as of November
2026, from the chat templates of these models and the documentation of these servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Fields of a message that hold the reasoning as text."""

_NAMES = r"think|thinking|thought|thoughts|reasoning|reflection|analysis|seed:think"
_OPENING = re.compile(rf"\s*(?:<(?P<tag>{_NAMES})>|(?P<bracket>\[THINK\])|(?P<kimi>◁think▷))", re.IGNORECASE)
_CLOSING = re.compile(rf"</(?P<tag>{_NAMES})>|\[/THINK\]|◁/think▷", re.IGNORECASE)
_CHANNEL = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
_FINAL = re.compile(r"<\|channel\|>\s{0,8}final\b[^<]{0,80}(?:<\|[a-z]{1,16}\|>[^<]{0,80}){0,2}?<\|message\|>")
_END_MARKS = ("<|return|>", "<|end|>", "<|endoftext|>", "<|im_end|>", "</s>")
_BOX = ("<|begin_of_box|>", "<|end_of_box|>")
"""Marks that GLM's vision models put around an answer."""


@dataclass(frozen=True)
class SplitReply:
    """A reply without its reasoning.

    Attributes:
        answer: What follows the reasoning; empty where the reply ends within it.
        marks: Marks of the reasoning that was set aside, such as `<think>`; empty without any.
        unfinished: Whether the reply ends within its reasoning.
    """

    answer: str
    marks: str = ""
    unfinished: bool = False


def split_reasoning(text: str) -> SplitReply:
    """Return the answer of a reply, with the reasoning before it set aside.

    Only reasoning at the start is recognised: marks inside an answer belong to the answer. A closing tag without an
    opening one is recognised too, because some templates open the reasoning in the prompt.

    Args:
        text: Text of the reply.

    Example:
        >>> split_reasoning('<think>A boat?</think>{"aesthetics": 1}')
        SplitReply(answer='{"aesthetics": 1}', marks='<think>', unfinished=False)
        >>> split_reasoning("<think>A boat? Or a").unfinished
        True
    """
    if _CHANNEL.match(text):
        return _after_channels(text)
    start, marks = 0, ""
    while (opening := _OPENING.match(text, start)) is not None:
        marks = marks or opening.group().strip().lower()
        closing = _closing_of(opening, text)
        if closing is None:
            return SplitReply("", marks, unfinished=True)
        start = closing.end()
    if not marks and not text.lstrip().startswith(("{", "`")):
        for closing in _CLOSING.finditer(text):
            start, marks = closing.end(), closing.group().lower()
    return SplitReply(_without_end_marks(text[start:]), marks)


def _closing_of(opening: re.Match[str], text: str) -> re.Match[str] | None:
    """Return the closing mark that belongs to an opening one."""
    for closing in _CLOSING.finditer(text, opening.end()):
        if (closing["tag"] or "").lower() == (opening["tag"] or "").lower():
            return closing
    return None


def _after_channels(text: str) -> SplitReply:
    finals = list(_FINAL.finditer(text))
    if not finals:
        return SplitReply("", "<|channel|>", unfinished=True)
    return SplitReply(_without_end_marks(text[finals[-1].end() :]), "<|channel|>")


def _without_end_marks(text: str) -> str:
    text = text.strip()
    for mark in _END_MARKS:
        text = text.removesuffix(mark).rstrip()
    if text.startswith(_BOX[0]) and text.endswith(_BOX[1]):
        text = text[len(_BOX[0]) : -len(_BOX[1])].strip()
    return text


def reasoning_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name and text of the field that holds a message's reasoning; both empty without one."""
    for name in REASONING_FIELDS:
        value = message.get(name)
        if isinstance(value, str) and value.strip():
            return name, value
    return "", ""
