"""The policy `scripted`: rules in place of a model, for synthetic worlds. It reads what tools return, like any policy.

It searches the names in the prompt, opens their pages and the pages that those link to, and looks for an image of each
subject on a plain backdrop. Its rules are those of `text_rules`: each takes the first match, so a page can mislead it.

It finds out which tools there are by calling them. Without `browse` it reads the snippets of a search, without
`image_search` it answers without reference images, and without `search` it looks for images of the names in the prompt.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.agents.policies.contract import PolicyReply, Sampling
from knowgen.agents.protocol import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    CALL_CLOSE,
    CALL_OPEN,
    RESPONSE_CLOSE,
    RESPONSE_OPEN,
    calls_used,
    tool_error,
    unknown_tool,
)
from knowgen.agents.records import Message, Segment
from knowgen.agents.tools.browse import FAILED, LINKS_HEADING, MAX_PAGES, SEPARATOR
from knowgen.core.records import ImageRef, Usage
from knowgen.search.contract import Link, Page
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

VERSION = "2"
"""Version of the rules; raise it when any prompt would get another reply."""

MAX_CALLS = 8
"""Tool calls that the rules make at most; fewer where the system prompt allows fewer."""

_LINK_STEPS = 3
"""Maximum number of links followed from a name to a subject."""

_SEARCH, _IMAGE_SEARCH, _BROWSE = "search", "image_search", "browse"
_HITS = 6
_SEARCH_BLOCK = re.compile(
    r"^--- search result for \[(.*?)\] ---\n(.*?)\n--- end of search result ---$", re.DOTALL | re.MULTILINE
)
_HIT = re.compile(r"^\[(.*?)\]\((\S+?)\) ?(.*)$", re.MULTILINE)
_ALLOWED = re.compile(r"\bYou have (\d+) tool calls\b")
_IMAGE = re.compile(r"^(IMG_\d+): title: (.*)$", re.MULTILINE)
_LINK = re.compile(r"^- \[(.*)\]\((\S+)\)$", re.MULTILINE)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True)
class _Observed:
    """What a call returned: text without its frame, and the images shown with it."""

    text: str
    images: tuple[ImageRef, ...] = ()


@dataclass(frozen=True)
class _Call:
    thought: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class _Answer:
    thought: str
    prompt: str
    references: Sequence[tuple[str, str]] = ()


_Rules = Generator[_Call, _Observed, Any]


class ScriptedPolicy:
    """Rules for prompts of synthetic worlds.

    Example:
        >>> ScriptedPolicy().identity
        {'rules': '2'}
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """The version of the rules."""
        return {"rules": VERSION}

    def open(self, sampling: Sampling, prompt: str, session: str) -> ScriptedSession:
        """Return a new session for a prompt."""
        return ScriptedSession(prompt)

    async def close(self) -> None:
        """Do nothing: rules hold nothing."""


