"""Let a generator search with a backend of your own.

A backend answers three questions: which pages, which images, and what a page says. This one has two pages in memory;
replace them with a search service. The generator writes the best snippet into its image, to make the effect visible.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

import knowgen
from knowgen.plugin import DataError, Hit, ImageHit, Page, SearchBackend, load_search

PAGES = (
    Page(url="memory://sun", title="The sun", text="A star of the spectral class G2."),
    Page(url="memory://moon", title="The moon", text="The satellite of the earth."),
)


class MemorySearch:
    """Search a few pages in memory by the words that a query and a page share."""

    version = "1"  # part of every key: change it when the pages change

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return at most `k` pages, those that share most words with the query first."""
        words = set(query.lower().split())
        ranked = sorted(PAGES, key=lambda page: -len(words & set(f"{page.title} {page.text}".lower().split())))
        return [Hit(title=page.title, url=page.url, snippet=page.text) for page in ranked[:k]]

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return an empty list: this backend has no images."""
        return []

    async def open(self, url: str) -> Page:
        """Return the page at an address.

        Raises:
            DataError: The page does not exist.
        """
        for page in PAGES:
            if page.url == url:
                return page
        raise DataError("no such page", where=url)


class SnippetPainter:
    """Write the best snippet that a search finds for the prompt.

    Args:
        search: A search backend or its name; given by the run because of `wants_search`.
    """

    wants_search = True
    revision = "1"

    def __init__(self, search: str | SearchBackend) -> None:
        self.backend = load_search(search)

    def draw(self, prompt: str, references: Sequence[Image.Image], seed: int) -> Image.Image:
        """Return an image of the snippet."""
        import asyncio

        hits = asyncio.run(self.backend.search(prompt, k=1))
        image = Image.new("RGB", (512, 256), "white")
        ImageDraw.Draw(image).text((16, 16), hits[0].snippet if hits else "nothing", fill="black")
        return image


def main() -> None:
    """Generate and score two samples with this file's generator and search backend."""
    run = knowgen.evaluate(
        "knowgen_mini",
        f"{__file__}:SnippetPainter",
        "pixels",
        generator_args={"search": f"{__file__}:MemorySearch"},
        limit=2,
        out="reports/snippets",
    )
    print("generator searched with", run.spec.generator.search.rpartition("/")[2])
    print("images in", run.path / "images")


if __name__ == "__main__":
    main()
