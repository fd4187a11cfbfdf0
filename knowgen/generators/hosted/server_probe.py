"""What a server is, found by its free calls and not by the name of a model.

Looked up on 2026-11-29: `GET /v1/models` names its owner as `vllm` for vLLM (its Images API is that of vLLM-Omni) and
as `sglang` for SGLang, whose entries also have `task_type` and `pipeline_class`; OpenAI's responses have
`openai-version` among their headers; LiteLLM's have `x-litellm-…`, and its `GET /health/liveliness` answers
"I'm alive!" without a key.
OpenRouter's `GET /images/models` names the parameters that each model takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from knowgen.clients.preflight import model_names
from knowgen.clients.service_errors import Outcome, ServiceError, read_error
from knowgen.core.errors import ServiceUnavailableError
from knowgen.generators.hosted.client import ServiceClient
from knowgen.generators.hosted.servers import FORMS, ServerForm

_OWNERS = {"vllm": "vllm-omni", "vllm-omni": "vllm-omni", "sglang": "sglang"}
_LITELLM_ALIVE = b"I'm alive!"
_PIXELS = re.compile(r"\d+x\d+", re.ASCII)


@dataclass(frozen=True)
class Capabilities:
    """What a server says about a model; everything is empty where it says nothing.

    Attributes:
        parameters: Fields of a request that the model takes, with their descriptors; None when unknown.
        modalities: Modalities of its output.
    """

    parameters: Mapping[str, Any] | None = None
    modalities: tuple[str, ...] = ()

    def takes(self, name: str, value: str = "") -> bool:
        """Return whether the model takes a field, as far as is known.

        Args:
            name: Name of the field.
            value: Its value, where that decides: a `size` is shorthand for a resolution, or for a shape in pixels.

        Example:
            >>> of_seedream = Capabilities({"resolution": {"type": "enum", "values": ["2K"]}})
            >>> of_seedream.takes("size", "2K"), of_seedream.takes("quality")
            (True, False)
        """
        if self.parameters is None or name in self.parameters:
            return True
        if name != "size":
            return False
        in_pixels = _PIXELS.fullmatch(value) is not None
        return "resolution" in self.parameters or (in_pixels and "aspect_ratio" in self.parameters)

    @property
    def max_references(self) -> int | None:
        """Maximum number of reference images; None when unknown."""
        if self.parameters is None:
            return None
        described = self.parameters.get("input_references")
        if described is None:
            return 0
        most = described.get("max") if isinstance(described, Mapping) else None
        return most if isinstance(most, int) and not isinstance(most, bool) and most >= 0 else None


@dataclass(frozen=True)
class Probe:
    """What was found out about a server.

    Attributes:
        form: The form in which it takes requests.
        names: Names in its list of models.
        error: The error that its list of models is; None without one.
        capabilities: What it says about the model.
    """

    form: ServerForm
    names: list[str] = field(default_factory=list)
    error: ServiceError | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)


async def probe(client: ServiceClient, model: str, form: ServerForm | None) -> Probe:
    """Ask a server what it is and which models it has, by one to three free calls.

    Args:
        client: Client of the server.
        model: Model name.
        form: Its form, where that is known already.

    Raises:
        ServiceUnavailableError: It cannot be reached, is busy, or has a fault before it is known what it is.
        AccountError: The certificate of the server is not valid.
    """
    status, headers, body = await client.get(form.listing if form else "/models")
    error = None if 200 <= status < 300 else read_error(status, headers, body, client.key)
    if error is not None and (error.outcome is Outcome.BUSY or (form is None and error.outcome.transient)):
        what = error.describe("the service")
        if error.outcome is not Outcome.BUSY:  # a server that is still starting must not pass as an unknown one
            what += " for its list of models, so it is not known what it is; server=NAME names it"
        raise ServiceUnavailableError(what, service=client.name, busy=True, retry_after=error.retry_after)
    entries = _entries(body) if error is None else []
    found = form or _form_of(headers, entries)
    if found is None:
        alive, others, answer = await client.get_at(_root(client.url, "/health/liveliness"))
        litellm = _has_litellm_headers(others) or (alive == 200 and _LITELLM_ALIVE in answer)
        found = FORMS["litellm" if litellm else "other"]
    names = model_names(body) if error is None else []
    return Probe(found, names, error, _capabilities(entries, model) if found.name == "openrouter" else Capabilities())


def _form_of(headers: Mapping[str, str], entries: list[Mapping[str, Any]]) -> ServerForm | None:
    """Return the form that the list of models shows; None where it shows none."""
    if _has_litellm_headers(headers):
        return FORMS["litellm"]
    owners = {str(entry.get("owned_by")).casefold() for entry in entries}
    if len(owners) == 1 and (name := _OWNERS.get(owners.pop())):
        return FORMS[name]
    return FORMS["openai"] if "openai-version" in {name.casefold() for name in headers} else None


def _has_litellm_headers(headers: Mapping[str, str]) -> bool:
    return any(name.casefold().startswith("x-litellm-") for name in headers)


def _entries(body: bytes) -> list[Mapping[str, Any]]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return []
    listed = data.get("data") if isinstance(data, Mapping) else None
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _capabilities(entries: list[Mapping[str, Any]], model: str) -> Capabilities:
    """Return what OpenRouter says about a model; a suffix such as `:free` selects a variant of it."""
    base = model.partition(":")[0]
    entry = next((each for each in entries if each.get("id") in (model, base)), {})
    parameters = entry.get("supported_parameters")
    architecture = entry.get("architecture")
    outputs = architecture.get("output_modalities") if isinstance(architecture, Mapping) else None
    modalities = tuple(map(str, outputs)) if isinstance(outputs, list) else ()
    return Capabilities(parameters if isinstance(parameters, Mapping) else None, modalities)


def _root(url: str, path: str) -> str:
    """Return the URL of a path at the root of a server."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
