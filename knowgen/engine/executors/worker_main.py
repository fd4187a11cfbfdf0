"""The program of a worker process: build one generator or scorer from its name, and call it for the run.

Started by `subprocess.SubprocessExecutor` as `python -m knowgen.engine.executors.worker_main`. Messages (see
`protocol`) go over the original standard streams; what the plugin prints goes to the log. The process ends when the run
closes the connection, for whatever reason.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from knowgen.core.errors import KnowgenError
from knowgen.core.metering import current_meter
from knowgen.core.records import GenerationStatus, Score, Usage
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import ServiceCheck, build_from_ref, build_plugin, invoke
from knowgen.engine.executors.protocol import from_line, pack_error, to_line, unpack_batch, unpack_error
from knowgen.engine.imaging import encode
from knowgen.engine.retry import ContractError
from knowgen.generators.contract import GeneratedImage


class ParentConnection:
    """The connection to the run. The plugin cannot reach it: its standard output is the log, its input is empty."""

    def __init__(self) -> None:
        self._incoming: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._outgoing: BinaryIO = os.fdopen(os.dup(1), "wb")
        with open(os.devnull, "rb") as empty:  # noqa: PTH123 - only its file descriptor is needed
            os.dup2(empty.fileno(), 0)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future[int]] = {}
        self.commands: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def first(self) -> dict[str, Any]:
        """Read the first message, and start a thread that reads the following ones."""
        line = self._incoming.readline()
        if not line:
            os._exit(0)
        threading.Thread(target=self._read, name="knowgen connection", daemon=True).start()
        return from_line(line)

    def _read(self) -> None:
        while line := self._incoming.readline():
            message = from_line(line)
            if message["do"] in {"invoke", "close"}:
                self.commands.put(message)
            elif "error" in message:
                self._pending.pop(message["n"]).set_exception(unpack_error(message["error"]))
            else:
                self._pending.pop(message["n"]).set_result(message["number"])
        os._exit(0)  # the run has ended: nothing in progress is needed

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. May be used from any thread."""
        line = to_line(message)
        with self._lock:
            self._outgoing.write(line)
            self._outgoing.flush()

    async def request(self, message: dict[str, Any]) -> int:
        """Send a message and return the number that the run replies with.

        Raises:
            KnowgenError: The error that the run replies with.
        """
        number = next(self._numbers)
        future: Future[int] = Future()
        self._pending[number] = future
        self.send({**message, "n": number})
        return await asyncio.wrap_future(future)


class RemoteMeter:
    """The run's budget meter, reached over the connection; see `knowgen.core.metering.Meter`."""

    def __init__(self, connection: ParentConnection) -> None:
        self._connection = connection

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve the worst case of one call in US dollars."""
        return await self._connection.request({"event": "reserve", "worst": worst_case, "who": caller})

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the actual cost in US dollars."""
        await self._connection.request({"event": "settle", "number": number, "cost": cost})


_METADATA = [field.name for field in dataclasses.fields(GeneratedImage) if field.name not in {"image", "usage"}]
"""Fields sent with an image. A plugin's own subclass may have more, which are not sent."""


class EventSender:
    """Sends the events of an invocation as messages.

    Args:
        connection: The connection to the run.
        scratch: Folder in which images are handed over.
    """

    def __init__(self, connection: ParentConnection, scratch: Path) -> None:
        self._connection, self._scratch = connection, scratch
        self._numbers = itertools.count()

    def emit(self, event: InvocationEvent) -> None:
        """Send an event. A result that cannot be sent becomes an error of its request."""
        if event.kind == "end":
            self._connection.send({"event": "end"})
        elif event.kind == "waiting":
            self._connection.send({"event": "waiting", "waits": event.value})
        elif isinstance(event.value, ServiceCheck):
            self._connection.send({"event": "checked", "id": event.id})
        elif event.kind == "error":
            self._send_error(event.id, event.value)
        else:
            try:
                self._connection.send({"event": "result", "id": event.id, **self._packed(event.value)})
            except (ContractError, TypeError, ValueError) as error:
                self._send_error(event.id, error)

    def _send_error(self, id: str, error: BaseException) -> None:
        self._connection.send({"event": "error", "id": id, "error": pack_error(error)})

    def _packed(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Score):
            return {"score": value.model_dump(mode="json")}
        if not isinstance(value, GeneratedImage):
            value = GeneratedImage(image=value)
        return {"generated": self._packed_image(value)}

    def _packed_image(self, result: GeneratedImage) -> dict[str, Any]:
        """Write the image to the scratch folder; return its metadata, file name, size and format."""
        fields = {name: getattr(result, name) for name in _METADATA}
        try:
            json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ContractError(f"the metadata of the image is not plain data: {error}") from error
        fields["usage"] = Usage.model_validate(result.usage).model_dump(mode="json")
        if GenerationStatus(result.status) is GenerationStatus.OK:
            encoded = encode(result.image)
            name = f"{os.getpid()}-{next(self._numbers)}"
            (self._scratch / name).write_bytes(encoded.data)
            fields["file"] = [name, *encoded[1:]]
        return fields


def main() -> None:
    """Serve one run until it sends `close` or ends."""
    connection = ParentConnection()
    start = connection.first()
    current_meter.set(RemoteMeter(connection))
    component_ref = ComponentRef(start["kind"], start["name"], start["args"])
    try:
        plugin = build_plugin(lambda: build_from_ref(component_ref), lambda: str(start["device"]), start["where"])
    except KnowgenError as error:
        connection.send({"event": "build_failed", "error": pack_error(error)})
        return
    sender = EventSender(connection, Path(start["scratch"]))
    connection.send({"event": "ready"})
    while (message := connection.commands.get())["do"] == "invoke":
        invoke(start["shape"], plugin, unpack_batch(message["batch"]), sender.emit)
    if callable(close := getattr(plugin, "close", None)):
        closing = close()
        if asyncio.iscoroutine(closing):
            asyncio.run(closing)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
