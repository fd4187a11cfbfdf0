"""The journal of an annotation: one line for each call, reply and answer, written as soon as it is known.

A later annotation reads it and asks only about the missing prompts; its recorded costs count towards the budget. A
partial line of a killed process is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowgen.core.errors import BudgetReachedError, ConfigError, DataError
from knowgen.core.text import parse_json
from knowgen.tasks.text_labels.labels import JOURNAL_FILE

_SLACK = 1e-9
"""Tolerance for sums of floats, in US dollars."""


class Journal:
    """The journal of one task folder, locked by one process.

    Args:
        descriptor: Descriptor of the open, locked file.
        where: Path of the file, for error messages.

    Attributes:
        answers: Answers since the last restart, by key of the question and digest of the prompt.
        replies: Raw replies, by the same key.
        models: Model name returned with each answer, by the same key.
        pending: Whether an annotation was started and its answers are not frozen yet.
    """

    def __init__(self, descriptor: int, where: str) -> None:
        self._descriptor, self._where = descriptor, where
        self.answers: dict[tuple[str, str], bool] = {}
        self.replies: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.models: dict[tuple[str, str], str] = {}
        self.pending = False
        self._open: dict[str, float] = {}
        self._paid = 0.0
        self._calls = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                self._apply(parse_json(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError("invalid journal line", where=f"{where}:{number}", fix="remove the file") from error
        self._paid += sum(self._open.values())  # left open by a killed process: the call may have been billed
        self._open.clear()

    def write(self, event: str, **data: Any) -> None:
        """Append a line to the file and apply it to this object."""
        entry = {"event": event, **data}
        line = (json.dumps(entry, ensure_ascii=True) + "\n").encode()
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=self._where) from error
        if written < len(line):
            raise ConfigError("cannot be written: the disk is full", where=self._where)
        self._apply(entry)

    @property
    def spent(self) -> float:
        """US dollars spent on all calls for this folder; calls in flight count with their worst case."""
        return self._paid + self.in_flight

    @property
    def in_flight(self) -> float:
        """Worst-case cost of the calls in flight, in US dollars."""
        return sum(self._open.values())

    def open_call(self, worst_case: float) -> int:
        """Record a call before it is sent; return its number."""
        number = self._calls
        self.write("call", number=number, usd=worst_case)
        return number

    def settle_call(self, number: int, cost: float | None) -> None:
        """Record the cost of a call in US dollars; None records the worst case."""
        self.write("paid", number=number, usd=self._open[str(number)] if cost is None else cost)

    def _apply(self, entry: dict[str, Any]) -> None:
        event = entry["event"]
        if event == "restart":
            self.answers.clear()
            self.replies.clear()
            self.models.clear()
            self.pending = True
        elif event == "frozen":
            self.pending = False
        elif event == "call":
            self._calls = int(entry["number"]) + 1
            self._open[str(entry["number"])] = float(entry["usd"])
        elif event == "paid":
            self._open.pop(str(entry["number"]), None)
            self._paid += float(entry["usd"])
        elif event in ("reply", "answer"):
            self.pending = True
            place = (str(entry["question"]), str(entry["prompt_sha256"]))
            if event == "reply":
                self.replies[place].append(str(entry["reply"]))
            else:
                self.answers[place] = bool(entry["required"])
                self.models[place] = str(entry["model"])

    def _lines(self) -> Iterator[str]:
        """Yield the complete lines, and truncate a partial last line."""
        data = b""
        while block := os.read(self._descriptor, 1 << 20):
            data += block
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, len(data) - len(torn))
        yield from (line for line in whole.decode("utf-8", "replace").split("\n") if line)


@contextlib.contextmanager
def journal_of(folder: Path) -> Iterator[Journal]:
    """Open and lock the journal of a task folder.

    Raises:
        ConfigError: Another process is annotating the task, or the folder cannot be written.
        DataError: The journal is damaged.
    """
    path = folder / JOURNAL_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another process is annotating it", where=str(folder), fix="wait for it to end"
            ) from error
        yield Journal(descriptor, str(path))
    finally:
        os.close(descriptor)


class AnnotationMeter:
    """Budget meter of an annotation (see `knowgen.core.metering.Meter`). Reservations are written to the journal.

    A call that does not fit beside the calls in flight waits for them. It is refused only if it would not fit even if
    they cost nothing.

    Args:
        journal: Journal of the task folder.
        budget: Maximum total cost in US dollars of all annotations of the folder; None for no limit.
    """

    def __init__(self, journal: Journal, budget: float | None) -> None:
        self._journal, self._budget = journal, budget
        self._changed = asyncio.Condition()

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve the worst-case cost of one call in US dollars; return the number of the reservation."""
        if worst_case is None and self._budget is not None:
            raise ConfigError(
                "the price of its calls is unknown, so the budget cannot be enforced",
                where=caller,
                fix="set its prices with -s price_in=… -s price_out=…, or leave out --budget",
            )
        worst = worst_case or 0.0
        async with self._changed:
            while self._budget is not None:
                left = self._budget - self._journal.spent + _SLACK
                if worst <= left:
                    break
                if worst > left + self._journal.in_flight:
                    spent = f"${self._journal.spent:.4f} is spent, and a call may cost up to ${worst:.4f}"
                    raise BudgetReachedError(f"${self._budget:g} allows no further call: {spent}", where=caller)
                await self._changed.wait()
            return self._journal.open_call(worst)

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars; None keeps the worst case."""
        async with self._changed:
            self._journal.settle_call(number, cost)
            self._changed.notify_all()
