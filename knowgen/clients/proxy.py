"""The proxy that the environment names for a URL, for requests that are made by address and not by name."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knowgen.clients.endpoint_url import is_loopback_host
from knowgen.core.errors import KnowgenError

if TYPE_CHECKING:
    from yarl import URL


class UnusableProxyError(KnowgenError):
    """The environment names a proxy of a kind that is not supported."""


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        url: Its URL, without user and password.
        authorization: Value of `Proxy-Authorization`; empty when it needs none.
    """

    url: URL
    authorization: str = field(default="", repr=False)


def environment_proxy(url: URL) -> Proxy | None:
    """Return the proxy of `http_proxy`, `https_proxy` or `all_proxy`; None for this machine and hosts in `no_proxy`.

    Args:
        url: An http or https URL.

    Raises:
        UnusableProxyError: The proxy is not an http proxy.
    """
    from urllib.request import getproxies, proxy_bypass

    host = url.raw_host or ""
    proxies = getproxies()
    named = (proxies.get(url.scheme) or proxies.get("all") or "").strip()
    if not named or is_loopback_host(host) or proxy_bypass(f"{host}:{url.port}") or proxy_bypass(host):
        return None
    from yarl import URL

    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme == "http" and bool(proxy.host)
    except ValueError:
        usable = False
    if not usable:
        kind = named.partition("://")[0] if "://" in named else "invalid"
        raise UnusableProxyError(
            f"the proxy that the environment names is of the kind {kind!r}, and only http proxies are supported",
            fix="set the variables https_proxy and http_proxy to http://HOST:PORT",
        )
    return Proxy(proxy.with_user(None), _basic(proxy.user or "", proxy.password or ""))


def _basic(user: str, password: str) -> str:
    """Return the value of an authorization header; empty without user and password."""
    if not user and not password:
        return ""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
