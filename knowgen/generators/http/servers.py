"""Several servers behind one painter: the least busy one is asked, a dead one is passed over and tried again later.

The line of those who wait is common to all servers, so that whichever has room first takes the next; that is why each
server's number of calls is kept here and not by a pace of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from knowgen.generators.http.responses import ServerHealth, read_health

if TYPE_CHECKING:
    from aiohttp import ClientSession

HEALTH_SECONDS = 5.0
"""A server that takes longer over its health is not taken to be dead: it may be busy with pictures."""

_CONNECT_SECONDS = 3.0

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds a busy server is left alone when it does not say how long: doubled while it stays busy."""


class Server:
    """One server, as it was last seen.

    Attributes:
        url: Its address.
        places: Calls at once.
        under_way: Calls now.
        alive: Is it asked for pictures?
        words: Why not.
        seen: Has it ever answered anything?
        gave: Has it ever given a picture?
        paused_until: It asked to be left alone until then, by the loop's clock.
    """

    def __init__(self, url: str, first_pause: float = FIRST_PAUSE) -> None:
        self.url = url
        self.places = 1
        self.under_way = 0
        self.alive = False
        self.words = "not asked yet"
        self.seen = False
        self.gave = False
        self.paused_until = 0.0
        self.first_pause = self.pause = first_pause

    def free(self, now: float) -> bool:
        """Tells whether it may be sent a call."""
        return self.alive and self.under_way < self.places and self.paused_until <= now

    @property
    def load(self) -> float:
        """Returns how much of it is taken, from 0 to 1."""
        return self.under_way / self.places


class NoServerError(Exception):
    """No server had room in time; the words say why."""


class Servers:
    """The servers of one painter; made and used in one event loop.

    Args:
        urls: Addresses.
        client: For asking after their health; closed with the servers.
        per_server: Calls at once to each; 0 takes what each says.
        every: Seconds between two looks at their health.
        health_timeout: Seconds to wait for an answer about their health.
        first_pause: Seconds a busy server is left alone at first.
        token: Secret that is sent to them, and masked in their replies; empty for none.
    """

    def __init__(
        self,
        urls: list[str],
        client: ClientSession,
        per_server: int,
        every: float,
        health_timeout: float = HEALTH_SECONDS,
        first_pause: float = FIRST_PAUSE,
        token: str = "",
    ) -> None:
        self.all = [Server(url, first_pause) for url in urls]
        self._health_timeout = health_timeout
        self.loop = asyncio.get_running_loop()
        self._client, self._per_server, self._every, self._token = client, per_server, every, token
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._known: asyncio.Future[None] = self.loop.create_future()
        self._minding = self.loop.create_task(self._mind())
        self._looking: dict[Server, asyncio.Task[None]] = {}

    async def known(self) -> None:
        """Waits until a server was found alive, or all were looked at."""
        await asyncio.shield(self._known)

    @contextmanager
    def place(self, server: Server) -> Iterator[None]:
        """Takes up a place at a server."""
        server.under_way += 1
        try:
            yield
        finally:
            server.under_way -= 1
            self._wake()

    def least_busy(self) -> Server | None:
        """Returns the server with the smallest part of its places taken, None when none is free."""
        now = self.loop.time()
        free = [server for server in self.all if server.free(now)]
        return min(free, key=lambda server: (server.load, server.under_way), default=None)

    async def next_free(self, until: float) -> Server:
        """Waits for a server with room.

        Args:
            until: By the loop's clock.

        Raises:
            NoServerError: None had room in time.
        """
        while (server := self.least_busy()) is None:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout_at(min(until, self._next_chance())):
                    await waiter
            except TimeoutError:
                if self.loop.time() >= until:
                    raise NoServerError(self.state()) from None
            except asyncio.CancelledError:
                self._wake()  # the turn may have been this one's
                raise
        return server

    def _next_chance(self) -> float:
        """Returns when a paused server may be asked again."""
        now = self.loop.time()
        paused = [server.paused_until for server in self.all if server.alive and server.paused_until > now]
        return min(paused, default=now + self._every) + 0.001

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def good(self, server: Server) -> None:
        """Hears that a server gave an answer."""
        server.gave = server.seen = server.alive = True
        server.pause, server.paused_until = server.first_pause, 0.0

    def busy(self, server: Server, seconds: float | None) -> None:
        """Hears that a server has no room now."""
        pause = server.pause if seconds is None else seconds
        server.pause = min(LONGEST_PAUSE, server.pause * 2)
        server.paused_until = max(server.paused_until, self.loop.time() + pause)

    def fault(self, server: Server, words: str, *, dead: bool) -> None:
        """Hears of a fault, and looks at the server's health.

        Args:
            server: Where it happened.
            words: What happened.
            dead: Could it not be reached at all?
        """
        self.busy(server, None)
        if dead:
            server.alive, server.words = False, words
        self._look_soon(server)

    def state(self) -> str:
        """Says in a few words how the servers are."""
        if dead := [server for server in self.all if not server.alive]:
            words = f"{dead[0].url}: {dead[0].words}"
            return words if len(self.all) == 1 else f"{len(dead)} of {len(self.all)} servers are down; {words}"
        return "no server had room in time; lower --concurrency to what they draw at once"

    def _look_soon(self, server: Server) -> None:
        task = self._looking.get(server)
        if task is None or task.done():
            self._looking[server] = self.loop.create_task(self._look(server))

    async def _mind(self) -> None:
        try:
            await self._look_after()
        finally:  # also when the loop is ended without a farewell
            await self._client.close()

    async def _look_after(self) -> None:
        while True:
            for server in self.all:
                self._look_soon(server)
            await asyncio.gather(*self._looking.values(), return_exceptions=True)
            if not self._known.done():
                self._known.set_result(None)
            await asyncio.sleep(self._every)

    async def _look(self, server: Server) -> None:
        import aiohttp

        connect = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            async with (
                asyncio.timeout(self._health_timeout),
                self._client.get(f"{server.url}/health", timeout=connect, allow_redirects=False) as response,
            ):
                health = read_health(response.status, await response.content.read(1 << 16), self._token)
                server.seen = True
        except aiohttp.ServerTimeoutError:
            health = ServerHealth(False, words="cannot be reached (no connection in time)")
        except TimeoutError:
            # it took the connection; its loop may be held up by pictures, so a server that was alive still is
            alive, server.seen = server.alive or not server.seen, True
            health = ServerHealth(alive, words="" if alive else "it does not answer")
        except (aiohttp.ClientError, OSError) as error:
            health = ServerHealth(False, words=f"cannot be reached ({_cause(error)})")
        server.alive, server.words = health.alive, health.words
        server.places = self._per_server or health.places or server.places
        if server.alive and not self._known.done():
            self._known.set_result(None)
        for _ in range(server.places):
            self._wake()

    async def close(self) -> None:
        """Stops looking after the servers."""
        tasks = [self._minding, *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return type(inner).__name__
