"""The connection between a run and a worker process: messages over a socket, each with an optional payload.

A message is one JSON object on a line. If it has a field `payload`, that many bytes follow it, such as the pixels of an
image. Nothing is pickled, and nothing is left on disk when a process is killed.
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

MAX_LINE = 256 * 1024 * 1024
"""Maximum length of a message in bytes, without its payload."""
MAX_PAYLOAD = 1024 * 1024 * 1024
"""Maximum length of a payload in bytes."""

_BUFFER = 4 * 1024 * 1024

_encode = json.JSONEncoder(separators=(",", ":")).encode  # kept here, because a plugin may replace `json.dumps`
_decode = json.JSONDecoder().decode


class Channel:
    """One end of the connection. One thread may receive while others send.

    Args:
        connection: The connected socket. The channel owns it.
    """

    def __init__(self, connection: socket.socket) -> None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket = connection
        self._reader = connection.makefile("rb", buffering=1 << 16)
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Send a message. May be used from any thread.

        Raises:
            OSError: The other process has ended.
            TypeError, ValueError: The message is not plain data.
        """
        if payload:
            message = {**message, "payload": len(payload)}
        line = _encode(message).encode() + b"\n"
        with self._lock:
            self._socket.sendall(line)
            if payload:
                self._socket.sendall(payload)

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message and its payload; None when the other process has closed the connection.

        Raises:
            ValueError: What was received is not a message, or is too long.
        """
        line = self._read_line()
        if not line.endswith(b"\n"):
            return None  # closed, perhaps in the middle of a message
        message = _decode(line.decode())
        if not isinstance(message, dict):
            raise ValueError("a message must be an object")
        length = message.pop("payload", 0)
        if not isinstance(length, int) or not 0 <= length <= MAX_PAYLOAD:
            raise ValueError(f"a payload cannot have {length} bytes")
        payload = self._reader.read(length) if length else b""
        return None if len(payload) < length else (message, payload)

    def _read_line(self) -> bytes:
        try:
            line = self._reader.readline(MAX_LINE)
        except OSError:
            return b""
        if len(line) >= MAX_LINE:
            raise ValueError("a message is too long")
        return line

    def shut(self) -> None:
        """End the connection from any thread. What was received before can still be read."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Close the socket; called by the thread that receives."""
        self._reader.close()
        self._socket.close()
