"""The program of a worker process: build one generator or scorer from its name, and call it for the run.

Started by `worker_process.WorkerProcess`, which names the descriptor of its connection (`channel`) as an argument. The
plugin's standard input is empty, and what it prints goes to the log. The process ends when the run closes the
connection, for whatever reason, and takes the processes that the plugin started with it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import io
import itertools
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from knowgen.core.errors import KnowgenError
from knowgen.core.guarded_import import NOTICE_SECONDS
from knowgen.core.leaks import current_leak_guard
from knowgen.core.metering import current_meter, reuse_replies
from knowgen.core.scratch import close_all
from knowgen.core.waiting import WaitReporter
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.call_results import CallResults
from knowgen.engine.executors.channel import Channel
from knowgen.engine.executors.concurrency import DROPPED, END, InvocationEvent
from knowgen.engine.executors.invoke import (
    COROUTINES,
    ServiceCheck,
    build_from_ref,
    build_plugin,
    check_service,
    invoke,
    report_waiting,
)
from knowgen.engine.executors.protocol import pack_error, unpack_batch, unpack_error

if TYPE_CHECKING:
    from PIL.Image import Image

_HIGH_DESCRIPTOR = 400
"""Lowest number of the connection's descriptor, so that code which closes the low ones does not close it."""

Handler = Callable[[dict[str, Any]], None]


