"""Fetching what an address from outside points to, without being led into this machine or its network.

An address in an answer, a page or a request may be anybody's. It is fetched without any key, over http or https only,
and only from addresses of the public internet: each host is resolved here, all its addresses are checked, and the
connection goes to exactly those addresses, so that a second look-up cannot lead elsewhere. Every redirect is checked
anew. No proxy is asked, for a proxy would resolve the name by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from knowgen.clients.endpoint_url import is_loopback, retry_after
from knowgen.core.errors import KnowgenError, TransientError

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MOST_BYTES = 64 * 1024 * 1024
MOST_REDIRECTS = 5
SECONDS = 60.0

_CHUNK = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED_NETWORKS = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # translation inside a network
    ipaddress.IPv6Network("fec0::/10"),  # site-local, once
    ipaddress.IPv6Network("::/96"),  # an IPv4 address in a form given up long ago
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedError(KnowgenError):
    """An address that is not fetched, because of where it points."""


class FetchError(KnowgenError):
    """What an address points to cannot be had, and asking again would not help."""


@dataclass(frozen=True)
class FetchResult:
    """What came back.

    Attributes:
        url: Address it came from, after redirects.
        data: Its bytes.
        content_type: As the server named it, in lower case, without parameters.
    """

    url: str
    data: bytes
    content_type: str


def is_public(address: str | Address) -> bool:
    """Tells whether an IP address belongs to the public internet.

    Loopback, private, shared, link-local, multicast, reserved and unspecified addresses do not, nor do IPv6 addresses
    that carry such an IPv4 address inside (mapped, 6to4, Teredo, NAT64). What is no IP address is not public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if (mapped := ip.ipv4_mapped) is not None:
        return is_public(mapped)
    inside: list[ipaddress.IPv4Address] = []
    if ip.sixtofour is not None:
        inside.append(ip.sixtofour)
    if ip.teredo is not None:
        inside.extend(ip.teredo)
    if ip in _NAT64:
        inside.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if inside:
        return all(is_public(one) for one in inside)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED_NETWORKS)


def origin(url: str | URL) -> tuple[str, int] | None:
    """Returns host and port of an http address, None when it is none."""
    from yarl import URL

    try:
        parts = URL(url) if isinstance(url, str) else url
        if parts.scheme not in {"http", "https"} or not parts.raw_host or parts.port is None:
            return None
        return parts.raw_host.lower(), parts.port
    except ValueError:
        return None


def check_url(url: str, trusted: str = "") -> URL:
    """Returns an address that may be asked, as far as can be told before its host is resolved.

    Args:
        url: The address.
        trusted: An endpoint on this machine whose own host and port are let through, such as the one that named the
            address; anything else than an endpoint on this machine changes nothing.

    Raises:
        BlockedError: It is no http address, holds a password, or names an IP address that is not public.
    """
    from yarl import URL

    try:
        parts = URL(url)
        known = origin(parts)
    except (ValueError, TypeError) as error:
        raise BlockedError("is no address") from error
    if known is None:
        raise BlockedError("is no http address")
    if parts.raw_user or parts.raw_password:
        raise BlockedError("an address with a user or password is not fetched")
    if known == _trusted_origin(trusted):
        return parts
    host = known[0].rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        raise BlockedError(f"{host} is this machine, which is not fetched from")
    if _looks_numeric(host):
        _check_numeric(host)
    return parts


def _trusted_origin(trusted: str) -> tuple[str, int] | None:
    return origin(trusted) if trusted and is_loopback(trusted) else None


def _looks_numeric(host: str) -> bool:
    """Tells whether a system might read a host as an IP address without asking a name server."""
    if ":" in host or host.replace(".", "").isdigit():
        return True
    try:
        socket.inet_aton(host)  # takes 2130706433, 0x7f000001, 0177.1 and the like
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
    """Resolves names, and refuses those that lead anywhere but to the public internet.

    Args:
        inner: Asks the name servers; the system's resolver when None.
        trusted: As for `check_url`.
    """

    def __init__(self, inner: AbstractResolver | None = None, trusted: str = "") -> None:
        from aiohttp.resolver import ThreadedResolver

        self._inner = ThreadedResolver() if inner is None else inner
        self._trusted = _trusted_origin(trusted)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses of a host.

        Raises:
            BlockedError: One of them is not public; a name that leads to both is not trusted with either.
            OSError: The name is not known.
        """
        found = await self._inner.resolve(host, port, family)
        if (host.lower(), port) == self._trusted:
            return found
        for one in found:
            if not is_public(one["host"]):
                raise BlockedError(f"{host} leads to {one['host']}, which is not an address of the public internet")
        return found

    async def close(self) -> None:
        """Closes the inner resolver."""
        await self._inner.close()


async def fetch(
    url: str,
    *,
    most_bytes: int = MOST_BYTES,
    seconds: float = SECONDS,
    trusted: str = "",
    resolver: AbstractResolver | None = None,
) -> FetchResult:
    """Fetches an address from outside, without any key or cookie.

    Args:
        url: The address.
        most_bytes: More is not read.
        seconds: For all of it, redirects included.
        trusted: As for `check_url`.
        resolver: Asks the name servers; the system's resolver when None.

    Raises:
        BlockedError: It, or an address it redirects to, is not one of the public internet.
        FetchError: It answers with an error that stays, with too much, or redirects too often.
        TransientError: It cannot be reached, is busy or broken, or too slow.
    """
    import aiohttp

    connector = aiohttp.TCPConnector(resolver=PublicResolver(resolver, trusted), use_dns_cache=False, limit=0)
    client = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        headers={"User-Agent": "knowgen"},
    )
    try:
        async with asyncio.timeout(seconds), client:
            return await _follow(client, url, most_bytes, trusted)
    except TimeoutError as error:
        raise TransientError(f"{_name(url)} gave nothing within {seconds:g} s") from error
    except aiohttp.ClientError as error:
        raise TransientError(f"{_name(url)} cannot be fetched ({type(error).__name__})") from error
    except OSError as error:
        raise TransientError(f"{_name(url)} cannot be fetched ({type(error).__name__})") from error


async def _follow(client: aiohttp.ClientSession, url: str, most_bytes: int, trusted: str) -> FetchResult:
    parts = check_url(url, trusted)
    for _ in range(MOST_REDIRECTS + 1):
        async with client.get(parts, allow_redirects=False) as response:
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or not target:
                return await _read(response, most_bytes)
        from yarl import URL

        try:
            joined = str(parts.join(URL(target)))
        except ValueError as error:
            raise BlockedError("redirects to what is no address") from error
        parts = check_url(joined, trusted)
    raise FetchError(f"{_name(url)} redirects more than {MOST_REDIRECTS} times")


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> FetchResult:
    name, status = _name(str(response.url)), response.status
    if status in _PASSING or status >= 500:
        raise TransientError(f"{name} answered {status}", retry_after=retry_after(response.headers))
    if not 200 <= status < 300:
        raise FetchError(f"{name} answered {status}")
    if (response.content_length or 0) > most_bytes:
        raise FetchError(f"{name} holds {response.content_length} bytes; at most {most_bytes} are read")
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > most_bytes:
            raise FetchError(f"{name} holds more than {most_bytes} bytes")
    return FetchResult(str(response.url), bytes(data), response.content_type.lower())


def _name(url: str) -> str:
    """Names an address in messages: its host alone, for a path or query may hold a signature."""
    known = origin(url)
    return known[0] if known is not None else "the address"
