"""Run a server: open the socket, build the generator, handle signals, and stop in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import prometheus_client
import uvicorn
from fastapi import FastAPI

from knowgen.core.errors import ConfigError
from knowgen.core.scratch import ScratchFolder
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.run_state import EXIT_INTERRUPTED
from knowgen.serving.app import make_router
from knowgen.serving.protocol import LimitedProtocol
from knowgen.serving.request_queue import RequestQueue
from knowgen.serving.settings import ServiceSettings

_BACKLOG = 512
_GRACE_SECONDS = 5.0
"""Seconds that an orderly stop may take beyond the time limit of one image."""

_REPEAT_SECONDS = 1.0
"""A signal this soon after the first is the same one, sent a second time by a shell or a supervisor."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(settings: ServiceSettings) -> socket.socket:
    """Return a socket that listens on the configured address.

    Raises:
        ConfigError: The address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {what}", where="serve", fix="give another --port"
        ) from error
    return sock


def address_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """A server that reports the first signal; a second one ends the process, unless it repeats the first.

    Args:
        config: Configuration of the server.
        on_signal: Called at the first signal.
        scratch: Folder that is removed before the process is ended.
    """

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None], scratch: Path) -> None:
        super().__init__(config)
        self._on_signal, self._scratch = on_signal, scratch
        self._first_signal = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to stop, or end the process."""
        now = time.monotonic()
        if not self._first_signal:
            self._first_signal, self.should_exit = now, True
            self._on_signal()
        elif now - self._first_signal > _REPEAT_SECONDS:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os._exit(EXIT_INTERRUPTED)


def serve(handle: GeneratorHandle, settings: ServiceSettings, sock: socket.socket) -> None:
    """Serve a generator until a signal arrives; then finish what is in progress and reject everything else.

    Args:
        handle: The generator.
        settings: Settings of the server.
        sock: A listening socket.

    Raises:
        KnowgenError: The generator cannot be built, or hung or died too often.
    """
    # do not write a second line with the creation time of each counter
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    with ScratchFolder("knowgen.serve.") as scratch:
        queues: list[RequestQueue] = []
        lifespan = _lifespan(handle, settings, scratch, queues, lambda: _end(server))
        app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(settings.timeout + _GRACE_SECONDS),
            backlog=_BACKLOG,
        )
        server = _Server(config, lambda: _stop(queues), scratch)
        earlier = _install_handlers(server)
        try:
            server.run(sockets=[sock])
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        error = queues[0].error if queues else ConfigError("could not be started", where="serve")
    if error is not None:
        raise error


def _end(server: uvicorn.Server) -> None:
    server.should_exit = True


def _stop(queues: list[RequestQueue]) -> None:
    """Stop the queue. Called by a signal handler, in the thread of the loop but outside the loop."""
    if queues:
        asyncio.get_running_loop().call_soon_threadsafe(queues[0].stop)


def _install_handlers(server: uvicorn.Server) -> dict[int, Any]:
    """Handle signals that arrive before the server installs its own handlers; return the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, server.handle_exit) for number in _SIGNALS}


def _lifespan(
    handle: GeneratorHandle,
    settings: ServiceSettings,
    folder: Path,
    queues: list[RequestQueue],
    end: Callable[[], None],
) -> Callable[[FastAPI], Any]:
    """Return the lifespan of the app; it appends the queue, which needs a running loop, to `queues`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = RequestQueue(handle, settings, folder)
        queues.append(queue)
        app.include_router(make_router(queue))
        building = asyncio.ensure_future(queue.build())
        watching = asyncio.ensure_future(_end_on_error(queue, end))
        try:
            yield
        finally:
            building.cancel()
            watching.cancel()
            await queue.close()

    return lifespan


async def _end_on_error(queue: RequestQueue, end: Callable[[], None]) -> None:
    """End the server when the generator cannot be used any more."""
    while queue.state.error is None:
        await queue.state.changed.wait()
        queue.state.changed.clear()
    end()
