"""Retrieval of `open_book`: search a name, follow links to the subject, read its facts, choose an image."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import DataError
from knowgen.search.contract import ImageHit, Page, SearchBackend
from knowgen.worlds.baselines.painter import cut_out
from knowgen.worlds.baselines.text_rules import (
    SubjectDescription,
    best_answer,
    content_words,
    find_person,
    find_role,
    is_about,
    linked_sentences,
    parse_prompt,
    question_kind,
    sentences,
)
from knowgen.worlds.rendering.appearance import KIND_NOUNS

if TYPE_CHECKING:
    from PIL.Image import Image

_STEPS = 3
"""Maximum number of links followed from a name."""

_HITS, _IMAGE_HITS = 6, 8


@dataclass(frozen=True)
class RetrievedContent:
    """Text and images retrieved for a prompt.

    Attributes:
        texts: Lines for the sign.
        images: Reference images, in the order of the prompt.
    """

    texts: list[str]
    images: list[Image]


class Retriever:
    """Retrieves content for one prompt from a search backend and records each step.

    Args:
        search: Search backend.

    Attributes:
        steps: Every call with its result.
        evidence: Pages that were opened.
        references: Images that were chosen.
    """

    def __init__(self, search: SearchBackend) -> None:
        self._search = search
        self._opened: dict[str, Page | None] = {}
        self.steps: list[dict[str, Any]] = []
        self.evidence: list[dict[str, Any]] = []
        self.references: list[dict[str, Any]] = []

    async def retrieve(self, prompt: str) -> RetrievedContent | None:
        """Return the content for a prompt; None if no subject is found."""
        parsed = parse_prompt(prompt, KIND_NOUNS)
        articles = [
            page for page in [await self._find_page(subject) for subject in parsed.described] if page is not None
        ]
        if not articles:
            return None
        texts: list[str] = []
        if not parsed.wordless:
            texts += parsed.quoted
            texts += [line for question in parsed.questions for line in await self._answers(question, articles)]
        references = [await self._image(page.title) for page in articles]
        return RetrievedContent(texts, [image for image in references if image is not None])

    async def _find_page(self, subject: SubjectDescription) -> Page | None:
        """Search the first name of a description and follow links until a page is about such a subject."""
        name = subject.names[0]
        page = await self._search_title(name)
        visited: set[str] = set()
        for _ in range(_STEPS):
            if page is None or is_about(page, subject.noun):
                return page
            visited.add(page.url)
            page = await self._follow(page, subject, visited)
        return page if page is not None and is_about(page, subject.noun) else None

    async def _search_title(self, title: str) -> Page | None:
        hits = await self._search.search(title, _HITS)
        self.steps.append({"tool": "search", "query": title, "found": [hit.url for hit in hits]})
        exact = next((hit for hit in hits if hit.title == title), None)
        return await self._open(exact.url) if exact else None

    async def _follow(self, page: Page, subject: SubjectDescription, visited: set[str]) -> Page | None:
        """Open the link whose sentence shares most words with the description; prefer pages about such a subject."""
        query_words, best, best_score = content_words(subject.words), None, -1
        for sentence, link in linked_sentences(page):
            target = None if link.url in visited else await self._open(link.url)
            if target is None:
                continue
            score = len(query_words & content_words(sentence)) + 2 * is_about(target, subject.noun)
            if score > best_score:
                best, best_score = target, score
        return best

    async def _open(self, url: str) -> Page | None:
        """Return a page, opened at most once; None for a dead link."""
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

    async def _answers(self, question: str, articles: list[Page]) -> list[str]:
        """Return the lines that answer a question: one per subject if it asks for each of them."""
        if "each of them" not in question:
            answer = await self._answer(question, articles[0])
            return [answer] if answer else []
        parts = question.removesuffix(", from left to right").split(" with ")
        lines = []
        for page in articles:
            answers = [answer for part in parts if (answer := await self._answer(part, page))]
            lines.append(", ".join(answers))
        return [line for line in lines if line]

    async def _answer(self, question: str, page: Page) -> str:
        kind, role = question_kind(question), find_role(question)
        if kind == "name":
            return page.title
        if kind == "maker":
            return find_person(page, role)
        if kind == "town":
            opening = sentences(page.text)[0]
            return next((link.text for link in page.links if link.text in opening), "")
        sources = [page, *await self._linked_pages(page, page.title)]
        if role:
            sources = await self._linked_pages(page, find_person(page, role) or role)
        return best_answer(question, sources)

    async def _linked_pages(self, page: Page, words: str) -> list[Page]:
        """Return the linked pages whose link text contains the words."""
        targets = [await self._open(link.url) for link in page.links if words in link.text and link.url != page.url]
        return [target for target in targets if target is not None]

    async def _image(self, title: str) -> Image | None:
        """Return the first image whose title contains the words and whose backdrop can be removed."""
        hits = await self._search.image_search(title, _IMAGE_HITS)
        self.steps.append({"tool": "image_search", "query": title, "found": [hit.url for hit in hits]})
        for hit in hits:
            if title.lower() in hit.title.lower():
                image = await asyncio.to_thread(_open_usable_image, hit)
                if image is not None:
                    self.references.append({"title": hit.title, "url": hit.url, "note": f"taken to show {title}"})
                    return image
        return None


def _open_usable_image(hit: ImageHit) -> Image | None:
    if hit.image is None:
        return None
    image = hit.image.open()
    return image if cut_out(image) is not None else None
