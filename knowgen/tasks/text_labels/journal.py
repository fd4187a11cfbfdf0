"""The journal of an annotation: every call, every reply and every answer, a line each, as soon as it is known.

A second call reads it and asks only what is missing; a budget counts what it says was spent. A line that a killed
process left half written is dropped.
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
from knowgen.tasks.text_labels.labels import JOURNAL_FILE

_SLACK = 1e-9
"""US dollars by which sums of floats may be off."""


class Journal:
    """The journal of one task folder, held by one process.

    Args:
        descriptor: Of the open, locked file.
        where: Its path, for errors.

    Attributes:
        answers: What was settled since all was last asked anew: by key of the question and digest of the prompt.
        replies: Raw replies by the same, settled or not.
        models: Model names that came with them.
        pending: Is an annotation begun that was not frozen?
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
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "is no line of this journal", where=f"{where}:{number}", fix="remove the file"
                ) from error
        self._paid += sum(self._open.values())  # left open by a killed process: it may have been billed
        self._open.clear()

    def write(self, event: str, **data: Any) -> None:
        """Appends a line and takes it into account."""
        entry = {"event": event, **data}
        line = (json.dumps(entry, ensure_ascii=True) + "\n").encode()
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=self._where) from error
        if written < len(line):
            raise ConfigError("cannot be written: the disk is full", where=self._where)
        self._take(entry)

    @property
    def spent(self) -> float:
        """US dollars spent over all calls of this folder, those under way at their worst case."""
        return self._paid + self.under_way

    @property
    def under_way(self) -> float:
        """US dollars that calls under way may cost."""
        return sum(self._open.values())

    def open_call(self, worst_case: float) -> int:
        """Notes a call before it is sent; returns its number."""
        number = self._calls
        self.write("call", number=number, usd=worst_case)
        return number

    def settle_call(self, number: int, cost: float | None) -> None:
        """Notes what a call came to; None keeps the worst case."""
        self.write("paid", number=number, usd=self._open[str(number)] if cost is None else cost)

    def _take(self, entry: dict[str, Any]) -> None:
        event = entry["event"]
        if event == "anew":
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
        """Yields the whole lines, and cuts off one that was left half written."""
        data = b""
        while block := os.read(self._descriptor, 1 << 20):
            data += block
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, len(data) - len(torn))
        yield from (line for line in whole.decode("utf-8", "replace").split("\n") if line)


@contextlib.contextmanager
def journal_of(folder: Path) -> Iterator[Journal]:
    """Opens the journal of a task folder for this process alone.

    Raises:
        ConfigError: Another process is annotating the task, or the folder cannot be written.
        DataError: The journal is broken.
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
    """The meter of an annotation (`knowgen.core.metering.Meter`): calls reserve their worst case in the journal.

    A call that would not fit beside those under way waits for them, and is refused only when it would not fit even if
    they cost nothing.

    Args:
        journal: Keeps the books.
        budget: US dollars over all annotations of the folder, None for no limit.
    """

    def __init__(self, journal: Journal, budget: float | None) -> None:
        self._journal, self._budget = journal, budget
        self._changed = asyncio.Condition()

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Sets aside the worst case of one call in US dollars."""
        if worst_case is None and self._budget is not None:
            raise ConfigError(
                "the price of its calls is not known, so no budget can be kept",
                where=who,
                fix="give its prices with -s price_in=… -s price_out=…, or leave --budget out",
            )
        worst = worst_case or 0.0
        async with self._changed:
            while self._budget is not None:
                left = self._budget - self._journal.spent + _SLACK
                if worst <= left:
                    break
                if worst > left + self._journal.under_way:
                    spent = f"${self._journal.spent:.4f} is spent, and a call may cost up to ${worst:.4f}"
                    raise BudgetReachedError(f"${self._budget:g} admits no further call: {spent}", where=who)
                await self._changed.wait()
            return self._journal.open_call(worst)

    async def settle(self, number: int, cost: float | None) -> None:
        """Replaces a reservation by what the call really cost, in US dollars; None keeps the worst case."""
        async with self._changed:
            self._journal.settle_call(number, cost)
            self._changed.notify_all()
