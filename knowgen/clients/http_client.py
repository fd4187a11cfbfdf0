"""The HTTP client of services: keys go to the service alone, and nothing but the proxy comes from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from knowgen.clients.endpoint_url import is_loopback
from knowgen.clients.proxy import environment_proxy
from knowgen.clients.response_body import ACCEPT_ENCODING

if TYPE_CHECKING:
    import aiohttp


class HttpClient:
    """Sends requests to a service and never follows redirects, which could lead to another host.

    aiohttp's `trust_env` finds proxies, but also sends the password that `~/.netrc` has for the host; and headers of a
    whole session are sent to a proxy too. Proxies are therefore found here, and the headers belong to each request.

    Args:
        headers: Headers of every request, such as the key.
        connect_seconds: Maximum time to open a connection, in seconds.
    """

    def __init__(self, headers: Mapping[str, str], connect_seconds: float) -> None:
        import aiohttp

        self._headers, self._connect_seconds = dict(headers), connect_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=_timeout(connect_seconds),
            headers={**ACCEPT_ENCODING, "User-Agent": "knowgen"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    def get(
        self, url: str, *, params: Mapping[str, str] | None = None, connect_seconds: float | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Return the response to a GET request, as a context manager that sends it.

        Args:
            url: The URL.
            params: Parameters to append to the URL.
            connect_seconds: Maximum time to open a connection; that of the client when None.

        Raises:
            ConfigError: The environment names a proxy that cannot be used.
        """
        limit = _timeout(self._connect_seconds if connect_seconds is None else connect_seconds)
        return self._session.get(url, params=params, headers=self._headers, timeout=limit, **_routing(url))

    def post(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        json: Any = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Return the response to a POST request, as a context manager that sends it.

        Args:
            url: The URL.
            params: Parameters to append to the URL.
            headers: Further headers.
            data: Body, as aiohttp takes it.
            json: Value of a JSON body.

        Raises:
            ConfigError: The environment names a proxy that cannot be used.
        """
        every = {**self._headers, **(headers or {})}
        return self._session.post(url, params=params, headers=every, data=data, json=json, **_routing(url))

    async def close(self) -> None:
        """Close the connections. Call it in the event loop in which they were used."""
        await self._session.close()


def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)


def _routing(url: str) -> dict[str, Any]:
    """Return the arguments that decide where a request goes: to the host, or to the environment's proxy for it."""
    proxy = None if is_loopback(url) else environment_proxy(url)
    return {"allow_redirects": False, "proxy": None if proxy is None else proxy.full_url}
