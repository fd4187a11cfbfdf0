"""What a search backend offers. Methods are coroutines, because most backends wait for a network."""

from __future__ import annotations

from typing import Protocol

from knowgen.core.records import ImageRef, Record


class Hit(Record):
    """A page found for a query."""

    title: str
    url: str
    snippet: str = ""


class ImageHit(Record):
    """A picture found for a query.

    Attributes:
        title: Caption as the source gives it; it need not be true.
        url: Address of the picture.
        page_url: Page it was found on, empty when unknown.
        image: The fetched picture, with its path on this machine.
    """

    title: str
    url: str
    page_url: str = ""
    image: ImageRef


class Link(Record):
    """A link on a page."""

    text: str
    url: str


class Page(Record):
    """A page as text.

    Attributes:
        url: Its address.
        title: Its title.
        text: Plain text, paragraphs separated by a blank line.
        links: Links in the order of the text.
    """

    url: str
    title: str
    text: str
    links: tuple[Link, ...] = ()


class SearchBackend(Protocol):
    """Finds and opens pages and pictures."""

    @property
    def version(self) -> str:
        """Return the identity of what it answers from, for keys; "live" for the open web."""
        ...

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Returns at most `k` pages, best first; an empty list when nothing is found."""
        ...

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Returns at most `k` pictures, best first; an empty list when nothing is found."""
        ...

    async def open(self, url: str) -> Page:
        """Opens a page.

        Raises:
            DataError: There is no such page.
            TransientError: It could not be fetched now.
        """
        ...
