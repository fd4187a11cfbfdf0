"""Slow, silent and greedy clients do not keep a server from answering others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn
from PIL import Image
from uvicorn.server import ServerState

from knowgen.serving.protocol import HEADER_SECONDS, SEND_SECONDS, LimitedProtocol
from knowgen.serving.request_queue import InFlight, QueueFullError
from tests.helpers.serving import Served, served

HEAD = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STALLED = 80
"""More than the places of a server with the default queue."""


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), 60)


def received(line: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    data = b""
    try:
        while chunk := line.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def data_url(size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = {"app.IDLE_SECONDS": 1.0, "protocol.HEADER_SECONDS": 1.0}
    words = ("makers.py:Synchronous", "--max-pixels", "0.01", "--max-body", "1", "--fetch")
    with served(tmp_path_factory.mktemp("served"), *words, limits=limits) as one:
        yield one


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("patient"), "makers.py:Synchronous") as one:
        yield one


@pytest.mark.parametrize(
    "sent",
    [HEAD + "Content-Length: 1000\r\n\r\n{", HEAD + 'Transfer-Encoding: chunked\r\n\r\n5\r\n{"pro', HEAD, "POST", ""],
    ids=["body", "chunk", "headers", "request line", "nothing"],
)
def test_requests_that_stall_keep_no_other_one_waiting(patient: Served, sent: str) -> None:
    with ExitStack() as lines:
        for _ in range(STALLED):
            lines.enter_context(connect(patient.url)).sendall(sent.encode())
        assert patient.generate("in between", 3).status == 200


@pytest.mark.parametrize("sent", ["", "POST /generate HT", HEAD, HEAD + "X-More: " + "x" * 100])
def test_a_connection_without_complete_headers_is_closed(server: Served, sent: str) -> None:
    with connect(server.url) as line:
        line.sendall(sent.encode())
        assert received(line) == b""


def test_a_second_request_whose_headers_stall_is_closed_too(server: Served) -> None:
    answer = rest = b""
    while not answer:  # on a loaded machine this client may be too slow for its first request
        with contextlib.suppress(ConnectionError), connect(server.url) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = line.recv(1 << 16)
            line.sendall(b"GET /health HT")
            rest = received(line)
    assert b" 200 " in answer and b"HTTP/1.1 " not in rest


@pytest.mark.parametrize("sent", ["Content-Length: 1000\r\n\r\n{", 'Transfer-Encoding: chunked\r\n\r\n5\r\n{"pro'])
def test_a_body_that_stalls_is_answered_with_408_and_the_reason(server: Served, sent: str) -> None:
    with connect(server.url) as line:
        line.sendall((HEAD + sent).encode())
        answer = received(line)
    assert b" 408 " in answer and b"did not arrive" in answer


@pytest.mark.parametrize(
    "url",
    [
        "http://a\0b/x.png", "http://" + "a" * 64 + ".org/x.png", "http://" + "a." * 200 + "org/x", "http://[::1/x.png",
        "http://a b/x.png", "http://\u0665.org\n/x", "http://xn--/x", "http://ex\u200bample.test/x", "http://\ud800/x",
        "http://a:99999/x", "http://a:x/x", "http://.../x", "http://-/x",
    ],
)  # fmt: skip
def test_a_reference_at_an_impossible_host_is_400(server: Served, url: str) -> None:
    answer = server.generate("fetch it", image_urls=[url])
    assert answer.status == 400, answer
    assert "reference image" in answer.body["message"]


@pytest.mark.parametrize("host", [b"a\0b", b"a" * 300, b"x\ry", "größe".encode(), b""])
def test_a_strange_host_header_causes_no_server_error(server: Served, host: bytes) -> None:
    with connect(server.url) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        assert received(line)[:12] in {b"HTTP/1.1 200", b"HTTP/1.1 400"}


def test_the_pixels_of_all_references_of_a_request_are_limited_together(server: Served) -> None:
    # one reference may have 10,000 pixels, all together 20,000
    assert server.generate("few", image_urls=[data_url((100, 100))] * 2).status == 200
    answer = server.generate("many", image_urls=[data_url((100, 100))] * 3)
    assert answer.status == 413
    assert answer.body["message"] == "the reference images have 30000 pixels together, at most 20000 are allowed"


def test_a_reference_with_too_many_pixels_is_refused_by_its_header(server: Served) -> None:
    answer = server.generate("large", image_urls=[data_url((101, 100))])
    assert answer.status == 400
    assert answer.body["message"] == ("a reference image does not open: 101x100 pixels, at most 10000 are allowed")


def test_what_all_requests_hold_is_limited_and_released() -> None:
    room = InFlight(100, "the shelf is full")
    with room.holding() as one:
        one(90)
        one(60)  # alone, a request is limited elsewhere
        with room.holding() as other, pytest.raises(QueueFullError, match="the shelf is full; try again in"):
            other(1)
    with room.holding() as one, room.holding() as other:
        one(50)
        other(50)
        assert room.held == 100
    assert room.held == 0


class Loop:
    """Timers that the test fires."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        entry = (seconds, callback)
        self.timers.append(entry)

        class Handle:
            def cancel(_) -> None:
                self.timers.remove(entry)

        return Handle()


class Transport(asyncio.Transport):
    """A connection that records whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return self.aborted


def test_a_client_that_does_not_read_is_disconnected_and_one_that_reads_on_is_not() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = uvicorn.Config(app, log_config=None)
    config.load()
    loop, transport = Loop(), Transport()
    connection = LimitedProtocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    connection.connection_made(transport)
    assert [seconds for seconds, _ in loop.timers] == [HEADER_SECONDS]
    connection.pause_writing()
    connection.resume_writing()
    connection.pause_writing()
    assert [seconds for seconds, _ in loop.timers] == [HEADER_SECONDS, SEND_SECONDS]
    loop.timers[1][1]()
    assert transport.aborted
    connection.connection_lost(None)
    assert loop.timers == []
