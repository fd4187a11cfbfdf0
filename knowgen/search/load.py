"""Load a search backend by name, and check that it has the methods of the contract."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from knowgen.core import registry
from knowgen.core.errors import UsageError
from knowgen.search.contract import SearchBackend

PREFIX = "search."
"""What the arguments of the backend begin with among those of a generator or agent."""

METHODS = ("search", "image_search", "open")
"""Methods that a backend must have, as coroutines."""


def with_search(target: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a generator with its search backend in the place of the backend's name.

    A generator is handed the backend and never its name, which may contain the path of a task's folder.

    Args:
        target: Class or factory of the generator.
        arguments: Its arguments.
    """
    given = dict(arguments)
    if getattr(target, "wants_search", False) and isinstance(given.get("search"), str):
        own = {name: given.pop(name) for name in list(given) if name.startswith(PREFIX)}
        given["search"] = load_search(
            given["search"], {name.removeprefix(PREFIX): value for name, value in own.items()}
        )
    return given


def arguments_by_name(names: Sequence[str], arguments: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Return the arguments of backends from arguments that are called `NAME.KEY`.

    Args:
        names: Names of the backends, without what follows a colon.
        arguments: The arguments.
        where: The backend that contains these, for error messages.

    Raises:
        UsageError: An argument names none of them.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for argument, value in arguments.items():
        name, _, key = argument.rpartition(".")
        if name not in given:
            fix = f"write NAME.KEY with a NAME of {', '.join(given)}"
            raise UsageError(f"unknown argument {argument!r}", where=where, fix=fix)
        given[name][key] = value
    return given


def named_backend(name: str, arguments: Mapping[str, Any]) -> tuple[str, SearchBackend]:
    """Return a search backend that another one contains, and its short name.

    Args:
        name: Its name; arguments of a registered one as in `name:model`.
        arguments: Its other arguments.

    Raises:
        UsageError: As for `load_search`, or an argument is unknown.
    """
    resolved = registry.resolve("search", name)
    backend = load_search(registry.create(resolved, arguments))
    # the whole name of a user's own backend: one file may define several
    return name if resolved.origin == registry.LOCAL else name.partition(":")[0], backend


def load_search(search: str | SearchBackend, arguments: Mapping[str, Any] = MappingProxyType({})) -> SearchBackend:
    """Return a search backend by registered name, `name:model`, `module:Class` or `file.py:Class`.

    Args:
        search: Such a name, or a backend, which is returned unchanged.
        arguments: Arguments of a backend that is named.

    Raises:
        UsageError: The name is unknown, an argument is, or the backend lacks a method or has one that is not
            `async def`.
    """
    backend = registry.create(registry.resolve("search", search), arguments) if isinstance(search, str) else search
    name = search if isinstance(search, str) else type(search).__name__
    for method in METHODS:
        if not inspect.iscoroutinefunction(getattr(backend, method, None)):
            state = "is not `async def`" if hasattr(backend, method) else "is missing"
            raise UsageError(f"{method}() {state}", where=f"search backend {name!r}", fix=f"write `async def {method}`")
    return cast(SearchBackend, backend)
