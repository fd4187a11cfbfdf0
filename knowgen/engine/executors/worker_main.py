"""A worker process: makes one generator or scorer from its name and serves the run that started it.

Started as `python -m knowgen.engine.executors.worker_main`. It speaks lines over what were its standard streams; whatever the plugin
prints goes to the log. It ends when the run that started it is gone, however that went.
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
from knowgen.engine.executors.invoke import make, rebuild, serve
from knowgen.engine.executors.protocol import from_line, pack_error, to_line, unpack_batch, unpack_error
from knowgen.engine.imaging import encode
from knowgen.engine.retry import ContractError
from knowgen.generators.contract import GeneratedImage


class ParentConnection:
    """The line to the run. The plugin gets neither end of it: what it prints goes to the log."""

    def __init__(self) -> None:
        self._requests: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._replies: BinaryIO = os.fdopen(os.dup(1), "wb")
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - only its descriptor is wanted
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[int]] = {}
        self.calls: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def first(self) -> dict[str, Any]:
        """Reads the first message, and has a thread read all that follow."""
        line = self._requests.readline()
        if not line:
            os._exit(0)
        threading.Thread(target=self._read, name="knowgen link", daemon=True).start()
        return from_line(line)

    def _read(self) -> None:
        while line := self._requests.readline():
            message = from_line(line)
            if message["do"] in {"call", "close"}:
                self.calls.put(message)
            elif "error" in message:
                self._asked.pop(message["n"]).set_exception(unpack_error(message["error"]))
            else:
                self._asked.pop(message["n"]).set_result(message["number"])
        os._exit(0)  # the run is gone: nobody wants what is under way

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message, from any thread."""
        line = to_line(message)
        with self._lock:
            self._replies.write(line)
            self._replies.flush()

    async def ask(self, message: dict[str, Any]) -> int:
        """Sends a question and waits for the number that comes back."""
        number = next(self._numbers)
        future: Future[int] = Future()
        self._asked[number] = future
        self.send({**message, "n": number})
        return await asyncio.wrap_future(future)


class RemoteMeter:
    """The run's books, asked over the link; see `knowgen.core.metering.Meter`."""

    def __init__(self, link: ParentConnection) -> None:
        self._link = link

    async def reserve(self, worst_case: float | None, who: str) -> int:
        """Sets aside the worst case of one call."""
        return await self._link.ask({"event": "reserve", "worst": worst_case, "who": who})

    async def settle(self, number: int, cost: float | None) -> None:
        """Replaces a reservation by the true cost."""
        await self._link.ask({"event": "settle", "number": number, "cost": cost})


_NOTED = [field.name for field in dataclasses.fields(GeneratedImage) if field.name not in {"image", "usage"}]
"""What goes along with a picture; a class of the plugin's own may have more, which nobody else knows."""


class EventSender:
    """Turns the events of a call into messages.

    Args:
        link: Where they go.
        scratch: Folder in which pictures are handed over.
    """

    def __init__(self, link: ParentConnection, scratch: Path) -> None:
        self._link, self._scratch = link, scratch
        self._numbers = itertools.count()

    def emit(self, event: InvocationEvent) -> None:
        """Sends an event."""
        if event.kind == "end":
            self._link.send({"event": "end"})
        elif event.kind == "fault":
            self._fault(event.id, event.value)
        else:
            try:
                self._link.send({"event": "answer", "id": event.id, **self._packed(event.value)})
            except (ContractError, TypeError, ValueError) as error:
                self._fault(event.id, error)

    def _fault(self, name: str, error: BaseException) -> None:
        self._link.send({"event": "fault", "id": name, "error": pack_error(error)})

    def _packed(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Score):
            return {"score": value.model_dump(mode="json")}
        if not isinstance(value, GeneratedImage):
            value = GeneratedImage(image=value)
        return {"drawing": self._drawing(value)}

    def _drawing(self, drawing: GeneratedImage) -> dict[str, Any]:
        fields = {name: getattr(drawing, name) for name in _NOTED}
        try:
            json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ContractError(f"what the generator noted beside the picture is not plain data: {error}") from error
        fields["usage"] = Usage.model_validate(drawing.usage).model_dump(mode="json")
        if GenerationStatus(drawing.status) is GenerationStatus.OK:
            data, width, height, kind = encode(drawing.image)
            name = f"{os.getpid()}-{next(self._numbers)}"
            (self._scratch / name).write_bytes(data)
            fields["picture"] = [name, width, height, kind]
        return fields


def main() -> None:
    """Serves one run until it says close or is gone."""
    link = ParentConnection()
    start = link.first()
    current_meter.set(RemoteMeter(link))
    remake = ComponentRef(start["kind"], start["name"], start["args"])
    try:
        plugin = make(lambda: rebuild(remake), lambda: str(start["device"]), start["where"])
    except KnowgenError as error:
        link.send({"event": "broken", "error": pack_error(error)})
        return
    replies = EventSender(link, Path(start["scratch"]))
    link.send({"event": "ready"})
    while (message := link.calls.get())["do"] == "call":
        serve(start["shape"], plugin, unpack_batch(message["batch"]), replies.emit)
    if callable(close := getattr(plugin, "close", None)):
        outcome = close()
        if asyncio.iscoroutine(outcome):
            asyncio.run(outcome)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
