"""Reading the responses of servers with the `/generate` API, whose field names and error reports vary."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from knowgen.clients.image_text import image_bytes_of
from knowgen.core.secrets import mask_secrets
from knowgen.core.text import one_line

_BUSY = re.compile(
    r"\bbusy\b|no (free |idle |available )?gpus?\b|gpus? .*(unavailable|occupied|disabled)|queue is full|"
    r"overloaded|try again|temporarily",
    re.IGNORECASE,
)
"""Messages of a server that has no capacity now."""

_BROKEN_GPU = re.compile(r"\bcuda|cudnn|cublas|out of memory|unavailable after reload", re.IGNORECASE)
"""Messages of a server whose hardware failed; another GPU or a reload may succeed."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
_MAX_MESSAGE_CHARACTERS = 500
_LIST_FIELDS = ("references", "evidence", "trajectory")


class HttpOutcome(StrEnum):
    """How a call ended.

    image: an image was returned. failed, refused: the request failed or was refused, and a retry would not help.
    busy: the server has no capacity now. broken: the server has a fault of its own. denied: the token is missing or
    wrong. absent: the endpoint does not exist.
    """

    IMAGE = "image"
    FAILED = "failed"
    REFUSED = "refused"
    BUSY = "busy"
    BROKEN = "broken"
    DENIED = "denied"
    ABSENT = "absent"


@dataclass(frozen=True)
class GenerateResponse:
    """A response to `POST /generate`.

    Attributes:
        outcome: How the call ended.
        reason: Why the response has no image.
        image: Bytes of the image file. Its format is detected from the bytes, whatever the response calls it.
        metadata: Other fields of the response: served (generator, revision and settings of the server), used_prompt,
            references, evidence, trajectory, unused.
        retry_after: Seconds to wait as the server asks, None when it does not.
    """

    outcome: HttpOutcome
    reason: str = ""
    image: bytes = b""
    metadata: dict[str, Any] | None = None
    retry_after: float | None = None


def read_response(status: int, body: bytes, retry_after: float | None = None, token: str = "") -> GenerateResponse:
    """Read a response to `POST /generate`.

    Args:
        status: HTTP status.
        body: Body of the response.
        retry_after: Seconds of the Retry-After header.
        token: Secret that was sent, and is masked in the response; empty for none.
    """
    data = _json_object(body, token)
    message = _message(data, mask_secrets(body, token) if data is None else b"")
    if status == 200:
        return _read_success(data, message, retry_after)
    message = f"{message} (HTTP {status})" if message else f"HTTP {status}"
    if status in (401, 403, 407):
        outcome = HttpOutcome.DENIED
    elif status in (404, 405) or 300 <= status < 400:  # redirects are not followed, because the token would go along
        outcome = HttpOutcome.ABSENT
    elif status in (429, 503):
        outcome = HttpOutcome.BUSY
    elif status >= 500 or status in (408, 425):
        outcome = HttpOutcome.BROKEN
    else:
        outcome = HttpOutcome.FAILED
    return GenerateResponse(outcome, message, retry_after=retry_after)


def _read_success(data: dict[str, Any] | None, message: str, retry_after: float | None) -> GenerateResponse:
    """Read a response with status 200, which may still report a failure in its fields."""
    if data is None:
        return GenerateResponse(HttpOutcome.BROKEN, "the response is not a JSON object")
    if data.get("success") is not True:
        message = message or "the server gave no reason"
        if data.get("status") == "refused":
            return GenerateResponse(HttpOutcome.REFUSED, message)
        if data.get("status") == "busy" or _BUSY.search(message):
            return GenerateResponse(HttpOutcome.BUSY, message, retry_after=retry_after)
        return GenerateResponse(HttpOutcome.BROKEN if _BROKEN_GPU.search(message) else HttpOutcome.FAILED, message)
    try:
        image = image_bytes(data.get("image"))
    except ValueError as error:
        return GenerateResponse(HttpOutcome.BROKEN, str(error))
    return GenerateResponse(HttpOutcome.IMAGE, image=image, metadata=_metadata(data))


def image_bytes(image: Any) -> bytes:
    """Return the bytes of an image in base64 or in a data URL, whose label is ignored.

    Raises:
        ValueError: It is not base64, or the bytes are not in an image format.
    """
    if not isinstance(image, str) or not image:
        raise ValueError("the response has no image")
    data = image_bytes_of(image)
    if not data.startswith(_SIGNATURES):
        raise ValueError(f"the {len(data)} bytes in the response are not in a known image format")
    return data


def _json_object(body: bytes, token: str) -> dict[str, Any] | None:
    """Return the JSON object of a response with the token masked, None when it is not one."""
    try:
        data = mask_secrets(json.loads(body), token)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _message(data: dict[str, Any] | None, body: bytes) -> str:
    """Return the first line of a server's message; some servers send a whole traceback after it."""
    if data is None:
        text = body[:_MAX_MESSAGE_CHARACTERS].decode("utf-8", "replace")
        return "" if "<" in text else _first_line(text)  # the HTML page of a proxy says nothing
    for name in ("message", "detail", "reason", "error"):
        if value := data.get(name):
            return _first_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return ""


def _first_line(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return one_line(first, _MAX_MESSAGE_CHARACTERS)


def _metadata(data: dict[str, Any]) -> dict[str, Any]:
    """Return the other fields of a response, without those of a wrong type."""
    metadata: dict[str, Any] = {}
    for name in _LIST_FIELDS:
        value = data.get(name)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            metadata[name] = tuple(value)
    served = {name: data[name] for name in ("generator", "revision") if isinstance(data.get(name), str)}
    if isinstance(data.get("settings"), dict):
        served |= data["settings"]
    if served:
        metadata["served"] = served
    if isinstance(data.get("used_prompt"), str):
        metadata["used_prompt"] = data["used_prompt"]
    if isinstance(data.get("unused"), list):
        metadata["unused"] = [str(name) for name in data["unused"]]
    return metadata


@dataclass(frozen=True)
class ServerHealth:
    """A response to `GET /health`.

    Attributes:
        alive: Whether the server takes requests.
        capacity: Number of concurrent requests to send: as many as it generates at the same time, and as many again
            where it has a queue, so that it never waits for the next. None when it does not report it.
        reason: Why it takes no requests.
    """

    alive: bool
    capacity: int | None = None
    reason: str = ""


def read_health(status: int, body: bytes, token: str = "") -> ServerHealth:
    """Read a response to `GET /health`. A server without that endpoint is assumed to be healthy.

    Example:
        >>> read_health(200, b'{"status": "ok", "num_gpus": 4, "disabled_gpus": [2]}')
        ServerHealth(alive=True, capacity=3, reason='')
    """
    if status in (404, 405, 501):
        return ServerHealth(True)
    data = _json_object(body, token)
    if status >= 400:
        return ServerHealth(False, reason=f"its health is HTTP {status}")
    if data is None:
        return ServerHealth(True)
    state = str(data.get("status", "healthy")).lower()
    if state not in ("healthy", "ok", "ready", "alive"):
        return ServerHealth(False, reason=f"it reports the status {_first_line(state)[:40]!r}")
    capacity = _integer(data.get("capacity"))
    if capacity is not None:
        capacity += min(capacity, max(0, _integer(data.get("queue")) or 0))
    elif (gpus := _integer(data.get("num_gpus"))) is not None:
        disabled = data.get("disabled_gpus")
        capacity = gpus - (len(disabled) if isinstance(disabled, list) else 0)
    if capacity is not None and capacity < 1:
        return ServerHealth(False, reason="all its GPUs are disabled")
    return ServerHealth(True, capacity)


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
