"""URLs of endpoints, which are recorded and so must not contain secrets, and API keys from the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from knowgen.clients.proxy import environment_proxy
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.secrets import check_variable_name, refuse_secrets, remember_secret

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
NO_KEY = "no-key"
"""Key sent to an endpoint on this machine that needs none."""

QUERY_NAMES = frozenset({"api-version"})
"""Query parameters that a URL may have: they are not secret. `api-version` is Azure's (its REST reference, 2026-11)."""

_QUERY_VALUE = re.compile(r"[\w.-]{1,40}", re.ASCII)
_CHAT_PATH = "/chat/completions"
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_TOKEN_START = "eyJ"


def endpoint_url(base_url: str, where: str, default: str = OPENAI_URL) -> str:
    """Return the normalised URL of an endpoint.

    A query of `QUERY_NAMES` is kept, such as Azure's `?api-version=…`. The path of the chat completions is removed, as
    it is added to every call.

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
    try:
        parts = urlsplit((base_url or default).strip())
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # for example an unclosed bracket
        is_http = False
    if not is_http:  # the message does not repeat the URL, which may contain a password
        raise UsageError("base_url is not an http address", where=where, fix="write base_url=http://HOST:PORT/v1")
    fields = parse_qsl(parts.query, keep_blank_values=True, separator="&")
    harmless = all(name in QUERY_NAMES and _QUERY_VALUE.fullmatch(value) for name, value in fields)
    if parts.username or parts.password or parts.fragment or not harmless or (parts.query and not fields):
        raise ConfigError(
            f"base_url must not contain a user, a password or a query other than {', '.join(sorted(QUERY_NAMES))}, "
            "because it is recorded",
            where=where,
            fix="put the key into an environment variable and name it with key_env",
        )
    if not is_loopback_host(parts.hostname or ""):
        environment_proxy(urlunsplit(parts))  # one that cannot be used would make every call fail
    path = parts.path.rstrip("/").removesuffix(_CHAT_PATH).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def url_with_path(url: str, path: str) -> str:
    """Return the URL of a call: the path is added before the query.

    Example:
        >>> url_with_path("https://NAME.openai.azure.com/openai/deployments/D?api-version=2024-10-21", "/models")
        'https://NAME.openai.azure.com/openai/deployments/D/models?api-version=2024-10-21'
    """
    base, mark, query = url.partition("?")
    return f"{base}{path}{mark}{query}"


def is_azure(url: str) -> bool:
    """Return whether a URL is one of Azure's."""
    return (urlsplit(url).hostname or "").endswith(_AZURE_HOSTS)


def key_headers(url: str, key: str) -> dict[str, str]:
    """Return the header that carries a key: `api-key` for a key of Azure, else a bearer token.

    Azure takes keys in `api-key` and tokens of Entra as bearer tokens (its REST reference, looked up in 2026-11).
    """
    if is_azure(url) and not key.startswith(_TOKEN_START):
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is this machine.

    Example:
        >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("https://api.openai.com/v1")
        (True, False)
    """
    try:
        return is_loopback_host(urlsplit(url).hostname or "")
    except ValueError:  # not a URL
        return False


def is_loopback_host(host: str) -> bool:
    """Return whether a host name or IP address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_missing_keys: ContextVar[list[ConfigError] | None] = ContextVar("knowgen_missing_keys", default=None)


@contextmanager
def collected_missing_keys() -> Iterator[list[ConfigError]]:
    """Yield a list to which `key_for` adds its errors during the block, instead of raising them.

    What is built meanwhile has no key: it is for checks of everything else, and must make no call.
    """
    found: list[ConfigError] = []
    token = _missing_keys.set(found)
    try:
        yield found
    finally:
        _missing_keys.reset(token)


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
        error = ConfigError(
            f"the key for {urlsplit(url).hostname} is missing", where=where, fix=f"type: export {name}=<your key>"
        )
        if (collected := _missing_keys.get()) is None:
            raise error
        collected.append(error)
        return NO_KEY
    remember_secret(key)
    return key
