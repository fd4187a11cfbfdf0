"""Fetching untrusted URLs without reaching this machine or its network (protection against SSRF).

A URL in a model's answer, a page or a request is untrusted. It is fetched without credentials, over http or https, and
from the public internet only: the host is resolved here, all its addresses are checked, and the connection goes to
exactly these addresses, so that a second DNS lookup cannot return another one. Each redirect is checked as well. Where
the environment names a proxy, it is asked for the checked address and not for the host, which it would resolve itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from knowgen.clients.endpoint_url import is_loopback_host
from knowgen.clients.host_turns import HostTurns
from knowgen.clients.proxy import environment_proxy
from knowgen.clients.response_body import ACCEPT_ENCODING, UnreadableBodyError, read_body
from knowgen.clients.stated_wait import retry_after
from knowgen.core.errors import ConfigError, KnowgenError, TransientError
from knowgen.core.version import __version__

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.client import _RequestContextManager
    from yarl import URL

MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of a response body, in bytes."""

MAX_REDIRECTS = 5
"""Maximum number of redirects that are followed."""

TIMEOUT = 60.0
"""Maximum duration of a fetch, redirects included, in seconds."""

PER_HOST, TOTAL = 6, 64
"""Maximum number of requests at a time: to one host, as browsers do over HTTP/1.1, and to all."""

USER_AGENT = f"knowgen/{__version__}"

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED_NETWORKS = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local-use IPv4/IPv6 translation (RFC 8215)
    ipaddress.IPv6Network("fec0::/10"),  # deprecated site-local addresses (RFC 3879)
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # translated IPv4 addresses (RFC 2765)
    ipaddress.IPv6Network("::/96"),  # deprecated IPv4-compatible addresses (RFC 4291)
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedError(KnowgenError):
    """A URL that must not be fetched, because it does not lead to the public internet."""


class FetchError(KnowgenError):
    """A permanent failure to fetch a URL.

    Args:
        what: What happened.
        status: HTTP status of the response, when that is the reason; 0 otherwise.
    """

    def __init__(self, what: str, *, status: int = 0) -> None:
        super().__init__(what)
        self.status = status


@dataclass(frozen=True)
class FetchResult:
    """A response body.

    Attributes:
        url: URL it came from, after redirects.
        data: Bytes of the body.
        content_type: Media type that the server names, in lower case, without parameters.
        charset: Character set that the server names, in lower case; empty when it names none.
        via: Every URL that was requested, from the first to `url`.
    """

    url: str
    data: bytes
    content_type: str
    charset: str = ""
    via: tuple[str, ...] = ()


