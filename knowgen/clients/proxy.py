"""Proxies that the environment names."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from knowgen.core.errors import ConfigError


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        url: Its URL, without user and password.
        authorization: Value of `Proxy-Authorization`; empty when it needs none.
        full_url: Its URL with user and password.
    """

    url: str
    authorization: str = field(default="", repr=False)
    full_url: str = field(default="", repr=False)


def environment_proxy(url: str) -> Proxy | None:
    """Return the proxy that `http_proxy` or `https_proxy` names for a URL; None where `no_proxy` contains its host.

    Args:
        url: An http or https URL of another machine.

    Raises:
        ConfigError: The proxy is not an http proxy.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    named = getproxies().get(parts.scheme, "").strip()
    if not named or proxy_bypass(parts.netloc) or proxy_bypass(host):
        return None
    if not re.match(r"http://[^/]", named):
        kind = f"of the kind {named.partition('://')[0]!r}" if "://" in named else "without http://"
        raise ConfigError(
            f"the environment names a proxy {kind}, and only http proxies are supported",
            where=f"{parts.scheme}_proxy",
            fix=f"set {parts.scheme.upper()}_PROXY to http://HOST:PORT, or add {host} to NO_PROXY",
        )
    credentials, _, address = urlsplit(named).netloc.rpartition("@")
    return Proxy(f"http://{address}", _basic(unquote(credentials)), named)


def _basic(credentials: str) -> str:
    """Return the value of an authorization header for `user:password`; empty without them."""
    return f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
