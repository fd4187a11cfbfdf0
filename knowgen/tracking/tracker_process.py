"""A tracker in a process of its own, and the thread that sends it requests. No call waits for the tracker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any

from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError
from knowgen.core.import_path import child_environment, module_command
from knowgen.core.secrets import mask_key_like, mask_secrets
from knowgen.core.text import one_line

CHECK_SECONDS = 60.0
"""Time in which a tracker must say that it can be used: importing its library takes a second or two."""

CLOSE_SECONDS = 30.0
"""Longest wait at the end of a run for a tracker to send what it has."""

INTERRUPTED_SECONDS = 5.0
"""The same where the user interrupted the run."""

BEGIN_SECONDS = 10.0
"""Longest wait at the end of a run for a tracker that has not even begun: its server may be down."""

QUEUE_LENGTH = 1000
"""Number of requests that may wait for a tracker. One that is further behind is given up."""

_LONGEST_MESSAGE = 300


class TrackerProcess:
    """Runs one tracker and sends it requests in order.

    Args:
        name: Name of the tracker.
        target: What the user wrote after the name.
        warn: Takes the one line that says why the tracker was given up.

    Attributes:
        name: Name of the tracker.
        reference: What identifies its run, once it has begun.
        failed: Whether it was given up.
    """

    def __init__(self, name: str, target: str, warn: Callable[[str], None]) -> None:
        self.name, self._warn = name, warn
        self.reference: dict[str, str] = {}
        self.failed = False
        self._lock = threading.Lock()
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE_LENGTH)
        self._ready, self._ended = threading.Event(), threading.Event()
        self._closed = self._complete = False
        self._refusal: dict[str, Any] | None = None
        self._process = subprocess.Popen(
            module_command("knowgen.tracking.worker", name, target),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is for the run, which then closes the tracker
        )
        threading.Thread(target=self._read, name=f"knowgen {name} answers", daemon=True).start()
        threading.Thread(target=self._write, name=f"knowgen {name} requests", daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait until the tracker says that it can be used.

        Raises:
            MissingDependencyError: Its library is missing.
            ConfigError: It is not set up, or says nothing.
        """
        self._ready.wait(CHECK_SECONDS)
        if self._refusal is not None:
            raise _error(self._refusal, self.name)
        if not self._ready.is_set():
            raise ConfigError("does not start", where=f"--log {self.name}", fix="leave it out, or run it again")
        if self._ended.is_set():
            raise ConfigError(f"its process ended with status {self._process.wait()}", where=f"--log {self.name}")

    def send(self, request: dict[str, Any]) -> None:
        """Send a request when the tracker has taken those before; never waits and never raises."""
        if self.failed or self._closed:
            return
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self._give_up(f"is {QUEUE_LENGTH} requests behind")

    def end(self, ending: str) -> None:
        """Have the tracker end its run; does not wait."""
        self.send({"do": "close", "ending": ending})
        self._closed = True

    def wait(self, seconds: float) -> None:
        """Wait a limited time for the tracker to end its run, after `end`."""
        if self.failed:
            return
        patience = max(0.0, seconds)
        ended = self._ended.wait(min(patience, BEGIN_SECONDS))
        if not ended and self.reference:
            ended = self._ended.wait(max(0.0, patience - BEGIN_SECONDS))
        if not ended:
            self._give_up("did not take everything in time; its record may be incomplete")
        elif not self._complete:
            self._give_up("its process ended early; its record may be incomplete")

    def kill(self) -> None:
        """End the process, with those that its library started."""
        self._closed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _give_up(self, why: str) -> None:
        with self._lock:
            if self.failed:
                return
            self.failed = True
        self._warn(f"{self.name}: {why}; the run goes on without it")

    def _write(self) -> None:
        """Pass requests on; the target of a thread."""
        assert self._process.stdin is not None
        while (request := self._requests.get()) is not None:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                return  # the process has ended, which the other thread reports

    def _read(self) -> None:
        """Take answers; the target of a thread."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer: Mapping[str, Any] = json.loads(line)
            if "started" in answer:
                self.reference = {name: str(value) for name, value in answer["started"].items()}
            elif "failed" in answer and not self._ready.is_set():
                self._refusal = answer["failed"]
            elif "failed" in answer:
                self._give_up(_message(answer["failed"]["what"]))
            elif "closed" in answer:
                self._complete = True
            self._ready.set()
        if self._ready.is_set() and self._refusal is None and not self._closed:
            self._give_up("its process has ended")
        self._ended.set()
        self._ready.set()
        with contextlib.suppress(queue.Full):  # the other thread ends when it writes
            self._requests.put_nowait(None)


def _error(refusal: Mapping[str, Any], name: str) -> KnowgenError:
    kind = MissingDependencyError if refusal["code"] == MissingDependencyError.exit_code else ConfigError
    where = refusal["where"] or f"--log {name}"
    return kind(_message(refusal["what"]), where=where, fix=refusal["fix"])


def _message(what: str) -> str:
    return one_line(mask_key_like(mask_secrets(what)), _LONGEST_MESSAGE)
