"""Send the events of calls from a worker process to the run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from knowgen.core.records import AgentAnswer, GenerationStatus, Score, Usage
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.image_transfer import pack_image
from knowgen.engine.executors.invoke import ServiceCheck
from knowgen.engine.executors.protocol import pack_error
from knowgen.engine.retry import ContractError
from knowgen.engine.snapshot import pack_answer
from knowgen.generators.contract import GeneratedImage

_METADATA = [field.name for field in dataclasses.fields(GeneratedImage) if field.name not in {"image", "usage"}]
"""Fields sent with an image. A plugin's own subclass may have more, which are not sent."""

_encode_plain = json.JSONEncoder(allow_nan=False).encode


class CallResults:
    """Sends the events of calls as messages.

    Args:
        send: Sends a message with a payload.
    """

    def __init__(self, send: Callable[[dict[str, Any], bytes], None]) -> None:
        self._send = send

    def emit(self, call: int, event: InvocationEvent) -> None:
        """Send an event of a call. A result that cannot be sent becomes an error of its request."""
        if event.kind == "end":
            self._send({"event": "end", "call": call}, b"")
        elif event.kind == "dropped":
            self._send({"event": "dropped", "call": call}, b"")
        elif event.kind == "waiting":
            self._send({"event": "waiting", "call": call, "waits": event.value}, b"")
        elif isinstance(event.value, ServiceCheck):
            self._send({"event": "checked", "call": call, "id": event.id}, b"")
        elif event.kind == "error":
            self._send_error(call, event.id, event.value)
        else:
            try:
                message, payload = _packed(event.value)
                self._send({"event": "result", "call": call, "id": event.id, **message}, payload)
            except (ContractError, TypeError, ValueError, RecursionError) as error:
                self._send_error(call, event.id, error)

    def _send_error(self, call: int, id: str, error: BaseException) -> None:
        self._send({"event": "error", "call": call, "id": id, "error": pack_error(error)}, b"")


def _packed(value: Any) -> tuple[dict[str, Any], bytes]:
    if isinstance(value, AgentAnswer):
        return {"answered": pack_answer(value)}, b""
    if isinstance(value, Score):
        return {"score": value.model_dump(mode="json")}, b""
    if not isinstance(value, GeneratedImage):
        value = GeneratedImage(image=value)
    return _packed_image(value)


def _packed_image(result: GeneratedImage) -> tuple[dict[str, Any], bytes]:
    """Return the metadata of an image with its description, and its pixels or bytes."""
    fields = {name: getattr(result, name) for name in _METADATA}
    try:
        _encode_plain(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(f"the metadata of the image is not plain data: {error}") from error
    fields["usage"] = Usage.model_validate(result.usage).model_dump(mode="json")
    if GenerationStatus(result.status) is not GenerationStatus.OK:
        return {"generated": fields}, b""
    description, payload = pack_image(result.image)
    return {"generated": fields, "image": description}, payload
