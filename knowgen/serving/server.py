"""A server from its start to its end: the socket, the generator, signals, a stop in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
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

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.engine.components import GeneratorHandle
from knowgen.engine.run_state import EXIT_INTERRUPTED
from knowgen.serving.app import make_router
from knowgen.serving.request_queue import RequestQueue
from knowgen.serving.settings import ServiceSettings

_BACKLOG = 512
_GRACE = 5.0
"""Seconds beyond one drawing's time that a stop in order may take."""

_ECHO = 1.0
"""A signal that follows the first within this time is the same one, told twice by a shell or a supervisor."""

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


def listen(service: ServiceSettings) -> socket.socket:
    """Returns a socket that listens where the service is to be.

    Raises:
        ConfigError: The address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            service.host, service.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {service.host} port {service.port}: {what}", where="serve", fix="give another --port"
        ) from error
    return sock


def address_of(sock: socket.socket) -> str:
    """Returns the address a socket listens on, as clients write it."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Tells of the first signal; a second one ends the process, unless it is the echo of the first.

    Args:
        config: Of the server.
        told: Told of the first signal.
        scratch: Folder to remove before the process is ended.
    """

    def __init__(self, config: uvicorn.Config, told: Callable[[], None], scratch: str) -> None:
        super().__init__(config)
        self._told, self._scratch = told, scratch
        self._since = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop."""
        now = time.monotonic()
        if not self._since:
            self._since, self.should_exit = now, True
            self._told()
        elif now - self._since > _ECHO:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os._exit(EXIT_INTERRUPTED)


def serve(handle: GeneratorHandle, service: ServiceSettings, sock: socket.socket) -> None:
    """Serves a generator until a signal comes: then what is being drawn is finished and all else turned away.

    Args:
        handle: The generator.
        service: How it is offered.
        sock: Listens already.

    Raises:
        KnowgenError: The generator cannot be built, or hung or died too often.
    """
    # a second line for every counter, which nobody reads
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="knowgen-serve-") as scratch:
        holder: list[RequestQueue] = []
        lifespan = _lifespan(handle, service, Path(scratch), holder, lambda: _end(server))
        app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(service.timeout + _GRACE),
            backlog=_BACKLOG,
        )
        server = _Server(config, lambda: _stop(holder), scratch)
        before = _hand_signals_to(server)
        try:
            server.run(sockets=[sock])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        error = _error(holder)
    if error is not None:
        raise error


def _end(server: uvicorn.Server) -> None:
    server.should_exit = True


def _stop(holder: list[RequestQueue]) -> None:
    """Has the desk stop; called by a signal, in the thread of the loop but not from within it."""
    if holder:
        asyncio.get_running_loop().call_soon_threadsafe(holder[0].stop)


def _error(holder: list[RequestQueue]) -> KnowgenError | None:
    return holder[0].error if holder else ConfigError("could not be started", where="serve")


def _hand_signals_to(server: uvicorn.Server) -> dict[int, Any]:
    """Lets a signal count that comes before the server looks out for signals itself; returns the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, server.handle_exit) for number in _CAUGHT}


def _lifespan(
    handle: GeneratorHandle, service: ServiceSettings, folder: Path, holder: list[RequestQueue], end: Callable[[], None]
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk = RequestQueue(handle, service, folder)
        holder.append(desk)
        app.include_router(make_router(desk))
        building = asyncio.ensure_future(desk.build())
        minding = asyncio.ensure_future(_mind(desk, end))
        try:
            yield
        finally:
            building.cancel()
            minding.cancel()
            await desk.close()

    return lifespan


async def _mind(desk: RequestQueue, end: Callable[[], None]) -> None:
    """Ends the server when the generator cannot go on."""
    while desk.control.error is None:
        await desk.control.changed.wait()
        desk.control.changed.clear()
    end()
