"""URLs of endpoints, which are recorded and so must not contain secrets, and API keys from the environment."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from knowgen.clients.proxy import environment_proxy
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.secrets import check_variable_name, refuse_secrets, remember_secret

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
NO_KEY = "no-key"
"""Key sent to an endpoint on this machine that needs none."""


def endpoint_url(base_url: str, where: str, default: str = OPENAI_URL) -> str:
    """Return the normalised URL of an endpoint.

    Args:
        base_url: URL as the user gives it.
        where: Name of the component in errors.
        default: URL to use when `base_url` is empty.

    Raises:
        UsageError: It is not an http or https URL.
        ConfigError: It contains a password or other secret, which would be recorded; or the environment names a proxy
            for it that cannot be used.

    Example:
        >>> endpoint_url(" http://127.0.0.1:8000/v1/ ", where="scorer vlm")
        'http://127.0.0.1:8000/v1'
    """
    refuse_secrets({"base_url": base_url}, where=where)
    url = (base_url or default).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # for example an unclosed bracket
        is_http = False
    if not is_http:  # the message does not repeat the URL, which may contain a password
        raise UsageError("base_url is not an http address", where=where, fix="write base_url=http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url must not contain a user, a password or a query, because it is recorded",
            where=where,
            fix="put the key into an environment variable and name it with key_env",
        )
    if not is_loopback(url):
        environment_proxy(url)  # one that cannot be used would make every call fail
    return url


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is this machine.

    Example:
        >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("https://api.openai.com/v1")
        (True, False)
    """
    return is_loopback_host(urlsplit(url).hostname or "")


def is_loopback_host(host: str) -> bool:
    """Return whether a host name or IP address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(url: str, key_env: str, where: str = "vlm", default: str = OPENAI_KEY) -> str:
    """Return the endpoint's API key from the environment.

    Args:
        url: URL of the endpoint.
        key_env: Name of the environment variable; empty for the default, or for no key if the endpoint is on this
            machine.
        where: Name of the component in errors.
        default: Default variable of the service.

    Raises:
        ConfigError: The variable is not set, or its name is invalid.
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
    """Return the seconds a response asks to wait, given as seconds, milliseconds or a date; None where it does not.

    Example:
        >>> retry_after({"retry-after": "2"}), retry_after({"retry-after-ms": "250"}), retry_after({})
        (2.0, 0.25, None)
    """
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
