"""Running the tool calls of a reply, and what an error in one looks like to the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from knowgen.agents.images import SeenImages
from knowgen.agents.machine import RequestedCall
from knowgen.agents.protocol import call_error, tool_error, unknown_tool
from knowgen.agents.service_calls import RAISED_ERRORS, TrackedSearch, all_results
from knowgen.agents.tools.contract import PageReader, Tool, ToolContext, ToolResult
from knowgen.agents.usage_parts import unreported
from knowgen.core.errors import UsageError
from knowgen.core.metering import SpendingCount, spending
from knowgen.core.records import Usage, UsagePart
from knowgen.core.text import error_message
from knowgen.search.contract import SearchBackend

IMAGE_SEARCH = "image_search"
NOT_AN_OBJECT = "the arguments of a call are an object"


class ToolRunner:
    """Runs the calls of one trajectory.

    Args:
        tools: Tools by name.
        search: Search backend.
        reader: Answers questions from pages.
        prompt: Prompt of the task.
        failures_as_text: As in `ToolContext`.

    Attributes:
        images: Images that were listed so far.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        search: SearchBackend,
        reader: PageReader,
        prompt: str,
        failures_as_text: bool = False,
    ) -> None:
        self.images = SeenImages()
        self._tools, self._search, self._reader = tools, search, reader
        self._prompt, self._failures_as_text = prompt, failures_as_text

    async def run(self, calls: Sequence[RequestedCall]) -> list[ToolResult]:
        """Run calls at once, and return their results in order, each with what it used.

        Raises:
            TransientError, AccountError, BudgetReachedError: A service is unavailable.
            ConfigError, UsageError, MissingDependencyError: A tool is not set up.
        """
        done = [asyncio.Event() for _ in calls]

        async def run_one(number: int) -> ToolResult:
            async def turn() -> None:
                for earlier in done[:number]:
                    await earlier.wait()

            try:
                return await self._run(calls[number], turn)
            finally:
                done[number].set()

        return await all_results([run_one(number) for number in range(len(calls))])

    async def _run(self, requested: RequestedCall, turn: Callable[[], Awaitable[None]]) -> ToolResult:
        if requested.call is None or requested.error:
            return ToolResult(tool_error(requested.error), error=requested.error)
        call = requested.call
        tool = self._tools.get(call.name)
        if tool is None:
            text = unknown_tool(call.name, list(self._tools))
            return ToolResult(text, error=f"unknown tool {call.name!r}")
        if not isinstance(call.arguments, Mapping):
            text = tool_error(NOT_AN_OBJECT) if call.name == IMAGE_SEARCH else call_error(call.name, NOT_AN_OBJECT)
            return ToolResult(text, error=NOT_AN_OBJECT)
        loop = asyncio.get_running_loop()
        started = loop.time()
        search = TrackedSearch(self._search)
        context = ToolContext(
            search,
            self.images,
            self._reader,
            self._prompt,
            failures_as_text=self._failures_as_text,
            list_links=not self._failures_as_text,
            turn=turn,
        )
        with spending() as spent:
            result = await _result(tool, call.arguments, context)
        return replace(result, usage=_usage(tool, result, search, spent, loop.time() - started))


async def _result(tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    """Run a tool; an error that says nothing about a service becomes a text for the policy."""
    try:
        result = await tool.run(dict(arguments), context)
    except RAISED_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001 - a tool of a plugin may raise anything
        message = error_message(error)
        return ToolResult(call_error(tool.name, message), error=message)
    if not isinstance(result, ToolResult):
        fix = "return a ToolResult"
        raise UsageError(f"run() returned a {type(result).__name__}", where=f"tool {tool.name!r}", fix=fix)
    return result


def _usage(
    tool: Tool, result: ToolResult, search: TrackedSearch, spent: SpendingCount, seconds: float
) -> list[UsagePart]:
    """Return what a call used, by part: the search, what the tool reports, and what else it paid for."""
    parts = list(result.usage)
    if search.calls:
        used = Usage(cost=search.spent.cost)
        parts.append(UsagePart(part="search", calls=search.spent.calls, usage=used, seconds=search.seconds))
    rest = unreported(spent, parts)
    if rest.calls or not parts:
        parts.append(UsagePart(part=tool.name, calls=rest.calls, usage=Usage(cost=rest.cost), seconds=seconds))
    return parts
