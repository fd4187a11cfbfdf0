"""One worker process as the run sees it: have it build its plugin, give it calls, receive their results, see it end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from knowgen.core.guarded_import import NOTICE_SECONDS
from knowgen.core.leaks import current_leak_guard
from knowgen.core.metering import Meter
from knowgen.core.records import Score, Usage
from knowgen.core.text import duration_text
from knowgen.engine.devices import Device
from knowgen.engine.executors.concurrency import DROPPED, END, Invocation, InvocationEvent, LoopBridge
from knowgen.engine.executors.image_transfer import unpack_image
from knowgen.engine.executors.links import WorkerLaunch, WorkerLink
from knowgen.engine.executors.protocol import pack_batch, pack_error, unpack_error
from knowgen.engine.retry import ContractError, WorkerDiedError, describe, slow_build
from knowgen.engine.snapshot import unpack_answer
from knowgen.generators.contract import GeneratedImage
from knowgen.search.leaks import TruthGuard

_CANCEL_SECONDS = 1.0
_END_SECONDS = 1.0

_log = logging.getLogger("knowgen.engine")

OnDeath = Callable[[list[Invocation[Any]], WorkerDiedError], None]


class WorkerProcess:
    """One worker process.

    Args:
        launch: How it was started.
        number: Its number among the workers of the plugin.
        device: Device of its plugin.
        link: The process itself, and the connection to it.
        bridge: Bridge into the engine's event loop.
        meter: Meter of its paid calls.
        on_death: Called in the loop with the calls that were open when the process ended, and the error.

    Attributes:
        device: Device of its plugin.
        ready: Resolves when the plugin is built, or fails with the error, also when that takes too long.
        dead: Whether the process has ended.
        hanging: The calls that were open when the process was found to hang; empty before.
        log: Its log file.
    """

    def __init__(
        self,
        launch: WorkerLaunch,
        number: int,
        device: Device,
        link: WorkerLink,
        bridge: LoopBridge,
        meter: Meter,
        on_death: OnDeath = lambda calls, error: None,
    ) -> None:
        self._launch, self._link, self._bridge, self._meter = launch, link, bridge, meter
        self._on_death, self.device = on_death, device
        self._calls: dict[int, Invocation[Any]] = {}
        self._call_numbers = itertools.count()
        self._cancelled: dict[int, asyncio.Future[None]] = {}
        self._outgoing: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._guard = current_leak_guard.get()
        self.ready: asyncio.Future[None] = bridge.loop.create_future()
        self.dead = False
        self.hanging: list[Invocation[Any]] = []
        self._fault = ""
        self.log = launch.log(number)
        self._send(self._build_message(device))
        self._limit_build()
        for target in (self._receive, self._send_messages):
            threading.Thread(target=target, name=f"knowgen worker {number}", daemon=True).start()

    def _build_message(self, device: Device) -> dict[str, Any]:
        component_ref = self._launch.component_ref
        return {
            "do": "build",
            "kind": component_ref.kind,
            "name": component_ref.name,
            "args": dict(component_ref.args),
            "device": device.name,
            "shape": self._launch.shape,
            "concurrency": self._launch.concurrency,
            "where": self._launch.where,
            "reuse": self._launch.reuse,
            "guarded": self._guard is not None,
        }

    def _limit_build(self) -> None:
        """Report a plugin that takes long to build, and end one that takes too long."""
        loop = self._bridge.loop
        timers = (
            loop.call_later(NOTICE_SECONDS, self._report_slow_build),
            loop.call_later(self._launch.build_timeout, self._end_slow_build),
        )

        def cancel(_: asyncio.Future[None]) -> None:
            for timer in timers:
                timer.cancel()

        self.ready.add_done_callback(cancel)

    def _report_slow_build(self) -> None:
        state = self._link.waits_for or f"where it is stands in logs/{self.log.name}"
        _log.warning(
            "%s has not been built in its worker process after %s; %s",
            self._launch.where, duration_text(NOTICE_SECONDS), state,
        )  # fmt: skip

    def _end_slow_build(self) -> None:
        _settle(self.ready, slow_build(self._launch.where, self._launch.build_timeout, f"see logs/{self.log.name}"))
        self.kill()

    # -- calls: used in the loop only ------------------------------------------------------------------------------

    @property
    def open_calls(self) -> list[Invocation[Any]]:
        """Return the calls that have not ended."""
        return list(self._calls.values())

    def start(self, invocation: Invocation[Any]) -> None:
        """Start a call."""
        number = next(self._call_numbers)
        invocation.slot, invocation.task = self, number
        self._calls[number] = invocation
        self._send({"do": "invoke", "call": number, "batch": pack_batch(invocation.batch)})
        if self.dead:  # it died before the call was registered, so its exit was not reported
            self._report_death()

    async def cancel(self, invocation: Invocation[Any]) -> bool:
        """Cancel a call of a coroutine; return whether the worker's event loop reacted."""
        number: int = invocation.task
        if self.dead:
            return True
        cancelled = self._cancelled[number] = self._bridge.loop.create_future()
        self._send({"do": "cancel", "call": number})
        try:
            await asyncio.wait_for(cancelled, _CANCEL_SECONDS)
        except TimeoutError:
            return False
        finally:
            self._cancelled.pop(number, None)
        self._calls.pop(number, None)
        return True

    def drop(self, invocation: Invocation[Any]) -> None:
        """Ask the process to drop a call if it waits for its turn."""
        self._send({"do": "drop", "call": invocation.task})

    def close(self) -> None:
        """Ask the process to close its plugin and end."""
        self._send({"do": "close"})

    def kill(self) -> None:
        """Kill the process and its child processes."""
        self._link.kill()

    @property
    def device_failed(self) -> bool:
        """Return whether the process ended because its device failed."""
        return self.dead and self._link.device_failed

    @property
    def running(self) -> bool:
        """Return whether the process is running."""
        return not self._link.wait(0)

    # -- threads ---------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        self._outgoing.put(message)

    def _send_messages(self) -> None:
        while (message := self._outgoing.get()) is not None:
            try:
                self._link.send(message)
            except OSError:
                break  # the process has ended; another thread reports it

    def _receive(self) -> None:
        try:
            while (received := self._link.receive()) is not None:
                self._on_message(*received)
        except Exception as error:  # noqa: BLE001 - a plugin may write anything to the connection
            self._fault = f"sent what is not a message ({describe(error)})"
            self.kill()
        if not self._link.wait(_END_SECONDS):
            self._fault = self._fault or "closed its connection to the run"
            self.kill()
            self._link.wait()
        self._outgoing.put(None)
        self._link.close()
        self._bridge.post(self._on_exit)

    def _on_message(self, message: dict[str, Any], payload: bytes) -> None:
        """Handle a message, in the receiving thread."""
        event = message["event"]
        if event == "ready":
            self._bridge.post(_settle, self.ready, None)
        elif event == "build_failed":
            self._bridge.post(_settle, self.ready, unpack_error(message["error"]))
        elif event == "reserve":
            self._reply(message, self._meter.reserve(message["worst"], message["who"]))
        elif event == "settle":
            self._reply(message, self._meter.settle(message["number"], message["cost"]))
        elif event == "leak":
            self._reply(message, asyncio.to_thread(self._blocked, message["hashes"]))
        elif event == "note":
            if callable(note := getattr(self._meter, "note", None)):
                note(message["who"], message["kind"], message["data"])
        elif event == "cancelled":
            self._bridge.post(self._on_cancelled, message["call"])
        elif (invocation := self._calls.get(message["call"])) is not None:
            if event == "end":
                self._calls.pop(message["call"], None)
            invocation.emit(_event(message, payload))

    def _blocked(self, hashes: Sequence[str]) -> str:
        """Return why the leak guard blocks an image with some hashes; empty when it does not."""
        assert isinstance(self._guard, TruthGuard), "a worker asks only where the run has a guard"
        return self._guard.blocked_hashes([bytes.fromhex(one) for one in hashes])

    def _reply(self, message: dict[str, Any], operation: Any) -> None:
        """Run an operation of the meter or the leak guard in the loop and send its result to the worker."""
        reply = {"do": "reply", "n": message["n"], "kind": message["event"]}

        def done(future: Any) -> None:
            error = future.exception()
            if error is not None:
                self._send({**reply, "error": pack_error(error)})
            else:
                self._send({**reply, "number": future.result()})

        asyncio.run_coroutine_threadsafe(operation, self._bridge.loop).add_done_callback(done)

    # -- the end: in the loop --------------------------------------------------------------------------------------

    def _on_cancelled(self, number: int) -> None:
        cancelled = self._cancelled.get(number)
        if cancelled is not None and not cancelled.done():
            cancelled.set_result(None)

    def _on_exit(self) -> None:
        """Report that the process has ended."""
        self.dead = True
        _settle(self.ready, self._death(f"the worker process of {self._launch.where}"))
        self._report_death()

    def _report_death(self) -> None:
        """Fail the open calls, all with one error, because it was one death."""
        calls, self._calls = list(self._calls.values()), {}
        error = self._death("the worker process")
        self._on_death([invocation for invocation in calls if not invocation.closed], error)
        for invocation in calls:
            if not invocation.closed:
                invocation.deliver(InvocationEvent("error", "", error))
                invocation.deliver(END)
                invocation.closed = True

    def _death(self, who: str) -> WorkerDiedError:
        return self._link.death(who, self._fault, self.log)