class RunConnection:
    """The connection to the run.

    Args:
        descriptor: The descriptor that the run passed.
    """

    def __init__(self, descriptor: int) -> None:
        self._channel = Channel(_private(descriptor))
        self._numbers = itertools.count()
        self._pending: dict[int, Future[Any]] = {}
        self.commands: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._handle: Handler = self.commands.put
        self._lock = threading.Lock()

    def first(self) -> dict[str, Any]:
        """Return the first message, and start a thread that receives the following ones."""
        received = self._channel.receive()
        if received is None:
            os._exit(0)
        threading.Thread(target=self._receive, name="knowgen connection", daemon=True).start()
        return received[0]

    def deliver_to(self, handle: Handler) -> None:
        """Call a function with every command from now on, in the thread that receives, instead of queueing them."""
        with self._lock:
            self._handle = handle
            while not self.commands.empty():
                handle(self.commands.get())

    def _receive(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                message = received[0]
                if message["do"] == "reply":
                    self._on_reply(message)
                else:
                    with self._lock:
                        self._handle(message)
        finally:
            _end_with_children()  # the run has ended: nothing in progress is needed

    def _on_reply(self, message: dict[str, Any]) -> None:
        future = self._pending.pop(message["n"], None)
        if future is None:
            return  # of a release, which nothing waits for
        if not future.set_running_or_notify_cancel():
            if message.get("kind") == "reserve" and "number" in message:  # the call is not made: release it
                self.send({"event": "settle", "n": next(self._numbers), "number": message["number"], "cost": 0.0})
        elif "error" in message:
            future.set_exception(unpack_error(message["error"]))
        else:
            future.set_result(message["number"])

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message. May be used from any thread."""
        try:
            self._channel.send(message, payload)
        except OSError as error:
            sys.stderr.write(f"knowgen: the connection to the run is closed: {error}\n")
            end_process(1)

    async def request(self, message: dict[str, Any]) -> Any:
        """Send a message and return what the run replies.

        Raises:
            KnowgenError: The error that the run replies with.
        """
        return await asyncio.wrap_future(self.requested(message))

    def requested(self, message: dict[str, Any]) -> Future[Any]:
        """Send a message and return the future of what the run replies. May be used from any thread."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._pending[number] = future
        self.send({**message, "n": number})
        return future


def _private(descriptor: int) -> socket.socket:
    """Return the connection under a high descriptor that child processes do not get."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    lowest = _HIGH_DESCRIPTOR if limit == resource.RLIM_INFINITY or limit > 2 * _HIGH_DESCRIPTOR else 3
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(descriptor)
    os.register_at_fork(after_in_child=lambda: _close_in_child(high))
    return socket.socket(fileno=high)


def _close_in_child(descriptor: int) -> None:
    """Close the connection in a process that the plugin forked, which must not keep it open."""
    try:
        os.close(descriptor)
    except OSError:
        return  # the plugin has closed it already


def end_process(code: int = 0) -> NoReturn:
    """End this process without waiting for threads and processes of the plugin; the run kills the latter."""
    close_all()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - the plugin may have closed or replaced it
            continue
    os._exit(code)


def _end_with_children() -> None:
    """Kill this process and those that the plugin started, because the run is gone."""
    if os.getpgid(0) == os.getpid():  # a group of its own, as the run starts it
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


class RemoteMeter:
    """The run's budget meter, reached over the connection; see `knowgen.core.metering.Meter`."""

    def __init__(self, connection: RunConnection) -> None:
        self._connection = connection

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve the worst case of one call in US dollars."""
        return int(await self._connection.request({"event": "reserve", "worst": worst_case, "who": caller}))

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars."""
        settled = self._connection.request({"event": "settle", "number": number, "cost": cost})
        await asyncio.shield(asyncio.ensure_future(settled))  # cancelling the call must not undo it

    def note(self, caller: str, kind: str, data: dict[str, Any]) -> None:
        """Store a note in the run directory."""
        self._connection.send({"event": "note", "who": caller, "kind": kind, "data": data})


class RemoteGuard:
    """The run's leak guard, reached over the connection; see `knowgen.core.leaks.LeakGuard`.

    Addresses are compared here. Of an image the hashes are sent: the process of a plugin holds nothing of the ground
    truths.
    """

    def __init__(self, connection: RunConnection) -> None:
        self._connection = connection

    def blocked_url(self, url: str) -> str:
        """Return why a URL must not be fetched or shown; empty when it may."""
        from knowgen.search.leaks import TruthGuard

        return TruthGuard(()).blocked_url(url)

    def blocked_image(self, image: Path | Image) -> str:
        """Return why an image must not be shown; empty when it may."""
        from knowgen.search.leaks import image_hashes

        hashes = [one.hex() for one in image_hashes(image)]
        return str(self._connection.requested({"event": "leak", "hashes": hashes}).result())


# -- calls -------------------------------------------------------------------------------------------------------------


class ThreadCalls:
    """Calls of a plugin in threads of this process. A thread that waits cannot be interrupted, but sends nothing more.

    Args:
        shape: Name of the plugin's method.
        plugin: The plugin.
        connection: The connection to the run.
        results: Sends the results.
    """

    def __init__(self, shape: str, plugin: Any, connection: RunConnection, results: CallResults) -> None:
        self._shape, self._plugin = shape, plugin
        self._connection, self._results = connection, results
        self._work: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._open: dict[int, WaitReporter] = {}
        self._dropped: set[int] = set()

    def serve_in_order(self) -> None:
        """Carry out one call after the other in this thread, until the run sends `close`."""
        self._connection.deliver_to(self._handle)
        self._serve()

    def serve_at_once(self, threads: int) -> None:
        """Carry out several calls at once, each in a thread, until the run sends `close`."""
        for number in range(threads):
            # with the meter, the leak guard, and whether cached replies may be used
            serving = partial(copy_context().run, self._serve)
            threading.Thread(target=serving, name=f"knowgen call {number}", daemon=True).start()
        self._connection.deliver_to(self._handle)
        self._closing.wait()

    def _handle(self, message: dict[str, Any]) -> None:
        """Handle a command, in the thread that receives."""
        if message["do"] == "invoke":
            self._work.put(message)
        elif message["do"] == "drop":
            self._drop(message["call"])
        elif message["do"] == "close":
            if self._dropped:
                end_process()  # a thread still waits, and the plugin is in use there
            self._work.put(None)
            self._closing.set()

    def _drop(self, call: int) -> None:
        """Drop a call that waits for its turn."""
        if (reporter := self._open.get(call)) is not None and reporter.drop():
            self._dropped.add(call)
            self._results.emit(call, DROPPED)
            self._results.emit(call, END)

    def _serve(self) -> None:
        while (message := self._work.get()) is not None:
            call = message["call"]
            emit, on_start = partial(self._results.emit, call), partial(self._open.__setitem__, call)
            invoke(self._shape, self._plugin, unpack_batch(message["batch"]), emit, on_start)
            self._open.pop(call, None)
            self._dropped.discard(call)


class CoroutineCalls:
    """Calls of a plugin's coroutine, all at once in one event loop.

    Args:
        shape: `generate` or `score`.
        plugin: The plugin.
        connection: The connection to the run.
        results: Sends the results.
    """

    def __init__(self, shape: str, plugin: Any, connection: RunConnection, results: CallResults) -> None:
        self._function, self._plugin = COROUTINES[shape], plugin
        self._connection, self._results = connection, results
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._reporters: dict[int, WaitReporter] = {}
        self._cancelled: set[int] = set()

    async def serve(self) -> None:
        """Carry out calls until the run sends `close`; then close the plugin in the same loop."""
        loop = asyncio.get_running_loop()
        closing = asyncio.Event()

        def handle(message: dict[str, Any]) -> None:
            if message["do"] == "invoke":
                self._tasks[message["call"]] = loop.create_task(self._call(message["call"], message["batch"]))
            elif message["do"] == "cancel":
                if (task := self._tasks.get(message["call"])) is not None:
                    self._cancelled.add(message["call"])
                    task.cancel()
                self._connection.send({"event": "cancelled", "call": message["call"]})
            elif message["do"] == "drop":
                self._drop(message["call"])
            else:
                closing.set()

        context = copy_context()  # with the meter; the thread that receives has another one
        self._connection.deliver_to(lambda message: _post(loop, context, handle, message))
        await closing.wait()
        for call, task in list(self._tasks.items()):
            self._cancelled.add(call)
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await close_plugin(self._plugin)

    def _drop(self, call: int) -> None:
        """Cancel a call that waits for its turn. Used in the loop, where it does not go on meanwhile."""
        if (reporter := self._reporters.get(call)) is not None and reporter.drop():
            self._tasks[call].cancel()

    async def _value(self, payload: Any) -> Any:
        if isinstance(payload, ServiceCheck):
            await check_service(self._plugin)
            return payload
        return await self._function(self._plugin, payload)

    async def _call(self, call: int, batch: list[dict[str, Any]]) -> None:
        reporter = self._reporters[call] = report_waiting(partial(self._results.emit, call))
        try:
            event = InvocationEvent("result", "", await self._value(unpack_batch(batch)[0]))
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, sys.exit included
            ended = call in self._cancelled or reporter.dropped
            if isinstance(error, asyncio.CancelledError) and not ended and len(self._tasks) > 1:
                # one of the calls cancels others: the run repeats each of them alone
                sys.stderr.write("knowgen: a call was cancelled by the plugin while others were in progress\n")
                end_process(1)
            event = DROPPED if reporter.dropped else InvocationEvent("error", "", error)
        self._results.emit(call, event)
        self._results.emit(call, END)
        self._tasks.pop(call, None)
        self._reporters.pop(call, None)
        self._cancelled.discard(call)


def _post(loop: asyncio.AbstractEventLoop, context: Context, function: Handler, message: dict[str, Any]) -> None:
    try:
        loop.call_soon_threadsafe(function, message, context=context)
    except RuntimeError:  # the loop is closed: the process is about to end
        return


async def close_plugin(plugin: Any) -> None:
    """Call `close` or `aclose` of a plugin that has one."""
    close = getattr(plugin, "close", None) or getattr(plugin, "aclose", None)
    if callable(close):
        closing = close()
        if asyncio.iscoroutine(closing):
            await closing


# -- the process -------------------------------------------------------------------------------------------------------


def prepare_streams() -> None:
    """Make what the plugin prints appear in the log at once, whatever the locale, and tracebacks of crashes too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    faulthandler.enable()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop that is not closed, because closing it waits for the plugin's threads."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(coroutine)


def _serve(start: dict[str, Any], plugin: Any, connection: RunConnection) -> None:
    shape, concurrency, results = start["shape"], start["concurrency"], CallResults(connection.send)
    if shape in COROUTINES:
        _run(CoroutineCalls(shape, plugin, connection, results).serve())
        return
    calls = ThreadCalls(shape, plugin, connection, results)
    if concurrency > 1:
        calls.serve_at_once(concurrency)
    else:
        calls.serve_in_order()
    _run(close_plugin(plugin))


def main() -> None:
    """Serve one run until it sends `close` or ends."""
    prepare_streams()
    connection = RunConnection(int(sys.argv.pop()))
    start = connection.first()
    current_meter.set(RemoteMeter(connection))
    reuse_replies.set(bool(start["reuse"]))
    current_leak_guard.set(RemoteGuard(connection) if start["guarded"] else None)
    component_ref = ComponentRef(start["kind"], start["name"], start["args"])
    faulthandler.dump_traceback_later(NOTICE_SECONDS)  # to the log; works while the interpreter's lock is held, too
    try:
        plugin = build_plugin(lambda: build_from_ref(component_ref), lambda: str(start["device"]), start["where"])
    except KnowgenError as error:
        traceback.print_exception(error)  # to the log
        connection.send({"event": "build_failed", "error": pack_error(error)})
        end_process()
    faulthandler.cancel_dump_traceback_later()
    connection.send({"event": "ready"})
    try:
        _serve(start, plugin, connection)
    except BaseException:  # noqa: BLE001 - close() of the plugin may raise anything; its results are saved
        traceback.print_exc()  # to the log
    end_process()  # without waiting for threads and processes of the plugin


if __name__ == "__main__":
    main()
