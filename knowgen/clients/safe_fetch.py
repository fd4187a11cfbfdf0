"""Fetching untrusted URLs without reaching this machine or its network (protection against SSRF).

A URL in a model's answer, a page or a request is untrusted. It is fetched without credentials, over http or https, and
from the public internet only: the host is resolved here, all its addresses are checked, and the connection goes to
exactly these addresses, so that a second DNS lookup cannot return another one. Each redirect is checked as well. No
proxy is used, because it would resolve the host itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from knowgen.clients.stated_wait import retry_after
from knowgen.core.errors import KnowgenError, TransientError

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of a response body, in bytes."""

MAX_REDIRECTS = 5
"""Maximum number of redirects that are followed."""

TIMEOUT = 60.0
"""Maximum duration of a fetch, redirects included, in seconds."""

_CHUNK = 1 << 16
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED_NETWORKS = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local-use IPv4/IPv6 translation (RFC 8215)
    ipaddress.IPv6Network("fec0::/10"),  # deprecated site-local addresses (RFC 3879)
    ipaddress.IPv6Network("::/96"),  # deprecated IPv4-compatible addresses (RFC 4291)
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedError(KnowgenError):
    """A URL that must not be fetched, because it does not lead to the public internet."""


class FetchError(KnowgenError):
    """A permanent failure to fetch a URL."""


@dataclass(frozen=True)
class FetchResult:
    """A response body.

    Attributes:
        url: URL it came from, after redirects.
        data: Bytes of the body.
        content_type: Media type that the server names, in lower case, without parameters.
    """

    url: str
    data: bytes
    content_type: str


def is_public(address: str | Address) -> bool:
    """Return whether an IP address belongs to the public internet.

    Loopback, private, shared, link-local, multicast, reserved and unspecified addresses do not. An IPv6 address that
    embeds an IPv4 address (mapped, 6to4, Teredo, NAT64) does only if that one does. Other text is not public.

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
    if (mapped := ip.ipv4_mapped) is not None:
        return is_public(mapped)
    embedded: list[ipaddress.IPv4Address] = []
    if ip.sixtofour is not None:
        embedded.append(ip.sixtofour)
    if ip.teredo is not None:
        embedded.extend(ip.teredo)
    if ip in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if embedded:
        return all(is_public(each) for each in embedded)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED_NETWORKS)


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
    if trusted and known == origin(trusted) and parts.scheme == URL(trusted).scheme:
        return parts
    host = known[0].rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        raise BlockedError(f"{host} is this machine, which is not fetched from")
    if _looks_numeric(host):
        _check_numeric(host)
    return parts


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
        addresses = await self._inner.resolve(host, port, family)
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


async def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    trusted: str = "",
    resolver: AbstractResolver | None = None,
) -> FetchResult:
    """Fetch an untrusted URL, without credentials or cookies.

    Args:
        url: URL to fetch.
        max_bytes: Maximum size of the body.
        timeout: Maximum duration in seconds, redirects included.
        trusted: As for `check_url`.
        resolver: Resolver that performs DNS lookups; the system's when None.

    Raises:
        BlockedError: The URL, or one it redirects to, does not lead to the public internet.
        FetchError: The server answers with a permanent error, a body larger than `max_bytes` or too many redirects.
        TransientError: The server cannot be reached, is busy or failing, or takes longer than `timeout`.
    """
    import aiohttp

    guard = PublicResolver(resolver, trusted)
    connector = aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, limit=0)
    client = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        headers={"User-Agent": "knowgen"},
    )
    try:
        async with asyncio.timeout(timeout), client:
            return await _follow(client, guard, url, max_bytes, trusted)
    except TimeoutError as error:
        raise TransientError(f"{_name(url)} did not answer within {timeout:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(f"{_name(url)} cannot be fetched ({type(error).__name__})") from error


async def _follow(
    client: aiohttp.ClientSession, guard: PublicResolver, url: str, max_bytes: int, trusted: str
) -> FetchResult:
    """Follow redirects. The first one to another origin ends the trust: nothing it leads to is the user's choice."""
    parts = check_url(url, trusted)
    for _ in range(MAX_REDIRECTS + 1):
        async with client.get(parts, allow_redirects=False) as response:
            target = response.headers.get("Location")
            if response.status not in _REDIRECT_STATUSES or not target:
                return await _read(response, max_bytes)
        from yarl import URL

        try:
            joined = str(parts.join(URL(target)))
        except ValueError as error:
            raise BlockedError("redirects to an invalid address") from error
        if origin(joined) != origin(parts) or URL(joined).scheme != parts.scheme:
            trusted, guard.trusted = "", None
        parts = check_url(joined, trusted)
    raise FetchError(f"{_name(url)} redirects more than {MAX_REDIRECTS} times")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> FetchResult:
    name, status = _name(str(response.url)), response.status
    if status in _TRANSIENT_STATUSES or status >= 500:
        raise TransientError(f"{name} answered {status}", retry_after=retry_after(response.headers))
    if not 200 <= status < 300:
        raise FetchError(f"{name} answered {status}")
    if (response.content_length or 0) > max_bytes:
        raise FetchError(f"{name} sends {response.content_length} bytes; at most {max_bytes} are read")
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise FetchError(f"{name} sends more than {max_bytes} bytes")
    return FetchResult(str(response.url), bytes(data), response.content_type.lower())


def _name(url: str) -> str:
    """Return the host of a URL for messages. The path and query may contain a signature and are left out."""
    parts = origin(url)
    return parts[0] if parts is not None else "the address"
