"""The contract of a search backend. Methods are coroutines, because most backends wait for a network.

A backend that pays for its queries wraps each request in `core.metering.paid_call`, by which a run knows its cost. One
that has connections to close may have `async close()`. One that is made from another backend, such as `shuffled:NAME`,
declares `wraps_search = True`, and is given the task's own where NAME is missing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from knowgen.core.errors import KnowgenError
from knowgen.core.records import GroundTruth, ImageRef, Record


class BlockReason(StrEnum):
    """Why a page or an image is not fetched.

    Attributes:
        ADDRESS: Its address does not lead to the public internet.
        ROBOTS: The site's robots.txt excludes it.
        LEAK: It is the benchmark's own data, a mirror of it, or a ground-truth image.
    """

    ADDRESS = "address_blocked"
    ROBOTS = "robots_blocked"
    LEAK = "leak_blocked"


class PageBlockedError(KnowgenError):
    """A page that is not opened.

    Args:
        what: What is wrong, in one line.
        reason: Why it is not opened.
        where: Its URL.
    """

    def __init__(self, what: str, reason: BlockReason, *, where: str = "") -> None:
        super().__init__(what, where=where)
        self.reason = reason


class Hit(Record):
    """A page found for a query.

    Attributes:
        title: Title of the page.
        url: URL of the page.
        snippet: Text of the page around the match, empty when there is none.
        date: Date of the page as the source gives it, empty when unknown.
        blocked: Why the page must not be opened, as far as its URL shows; its snippet is then empty. None otherwise.
        found_by: Name of the backend that found it, where several were asked; empty otherwise.
    """

    title: str
    url: str
    snippet: str = ""
    date: str = ""
    blocked: BlockReason | None = None
    found_by: str = ""


class ImageHit(Record):
    """An image found for a query.

    Attributes:
        title: Caption as the source gives it; it need not be true.
        url: URL of the image.
        page_url: URL of the page with the image, empty when unknown.
        thumbnail_url: URL of a smaller copy, empty when unknown.
        source: Name of the site with the image, empty when unknown.
        image: The downloaded image, with its path on this machine; None when there is none.
        failure: Why the image is missing; empty when it is there.
        blocked: Why the image was not fetched; None when nothing blocked it.
        found_by: Name of the backend that found it, where several were asked; empty otherwise.
    """

    title: str
    url: str
    page_url: str = ""
    thumbnail_url: str = ""
    source: str = ""
    image: ImageRef | None = None
    failure: str = ""
    blocked: BlockReason | None = None
    found_by: str = ""


class Link(Record):
    """A link on a page.

    Attributes:
        text: Text of the link.
        url: URL it leads to.
    """

    text: str
    url: str


class Page(Record):
    """A page as text.

    Attributes:
        url: URL of the page.
        title: Title of the page.
        text: Plain text, with a blank line between paragraphs.
        links: Links in the order of the text.

    Example:
        >>> page = Page(url="https://example.org", title="Boats", text="A boat.", links=(Link(text="more", url="/m"),))
        >>> page.links[0].text
        'more'
    """

    url: str
    title: str
    text: str
    links: tuple[Link, ...] = ()


class SearchBackend(Protocol):
    """Finds and opens pages and images."""

    @property
    def version(self) -> str:
        """Identity of the searched content, as part of keys; "live" for the open web."""
        ...

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, best first; an empty list when nothing is found.

        Raises:
            TransientError: The service cannot answer now.
            AccountError: The service rejects the account.
        """
        ...

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images, best first; an empty list when nothing is found.

        An image that was tried and could not be downloaded is one more hit, without an image, which says why.

        Raises:
            TransientError: The service cannot answer now.
            AccountError: The service rejects the account.
        """
        ...

    async def open(self, url: str) -> Page:
        """Return the page at a URL.

        Raises:
            DataError: The page does not exist, or has no text.
            PageBlockedError: It must not be fetched.
            TransientError: It could not be fetched now.
        """
        ...


class PrivilegedSearch(Protocol):
    """A backend that needs the ground truth, in addition to the methods of `SearchBackend`.

    It declares `privileged = True`, which makes every run with it privileged: leaderboards refuse it. Only an agent
    that calls `for_truth` can use it.
    """

    @property
    def privileged(self) -> bool:
        """True."""
        ...

    def for_truth(self, truth: GroundTruth) -> SearchBackend:
        """Return the search for the sample of a ground truth.

        Raises:
            UsageError: The ground truth lacks what the backend needs.
        """
        ...
