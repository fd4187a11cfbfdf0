"""Which model answers at an address: part of the key of cached replies, so that none answers for another server.

A vendor's address and model name are an identity. Behind any other address there may be another server tomorrow: what
it says of the model in its list (`GET /models`) is part of the key, or what the user states as `endpoint_id`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knowgen.clients.pricing import CHAT_PRICES, price_list
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.core.spec import fingerprint
from knowgen.core.text import parse_json

if TYPE_CHECKING:
    from knowgen.clients.http_client import HttpClient

TIMEOUT = 10.0
"""Maximum time to wait for the list of models, in seconds."""

MAX_BODY = 8 << 20
"""Maximum size of the list in bytes."""

FIELDS = ("id", "root", "parent", "owned_by", "max_model_len", "meta")
"""Fields of a model's entry that describe the model. Others, such as `created`, may differ from call to call."""


def is_vendor(base_url: str) -> bool:
    """Return whether a URL is one of a known service, where a model name is an identity.

    Example:
        >>> is_vendor("https://api.openai.com/v1"), is_vendor("http://gpu-7:8000/v1")
        (True, False)
    """
    return (urlsplit(base_url).hostname or "") in price_list(CHAT_PRICES)["hosts"]


def model_identity(models: Any, model: str) -> str:
    """Return a hash of what a list of models says of one, or of all names where the model is not listed.

    Args:
        models: Reply to `GET /models`.
        model: Name of the model.

    Returns:
        12 hex digits; empty when the reply is not a list of models.

    Example:
        >>> one = {"data": [{"id": "judge", "root": "/weights/a", "created": 1}]}
        >>> other = {"data": [{"id": "judge", "root": "/weights/b", "created": 1}]}
        >>> model_identity(one, "judge") == model_identity(other, "judge"), model_identity({}, "judge")
        (False, '')
    """
    entries = models.get("data") if isinstance(models, dict) else None
    if not isinstance(entries, list):
        return ""
    listed = [entry for entry in entries if isinstance(entry, dict)]
    own = [{name: entry[name] for name in FIELDS if name in entry} for entry in listed if entry.get("id") == model]
    described = own or sorted(str(entry.get("id")) for entry in listed)
    return fingerprint(described)[:12] if described else ""


async def served_identity(client: HttpClient, models_url: str, model: str) -> str | None:
    """Ask a server for its models and return the identity of one.

    Args:
        client: Session with the headers of the endpoint.
        models_url: URL of the list.
        model: Name of the model.

    Returns:
        `model_identity`; empty when the server has no such list; None when it does not answer now, so that nothing is
        known about who would answer.
    """
    import aiohttp

    try:
        async with asyncio.timeout(TIMEOUT), client.get(models_url) as reply:
            if reply.status in (429, 500, 502, 503, 504):
                return None
            if reply.status != 200:
                return ""
            return model_identity(parse_json(await read_body(reply, MAX_BODY)), model)
    except (ValueError, UnreadableBodyError):
        return ""
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        return None
