"""One free call to an endpoint before a run: is the address right, is the key taken, is the model there?

The call is `GET /models`, which every OpenAI-compatible service offers without charge. Many services hide models from
that list, or have none, so only an error of the key or the address is an error here.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import is_azure, url_with_path
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.clients.service_errors import Outcome, ServiceError, is_web_page, read_error
from knowgen.core.errors import AccountError, ServiceUnavailableError
from knowgen.core.metering import note

if TYPE_CHECKING:
    from knowgen.clients.chat.client import ChatEndpoint
    from knowgen.clients.http_client import HttpClient

TIMEOUT = 30.0
"""Maximum duration of the call, in seconds."""

_MAX_LIST = 16 << 20
_NO_LIST = frozenset({404, 405, 501})
_GATEWAY_STATUSES = frozenset({502, 504})
_LIMITED_KEY = re.compile(r"scope|insufficient permissions|restricted", re.IGNORECASE)
"""Messages about a key that may call models but not list them (OpenAI's restricted keys, 2026-11)."""

_VERSION_IN_PATH = re.compile(r"/v\d+\w*(/|\Z)|/openai(/|\Z)", re.IGNORECASE)
_DEPLOYMENT = re.compile(r"/deployments/[^/?]+\Z")


async def check_endpoint(endpoint: ChatEndpoint, caller: str) -> str:
    """Check the address, the key and the model of an endpoint with one free call.

    Args:
        endpoint: The endpoint.
        caller: Name of the scorer, for messages.

    Returns:
        A warning where the list of models lacks this one, else an empty text. It is only a warning, because
        services serve models that they do not list.

    Raises:
        AccountError: The endpoint rejects the key, or the address is wrong.
        ServiceUnavailableError: The endpoint cannot be reached, or is busy.
    """
    session = endpoint.session().client
    status, headers, body = await get_free(session, _list_url(endpoint.base_url), caller, endpoint.base_url)
    if status in _NO_LIST or (200 <= status < 300 and is_web_page(body)):
        # a server without a list may answer 404 with a page of the proxy before it
        await _check_version(endpoint, session, caller, web_page=status < 300)
        return ""
    if not 200 <= status < 300:
        raise_listing_error(read_error(status, headers, body, endpoint.key), caller)
        return ""
    warning = missing_model(endpoint.model, model_names(body))
    if warning:
        note(caller, "service", {"warning": warning})
        logging.getLogger("knowgen.clients").warning("%s: %s", caller, warning)
    return warning


def raise_listing_error(error: ServiceError, caller: str) -> None:
    """Raise the error of a list of models where it says something about other calls too.

    Args:
        error: The error.
        caller: Name of the scorer or generator, for messages.

    Raises:
        AccountError: The service rejects the key.
        ServiceUnavailableError: The service is busy.
    """
    what = error.describe("the service")
    if error.outcome is Outcome.BUSY or error.status in _GATEWAY_STATUSES:
        raise ServiceUnavailableError(what, service=caller, busy=True, retry_after=error.retry_after)
    if error.outcome is Outcome.ACCOUNT and error.status not in _NO_LIST and not _LIMITED_KEY.search(error.message):
        raise AccountError(what, where=caller)


def model_names(body: bytes) -> list[str]:
    """Return the names in a list of models; empty for anything else, and for a list in pages.

    Example:
        >>> model_names(b'{"object": "list", "data": [{"id": "qwen3-vl"}]}')
        ['qwen3-vl']
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(data, Mapping) or data.get("has_more") is True or not isinstance(data.get("data"), list):
        return []
    names: list[str] = []
    for entry in data["data"]:
        if isinstance(entry, Mapping):
            names += [str(entry[key]) for key in ("id", "canonical_slug", "root") if isinstance(entry.get(key), str)]
            aliases = entry.get("aliases")
            names += [each for each in aliases if isinstance(each, str)] if isinstance(aliases, list) else []
    return names


def missing_model(model: str, names: Sequence[str]) -> str:
    """Return a warning about a model that a list lacks, with similar names; empty where the list says nothing.

    Example:
        >>> missing_model("gpt-4.l", ["gpt-4.1", "gpt-4.1-mini"])
        'the endpoint does not list the model gpt-4.l; it lists gpt-4.1, gpt-4.1-mini'
        >>> missing_model("gemini-2.5-pro", ["models/gemini-2.5-pro"])
        ''
    """
    known = {name.removeprefix("models/").casefold() for name in names}
    base = model.removeprefix("models/").casefold()
    # a suffix selects a provider or a variant (OpenRouter's `:free`), a prefix a provider
    if (
        not known
        or base in known
        or base.partition(":")[0] in known
        or any(name.endswith(f"/{base}") for name in known)
    ):
        return ""
    near = difflib.get_close_matches(model, names, n=3, cutoff=0.6) or (list(names) if len(names) <= 3 else [])
    others = ", ".join(near) if near else f"{len(names)} others"
    return f"the endpoint does not list the model {model}; it lists {others}"


async def _check_version(endpoint: ChatEndpoint, client: HttpClient, caller: str, *, web_page: bool) -> None:
    """Raise an error where the address answers under `/v1` only; say nothing about one without a list of models."""
    url = endpoint.base_url
    if not _VERSION_IN_PATH.search(urlsplit(url).path):
        status, _, body = await get_free(client, url_with_path(url, "/v1/models"), caller, url)
        if (200 <= status < 300 and not is_web_page(body) and _is_object(body)) or status in (401, 403):
            raise AccountError("base_url lacks /v1", where=caller, fix=f"write base_url={url_with_path(url, '/v1')}")
    if web_page:
        raise AccountError(f"{url} answers with a web page, not with this API", where=caller, fix="correct base_url")


async def get_free(client: HttpClient, url: str, caller: str, shown: str) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body of a GET request.

    Args:
        client: HTTP client of the service, which sends its key.
        url: URL of the call.
        caller: Name of the scorer or generator, for messages.
        shown: URL of the service, for messages.

    Raises:
        ServiceUnavailableError: It does not answer.
        AccountError: The certificate of the server is not valid.
    """
    import aiohttp

    what = f"the endpoint {shown} cannot be reached"
    try:
        async with asyncio.timeout(TIMEOUT), client.get(url) as response:
            return response.status, response.headers, await read_body(response, _MAX_LIST)
    except aiohttp.ClientConnectorCertificateError as error:
        what = f"the certificate of the endpoint {shown} is not valid: {error.certificate_error}"
        raise AccountError(what, where=caller) from error
    except aiohttp.ClientConnectorError as error:
        cause = type(error.os_error).__name__ if error.os_error is not None else type(error).__name__
        raise ServiceUnavailableError(f"{what} ({cause})", service=caller, busy=True) from error
    except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
        raise ServiceUnavailableError(f"{what} ({type(error).__name__})", service=caller, busy=True) from error
    except UnreadableBodyError:
        return 200, {}, b""  # it says nothing


def _list_url(url: str) -> str:
    """Return the URL of the list of models; Azure's stands beside the deployments."""
    if is_azure(url):
        base, mark, query = url.partition("?")
        url = f"{_DEPLOYMENT.sub('', base)}{mark}{query}"
    return url_with_path(url, "/models")


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), Mapping | list)
    except (ValueError, RecursionError):
        return False
