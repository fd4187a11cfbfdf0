"""Show an agent at work in the terminal: what it thinks, asks, finds and chooses, as it happens.

Everything that comes from outside (prompt, thoughts, pages, titles, errors) is escaped before it is written, so that
none of it can control the terminal. Colours and images are written only where the terminal has them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from knowgen.cli.terminal_images import Method, image_method, shown_images
from knowgen.core.console import CleanStream, OutputClosedError
from knowgen.core.images import UnreadableImageError
from knowgen.core.text import count, duration_text, escape_controls, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from knowgen.agents.records import SeenImage, Step
    from knowgen.core.records import AgentAnswer, Usage

LABEL = 11
"""Width of the labels at the left, in characters."""

MAX_WIDTH = 110
"""Maximum width of text, in characters."""

MAX_THOUGHT = 1200
"""Maximum number of characters of a thought that are shown. The page has the whole text."""

FOUND_LINES = 6
"""Maximum number of lines of a result that are shown. The page has the whole text."""

SEEN_ROWS = 8
FINAL_ROWS = 20
"""Height of images in character cells: those that were seen or chosen, and the generated one."""

_FOR_THE_POLICY = ("<tool_response>", "</tool_response>", "local_path: ", "url: ")
"""Beginnings of lines of a result that are left out here."""

_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class AgentView:
    """Writes lines on an agent's work to stdout. Steps may arrive from another thread.

    Args:
        environment: Environment variables; those of this process when None.

    Attributes:
        closed: Whether the reader of stdout, such as `head`, has closed it. What follows is not written.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        terminal = sys.stdout.isatty()
        self._styled = terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
        self._images: Method = image_method(environment, terminal=terminal)
        self._lock = threading.Lock()
        self._asked: Step | None = None
        self._seen: dict[str, SeenImage] = {}
        self._starts = 0
        self.closed = False

    # -- the agent's thread ---------------------------------------------------------------------------------------

    def started(self) -> None:
        """Note that the agent begins, or begins again after a service failed."""
        self._starts += 1
        self._asked, self._seen = None, {}
        if self._starts > 1:
            self.line("again", "a service failed, so the agent starts again")

    def warned(self, warning: str) -> None:
        """Show a warning of a service."""
        self.line("warning", warning)

    def stepped(self, step: Step) -> None:
        """Show a step: its reply, or if that was shown already, what its tools found."""
        asked, self._asked = self._asked, None
        if asked is None or (asked.round, asked.reply) != (step.round, step.reply):
            self._show_reply(step)
            if not step.observation and not step.error:
                self._asked = step
                return
        self._show_results(step)

    def _show_reply(self, step: Step) -> None:
        name = f"round {step.round}" if step.round else "last round"
        self.blank()
        self.line(name, _spent(step.policy_seconds, step.policy_usage), strong=True)
        if step.thought.strip():
            self.text("thinks", _shortened(step.thought.strip(), MAX_THOUGHT))
        elif not step.calls and step.reply.strip():
            self.text("says", _shortened(step.reply.strip(), MAX_THOUGHT))
        for call in step.calls:
            self.line("calls", f"{call.name} {_arguments(call.arguments)}")

    def _show_results(self, step: Step) -> None:
        if step.observation:
            label = "found" if step.calls else "correction"
            lines = _observation_lines(step.observation)
            more = [f"… {count(len(lines) - FOUND_LINES, 'more line')}"] if len(lines) > FOUND_LINES else []
            self.text(label, "\n".join([*lines[:FOUND_LINES], *more]))
        for reason in step.blocked:
            self.line("blocked", reason)
        if step.error:
            self.line("problem", step.error)
        self._seen |= {image.id: image for image in step.new_images}
        shown = [self._seen[name] for name in step.images if name in self._seen]
        for image in shown:
            self.line("sees", f"{image.id} {_source(image.title, image.page_url or image.url)}")
        self.pictures([image.image.path for image in shown if image.image.path is not None], SEEN_ROWS)
        if step.calls:
            self.line("took", _spent(step.tool_seconds, step.tool_usage))

    # -- any thread -----------------------------------------------------------------------------------------------

    def answer(self, answer: AgentAnswer) -> None:
        """Show the answer: the prompt for the image model, and the references with their notes."""
        self.blank()
        if answer.prompt:
            self.text("answer", answer.prompt, strong=True)
        else:
            ending = answer.ending or answer.status.value
            self.line("answer", f"none ({ending}{f': {answer.reason}' if answer.reason else ''})", strong=True)
        for number, note in enumerate(answer.reference_notes, start=1):
            source = _source(str(note.get("title", "")), str(note.get("page_url") or note.get("url") or ""))
            self.line("reference", f"{number}. {note.get('img_id', '')} {source}")
            if note.get("note"):
                self.text("", str(note["note"]))
        self.pictures([image.path for image in answer.references if image.path is not None], SEEN_ROWS)

    def text(self, label: str, text: str, *, strong: bool = False) -> None:
        """Write a text of several lines, wrapped to the terminal."""
        width = max(20, min(MAX_WIDTH, shutil.get_terminal_size().columns) - LABEL - 1)
        lines = []
        for paragraph in escape_controls(text).splitlines():
            lines += textwrap.wrap(paragraph, width, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines or [""]):
            self._write(self._label("" if number else label, strong=strong) + line + "\n")

    def line(self, label: str, text: str, *, strong: bool = False) -> None:
        """Write a text that is one line, wrapped to the terminal."""
        self.text(label, one_line(text), strong=strong)

    def path(self, label: str, path: Path) -> None:
        """Write a path on a line of its own, whatever its length, so that it can be copied."""
        self._write(f"{self._label(label)}{escape_controls(str(path))}\n")

    def command(self, label: str, command: str) -> None:
        """Write a command on a line of its own, whatever its length."""
        self._write(f"{self._label(label)}{escape_controls(command)}\n")

    def blank(self) -> None:
        """Write an empty line."""
        self._write("\n")

    def pictures(self, paths: Sequence[Path], rows: int) -> None:
        """Show images, where the terminal can."""
        if not self._images or not paths:
            return
        columns = max(10, shutil.get_terminal_size().columns - 1)
        try:
            self._write(shown_images(paths, self._images, columns=columns, rows=rows))
        except UnreadableImageError as error:
            self.line("", f"an image cannot be shown: {error.what}")

    def _label(self, label: str, *, strong: bool = False) -> str:
        padded = f"{label:<{LABEL}}"
        return f"{_BOLD if strong else _DIM}{padded}{_RESET}" if self._styled and label else padded

    def _write(self, text: str) -> None:
        """Write a text whose outside parts are escaped already."""
        with self._lock:
            if self.closed:
                return
            stream = sys.stdout
            try:
                stream.write_controls(text) if isinstance(stream, CleanStream) else stream.write(text)
                stream.flush()
            except OutputClosedError:
                self.closed = True


