"""Image services on this machine: HTTP servers with the API of each, and responses and errors that a test sets.

    with ImageServer(OPENAI, [Step(status=429, headers={"Retry-After": "1"}), Step()]) as server:
        generator = OpenAiImages("gpt-image-1", base_url=server.base)

A server checks paths, the key header and the fields of requests, and answers 400, 401 or 404 as the real services do.
The script is a list of steps (the last one is repeated) or a function of the call.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler
from typing import Any

from PIL import Image

from tests.helpers.local_server import LocalServer, QuietHandler

KEY = "sk-test-0123456789abcdef"


def image_bytes(color: str = "teal", kind: str = "PNG", size: tuple[int, int] = (48, 32)) -> bytes:
    """Return the file bytes of a small image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Step:
    """The response of the server to one call.

    Attributes:
        response: Body for status 200 instead of the service's default; a function takes the server's URL.
        status: HTTP status; 300 or more sends `error` or `body`.
        error: The error object in the service's format.
        body: Bytes to send as they are.
        headers: Additional headers.
        delay: Seconds before the response.
        close: Close the connection without a response.
        cut: Close the connection in the middle of the body.
    """

    response: Mapping[str, Any] | Callable[[str], Mapping[str, Any]] | None = None
    status: int = 200
    error: Mapping[str, Any] | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    close: bool = False
    cut: bool = False


