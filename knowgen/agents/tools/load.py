"""Load the tools of an agent by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import cast

from knowgen.agents.tools.contract import Tool
from knowgen.core import registry
from knowgen.core.errors import UsageError

PUBLISHED_ORDER = ("image_search", "search", "browse")
"""Order in which the published agent lists its tools in errors."""


def load_tools(names: str | Sequence[str | Tool]) -> list[Tool]:
    """Return tools by registered name, `name:model`, `module:Class` or `file.py:Class`, in the order of errors.

    Args:
        names: Names, also as one text with commas between them, or tools.

    Raises:
        UsageError: A name is unknown or given twice, or an object is not a tool.
    """
    listed: list[str | Tool] = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    tools = [_loaded(each) if isinstance(each, str) else _checked(each, type(each).__name__) for each in listed if each]
    found = [tool.name for tool in tools]
    if twice := next((name for name in found if found.count(name) > 1), ""):
        raise UsageError(f"two tools are called {twice!r}", where="tools", fix="leave one out")
    return sorted(tools, key=lambda tool: _place(tool.name))


def _place(name: str) -> int:
    return PUBLISHED_ORDER.index(name) if name in PUBLISHED_ORDER else len(PUBLISHED_ORDER)


def _loaded(name: str) -> Tool:
    return _checked(registry.create(registry.resolve("tools", name), {}), name)


def _checked(tool: object, name: str) -> Tool:
    where = f"tool {name!r}"
    for attribute in ("name", "description"):
        if not isinstance(getattr(tool, attribute, None), str):
            raise UsageError(f"has no {attribute}, a string", where=where, fix=f"set the attribute {attribute}")
    if not hasattr(tool, "parameters"):
        raise UsageError("has no parameters, a JSON schema", where=where, fix="set the attribute parameters")
    if not inspect.iscoroutinefunction(getattr(tool, "run", None)):
        raise UsageError("run() is missing or is not `async def`", where=where, fix="write `async def run`")
    return cast(Tool, tool)