class ScriptedSession:
    """One trajectory of the rules.

    Args:
        prompt: Prompt of the task.
    """

    segments: Sequence[Segment] = ()

    def __init__(self, prompt: str) -> None:
        self._script = _Script(prompt)
        self._rules = self._script.run()
        self._started = False

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Return the next call or the answer."""
        if not self._started and (allowed := _ALLOWED.search(messages[0].text)):
            self._script.most_calls = min(MAX_CALLS, int(allowed[1]))
        step = await asyncio.to_thread(self._next, messages[-1])
        return PolicyReply(_reply_text(step), usage=Usage(cost=0.0))

    def _next(self, message: Message) -> _Call | _Answer:
        try:
            if not self._started:
                self._started = True
                return next(self._rules)
            return self._rules.send(_Observed(_unframed(message.text), message.images))
        except StopIteration as end:
            answer: _Answer = end.value
            return answer

    async def close(self) -> None:
        """End the rules."""
        self._rules.close()


def _reply_text(step: _Call | _Answer) -> str:
    thought = f"<think>{step.thought}</think>\n"
    if isinstance(step, _Call):
        call = json.dumps({"name": step.tool, "arguments": step.arguments}, ensure_ascii=False)
        return f"{thought}{CALL_OPEN}{call}{CALL_CLOSE}"
    references = [{"img_id": image, "note": note} for image, note in step.references]
    answer = json.dumps({"gen_prompt": step.prompt, "reference_images": references}, ensure_ascii=False)
    return f"{thought}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def _unframed(text: str) -> str:
    return text.removeprefix(f"{RESPONSE_OPEN}\n").removesuffix(f"\n{RESPONSE_CLOSE}")


class _Script:
    """The rules for one prompt, as a generator of calls that is sent what they returned.

    Attributes:
        most_calls: Maximum number of tool calls.
    """

    def __init__(self, prompt: str) -> None:
        from knowgen.worlds.rendering.appearance import KIND_NOUNS

        self._prompt = prompt
        self._parsed = parse_prompt(prompt, KIND_NOUNS)
        self._pages: dict[str, Page | None] = {}
        self._snippets: dict[str, Page] = {}
        self._missing: set[str] = set()
        self.most_calls = MAX_CALLS
        self._calls = 0
        self._reserved = 0

    def run(self) -> Generator[_Call, _Observed, _Answer]:
        """Yield the calls, and return the answer."""
        subjects = self._parsed.described
        self._reserved = len(subjects)  # calls that are left for images
        articles = yield from self._articles(subjects)
        if _SEARCH in self._missing:
            return (yield from self._images_alone(subjects))
        found = [page for page in articles if page is not None]
        if not found:
            return _Answer("Nothing I found is about what the prompt describes.", self._prompt)
        lines: list[str] = []
        if not self._parsed.wordless:
            for question in self._parsed.questions:
                lines += yield from self._answers(question, found)
        references = yield from self._references([page.title for page in found])
        return _Answer("I have what the prompt asks for.", self._gen_prompt(lines, references), references)

    def _images_alone(self, subjects: Sequence[SubjectDescription]) -> Generator[_Call, _Observed, _Answer]:
        """Return the answer where pages cannot be searched: images whose titles have the names of the prompt."""
        references = yield from self._references([subject.names[0] for subject in subjects])
        if not references:
            return _Answer("I cannot find out more.", self._prompt)
        return _Answer("I can only look at images.", self._gen_prompt([], references), references)

    def _references(self, titles: Sequence[str]) -> Generator[_Call, _Observed, list[tuple[str, str]]]:
        references: list[tuple[str, str]] = []
        for title in dict.fromkeys(titles):  # the same call twice would end the trajectory
            image = yield from self._image(title)
            if image:
                references.append((image, f"taken to show {title}"))
        return references

    def _gen_prompt(self, lines: Sequence[str], references: Sequence[tuple[str, str]]) -> str:
        parts = [self._prompt]
        for ordinal, (_, note) in zip(_ORDINALS, references, strict=False):
            parts.append(f"The {ordinal} reference image is {note}.")
        if lines:
            parts.append("The lettering reads " + ", ".join(f'"{line}"' for line in lines) + ".")
        return " ".join(parts)

    # ------------------------------------------------------------------------------------------------------------ pages

    def _articles(self, subjects: Sequence[SubjectDescription]) -> _Rules:
        """Return the page about each subject, None where none is found: search the first names, and follow links."""
        if not subjects:
            return []
        names = list(dict.fromkeys(subject.names[0] for subject in subjects))
        urls = yield from self._search(names)
        yield from self._open(urls.values(), "These pages have the names of the prompt.")
        pages = [self._pages.get(urls.get(subject.names[0], "")) for subject in subjects]
        visited = {page.url for page in pages if page is not None}
        for _ in range(_LINK_STEPS):
            candidates = [
                [] if page is None or is_about(page, subject.noun) else _ranked_links(page, subject, visited)
                for subject, page in zip(subjects, pages, strict=True)
            ]
            if not any(candidates):
                break
            share = max(1, MAX_PAGES // sum(map(bool, candidates)))
            chosen = [link.url for links in candidates for _, link in links[:share]]
            yield from self._open(chosen, "The subject must be on one of the pages that these link to.")
            for number, (subject, links) in enumerate(zip(subjects, candidates, strict=True)):
                if links:
                    pages[number] = self._best_target(links, subject)
            visited |= {page.url for page in pages if page is not None}
        return [
            page if page is not None and is_about(page, subject.noun) else None
            for subject, page in zip(subjects, pages, strict=True)
        ]

    def _best_target(self, links: Sequence[tuple[int, Link]], subject: SubjectDescription) -> Page | None:
        """Return the opened page whose link fits best; one about such a subject counts two words more."""
        best, best_score = None, -1
        for shared, link in links:
            page = self._pages.get(link.url)
            if page is not None and shared + 2 * is_about(page, subject.noun) > best_score:
                best, best_score = page, shared + 2 * is_about(page, subject.noun)
        return best

    def _search(self, names: Sequence[str]) -> _Rules:
        """Search several names at once, and return the URL of the page with exactly that title, by name."""
        observed = yield from self._call(
            "I search the names of the prompt.", _SEARCH, {"queries": list(names), "top_k": _HITS}
        )
        urls: dict[str, str] = {}
        for query, block in _SEARCH_BLOCK.findall(observed.text):
            for title, url, snippet in _HIT.findall(block):
                self._snippets[url] = Page(url=url, title=title, text=snippet)
                if title == query:
                    urls.setdefault(query, url)
        return urls

    def _open(self, urls: Any, thought: str) -> _Rules:
        """Open pages that are not open yet, as many in one call as a call takes."""
        wanted = [url for url in dict.fromkeys(urls) if url not in self._pages][:MAX_PAGES]
        if not wanted:
            return
        observed = _Observed("")
        if _BROWSE not in self._missing and self._calls + 1 + self._reserved <= self.most_calls:
            query = " ".join(self._prompt.split())
            observed = yield from self._call(thought, _BROWSE, {"url": wanted, "query": query})
        if not observed.text:  # what the search showed of them is all there is
            self._pages |= {url: self._snippets[url] for url in wanted if url in self._snippets}
            return
        texts = observed.text.split(SEPARATOR)
        for url, text in zip(wanted, texts, strict=False):
            self._pages[url] = _page(url, text)

    def _call(self, thought: str, tool: str, arguments: Mapping[str, Any]) -> _Rules:
        """Return what a call shows; nothing where that tool or a further call is missing."""
        if tool in self._missing or self._calls >= self.most_calls:
            return _Observed("")
        self._calls += 1
        observed = yield _Call(thought, tool, arguments)
        if observed.text.startswith(unknown_tool(tool, []).removesuffix("[]")):
            self._missing.add(tool)
            return _Observed("")
        if observed.text == tool_error(calls_used(self._calls - 1)):
            self.most_calls = self._calls - 1
            return _Observed("")
        return observed

    # ---------------------------------------------------------------------------------------------------------- answers

    def _answers(self, question: str, articles: Sequence[Page]) -> _Rules:
        """Return the lines that answer a question: one per subject if it asks for each of them."""
        each = "each of them" in question
        asked = articles if each else articles[:1]
        parts = question.removesuffix(", from left to right").split(" with ") if each else [question]
        yield from self._open(
            [url for page in asked for part in parts for url in _source_urls(part, page)],
            "The facts must be on the pages that these link to.",
        )
        lines = [", ".join(filter(None, (self._answer(part, page) for part in parts))) for page in asked]
        return [line for line in lines if line]

    def _answer(self, question: str, page: Page) -> str:
        kind, role = question_kind(question), find_role(question)
        if kind == "name":
            return page.title
        if kind == "maker":
            return find_person(page, role)
        if kind == "town":
            opening = sentences(page.text)[0]
            return next((link.text for link in page.links if link.text in opening), "")
        linked = [self._pages.get(url) for url in _source_urls(question, page)]
        sources = [each for each in linked if each is not None]
        return best_answer(question, sources if role else [page, *sources])

    # ----------------------------------------------------------------------------------------------------------- images

    def _image(self, title: str) -> Generator[_Call, _Observed, str]:
        """Return the id of the first image whose title has the words and whose backdrop can be removed."""
        from knowgen.worlds.baselines.painter import cut_out

        self._reserved = max(0, self._reserved - 1)
        observed = yield from self._call(f"I need to see {title}.", _IMAGE_SEARCH, {"query": title})
        listed = _IMAGE.findall(observed.text)
        if len(listed) != len(observed.images):  # which image does not open is unknown
            return ""
        for (name, caption), image in zip(listed, observed.images, strict=True):
            if title.lower() in caption.lower() and cut_out(image.open()) is not None:
                return str(name)
        return ""


def _source_urls(question: str, page: Page) -> list[str]:
    """Return the URLs of the pages that a question about a page is answered from, besides the page itself."""
    if question_kind(question) in {"name", "maker", "town"}:
        return []
    role = find_role(question)
    words = (find_person(page, role) or role) if role else page.title
    return [link.url for link in page.links if words in link.text and link.url != page.url]


def _ranked_links(page: Page, subject: SubjectDescription, visited: set[str]) -> list[tuple[int, Link]]:
    """Return the links of a page with the words that their sentence shares with a description, most first."""
    words = content_words(subject.words)
    scored = [
        (len(words & content_words(sentence)), link)
        for sentence, link in linked_sentences(page)
        if link.url not in visited
    ]
    return sorted(scored, key=lambda each: -each[0])


def _page(url: str, text: str) -> Page | None:
    """Return a page from what `browse` says of it; None if it could not be opened."""
    if text.strip() == FAILED:
        return None
    body, _, listed = text.partition(f"\n\n{LINKS_HEADING}\n")
    title, _, content = body.partition("\n\n")
    links = tuple(Link(text=name, url=target) for name, target in _LINK.findall(listed))
    return Page(url=url, title=title, text=content, links=links)
