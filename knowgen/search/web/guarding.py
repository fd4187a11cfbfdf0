"""What is asked before anything is fetched for a search: the leak guard, and the guard of addresses."""

from __future__ import annotations

from collections.abc import Iterable

from knowgen.clients.safe_fetch import BlockedError
from knowgen.core.images import UnreadableImageError
from knowgen.core.leaks import blocked_image, blocked_url
from knowgen.search.contract import BlockReason, Hit, ImageHit, PageBlockedError


def check_leaks(urls: Iterable[str]) -> None:
    """Check URLs by the leak guard of the run.

    Raises:
        PageBlockedError: One of them leads to the benchmark's own data.
    """
    for url in urls:
        if reason := blocked_url(url):
            raise PageBlockedError(reason, BlockReason.LEAK, where=url)


def address_blocked(error: BlockedError, url: str) -> PageBlockedError:
    """Return the error of the contract for a URL that does not lead to the public internet."""
    return PageBlockedError(error.what, BlockReason.ADDRESS, where=url)


def guarded_hit(hit: Hit) -> Hit:
    """Return a hit, without its snippet where the leak guard blocks its page."""
    return hit.model_copy(update={"snippet": "", "blocked": BlockReason.LEAK}) if blocked_url(hit.url) else hit


def guarded_image_hit(hit: ImageHit) -> ImageHit:
    """Return a hit with an image, without the image where the leak guard blocks it or where it comes from."""
    reason = blocked_url(hit.url) or blocked_url(hit.page_url)
    if not reason and hit.image is not None and hit.image.path is not None:
        try:
            reason = blocked_image(hit.image.path)
        except UnreadableImageError as error:
            return hit.model_copy(update={"image": None, "failure": error.what})
    return hit.model_copy(update={"image": None, "failure": reason, "blocked": BlockReason.LEAK}) if reason else hit
