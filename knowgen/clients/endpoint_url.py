"""Addresses of endpoints and their keys: what may be recorded, and what must come from the environment."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.secrets import check_variable_name, refuse_secrets, remember_secret

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
NO_KEY = "no-key"
"""Sent to an endpoint on this machine that asks for none."""


def endpoint_url(base_url: str, where: str, default: str = OPENAI_URL) -> str:
    """Returns the address of an endpoint in one spelling.

    Args:
        base_url: As the user wrote it.
        where: Names whose address it is, for errors.
        default: What an empty address stands for.

    Raises:
        UsageError: It is no http address.
        ConfigError: It holds a password or other secret, which would be recorded.
    """
    refuse_secrets({"base_url": base_url}, where=where)
    url = (base_url or default).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # such as a bracket that is not closed
        is_http = False
    if not is_http:  # it is not repeated here, for it may hold a password
        raise UsageError("base_url is no http address", where=where, fix="write base_url=http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url must not hold a user, a password or a query, for it is recorded",
            where=where,
            fix="put the key into an environment variable and name it with key_env",
        )
    return url


def is_loopback(url: str) -> bool:
    """Return whether a URL is of this machine."""
    return is_loopback_host(urlsplit(url).hostname or "")


def is_loopback_host(host: str) -> bool:
    """Return whether a host name or address is of this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(url: str, key_env: str, where: str = "vlm", default: str = OPENAI_KEY) -> str:
    """Returns the endpoint's key from the environment.

    Args:
        url: Of the endpoint.
        key_env: Name of the variable; empty means the default, or no key for an endpoint on this machine.
        where: Names whose key it is, for errors.
        default: Variable that is usual for this service.

    Raises:
        ConfigError: The variable is not set, or its name is no name.
    """
    if not key_env and is_loopback(url):
        return NO_KEY
    name = key_env or default
    check_variable_name(name, "key_env", default)
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"the key for {urlsplit(url).hostname} is missing", where=where, fix=f"type: export {name}=<your key>"
        )
    remember_secret(key)
    return key


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds an endpoint asks to wait, written as seconds, milliseconds or a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif not (wait := headers.get("retry-after")):
            return None
        elif re.fullmatch(r"[\d.]+", wait.strip()):
            seconds = float(wait)
        else:
            seconds = parsedate_to_datetime(wait).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