def is_public(address: str | Address) -> bool:
    """Return whether an IP address belongs to the public internet.

    Loopback, private, shared, link-local, multicast, reserved and unspecified addresses do not, nor do addresses with a
    zone. An IPv6 address that embeds an IPv4 address (mapped, 6to4, Teredo, NAT64, ISATAP) does only if that one does.
    Other text is not public.

    Example:
        >>> [is_public(address) for address in ("8.8.8.8", "127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "localhost")]
        [True, False, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip.scope_id is not None:
        return False
    if (mapped := ip.ipv4_mapped) is not None:
        return is_public(mapped)
    embedded: list[ipaddress.IPv4Address] = []
    if ip.sixtofour is not None:
        embedded.append(ip.sixtofour)
    if ip.teredo is not None:
        embedded.extend(ip.teredo)
    if ip in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if _is_isatap(ip):
        embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if embedded:
        return all(is_public(each) for each in embedded)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED_NETWORKS)


def _is_isatap(ip: ipaddress.IPv6Address) -> bool:
    """Return whether the lower half of an address is an ISATAP interface identifier (RFC 5214, section 6.1)."""
    return (int(ip) >> 32) & 0xFDFFFFFF == 0x00005EFE


def origin(url: str | URL) -> tuple[str, int] | None:
    """Return the host and port of an http or https URL, None for anything else.

    Example:
        >>> origin("https://Example.org/a"), origin("file:///etc/passwd")
        (('example.org', 443), None)
    """
    from yarl import URL

    try:
        parts = URL(url) if isinstance(url, str) else url
        if parts.scheme not in {"http", "https"} or not parts.raw_host or parts.port is None:
            return None
        return parts.raw_host.lower(), parts.port
    except ValueError:
        return None


def check_url(url: str, trusted: str = "") -> URL:
    """Check a URL before its host is resolved, and return it parsed.

    Args:
        url: URL to check.
        trusted: URL of an endpoint that the user configured, such as the one whose answer contains `url`. Its scheme,
            host and port are allowed, wherever it is.

    Raises:
        BlockedError: It is not an http or https URL, contains a user or password, or names this machine or an IP
            address that is not public.
    """
    from yarl import URL

    try:
        parts = URL(url)
        known = origin(parts)
    except (ValueError, TypeError) as error:
        raise BlockedError("not a valid address") from error
    if known is None:
        raise BlockedError("not an http address")
    if parts.raw_user or parts.raw_password:
        raise BlockedError("an address with a user or password is not fetched")
    if trusted and known == origin(trusted):
        if parts.scheme != URL(trusted).scheme:
            raise BlockedError("the address of the endpoint is fetched by its own scheme only")
        return parts
    host = known[0].removesuffix(".")
    if not _is_host(host):
        raise BlockedError("not a valid address: its host is not the name of a host")
    if host == "localhost" or host.endswith(".localhost"):
        raise BlockedError(f"{host} is this machine, which is not fetched from")
    if _looks_numeric(host):
        _check_numeric(host)
    return parts


def _is_host(host: str) -> bool:
    """Return whether a host is an IP address or a name that DNS can have (RFC 1035, section 2.3.4)."""
    return ":" in host or (len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split(".")))


def _looks_numeric(host: str) -> bool:
    """Return whether a system might parse a host as an IP address without a DNS lookup."""
    if ":" in host or host.replace(".", "").isdigit():
        return True
    try:
        socket.inet_aton(host)  # accepts 2130706433, 0x7f000001, 0177.1 and the like
    except (OSError, UnicodeError):
        return False
    return True


def _check_numeric(host: str) -> None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError as error:
        raise BlockedError(f"{host} writes an IP address in an unusual way") from error
    if not is_public(ip):
        raise BlockedError(f"{host} is not an address of the public internet")


class PublicResolver(AbstractResolver):
    """A resolver that rejects hosts outside the public internet.

    Args:
        inner: Resolver that performs the lookups; the system's when None.
        trusted: As for `check_url`.

    Attributes:
        trusted: Host and port whose addresses need not be public, None for none.
    """

    def __init__(self, inner: AbstractResolver | None = None, trusted: str = "") -> None:
        from aiohttp.resolver import ThreadedResolver

        self._inner = ThreadedResolver() if inner is None else inner
        self.trusted = origin(trusted) if trusted else None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            BlockedError: At least one address is not public.
            OSError: The host cannot be resolved.
        """
        try:
            addresses = await self._inner.resolve(host, port, family)
        except ValueError as error:  # a name that cannot be encoded
            raise BlockedError("not a valid address: its host is not the name of a host") from error
        if not addresses:
            raise OSError(f"{host} has no address")
        if (host.lower(), port) == self.trusted:
            return addresses
        for address in addresses:
            if not is_public(address["host"]):
                where = address["host"]
                raise BlockedError(f"{host} leads to {where}, which is not an address of the public internet")
        return addresses

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


