"""Ask code of others about itself in a process of its own, so that its import never happens in this process.

A plugin that runs in a worker process is imported, described and identified in such a process (`plugin_main`), which
answers questions with plain data. What its import does to the interpreter (a crash, a replaced module, a lock that is
held for ever) ends there. A process is started for a question and ended after it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from knowgen.core import registry
from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.core.guarded_import import NOTICE_SECONDS
from knowgen.core.import_path import child_environment
from knowgen.core.spec import canonical
from knowgen.core.steps import step
from knowgen.core.text import duration_text, one_line
from knowgen.core.tracebacks import is_local
from knowgen.engine.executors.child_process import ending, kill_group, start_child, wait_for_end
from knowgen.engine.executors.protocol import unpack_error

ANSWER_SECONDS = 600.0
"""Time limit for an answer. The first one takes an import, which can take minutes from a slow disk."""

_TAIL_BYTES = 1 << 16
_PRINTED_LINES = 3
_PRINTED_LENGTH = 300
_OUTPUT_SECONDS = 0.5
_CLOSE_SECONDS = 0.5
_DEATH_SECONDS = 5.0
"""How long a process that broke its connection has to end by itself, so that how it ends is known."""

_NOTICE_DELAY = 1.0
"""The process itself prints where it is after `NOTICE_SECONDS`; this process reads that a moment later."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+) in ')
_CURRENT = re.compile(r"^Current thread 0x", re.MULTILINE)
_STACKS = re.compile(r"^(Fatal Python error|Timeout \(|Thread 0x|Current thread 0x|Stack \()", re.MULTILINE)

_DOING: Mapping[str, str] = {
    "task": "was opened", "samples": "gave its samples", "truth": "gave a ground truth",
    "estimate": "estimated its cost", "reparse": "read replies",
}  # fmt: skip
"""What a plugin was doing when its process ended, by the question; for all others it was imported."""

_log = logging.getLogger("knowgen.plugins")


class PluginProcess:
    """A process that imports one plugin and answers questions about it, one after the other.

    It starts with the first question, and again after it has died. May be used from several threads.

    Args:
        kind: Kind of the plugin.
        name: Its name, as the user wrote it.
    """

    def __init__(self, kind: registry.Kind, name: str) -> None:
        self._kind, self._name = kind, name
        self._origin = registry.resolve(kind, name).origin
        origin = "" if self._origin == registry.LOCAL else f" (from {self._origin})"
        self.where = f"{registry.SINGULAR[kind]} {name!r}{origin}"
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def ask(self, question: str, **details: Any) -> Any:
        """Return the answer to a question, as plain data.

        Args:
            question: One of the questions of `plugin_main`.
            details: What else the question says, as plain data.

        Raises:
            KnowgenError: The plugin cannot be imported, or its answer is this error.
            ConfigError: It raised another error, its process ended, or it gave no answer in time.
        """
        with self._lock:
            try:
                if self._child is None:
                    self._child = _Child(self.where)
                    self._finalizer = weakref.finalize(self, self._child.end)
                answer = self._child.ask({"do": question, "kind": self._kind, "name": self._name, **details})
            except BaseException:
                self._end()
                raise
            if answer is None:
                raise self._died(question)
        if "error" not in answer:
            return answer["answer"]
        error = unpack_error(answer["error"])
        if isinstance(error, KnowgenError):
            raise error
        place = answer["error"].get("place", "")
        raise self._broken(f"failed while it {self._doing(question)}: {error}" + (f" ({place})" if place else ""))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self, patience: float = 0.0) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(patience)
        if self._finalizer is not None:
            self._finalizer.detach()

    @staticmethod
    def _doing(question: str) -> str:
        return _DOING.get(question, "was imported")

    def _died(self, question: str) -> KnowgenError:
        """Return the error for a process that ended without an answer."""
        child = self._child
        assert child is not None
        self._end(_DEATH_SECONDS)
        place = f" ({child.place})" if child.place else ""
        if child.late:
            limit = duration_text(ANSWER_SECONDS)
            return self._broken(f"gave no answer within {limit} while it {self._doing(question)}{place}")
        printed = f", after it printed {child.printed!r}" if child.printed else ""
        return self._broken(f"while it {self._doing(question)}, its process {child.ending}{place}{printed}")

    def _broken(self, what: str) -> KnowgenError:
        """Return an error; the fix depends on whether the plugin is the user's own file."""
        if self._origin == registry.LOCAL:
            return ConfigError(what, where=self.where, fix="fix that file")
        return UsageError(what, where=self.where, fix="update or uninstall the plugin")


