"""What an endpoint keeps while it is used: connections, pace, encoder and the replies of earlier runs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from knowgen.caches import Cache
from knowgen.calls import note
from knowgen.remote.address import is_loopback
from knowgen.remote.pace import Pace
from knowgen.scorers.encoding import Encoder
from knowgen.spec import fingerprint

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from knowgen.scorers.endpoint import Endpoint

_CONNECT_SECONDS = 30.0


class State:
    """What an endpoint keeps while it is used."""

    def __init__(self) -> None:
        self._no_schema: bool | None = None
        self._cache: Cache | None = None
        self._session: Session | None = None

    @property
    def cache(self) -> Cache:
        """The replies that were kept."""
        if self._cache is None:
            self._cache = Cache("replies")
        return self._cache

    def refuses_schema(self, endpoint: Endpoint) -> bool:
        """Tells whether an endpoint said, now or in an earlier run, that it takes no JSON schema."""
        if self._no_schema is None:
            self._no_schema = endpoint.keeps and self.cache.get(_schema_key(endpoint)) is not None
        return self._no_schema

    def schema_refused(self, endpoint: Endpoint) -> None:
        """Remembers that an endpoint takes no JSON schema, so that its kept replies are found at once."""
        self._no_schema = True
        if endpoint.keeps:
            self.cache.put(_schema_key(endpoint), b"refused")

    def here(self, endpoint: Endpoint) -> Session:
        """Returns connections, pace and encoder of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            self._session = Session(loop, endpoint)
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.close()
        if self._cache is not None:
            self._cache.close()


def _schema_key(endpoint: Endpoint) -> str:
    return fingerprint(["no schema", endpoint.base_url, endpoint.model])


class Session:
    """Connections, pace and encoder of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self.loop = loop
        self._endpoint = endpoint
        self._client: ClientSession | None = None
        self._pace: Pace | None = None
        self._encoder: Encoder | None = None

    @property
    def client(self) -> ClientSession:
        """The HTTP client; it follows no redirect, for the key must go nowhere else."""
        import aiohttp

        if self._client is None:
            own = self._endpoint
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_SECONDS, own.timeout)),
                trust_env=not is_loopback(own.base_url),
                headers={"Authorization": f"Bearer {own.key}", "User-Agent": "knowgen"},
                auto_decompress=True,
            )
        return self._client

    def pace(self, who: str) -> Pace:
        """How many calls are let go at once."""
        if self._pace is None:
            self._pace = Pace(self._endpoint.limits, partial(note, who, "pace"))
        return self._pace

    @property
    def encoder(self) -> Encoder:
        """Encodes pictures in worker processes."""
        if self._encoder is None:
            self._encoder = Encoder(self._endpoint.form)
        return self._encoder

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._encoder is not None:
            await self._encoder.close()
