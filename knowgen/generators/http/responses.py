"""Reading what a server of the `/generate` format answers, whatever it calls it."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from knowgen.core.secrets import mask_secrets
from knowgen.core.text import one_line

_BUSY = re.compile(
    r"\bbusy\b|no (free |idle |available )?gpus?\b|gpus? .*(unavailable|occupied|disabled)|queue is full|"
    r"overloaded|try again|temporarily",
    re.IGNORECASE,
)
"""Words by which a server tells that it has no room now."""

_BROKEN_GPU = re.compile(r"\bcuda|cudnn|cublas|out of memory|unavailable after reload", re.IGNORECASE)
"""Words by which a server tells that its hardware failed, which another GPU or a reload may mend."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
_LABEL = re.compile(r"\s*data:[^,]{0,100},")
_WORDS = 500
_LISTS = ("references", "evidence", "trajectory")


class HttpOutcome(StrEnum):
    """What came of a call.

    picture: a drawing. failed, refused: an answer for good. busy: no room now. broken: the server's own fault.
    denied: it wants a token, or another one. absent: there is no such server.
    """

    PICTURE = "picture"
    FAILED = "failed"
    REFUSED = "refused"
    BUSY = "busy"
    BROKEN = "broken"
    DENIED = "denied"
    ABSENT = "absent"


@dataclass(frozen=True)
class GenerateResponse:
    """An answer that was read.

    Attributes:
        came: What came of the call.
        words: Why there is no picture.
        picture: Bytes of the picture file; their format is told by the bytes alone.
        told: What else the server said: served (generator, revision, its settings), used_prompt, references, evidence,
            trajectory, unused.
        retry_after: Seconds it asked to wait, None when it did not.
    """

    came: HttpOutcome
    words: str = ""
    picture: bytes = b""
    told: dict[str, Any] | None = None
    retry_after: float | None = None


def read_reply(status: int, body: bytes, retry_after: float | None = None, token: str = "") -> GenerateResponse:
    """Reads an answer.

    Args:
        status: HTTP status.
        body: As it came.
        retry_after: Seconds from the header.
        token: Secret that was sent, and is masked in the answer; empty for none.
    """
    data = _object(body, token)
    words = _words(data, mask_secrets(body, token) if data is None else b"")
    if status == 200:
        return _read_ok(data, words, retry_after)
    words = f"{words} (HTTP {status})" if words else f"HTTP {status}"
    if status in (401, 403, 407):
        came = HttpOutcome.DENIED
    elif status in (404, 405) or 300 <= status < 400:  # a redirect is not followed: a token must go nowhere else
        came = HttpOutcome.ABSENT
    elif status in (429, 503):
        came = HttpOutcome.BUSY
    elif status >= 500 or status in (408, 425):
        came = HttpOutcome.BROKEN
    else:
        came = HttpOutcome.FAILED
    return GenerateResponse(came, words, retry_after=retry_after)


def _read_ok(data: dict[str, Any] | None, words: str, retry_after: float | None) -> GenerateResponse:
    if data is None:
        return GenerateResponse(HttpOutcome.BROKEN, "the answer is no JSON object")
    if data.get("success") is not True:
        words = words or "the server gave no reason"
        if data.get("status") == "refused":
            return GenerateResponse(HttpOutcome.REFUSED, words)
        if data.get("status") == "busy" or _BUSY.search(words):
            return GenerateResponse(HttpOutcome.BUSY, words, retry_after=retry_after)
        return GenerateResponse(HttpOutcome.BROKEN if _BROKEN_GPU.search(words) else HttpOutcome.FAILED, words)
    try:
        picture = picture_bytes(data.get("image"))
    except ValueError as error:
        return GenerateResponse(HttpOutcome.BROKEN, str(error))
    return GenerateResponse(HttpOutcome.PICTURE, picture=picture, told=_told(data))


def picture_bytes(image: Any) -> bytes:
    """Returns the bytes of a picture in base64, with or without a data URL's label, which is not believed.

    Raises:
        ValueError: It is no base64, or the bytes are in no picture format.
    """
    if not isinstance(image, str) or not image:
        raise ValueError("the answer holds no picture")
    label = _LABEL.match(image)
    text = "".join(image[label.end() if label else 0 :].split()).rstrip("=")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the picture in the answer is not base64") from error
    if not data.startswith(_SIGNATURES):
        raise ValueError(f"the {len(data)} bytes in the answer are in no picture format")
    return data


def _object(body: bytes, token: str) -> dict[str, Any] | None:
    """Return the JSON object of an answer with the token masked; None where it is something else."""
    try:
        data = mask_secrets(json.loads(body), token)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _words(data: dict[str, Any] | None, body: bytes) -> str:
    """Returns the first line of what a server says; some send the whole traceback after it."""
    if data is None:
        text = body[:_WORDS].decode("utf-8", "replace")
        return "" if "<" in text else _one_line(text)  # a page of a proxy says nothing
    for name in ("message", "detail", "reason", "error"):
        if said := data.get(name):
            return _one_line(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
    return ""


def _one_line(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return one_line(first, _WORDS)


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """Returns what else a server said, as far as it has the shape it should have."""
    told: dict[str, Any] = {}
    for name in _LISTS:
        value = data.get(name)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            told[name] = tuple(value)
    served = {name: data[name] for name in ("generator", "revision") if isinstance(data.get(name), str)}
    if isinstance(data.get("settings"), dict):
        served |= data["settings"]
    if served:
        told["served"] = served
    if isinstance(data.get("used_prompt"), str):
        told["used_prompt"] = data["used_prompt"]
    if isinstance(data.get("unused"), list):
        told["unused"] = [str(one) for one in data["unused"]]
    return told


@dataclass(frozen=True)
class ServerHealth:
    """What a server says of itself.

    Attributes:
        alive: Does it take requests?
        places: Requests it is sent at once: what it draws at once, and as many again where it keeps a line of its own,
            so that it never waits for the next; None when it does not say.
        words: Why it takes none.
    """

    alive: bool
    places: int | None = None
    words: str = ""


def read_health(status: int, body: bytes, token: str = "") -> ServerHealth:
    """Reads the answer to `GET /health`. A server without one is taken to be well."""
    if status in (404, 405, 501):
        return ServerHealth(True)
    data = _object(body, token)
    if status >= 400:
        return ServerHealth(False, words=f"its health is HTTP {status}")
    if data is None:
        return ServerHealth(True)
    state = str(data.get("status", "healthy")).lower()
    if state not in ("healthy", "ok", "ready", "alive"):
        return ServerHealth(False, words=f"it says it is {_one_line(state)[:40]}")
    places = _number(data.get("capacity"))
    if places is not None:
        places += min(places, max(0, _number(data.get("queue")) or 0))
    elif (gpus := _number(data.get("num_gpus"))) is not None:
        disabled = data.get("disabled_gpus")
        places = gpus - (len(disabled) if isinstance(disabled, list) else 0)
    if places is not None and places < 1:
        return ServerHealth(False, words="all its GPUs are disabled")
    return ServerHealth(True, places)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
