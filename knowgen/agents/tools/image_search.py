"""The tool `image_search`: images for a query, listed with ids and shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from knowgen.agents.protocol import escape_frames
from knowgen.agents.records import SeenImage
from knowgen.agents.service_calls import FATAL_ERRORS
from knowgen.agents.tools.arguments import ToolArgumentError, number_of_results, single_line
from knowgen.agents.tools.contract import ToolContext, ToolResult
from knowgen.core.errors import KnowgenError, TransientError
from knowgen.core.text import count, error_message
from knowgen.search.contract import ImageHit

MAX_SHOWN = 5
"""Maximum number of images of one search."""

ASKED_MORE = 20
"""Images that are asked for where too few of the first could be downloaded."""

_ARGUMENTS = frozenset({"query", "top_k", "save_dir", "sample_id"})
_MAX_TITLE, _MAX_URL = 300, 2000
_BOLD = re.compile(r"</?b>")


class ImageSearch:
    """Finds images. Each gets an id in the trajectory, by which an answer refers to it."""

    name = "image_search"
    description = (
        "Search for images by a short description. Returns up to 5 images, which you see, each with an id such as "
        "IMG_001, its title, its URL and that of its page."
    )
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What the image shows, in few words."},
            "top_k": {"type": "integer", "description": "Maximum number of images, 1 to 5 (default: 5)."},
        },
        "required": ["query"],
    }

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return the images as a list with ids. Without images the list is empty, and `error` says why.

        Raises:
            TransientError: The service is unavailable.
            AccountError: The service rejects the account.
        """
        query = arguments.get("query", "image_search")
        try:
            hits, wanted = await _search(arguments, context)
        except FATAL_ERRORS:
            raise
        except TransientError as error:
            if not context.failures_as_text:
                raise
            return ToolResult(listing(query, []), error=error.what)
        except (KnowgenError, ToolArgumentError) as error:
            return ToolResult(listing(query, []), error=error_message(error))
        await context.turn()
        seen = [_seen(hit, context) for hit in _usable(hits)[:wanted]]
        return ToolResult(
            listing(query, seen),
            images=[image for image in seen if image.image.path is not None and image.image.path.is_file()],
            error=_problems(hits),
            blocked=[hit.blocked.value for hit in hits if hit.blocked is not None],
        )


async def _search(arguments: Mapping[str, Any], context: ToolContext) -> tuple[list[ImageHit], int]:
    """Return the hits, and the number of images to show."""
    if unknown := sorted(set(arguments) - _ARGUMENTS):
        raise ToolArgumentError(f"unknown argument {unknown[0]!r}")
    query = arguments.get("query", "")
    if not isinstance(query, str) or not query.strip():
        raise ToolArgumentError("'query' must be a non-empty string")
    wanted = min(MAX_SHOWN, number_of_results(arguments))
    hits = await context.search.image_search(query.strip(), wanted)
    if len(_usable(hits)) < wanted <= len(hits):  # some repeat or have no image, and there may be more
        more = await context.search.image_search(query.strip(), ASKED_MORE)
        known = {hit.url for hit in hits}
        hits = [*hits, *(hit for hit in more if hit.url not in known)]
    return hits, wanted


def _usable(hits: Sequence[ImageHit]) -> list[ImageHit]:
    """Return the hits with an image, each image once."""
    images = {hit.image.sha256: hit for hit in reversed(hits) if hit.image is not None}
    return [hit for hit in hits if hit.image is not None and images[hit.image.sha256] is hit]


def _seen(hit: ImageHit, context: ToolContext) -> SeenImage:
    assert hit.image is not None
    title = single_line(_BOLD.sub("", hit.title.strip() or hit.source.strip() or "image"), _MAX_TITLE)
    url, page_url = (single_line(text, _MAX_URL) for text in (hit.url or hit.thumbnail_url, hit.page_url))
    seen = context.images.add(hit.image, title=title, url=url, page_url=page_url)
    return seen.model_copy(update={"title": title, "url": url, "page_url": page_url})  # as this search lists it


def listing(query: object, images: Sequence[SeenImage]) -> str:
    """Return the images of a query as the policy reads them."""
    lines = [f"--- image search result for [{query}] ---"]
    for image in images:
        lines.append(f"{image.id}: title: {escape_frames(image.title)}")
        lines.append(f"  url: {image.url}")
        lines.append(f"  local_path: {local_path(image.url)}")
        if image.page_url:
            lines.append(f"  page_url: {image.page_url}")
    lines.append("--- end of image search result ---")
    return "\n".join(lines)


def local_path(url: str) -> str:
    """Return the path that the published agent names for an image. It says nothing about this machine.

    Example:
        >>> local_path("https://example.org/boat.jpg")
        './cached_images/2f6242f2b0f1f256019203c77cb7d487.jpg'
    """
    return f"./cached_images/{hashlib.md5(url.encode('utf-8', 'replace'), usedforsecurity=False).hexdigest()}.jpg"


def _problems(hits: Sequence[ImageHit]) -> str:
    reasons = [hit.failure or (hit.blocked.value if hit.blocked else "no image") for hit in hits if hit.image is None]
    if not reasons:
        return ""
    return f"{count(len(reasons), 'image')} not downloaded: {'; '.join(dict.fromkeys(reasons))}"