class Fetcher:
    """Fetches untrusted URLs, without credentials or cookies, over connections that its fetches share.

    Every request waits for a turn of its host, which its time limit does not count.

    Args:
        per_host: Maximum number of requests to one host at a time.
        total: Maximum number of requests at a time.
        delay: Seconds between the starts of two requests to one host.
        user_agent: Value of the header `User-Agent`.
        resolver: Resolver that performs DNS lookups; the system's when None.
    """

    def __init__(
        self,
        *,
        per_host: int = PER_HOST,
        total: int = TOTAL,
        delay: float = 0.0,
        user_agent: str = USER_AGENT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self.delay = delay
        self._per_host, self._total = per_host, total
        self._user_agent = user_agent
        self._resolver = resolver
        self._connections: _Connections | None = None

    async def fetch(
        self,
        url: str,
        *,
        max_bytes: int = MAX_BYTES,
        cut: bool = False,
        timeout: float = TIMEOUT,
        trusted: str = "",
        check: Callable[[str], Awaitable[float | None]] | None = None,
    ) -> FetchResult:
        """Fetch a URL.

        Args:
            url: URL to fetch.
            max_bytes: Maximum size of the body, before and after decompression.
            cut: Whether a longer body is cut, instead of an error.
            timeout: Maximum duration in seconds, redirects included.
            trusted: As for `check_url`.
            check: Awaited with the URL and each that it redirects to, before it is requested. It may raise any error,
                and return the seconds between this request and the next to the host, if more than the fetcher's own.

        Raises:
            BlockedError: The URL, or one it redirects to, does not lead to the public internet.
            FetchError: The server answers with a permanent error, a body larger than `max_bytes` or too many
                redirects, or the environment names a proxy of a kind that is not supported.
            TransientError: The server cannot be reached, is busy or failing, or takes longer than `timeout`.
            Exception: Errors of `check`.
        """
        import aiohttp

        request = _Request(max_bytes, cut, trusted, self.delay, check)
        deadline = _Deadline(timeout)
        try:
            return await self._current().follow(url, request, deadline)
        except TimeoutError as error:
            raise TransientError(f"{_name(url)} did not answer within {timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"{_name(url)} cannot be fetched ({type(error).__name__})") from error

    async def close(self) -> None:
        """Close all connections. A later fetch opens others."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close()

    def _current(self) -> _Connections:
        """Return the connections of the running event loop; those of an earlier loop ended with it."""
        loop = asyncio.get_running_loop()
        if self._connections is None or self._connections.loop is not loop:
            turns = HostTurns(self._per_host, self._total)
            self._connections = _Connections(loop, turns, self._resolver, self._user_agent)
        return self._connections


async def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    trusted: str = "",
    resolver: AbstractResolver | None = None,
) -> FetchResult:
    """Fetch one untrusted URL; arguments and errors as in `Fetcher.fetch`."""
    fetcher = Fetcher(resolver=resolver)
    try:
        return await fetcher.fetch(url, max_bytes=max_bytes, timeout=timeout, trusted=trusted)
    finally:
        await fetcher.close()


@dataclass(frozen=True)
class _Request:
    """The arguments of a fetch that stay the same over its redirects."""

    max_bytes: int
    cut: bool
    trusted: str
    delay: float
    check: Callable[[str], Awaitable[float | None]] | None


class _Deadline:
    """The time that a fetch has left, without its waits for turns."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raise TimeoutError in the `with` block when no time is left."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        try:
            async with asyncio.timeout(self._left):
                yield
        finally:
            self._left -= clock() - begin


class _Connections:
    """The HTTP clients of a fetcher in one event loop.

    One connects to checked addresses, one to each trusted origin, and one to a proxy.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turns: HostTurns, resolver: AbstractResolver | None, user_agent: str
    ) -> None:
        self.loop = loop
        self._turns = turns
        self._inner = resolver
        self._user_agent = user_agent
        self._clients: dict[str, aiohttp.ClientSession] = {}
        self._public = PublicResolver(resolver)

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    async def follow(self, url: str, request: _Request, deadline: _Deadline) -> FetchResult:
        """Follow redirects. The first to another origin ends the trust: nothing it leads to is the user's choice."""
        from yarl import URL

        trusted, target, via = request.trusted, url, []
        for _ in range(MAX_REDIRECTS + 1):
            parts = check_url(target, trusted)
            asked = await request.check(str(parts)) if request.check is not None else None
            via.append(str(parts))
            async with self._turns.turn(parts.raw_host or "", max(request.delay, asked or 0.0)), deadline.running():
                got = await self._request(parts, request, trusted)
            if isinstance(got, _Body):
                return FetchResult(str(parts), got.data, got.content_type, got.charset, tuple(via))
            try:
                target = str(parts.join(URL(got)))
            except ValueError as error:
                raise BlockedError("redirects to an invalid address") from error
            if origin(target) != origin(parts) or URL(target).scheme != parts.scheme:
                trusted = ""
        raise FetchError(f"{_name(url)} redirects more than {MAX_REDIRECTS} times")

    async def _request(self, parts: URL, request: _Request, trusted: str) -> _Body | str:
        """Send one request and return the body of its response, or where it redirects to."""
        async with await self._get(parts, trusted) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECT_STATUSES and location:
                return location
            return await _read(response, _name(str(parts)), request)

    async def _get(self, parts: URL, trusted: str) -> _RequestContextManager:
        """Return a request, ready to be sent.

        Raises:
            BlockedError: The host does not lead to the public internet.
            FetchError: The environment names a proxy that cannot be used.
        """
        try:
            proxy = None if is_loopback_host(parts.raw_host or "") else environment_proxy(str(parts))
        except ConfigError as error:
            raise FetchError(str(error)) from error
        if proxy is None:
            trust = trusted if trusted and origin(trusted) == origin(parts) else ""
            return self._client(trust).get(parts, allow_redirects=False)
        checked = parts
        if not _looks_numeric(parts.raw_host or ""):  # `check_url` has checked one that is an address
            resolver = PublicResolver(self._inner, trusted) if trusted else self._public
            addresses = await resolver.resolve(parts.raw_host or "", parts.port or 0)
            checked = parts.with_host(addresses[0]["host"])
        authorization = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        headers = {"Host": parts.raw_authority, **(authorization if parts.scheme == "http" else {})}
        return self._client("", proxied=True).get(
            checked,
            allow_redirects=False,
            headers=headers,
            server_hostname=parts.raw_host,  # the name in the certificate
            proxy=proxy.url,
            proxy_headers=authorization,
        )

    def _client(self, trusted: str, *, proxied: bool = False) -> aiohttp.ClientSession:
        """Return the client for the public internet, for one trusted origin, or for a proxy."""
        import aiohttp

        name = "proxy" if proxied else f"{origin(trusted)}" if trusted else ""
        if name not in self._clients:
            resolver = PublicResolver(self._inner, trusted) if trusted else self._public
            self._clients[name] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=None if proxied else resolver,
                    use_dns_cache=False,
                    limit=0,
                    force_close=proxied,  # a tunnel was made for one name
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                headers={"User-Agent": self._user_agent, **ACCEPT_ENCODING},
            )
        return self._clients[name]


@dataclass(frozen=True)
class _Body:
    """The body of a response, with the media type and character set that the server names."""

    data: bytes
    content_type: str
    charset: str


async def _read(response: aiohttp.ClientResponse, name: str, request: _Request) -> _Body:
    status = response.status
    if status in _TRANSIENT_STATUSES or status >= 500:
        raise TransientError(f"{name} answered {status}", retry_after=retry_after(response.headers))
    if not 200 <= status < 300:
        raise FetchError(f"{name} answered {status}", status=status)
    limit = request.max_bytes
    if (response.content_length or 0) > limit and not request.cut:
        raise FetchError(f"{name} sends {response.content_length} bytes; at most {limit} are read")
    try:
        data = await read_body(response, limit, cut=request.cut)
    except UnreadableBodyError as error:
        raise FetchError(f"{name}: {error.what}") from error
    return _Body(data, response.content_type.lower(), (response.charset or "").lower())


def _name(url: str) -> str:
    """Return the host of a URL for messages. The path and query may contain a signature and are left out."""
    parts = origin(url)
    return parts[0] if parts is not None else "the address"
