"""Several servers behind one generator: pick the least loaded one, skip a dead one and check it again later.

All servers share one queue of waiting calls, so that the first server with free capacity takes the next call. This is
why the number of calls per server is counted here, and not by a rate control of each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.core.waiting import waiting
from knowgen.generators.http.responses import ServerHealth, read_health

if TYPE_CHECKING:
    from knowgen.clients.http_client import HttpClient

HEALTH_TIMEOUT = 5.0
"""Seconds to wait for a health check. A server that takes longer is not considered dead: it may be generating."""

SILENT_SECONDS = 60.0
"""Seconds without any image after which the servers count as unavailable, and the run is asked how long to wait."""

_CONNECT_SECONDS = 3.0
_MAX_HEALTH_BYTES = 1 << 20

FIRST_PAUSE, MAX_PAUSE = 1.0, 30.0
"""Seconds without calls to a busy server that does not say how long to wait: doubled while it stays busy."""


class Server:
    """One server and its last known state.

    Attributes:
        url: URL without `/generate`.
        capacity: Maximum number of concurrent calls.
        in_flight: Number of calls now.
        alive: Whether it is sent calls.
        reason: Why it is not.
        responded: Whether it has ever answered anything.
        has_generated: Whether it has ever answered a call of `/generate` for good.
        paused_until: Time until which it is sent no calls, by the event loop's clock.
    """

    def __init__(self, url: str, first_pause: float = FIRST_PAUSE) -> None:
        self.url = url
        self.capacity = 1
        self.in_flight = 0
        self.alive = False
        self.reason = "not checked yet"
        self.responded = False
        self.has_generated = False
        self.paused_until = 0.0
        self.first_pause = self.pause = first_pause

    def is_free(self, now: float) -> bool:
        """Return whether it may be sent a call."""
        return self.alive and self.in_flight < self.capacity and self.paused_until <= now

    @property
    def load(self) -> float:
        """Share of the capacity in use, from 0 to 1."""
        return self.in_flight / self.capacity


class NoServerError(Exception):
    """No server had free capacity in time; the message says why."""


class Servers:
    """The servers of one generator. Created and used in one event loop.

    Args:
        urls: URLs of the servers.
        client: HTTP client for health checks; closed with the servers.
        per_server: Maximum number of concurrent calls to each server; 0 takes what each reports.
        health_every: Seconds between two health checks.
        health_timeout: Seconds to wait for a health check.
        first_pause: Seconds without calls to a busy server at first.
        token: Secret that is sent to them, and masked in their responses; empty for none.
    """

    def __init__(
        self,
        urls: list[str],
        client: HttpClient,
        per_server: int,
        health_every: float,
        health_timeout: float = HEALTH_TIMEOUT,
        first_pause: float = FIRST_PAUSE,
        token: str = "",
    ) -> None:
        self.all = [Server(url, first_pause) for url in urls]
        self.loop = asyncio.get_running_loop()
        self._client, self._per_server, self._token = client, per_server, token
        self._health_every, self._health_timeout = health_every, health_timeout
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._first_check: asyncio.Future[None] = self.loop.create_future()
        self._monitor_task = self.loop.create_task(self._monitor())
        self._checks: dict[Server, asyncio.Task[None]] = {}
        self._last_success = self.loop.time()

    async def wait_until_checked(self) -> None:
        """Wait until one server is known to be alive, or all have been checked."""
        await asyncio.shield(self._first_check)

    @contextmanager
    def call(self, server: Server) -> Iterator[None]:
        """Count a call to a server while the block runs."""
        server.in_flight += 1
        try:
            yield
        finally:
            server.in_flight -= 1
            self._wake_one()

    def least_loaded(self) -> Server | None:
        """Return the free server with the smallest load, None when no server is free."""
        now = self.loop.time()
        free = [server for server in self.all if server.is_free(now)]
        return min(free, key=lambda server: (server.load, server.in_flight), default=None)

    async def next_free(self, until: float) -> Server:
        """Wait for a free server.

        Args:
            until: Time at which to give up, by the event loop's clock.

        Raises:
            NoServerError: No server was free in time, or none has generated anything for a while.
        """
        started = self.loop.time()
        while (server := self.least_loaded()) is None:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(waiter)
            try:
                with waiting():
                    async with asyncio.timeout_at(min(until, self._next_attempt())):
                        await waiter
            except TimeoutError:
                if self.loop.time() >= until or self.silent_since(started):
                    raise NoServerError(self.describe()) from None
            except asyncio.CancelledError:
                self._wake_one()  # the free server may have been assigned to this waiter
                raise
        return server

    def silent_since(self, started: float) -> bool:
        """Return whether no server generates, or has generated anything for a while. The run then counts its patience.

        Args:
            started: Time from which to count at the earliest, by the event loop's clock.
        """
        generating = any(server.in_flight for server in self.all)
        return not generating and self.loop.time() - max(started, self._last_success) >= SILENT_SECONDS

    def _next_attempt(self) -> float:
        """Return the time at which a paused server may be sent a call again."""
        now = self.loop.time()
        paused = [server.paused_until for server in self.all if server.alive and server.paused_until > now]
        return min(paused, default=now + self._health_every) + 0.001

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def mark_working(self, server: Server) -> None:
        """Record that a server answered a call."""
        server.has_generated = server.responded = server.alive = True
        self._last_success = self.loop.time()
        server.pause, server.paused_until = server.first_pause, 0.0

    def mark_busy(self, server: Server, retry_after: float | None) -> None:
        """Record that a server has no capacity now, and pause calls to it.

        Args:
            server: The server.
            retry_after: Seconds to wait as it asks, None when it does not.
        """
        pause = server.pause if retry_after is None else retry_after
        server.pause = min(MAX_PAUSE, server.pause * 2)
        server.paused_until = max(server.paused_until, self.loop.time() + pause)

    def mark_failed(self, server: Server, reason: str, *, dead: bool) -> None:
        """Record that a server failed, and check its health.

        Args:
            server: The server.
            reason: What happened.
            dead: Whether it could not be reached at all.
        """
        self.mark_busy(server, None)
        if dead:
            server.alive, server.reason = False, reason
        self._check_soon(server)

    def describe(self) -> str:
        """Return a short description of the servers' state, for error messages."""
        if dead := [server for server in self.all if not server.alive]:
            reason = f"{dead[0].url}: {dead[0].reason}"
            return reason if len(self.all) == 1 else f"{len(dead)} of {len(self.all)} servers are down; {reason}"
        return "no server had free capacity in time; lower --concurrency to what they generate at the same time"

    def _check_soon(self, server: Server) -> None:
        task = self._checks.get(server)
        if task is None or task.done():
            self._checks[server] = self.loop.create_task(self._check(server))

    async def _monitor(self) -> None:
        """Check the health of all servers in turn until cancelled, then close the HTTP client."""
        try:
            await self._check_all_forever()
        finally:  # also when the event loop ends without close()
            await self._client.close()

    async def _check_all_forever(self) -> None:
        while True:
            for server in self.all:
                self._check_soon(server)
            await asyncio.gather(*self._checks.values(), return_exceptions=True)
            if not self._first_check.done():
                self._first_check.set_result(None)
            await asyncio.sleep(self._health_every)

    async def _check(self, server: Server) -> None:
        """Check a server's health once, and wake calls that wait for its capacity."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(self._health_timeout),
                self._client.get(f"{server.url}/health", connect_seconds=_CONNECT_SECONDS) as response,
            ):
                health = read_health(response.status, await read_body(response, _MAX_HEALTH_BYTES), self._token)
                server.responded = True
        except UnreadableBodyError as error:
            health, server.responded = ServerHealth(False, reason=error.what), True
        except aiohttp.ServerTimeoutError:
            health = ServerHealth(False, reason="cannot be reached (no connection in time)")
        except TimeoutError:
            # it accepted the connection: generating may block its event loop, so keep its last state
            alive, server.responded = server.alive or not server.responded, True
            health = ServerHealth(alive, reason="" if alive else "it does not answer")
        except (aiohttp.ClientError, OSError) as error:
            health = ServerHealth(False, reason=f"cannot be reached ({_cause(error)})")
        server.alive, server.reason = health.alive, health.reason
        server.capacity = self._per_server or health.capacity or server.capacity
        if server.alive and not self._first_check.done():
            self._first_check.set_result(None)
        for _ in range(server.capacity):
            self._wake_one()

    async def close(self) -> None:
        """Stop the health checks and close the HTTP client."""
        tasks = [self._monitor_task, *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return type(inner).__name__
