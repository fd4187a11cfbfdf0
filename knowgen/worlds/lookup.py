"""How `open_book` looks things up: search a name, follow links to the thing, read its facts, choose a picture."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import DataError
from knowgen.search.contract import ImageHit, Page, SearchBackend
from knowgen.worlds.drawing.looks import KIND_NOUNS
from knowgen.worlds.painter import cut_out
from knowgen.worlds.reading import (
    Described,
    best_answer,
    is_about,
    kind_of,
    linked_sentences,
    person_in,
    read_prompt,
    role_in,
    sentences,
    words_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

_STEPS = 3
"""Links followed from a name at most."""

_HITS, _PICTURE_HITS = 6, 8


@dataclass(frozen=True)
class Findings:
    """What was found for a prompt.

    Attributes:
        texts: Lines to write.
        pictures: Reference pictures, in the order of the prompt.
    """

    texts: list[str]
    pictures: list[Image]


class Lookup:
    """One prompt's way through a search backend.

    Args:
        search: Where to look.

    Attributes:
        steps: Every call, with what it gave.
        evidence: Pages that were read.
        references: Pictures that were chosen.
    """

    def __init__(self, search: SearchBackend) -> None:
        self._search = search
        self._opened: dict[str, Page | None] = {}
        self.steps: list[dict[str, Any]] = []
        self.evidence: list[dict[str, Any]] = []
        self.references: list[dict[str, Any]] = []

    async def look_up(self, prompt: str) -> Findings | None:
        """Looks up what a prompt describes; None when none of it is found."""
        reading = read_prompt(prompt, KIND_NOUNS)
        articles = [page for page in [await self._find(thing) for thing in reading.described] if page is not None]
        if not articles:
            return None
        texts: list[str] = []
        if not reading.wordless:
            texts += reading.quoted
            texts += [line for ask in reading.asks for line in await self._answers(ask, articles)]
        chosen = [await self._picture(page.title) for page in articles]
        return Findings(texts, [picture for picture in chosen if picture is not None])

    async def _find(self, thing: Described) -> Page | None:
        """Searches the first name of a description and follows links until a page is about such a thing."""
        name = thing.names[0]
        page = await self._search_title(name)
        seen: set[str] = set()
        for _ in range(_STEPS):
            if page is None or is_about(page, thing.noun):
                return page
            seen.add(page.url)
            page = await self._follow(page, thing, seen)
        return page if page is not None and is_about(page, thing.noun) else None

    async def _search_title(self, title: str) -> Page | None:
        hits = await self._search.search(title, _HITS)
        self.steps.append({"tool": "search", "query": title, "found": [hit.url for hit in hits]})
        exact = next((hit for hit in hits if hit.title == title), None)
        return await self._open(exact.url) if exact else None

    async def _follow(self, page: Page, thing: Described, seen: set[str]) -> Page | None:
        """Opens the link whose sentence shares most words with the description; pages on such things come first."""
        wanted, best, most = words_of(thing.words), None, -1
        for sentence, link in linked_sentences(page):
            target = None if link.url in seen else await self._open(link.url)
            if target is None:
                continue
            score = len(wanted & words_of(sentence)) + 2 * is_about(target, thing.noun)
            if score > most:
                best, most = target, score
        return best

    async def _open(self, url: str) -> Page | None:
        """Opens a page once; None for a dead link."""
        if url not in self._opened:
            try:
                page = await self._search.open(url)
            except DataError as error:
                self._opened[url] = None
                self.steps.append({"tool": "open", "url": url, "error": str(error)})
            else:
                self._opened[url] = page
                self.steps.append({"tool": "open", "url": url, "title": page.title})
                self.evidence.append({"title": page.title, "url": url, "text": page.text})
        return self._opened[url]

    async def _answers(self, ask: str, articles: list[Page]) -> list[str]:
        """Returns the lines that answer an ask: one a thing where it asks for each of them."""
        if "each of them" not in ask:
            answer = await self._answer(ask, articles[0])
            return [answer] if answer else []
        parts = ask.removesuffix(", from left to right").split(" with ")
        lines = []
        for page in articles:
            answers = [answer for part in parts if (answer := await self._answer(part, page))]
            lines.append(", ".join(answers))
        return [line for line in lines if line]

    async def _answer(self, ask: str, page: Page) -> str:
        kind, role = kind_of(ask), role_in(ask)
        if kind == "name":
            return page.title
        if kind == "maker":
            return person_in(page, role)
        if kind == "town":
            opening = sentences(page.text)[0]
            return next((link.text for link in page.links if link.text in opening), "")
        sources = [page, *await self._linked(page, page.title)]
        if role:
            sources = await self._linked(page, person_in(page, role) or role)
        return best_answer(ask, sources)

    async def _linked(self, page: Page, words: str) -> list[Page]:
        """Opens the links of a page whose text holds the words."""
        targets = [await self._open(link.url) for link in page.links if words in link.text and link.url != page.url]
        return [target for target in targets if target is not None]

    async def _picture(self, title: str) -> Image | None:
        """Returns the first picture whose title holds the words and whose backdrop can be cut away."""
        hits = await self._search.image_search(title, _PICTURE_HITS)
        self.steps.append({"tool": "image_search", "query": title, "found": [hit.url for hit in hits]})
        for hit in hits:
            if title.lower() in hit.title.lower():
                picture = await asyncio.to_thread(_usable, hit)
                if picture is not None:
                    self.references.append({"title": hit.title, "url": hit.url, "note": f"taken to show {title}"})
                    return picture
        return None


def _usable(hit: ImageHit) -> Image | None:
    picture = hit.image.open()
    return picture if cut_out(picture) is not None else None