class Silent:
    """A watcher that shows nothing, for output as JSON."""

    def started(self) -> None:
        """Do nothing."""

    def stepped(self, step: Step) -> None:
        """Do nothing."""

    def warned(self, warning: str) -> None:
        """Write a warning of a service to stderr."""
        sys.stderr.write(f"warning: {one_line(warning)}\n")


def spent_text(seconds: float, cost: float | None) -> str:
    """Return time and cost, such as `1.2 s, $0.0031`; the cost is left out when it is nothing.

    Example:
        >>> spent_text(0.42, 0.0), spent_text(190.0, 0.0312), spent_text(1.0, None)
        ('0.4 s', '3 min, $0.0312', '1.0 s, price unknown')
    """
    time = f"{seconds:.1f} s" if seconds < 10 else duration_text(seconds)
    return time + (", price unknown" if cost is None else f", ${cost:.4f}" if cost else "")


def _spent(seconds: float, usage: Usage) -> str:
    return spent_text(seconds, usage.cost)


def _arguments(arguments: Any) -> str:
    """Return the arguments of a call in a short form."""
    if not isinstance(arguments, Mapping):
        return json.dumps(arguments, ensure_ascii=False, default=str)
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in arguments.items())


def _observation_lines(observation: str) -> list[str]:
    """Return the lines of a result that say something to a reader, without tags and addresses of image files."""
    lines = (line.strip() for line in observation.splitlines())
    return [line for line in lines if line and not line.startswith(_FOR_THE_POLICY)]


def _source(title: str, address: str) -> str:
    return "  ".join(filter(None, (one_line(title, 80), one_line(address))))


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
