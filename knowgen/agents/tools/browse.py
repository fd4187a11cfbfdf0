"""The tool `browse`: what one or more pages say about a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from knowgen.agents.protocol import escape_frames
from knowgen.agents.service_calls import FATAL_ERRORS, RAISED_ERRORS, all_results
from knowgen.agents.tools.arguments import single_line, texts
from knowgen.agents.tools.contract import ToolContext, ToolResult
from knowgen.core.errors import (
    KnowgenError,
    ServiceUnavailableError,
    TransientError,
)
from knowgen.core.records import UsagePart
from knowgen.search.contract import Page, PageBlockedError

MAX_PAGES = 5
"""Maximum number of pages of one call."""

MISSING = "[Visit] 'url' is required."
FAILED = "Browse error. Please try again."
DEFAULT_QUERY = "Detailed summary of the page."
SEPARATOR = "\n\n=======\n\n"

LINKS_HEADING = "Links on this page:"
MAX_LINKS = 30
"""Maximum number of links of a page that are listed."""


class Browse:
    """Opens pages and answers a question from each, by a summary model or by extraction."""

    name = "browse"
    description = "Open a web page and get what it says about a question."
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "URL of the page."},
            "query": {"type": "string", "description": "What you want to know from it."},
        },
        "required": ["url", "query"],
    }

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return the answers from the pages, at most `MAX_PAGES`, in order.

        Raises:
            ToolArgumentError: An argument cannot be used.
            TransientError: A service is unavailable.
            AccountError: A service rejects the account.
        """
        urls = texts(arguments, "url")[:MAX_PAGES]
        if not urls:
            return ToolResult(MISSING, error="no URL was given")
        question = " ".join((texts(arguments, "goal") or [""])[:1]).strip()
        question = question or " ".join((texts(arguments, "query") or [""])[:1]).strip() or DEFAULT_QUERY
        read = await all_results([_read(url.strip(), question, context) for url in urls])
        return ToolResult(
            SEPARATOR.join(each.text for each in read),
            evidence=[each.evidence for each in read if each.evidence is not None],
            error="; ".join(each.error for each in read if each.error),
            blocked=[each.blocked for each in read if each.blocked],
            usage=[part for each in read for part in each.usage],
        )


@dataclass(frozen=True)
class _ReadPage:
    text: str
    error: str = ""
    blocked: str = ""
    evidence: Mapping[str, str] | None = None
    usage: tuple[UsagePart, ...] = ()


async def _read(url: str, question: str, context: ToolContext) -> _ReadPage:
    try:
        page = await context.search.open(url)
    except FATAL_ERRORS:
        raise
    except ServiceUnavailableError as error:
        if not context.failures_as_text:
            raise
        return _ReadPage(FAILED, error=error.what)
    except PageBlockedError as error:
        return _ReadPage(FAILED, error=error.what, blocked=error.reason.value)
    except (KnowgenError, TransientError) as error:  # this page: it is missing, has no text, or its site is down
        return _ReadPage(FAILED, error=error.what)
    text = f"{page.title}\n\n{page.text}".strip() if page.title else page.text.strip()
    if not text:
        return _ReadPage(FAILED, error="the page has no text")
    try:
        answer, usage = await context.reader.read(text, question)
    except RAISED_ERRORS:
        raise
    except KnowgenError as error:
        return _ReadPage(FAILED, error=error.what)
    answer = answer.strip()
    if not answer:
        return _ReadPage(FAILED, error="the summary is empty", usage=tuple(usage))
    evidence = {"title": page.title, "url": page.url, "text": answer}
    links = _links(page, answer) if context.list_links else ""
    return _ReadPage(escape_frames(answer + links), evidence=evidence, usage=tuple(usage))


def _links(page: Page, answer: str) -> str:
    """Return the list of a page's links, first those whose text is in the answer; empty without links."""
    links = sorted((link for link in page.links if link.text.strip()), key=lambda link: link.text not in answer)
    unique = {link.url: single_line(link.text, 200) for link in reversed(links[:MAX_LINKS])}
    lines = [f"- [{text}]({url})" for url, text in reversed(unique.items())]
    return "\n".join(["\n", LINKS_HEADING, *lines]) if lines else ""