@dataclass
class Call:
    """A call as the server received it.

    Attributes:
        number: Index in order of arrival, from 0.
        method: GET or POST.
        path: Path of the request.
        headers: Headers with lower-case names.
        fields: The JSON of the body, or the fields of the form.
        files: Field name, file name, MIME type and bytes of each file of a form.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    files: list[tuple[str, str, str, bytes]]

    @property
    def prompt(self) -> str:
        if "contents" in self.fields:
            return str(self.fields["contents"][0]["parts"][0]["text"])
        return str(self.fields.get("prompt", ""))


@dataclass(frozen=True)
class ServiceProfile:
    """The API of a service.

    Attributes:
        root: Path at the end of the base URL.
        key_header: Header with the key, and the scheme before the key.
        fields: Fields that a request may have, by path suffix.
        default_response: Returns the default response.
        error: Returns the service's error object for a status, a code and a message.
        free: Responses to GET requests by path: headers, and the JSON or the bytes of the body.
    """

    root: str
    key_header: tuple[str, str]
    fields: Mapping[str, frozenset[str]]
    default_response: Callable[[], Mapping[str, Any]]
    error: Callable[[int, str, str], Mapping[str, Any]]
    free: Mapping[str, tuple[Mapping[str, str], Any]] = field(default_factory=dict)


def openai_response(data: bytes | None = None, **entry: Any) -> dict[str, Any]:
    """Return a response of the Images API for a GPT image model."""
    return {
        "created": 1713833628,
        "background": "opaque",
        "output_format": "png",
        "quality": "high",
        "size": "1024x1024",
        "data": [entry or {"b64_json": b64(image_bytes() if data is None else data)}],
        "usage": {
            "total_tokens": 4360,
            "input_tokens": 200,
            "output_tokens": 4160,
            "input_tokens_details": {"text_tokens": 50, "image_tokens": 150},
        },
    }


def openai_error(status: int, code: str, message: str) -> dict[str, Any]:
    kind = "image_generation_user_error" if code == "moderation_blocked" else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


def gemini_response(data: bytes | None = None) -> dict[str, Any]:
    """Return a response of generateContent: a thought with a draft, text, the image."""
    draft, final = image_bytes("gray"), image_bytes() if data is None else data
    parts = [
        {"text": "First a sketch.", "thought": True},
        {"inlineData": {"mimeType": "image/png", "data": b64(draft)}, "thought": True},
        {"text": "Here it is."},
        {"inlineData": {"mimeType": "image/png", "data": b64(final)}, "thoughtSignature": "c2ln"},
    ]
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 300,
            "candidatesTokenCount": 1130,
            "thoughtsTokenCount": 200,
            "totalTokenCount": 1630,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 300}],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
        },
        "modelVersion": "gemini-3-pro-image-preview",
        "responseId": "r1",
    }


def gemini_error(status: int, code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": code or "INVALID_ARGUMENT"}}


def ark_response(data: bytes | None = None, **entry: Any) -> dict[str, Any]:
    """Return a response of Ark with one image."""
    image = b64(image_bytes(kind="JPEG") if data is None else data)
    return {
        "model": "doubao-seedream-4-5-251128",
        "created": 1757323224,
        "data": [entry or {"b64_json": image, "size": "2048x2048"}],
        "usage": {"generated_images": 1, "output_tokens": 16384, "total_tokens": 16384},
    }


def ark_error(status: int, code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "param": "", "type": "BadRequest"}}


_GENERATIONS = frozenset(
    [
        "model",
        "prompt",
        "n",
        "size",
        "quality",
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "user",
        "stream",
        "partial_images",
        "safety_identifier",
        "complexity",
    ]
)
_EDITS = frozenset(
    [
        "model",
        "prompt",
        "n",
        "size",
        "quality",
        "background",
        "input_fidelity",
        "output_format",
        "output_compression",
        "user",
        "stream",
        "partial_images",
        "safety_identifier",
    ]
)
_ARK = frozenset(
    [
        "model",
        "prompt",
        "image",
        "size",
        "seed",
        "sequential_image_generation",
        "sequential_image_generation_options",
        "stream",
        "guidance_scale",
        "response_format",
        "watermark",
        "optimize_prompt_options",
    ]
)
_GEMINI = frozenset(["contents", "generationConfig", "safetySettings", "systemInstruction", "tools"])

OPENAI = ServiceProfile(
    "/v1",
    ("authorization", "Bearer "),
    {"/v1/images/generations": _GENERATIONS, "/v1/images/edits": _EDITS},
    openai_response,
    openai_error,
    {"/v1/models": ({"openai-version": "2020-10-01"}, {"object": "list", "data": []})},
)
GEMINI = ServiceProfile("", ("x-goog-api-key", ""), {":generateContent": _GEMINI}, gemini_response, gemini_error)
ARK = ServiceProfile(
    "/api/v3", ("authorization", "Bearer "), {"/api/v3/images/generations": _ARK}, ark_response, ark_error
)

Script = Sequence[Step] | Callable[[Call], Step]
Page = Step | bytes | list[Step | bytes]


class ImageServer(LocalServer):
    """Serve the API of one service until the block is left.

    Args:
        profile: The service.
        script: Steps in order, the last one repeated; or a function of the call.
        pages: Responses to GET requests by path; those requests are recorded in `fetched`.

    Attributes:
        calls: Every call, in order of arrival.
        fetched: Every GET request but the free calls of the service.
        asked: Paths of the free calls.
        max_concurrent: Maximum number of concurrent calls so far.
    """

    def __init__(
        self, profile: ServiceProfile, script: Script = (Step(),), pages: Mapping[str, Page] | None = None
    ) -> None:
        self.profile, self.script, self.pages = profile, script, dict(pages or {})
        self.calls: list[Call] = []
        self.fetched: list[Call] = []
        self.asked: list[str] = []
        self.max_concurrent = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        server = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                server._post(self)

            def do_GET(self) -> None:
                server._get(self)

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return self.address

    @property
    def base(self) -> str:
        return self.url + self.profile.root

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        data = _body(handler)
        with self._lock:
            call = Call(len(self.calls), "POST", handler.path, _headers(handler), *_parsed(handler, data))
            self.calls.append(call)
            self._in_flight += 1
            self.max_concurrent = max(self.max_concurrent, self._in_flight)
        try:
            step = self._request_error(call)
            if step is None:
                script = self.script
                step = script(call) if callable(script) else script[min(call.number, len(script) - 1)]
            self.closing.wait(step.delay)
        finally:  # before the response, after which the client may send its next call
            with self._lock:
                self._in_flight -= 1
        try:
            self._respond(handler, step)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            if handler.path in self.pages:
                self.fetched.append(Call(len(self.fetched), "GET", handler.path, _headers(handler), {}, []))
            else:
                self.asked.append(handler.path)
            error = self._free_error(handler.path, _headers(handler))
            page = error or self.pages.get(handler.path, self._free(handler.path))
            if isinstance(page, list):
                page = page.pop(0) if len(page) > 1 else page[0]
        self._respond(handler, Step(body=page) if isinstance(page, bytes) else page)

    def _free(self, path: str) -> Step:
        """Return the response to a free call; 404 where the service has none at this path."""
        if path not in self.profile.free:
            return Step(status=404, body=b"")
        headers, content = self.profile.free[path]
        return Step(body=content if isinstance(content, bytes) else json.dumps(content).encode(), headers=dict(headers))

    def _free_error(self, path: str, headers: Mapping[str, str]) -> Step | None:
        """Return the error response to a free call; None for the usual response."""
        return None

    def _request_error(self, call: Call) -> Step | None:
        """Return the error response to a request with a missing key, an unknown path or an unknown field, else None."""
        name, scheme = self.profile.key_header
        if not call.headers.get(name, "").startswith(scheme) or len(call.headers[name]) <= len(scheme):
            return self._error(401, "invalid_api_key", "The key is missing.")
        fields = next((allowed for path, allowed in self.profile.fields.items() if call.path.endswith(path)), None)
        if fields is None:
            return self._error(404, "not_found", f"{call.path} does not exist.")
        if unknown := sorted(call.fields.keys() - fields):
            return self._error(400, "unknown_parameter", f"Unknown parameter: '{unknown[0]}'.")
        return None

    def _error(self, status: int, code: str, message: str) -> Step:
        return Step(status=status, error=self.profile.error(status, code, message))

    def _respond(self, handler: BaseHTTPRequestHandler, step: Step) -> None:
        if step.close:
            # Reset the connection, so that the client sees a lost connection and not a regular end.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        body = step.body
        if body is None:
            response = step.response(self.url) if callable(step.response) else step.response
            if response is None:
                response = self.profile.default_response()
            content = response if step.status < 300 else step.error
            body = json.dumps(content).encode()
        handler.send_response(step.status)
        for name, value in {"Content-Type": "application/json", **step.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if step.cut:
            body = body[: len(body) // 2]
            handler.close_connection = True
        handler.wfile.write(body)


def _headers(handler: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): value for name, value in handler.headers.items()}


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    data = b""
    while size := int(handler.rfile.readline(), 16):
        data += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return data


def _parsed(handler: BaseHTTPRequestHandler, data: bytes) -> tuple[dict[str, Any], list[tuple[str, str, str, bytes]]]:
    kind = handler.headers.get("Content-Type", "")
    if not kind.startswith("multipart/form-data"):
        return json.loads(data), []
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data)
    fields: dict[str, Any] = {}
    files = []
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename() is None:
            fields[name] = content.decode()
        else:
            files.append((name, str(part.get_filename()), part.get_content_type(), content))
    return fields, files
