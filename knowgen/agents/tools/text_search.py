"""The tool `search`: pages for one or more queries, which run at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from knowgen.agents.protocol import escape_frames
from knowgen.agents.service_calls import FATAL_ERRORS, TRIES, all_results
from knowgen.agents.text_budget import cut_to_tokens
from knowgen.agents.tools.arguments import number_of_results, texts
from knowgen.agents.tools.contract import ToolContext, ToolResult
from knowgen.core.errors import KnowgenError, ServiceUnavailableError, TransientError
from knowgen.search.contract import Hit

MAX_QUERIES = 20
"""Maximum number of queries of one call that are run."""

MISSING = "[Search] 'query' or 'queries' is required (string or array of strings)."

HIT_TOKENS = 1000
"""Maximum number of tokens of a snippet."""

_MAX_TITLE, _MAX_URL = 1000, 4000
"""Maximum length of a title and a URL in characters."""

_BOLD = re.compile(r"</?b>")


class TextSearch:
    """Finds pages. Each query gives a block of titles, URLs and snippets."""

    name = "search"
    description = "Search the web for text. Give one or more queries; each returns titles, URLs and snippets of pages."
    parameters: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "queries": {"type": "array", "items": {"type": "string"}, "description": "Queries, which run at once."},
            "top_k": {"type": "integer", "description": "Maximum number of results of a query, 1 to 10 (default: 10)."},
        },
        "required": ["queries"],
    }

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return the results of all queries, each in a block.

        Raises:
            ToolArgumentError: An argument cannot be used.
            TransientError: The service is unavailable.
            AccountError: The service rejects the account.
        """
        queries = texts(arguments, "queries", "query")
        if not queries:
            return ToolResult(MISSING, error="no query was given")
        count = number_of_results(arguments)
        found = await all_results([_found(number, query, count, context) for number, query in enumerate(queries)])
        blocks = [
            f"--- search result for [{query}] ---\n{result.text}\n--- end of search result ---"
            for query, result in zip(queries, found, strict=True)
        ]
        return ToolResult(
            "\n\n".join(blocks),
            evidence=[each for result in found for each in result.evidence],
            error="; ".join(result.error for result in found if result.error),
            capped=sum(result.capped for result in found),
        )


async def _found(number: int, query: str, count: int, context: ToolContext) -> ToolResult:
    """Return what is inside the block of a query. Quotes are not sent, as in the published agent."""
    sent = query.replace('"', "").replace("'", "")
    if number >= MAX_QUERIES:
        return _failed(sent, f"at most {MAX_QUERIES} queries are run in one call")
    if not sent.strip():
        return _failed(sent, "the query is empty")
    try:
        hits = await context.search.search(sent, count)
    except FATAL_ERRORS:
        raise
    except TransientError as error:
        if not context.failures_as_text:
            raise
        return _failed(sent, _service_failure(error))
    except KnowgenError as error:
        return _failed(sent, error.what)
    if not hits:
        return ToolResult(f"No results for '{sent}'.")
    hits = hits[:count]
    snippets = [cut_to_tokens(hit.snippet, HIT_TOKENS) for hit in hits]
    return ToolResult(
        "\n\n".join(_item(hit, snippet) for hit, (snippet, _) in zip(hits, snippets, strict=True)),
        evidence=[_evidence(hit) for hit in hits],
        capped=sum(cut for _, cut in snippets),
    )


def _failed(query: str, reason: str) -> ToolResult:
    return ToolResult(f"Search failed for '{query}': {escape_frames(reason)}", error=f"search failed: {reason}")


def _service_failure(error: TransientError) -> str:
    if isinstance(error, ServiceUnavailableError) and error.busy:
        return f"exhausted {TRIES} retries (rate limit, server errors, or no response)."
    return error.what


def _item(hit: Hit, snippet: str) -> str:
    fields = (hit.title[:_MAX_TITLE], hit.url[:_MAX_URL], snippet)
    title, url, snippet = (escape_frames(_BOLD.sub("", text)) for text in fields)
    return f"[{title}]({url}) {snippet}"


def _evidence(hit: Hit) -> dict[str, str]:
    return {"title": hit.title, "url": hit.url, "text": hit.snippet}
