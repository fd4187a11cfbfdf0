"""Responses of the inference providers: queued tasks, and where the image is.

The paths and names are those that huggingface_hub 2.4.0 reads (`inference/_providers`, 2026-11-29), and besides them:
the flags of a safety filter that blackens the image (`has_nsfw_concepts` of fal.ai, `has_nsfw_contents` of WaveSpeed),
the seed that was used (`seed` of fal.ai), and the reason of a failed prediction (`error` of Replicate).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from knowgen.clients.service_errors import embedded_status, error_from
from knowgen.core.errors import RefusalError, TransientError
from knowgen.generators.hosted.base import ResponseImage, text_at
from knowgen.generators.hosted.client import IMAGE_CONTENT
from knowgen.generators.hosted.errors import ServiceRejectedError, exception_of

_FILTERED = re.compile(r"nsfw|safety|sensitive|moderation|flagged|inappropriate|content policy", re.IGNORECASE)
_TARGET_SIZE = frozenset({"fal-ai", "hf-inference"})
"""Providers whose helpers read the size of an edit as `target_size`; those of others pass the name on unread."""

_FAILED = frozenset({"failed", "canceled", "cancelled", "aborted", "fail", "error"})


@dataclass(frozen=True)
class ProviderTask:
    """A task of a provider, as far as it is.

    Attributes:
        data: The response.
        path: Path that answers how far it is; empty where the response is the result.
        result_path: Path of the result, where it is another one.
        done: Whether it has ended.
    """

    data: Mapping[str, Any]
    path: str = ""
    result_path: str = ""
    done: bool = True


def size_parameters(provider: str, size: Mapping[str, int], *, edit: bool) -> dict[str, Any]:
    """Return the parameters of a size, as the helper of a provider or the provider itself reads them.

    Models of WaveSpeed have `size` as `1024*1024`, or width and height (wavespeed.ai/docs, 2026-11-29), and its
    helper passes on what it gets.

    Args:
        provider: Name of the provider.
        size: Width and height in pixels; empty for the model's own.
        edit: Whether the request has a reference image.

    Example:
        >>> size_parameters("wavespeed", {"width": 1024, "height": 768}, edit=False)
        {'width': 1024, 'height': 768, 'size': '1024*768'}
    """
    if not size:
        return {}
    if provider == "wavespeed":
        return {**size, "size": f"{size['width']}*{size['height']}"}
    return {"target_size": dict(size)} if edit and provider in _TARGET_SIZE else dict(size)


def task_of(provider: str, data: Mapping[str, Any]) -> ProviderTask:
    """Return the task that a response describes.

    Args:
        provider: Name of the provider.
        data: The response.
    """
    if provider == "fal-ai" and ("status" in data or "request_id" in data) and "images" not in data:
        result = _path(text_at(data, "response_url"))
        return ProviderTask(data, f"{result}/status" if result else "", result, data.get("status") == "COMPLETED")
    if provider == "replicate":
        waiting = text_at(data, "status") in ("starting", "processing")
        return ProviderTask(data, _path(text_at(data, "urls", "get")), done=not waiting)
    if provider == "wavespeed":
        waiting = text_at(data, "data", "status") in ("created", "processing")
        return ProviderTask(data, _path(text_at(data, "data", "urls", "get")), done=not waiting)
    if provider == "zai-org":
        number = text_at(data, "id")
        waiting = text_at(data, "task_status") == "PROCESSING"
        return ProviderTask(data, f"/api/paas/v4/async-result/{number}" if number else "", done=not waiting)
    return ProviderTask(data)


def image_of(provider: str, data: Mapping[str, Any], service: str, clean: Callable[[str], str]) -> ResponseImage:
    """Return the image of a finished response.

    Args:
        provider: Name of the provider.
        data: The response.
        service: Name of the service, for messages.
        clean: Makes text of the service fit to be stored.

    Raises:
        RefusalError: A filter of the provider withheld or blackened the image.
        ServiceRejectedError: The task failed.
        TransientError: The response has no image; the same request may give one next time.
        KnowgenError: The response is another error of the provider.
    """
    inner = data.get("data") if provider == "wavespeed" else data
    inner = inner if isinstance(inner, Mapping) else {}
    flags = inner.get("has_nsfw_concepts") or inner.get("has_nsfw_contents")
    if isinstance(flags, list) and any(flag is True for flag in flags):
        raise RefusalError(f"{service} declined: the provider's filter blackened the image")
    status = (text_at(inner, "status") or text_at(inner, "task_status")).casefold()
    error = inner.get("error")
    if isinstance(error, Mapping):
        raise exception_of(error_from(error, embedded_status(error), {}, ""), service)
    if status in _FAILED or (isinstance(error, str) and error):
        words = clean(error if isinstance(error, str) and error else f"the task ended as {status}")
        if _FILTERED.search(words):
            raise RefusalError(f"{service} declined: {words}")
        raise ServiceRejectedError(f"{service}: {words}")
    if isinstance(content := data.get(IMAGE_CONTENT), bytes):
        return ResponseImage(content=content)
    place, settings = _place_of(inner), {}
    seed = inner.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        settings["returned_seed"] = seed
    if not place:
        raise TransientError(f"the response of {service} has no image")
    if place.startswith(("http://", "https://", "data:", "/")):
        return ResponseImage(url=place, settings=settings)
    return ResponseImage(base64=place, settings=settings)


def _place_of(data: Mapping[str, Any]) -> str:
    """Return URL or base64 of the first image of a response; empty where there is none."""
    for name in ("images", "data", "image_result", "output", "outputs"):
        entries = data.get(name)
        first = entries[0] if isinstance(entries, list) and entries else entries
        if isinstance(first, str) and first:
            return first
        if found := text_at(first, "b64_json") or text_at(first, "url"):
            return found
    return ""


def _path(url: str) -> str:
    """Return path and query of a URL of the provider, which are asked at its known address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