def _event(message: dict[str, Any], payload: bytes) -> InvocationEvent:
    """Return the event of a message. A result that is not valid becomes an error of its request."""
    if message["event"] == "end":
        return END
    if message["event"] == "dropped":
        return DROPPED
    if message["event"] == "waiting":
        return InvocationEvent("waiting", "", bool(message["waits"]))
    id = message["id"]
    if message["event"] == "checked":
        return InvocationEvent("result", id)
    if message["event"] == "error":
        return InvocationEvent("error", id, unpack_error(message["error"]))
    try:
        if "answered" in message:
            return InvocationEvent("result", id, unpack_answer(message["answered"]))
        if "score" in message:
            return InvocationEvent("result", id, Score.model_validate(message["score"]))
        fields = dict(message["generated"])
        fields["usage"] = Usage.model_validate(fields["usage"])
        for name in ("references", "evidence", "trajectory"):
            if isinstance(fields[name], list):
                fields[name] = tuple(fields[name])
        image = unpack_image(message["image"], payload) if "image" in message else None
        return InvocationEvent("result", id, GeneratedImage(image=image, **fields))
    except (ContractError, ValueError, TypeError, KeyError) as error:
        return InvocationEvent("error", id, ContractError(f"the result is not valid: {describe(error)}"))


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # mark it as retrieved: nothing may be waiting for it