class _Child:
    """The process itself.

    Args:
        where: The plugin, for messages.

    Attributes:
        late: Whether it was ended because it gave no answer in time.
    """

    def __init__(self, where: str) -> None:
        self.late = False
        self._where = where
        reader, writer = os.pipe()
        self._tail = bytearray()
        try:
            self._process, self._channel = start_child(
                "knowgen.workflows.plugin_main", writer, {**child_environment(), "PYTHONUNBUFFERED": "1"}
            )
        except OSError as error:
            os.close(reader)
            raise ConfigError(f"cannot start a process: {error}", where=where) from error
        self._output = threading.Thread(target=self._read, args=(reader,), name="knowgen plugin output", daemon=True)
        self._waiter = threading.Thread(target=self._wait, name="knowgen plugin process", daemon=True)
        self._output.start()
        self._waiter.start()

    def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a question; None if the process ended without one."""
        timers = (
            threading.Timer(NOTICE_SECONDS + _NOTICE_DELAY, self._report),
            threading.Timer(ANSWER_SECONDS, self._give_up),
        )
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            self._channel.send(question)
            received = self._channel.receive()
        except (OSError, ValueError):  # it has ended, or wrote what is not a message
            received = None
        finally:
            for timer in timers:
                timer.cancel()
        message = received[0] if received is not None else {}
        return message if "answer" in message or isinstance(message.get("error"), dict) else None

    def end(self, patience: float = 0.0) -> None:
        """End the process and those that the plugin started.

        Args:
            patience: Seconds that it has to end by itself.
        """
        with contextlib.suppress(OSError):  # it has ended
            if not patience and not self.late:
                self._channel.send({"do": "close"})  # it then removes its temporary folders
        self._waiter.join(patience or (0.0 if self.late else _CLOSE_SECONDS))
        if self._process.returncode is None:
            kill_group(self._process)
        self._waiter.join()
        self._output.join(_OUTPUT_SECONDS)
        self._channel.close()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return ending(self._process.returncode)

    @property
    def place(self) -> str:
        """The line of the user's own code where it last said that it is, such as `duck.py:12`; empty without one."""
        text = self._text()
        stacks = _CURRENT.search(text) or _STACKS.search(text)
        for frame in _FRAME.finditer(text, stacks.start() if stacks else len(text)):
            if is_local(frame[1]):
                return f"{Path(frame[1]).name}:{frame[2]}"
        return ""

    @property
    def printed(self) -> str:
        """The last lines that it printed itself, in one line."""
        stacks = _STACKS.search(text := self._text())
        lines = [one_line(line) for line in (text[: stacks.start()] if stacks else text).splitlines()]
        return one_line(" | ".join([line for line in lines if line][-_PRINTED_LINES:]), _PRINTED_LENGTH)

    def _text(self) -> str:
        return bytes(self._tail).decode(errors="replace")

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_TAIL_BYTES):
                self._tail += chunk
                del self._tail[:-_TAIL_BYTES]

    def _wait(self) -> None:
        wait_for_end(self._process)
        self._channel.shut()  # a process that the plugin left behind may hold the other end

    def _report(self) -> None:
        place = f" (at {self.place})" if self.place else ""
        _log.warning(
            "%s has not been imported and described after %s%s; Ctrl-C ends the command",
            self._where, duration_text(NOTICE_SECONDS), place,
        )  # fmt: skip

    def _give_up(self) -> None:
        self.late = True
        kill_group(self._process)


_remembered: ContextVar[dict[str, Any] | None] = ContextVar("knowgen_remembered_answers", default=None)


@contextmanager
def remembered_answers() -> Iterator[None]:
    """Ask each question once until the end of the `with` statement, for plans that resolve the same plugins often."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def ask(kind: registry.Kind, name: str, question: str, **details: Any) -> Any:
    """Ask a plugin a question in a process of its own; see `PluginProcess.ask`.

    Args:
        kind: Kind of the plugin.
        name: Its name, as the user wrote it.
        question: The question.
        details: What else it says, as plain data.
    """
    remembered, key = _remembered.get(), canonical([kind, name, question, details])
    if remembered is not None and key in remembered:
        return copy.deepcopy(remembered[key])
    with step(f"loading {name}"), closing(PluginProcess(kind, name)) as process:
        answer = process.ask(question, **details)
    if remembered is not None:
        remembered[key] = copy.deepcopy(answer)
    return answer


def is_foreign(kind: registry.Kind, plugin: object) -> bool:
    """Return whether a plugin is given by name and is not part of this project.

    Raises:
        UsageError: The name is unknown.
    """
    return isinstance(plugin, str) and not registry.is_bundled(registry.resolve(kind, plugin).origin)
