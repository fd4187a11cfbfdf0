"""HTTP servers on the loopback interface for tests."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Listener(ThreadingHTTPServer):
    """Answers each connection in its own thread, for hundreds of connections at a time."""

    daemon_threads = True
    request_queue_size = 256


class QuietHandler(BaseHTTPRequestHandler):
    """A handler of HTTP/1.1 requests that logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class LocalServer:
    """A server that listens in a thread during a `with` block.

    Args:
        handler: Class of the request handlers.

    Attributes:
        closing: Set when the block ends, so that handlers that wait can return.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.closing = threading.Event()
        self._http = Listener(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        """URL of the server, without a path."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Release the handlers and end the server."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
