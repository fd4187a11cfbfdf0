"""HTTP connections with time limits, so that slow or silent clients do not hold them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds a client may take to send the request line and the headers of a request."""

SEND_SECONDS = 60.0
"""Seconds a client may take to accept the next part of a response."""


class LimitedProtocol(H11Protocol):
    """An HTTP/1.1 connection that is closed when the client takes too long to send headers or to read a response.

    The time of a body is limited by the application, which can answer; see `app`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._limit_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; those that complete no headers do not extend the time."""
        super().data_received(data)
        self._limit_headers()

    def on_response_complete(self) -> None:
        """Wait for the next request: for its first byte as long as uvicorn allows."""
        super().on_response_complete()
        self._limit_headers(idle=True)

    def pause_writing(self) -> None:
        """Limit the time until the client reads on."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(SEND_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """Remove the limit: the client has read."""
        super().resume_writing()
        self._stop_send_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all timers."""
        self._stop_header_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def _limit_headers(self, *, idle: bool = False) -> None:
        """Start or stop the timer of the headers, according to whether a request is in progress."""
        in_progress = self.cycle is not None and not self.cycle.response_complete
        if in_progress or idle:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._abort)

    def _abort(self) -> None:
        """Close the connection without waiting for what the client does not read."""
        if not self.transport.is_closing():
            self.transport.abort()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
