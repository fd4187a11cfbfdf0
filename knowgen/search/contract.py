"""The contract of a search backend. Methods are coroutines, because most backends wait for a network."""

from __future__ import annotations

from typing import Protocol

from knowgen.core.records import ImageRef, Record


class Hit(Record):
    """A page found for a query.

    Attributes:
        title: Title of the page.
        url: URL of the page.
        snippet: Text of the page around the match, empty when there is none.
    """

    title: str
    url: str
    snippet: str = ""


class ImageHit(Record):
    """An image found for a query.

    Attributes:
        title: Caption as the source gives it; it need not be true.
        url: URL of the image.
        page_url: URL of the page with the image, empty when unknown.
        image: The downloaded image, with its path on this machine.
    """

    title: str
    url: str
    page_url: str = ""
    image: ImageRef


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
        """Return at most `k` pages, best first; an empty list when nothing is found."""
        ...

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return at most `k` images, best first; an empty list when nothing is found."""
        ...

    async def open(self, url: str) -> Page:
        """Return the page at a URL.

        Raises:
            DataError: The page does not exist.
            TransientError: It could not be fetched now.
        """
        ...
