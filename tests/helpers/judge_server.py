"""An HTTP server in the OpenAI chat format with scripted replies, delays and errors.

    with JudgeServer([Step(status=429, headers={"Retry-After": "2"}), Step(reply=GOOD)]) as server:
        judge = VlmJudge("any", base_url=server.url)

The script is a list of steps, of which the last is repeated, or a function of the call. The server records every call
and what it would charge.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from PIL import Image

from tests.helpers.local_server import LocalServer, QuietHandler

GOOD: dict[str, Any] = {
    "rationale": "All there.",
    "faithfulness": 1,
    "visual_correctness": 0.5,
    "text_accuracy": 1,
    "aesthetics": 0.5,
    "text_accuracy_na": False,
}


def good(**changes: Any) -> str:
    """Return a reply that meets the contract, with changes to its keys."""
    return json.dumps(GOOD | changes)


@dataclass
class Step:
    """The answer to one call.

    Attributes:
        reply: Content of the message, None for null.
        refusal: Refusal of the message.
        finish: Finish reason.
        model: Model name in the answer.
        tokens: Input and output tokens in `usage`, None for no usage.
        status: HTTP status; the answer to any but 200 is an error object.
        code: Code of the error object.
        error: Message of the error object.
        headers: Further headers.
        body: Body to send instead of the chat format.
        delay: Time before the answer, in seconds.
        close: Whether to close the connection without an answer.
        cut: Whether to close it in the middle of the body.
        billed: Whether the server charges for it; None charges for status 200.
    """

    reply: str | None = field(default_factory=good)
    refusal: str | None = None
    finish: str = "stop"
    model: str = "judge-2026-01-01"
    tokens: tuple[int, int] | None = (1000, 100)
    status: int = 200
    code: str | None = None
    error: str = "simulated error"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    close: bool = False
    cut: bool = False
    billed: bool | None = None


@dataclass
class Call:
    """A call that the server received.

    Attributes:
        number: Number in order of arrival, from 0.
        path: Path of the request.
        headers: Headers, with names in lower case.
        body: Parsed JSON body.
    """

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def parts(self) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = self.body["messages"][1]["content"]
        return parts

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def sample_id(self) -> str:
        return next(
            line.removeprefix("Sample id: ") for line in self.text.splitlines() if line.startswith("Sample id: ")
        )

    @property
    def image_bytes(self) -> list[bytes]:
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
        return [base64.b64decode(url.partition(",")[2], validate=True) for url in urls]

    @property
    def images(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(data)) for data in self.image_bytes]


Script = Sequence[Step] | Callable[[Call], Step]


class JudgeServer(LocalServer):
    """A server of `POST /v1/chat/completions` that runs until the block ends.

    Args:
        script: Steps in order, the last one repeated, or a function of the call.
        price: US dollars per million input and output tokens.
        pages: Answers to GET requests by path; any other path is answered with 404.

    Attributes:
        calls: All calls, in order of arrival.
        fetched: Paths and headers of all GET requests.
        spent: US dollars the server charged.
        max_in_flight: Maximum number of concurrent calls so far.
    """

    def __init__(
        self,
        script: Script = (Step(),),
        price: tuple[float, float] = (0.0, 0.0),
        pages: Mapping[str, Step] | None = None,
    ) -> None:
        self.script = script
        self.pages = dict(pages or {})
        self.fetched: list[tuple[str, dict[str, str]]] = []
        self.price = price
        self.calls: list[Call] = []
        self.spent = 0.0
        self.max_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        server = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                server._serve(self)

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.fetched.append((self.path, headers))
                server._answer(self, server.pages.get(self.path, Step(status=404, error="Not Found")))

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        data = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            call = Call(len(self.calls), handler.path, headers, json.loads(data))
            self.calls.append(call)
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            step = self.script(call) if callable(self.script) else self.script[min(call.number, len(self.script) - 1)]
            self.closing.wait(step.delay)
            self._charge(step)
            self._answer(handler, step)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
        finally:
            with self._lock:
                self._in_flight -= 1

    def _charge(self, step: Step) -> None:
        billed = step.status == 200 if step.billed is None else step.billed
        if billed and step.tokens is not None:
            with self._lock:
                self.spent += sum(n * price for n, price in zip(step.tokens, self.price, strict=True)) / 1e6

    def _answer(self, handler: BaseHTTPRequestHandler, step: Step) -> None:
        if step.close:
            # send a reset, so that the client sees a lost connection
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        body = step.body if step.body is not None else json.dumps(self._chat(step)).encode()
        handler.send_response(step.status)
        for name, value in {"Content-Type": "application/json", **step.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if step.cut:
            body = body[: len(body) // 2]
            handler.close_connection = True
        handler.wfile.write(body)

    @staticmethod
    def _chat(step: Step) -> dict[str, Any]:
        if step.status != 200:
            return {"error": {"message": step.error, "type": "error", "code": step.code, "param": None}}
        message: dict[str, Any] = {"role": "assistant", "content": step.reply}
        if step.refusal is not None:
            message["refusal"] = step.refusal
        chat: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": step.model,
            "choices": [{"index": 0, "message": message, "finish_reason": step.finish}],
        }
        if step.tokens is not None:
            read, written = step.tokens
            chat["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return chat
