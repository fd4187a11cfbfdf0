"""Where a plugin is, and what stands for it in keys: its name, the version of its code, the values it was made with."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core import registry
from knowgen.core.errors import UsageError
from knowgen.core.spec import is_plain
from knowgen.workflows.local_source import source_digest

VERSION_ATTRIBUTE: Mapping[registry.Kind, str] = {
    "generators": "revision",
    "scorers": "version",
    "policies": "revision",
}
"""Attribute by which each kind of plugin declares its version."""


@dataclass(frozen=True)
class Located:
    """Where a plugin is.

    Attributes:
        kind: generators, scorers or policies; search for a backend that is only looked up.
        name: As the user wrote it; `module:Class` of an object.
        target: The class, function or object.
        model: The part after the colon of `NAME:MODEL`.
        origin: The distribution it comes from, or `local`.
        named: Whether it was given by name, so that a worker process can build it again.
    """

    kind: registry.Kind
    name: str
    target: Any
    model: str | None
    origin: str
    named: bool

    @property
    def where(self) -> str:
        """How error messages refer to it."""
        return f"{registry.SINGULAR[self.kind]} {self.name!r}"


def locate(kind: registry.Kind, plugin: str | Callable[..., Any] | object) -> Located:
    """Find the target of a name; an object is its own target.

    Raises:
        UsageError: The name is unknown, or two plugins claim it.
        KnowgenError: The plugin cannot be imported.
    """
    if not isinstance(plugin, str):
        return Located(kind, object_name(plugin), plugin, None, "local", named=False)
    resolved = registry.resolve(kind, plugin)
    return Located(kind, plugin, registry.load(resolved), resolved.model, resolved.origin, named=True)


def object_name(target: Any) -> str:
    """Return the name of a class, function or object for its key: `spec_name` of its class, else module and name."""
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    return str(getattr(kind, "spec_name", "") or f"{kind.__module__}:{kind.__qualname__}")


def constructor_arguments(plugin: Located, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the arguments an object was built with: each constructor parameter stored under the same name.

    Args:
        plugin: The object.
        without: Parameters to leave out.

    Raises:
        UsageError: One of them is unknown, and the class declares no version to stand for it.
    """
    target, declared = plugin.target, VERSION_ATTRIBUTE[plugin.kind]
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(target)).parameters.items():
        if name in without or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(target, name, getattr(target, f"_{name}", None))
        if is_plain(value) and (value is not None or hasattr(target, name) or hasattr(target, f"_{name}")):
            arguments[name] = value
        elif not getattr(target, declared, ""):
            raise UsageError(
                f"the value of its argument {name!r} is unknown, so results could be mixed up",
                where=f"{registry.SINGULAR[plugin.kind]} {object_name(target)}",
                fix=f"store it as self.{name} in plain data, or give the class a `{declared}`",
            )
    return arguments


def closure_values(plugin: Located) -> dict[str, Any]:
    """Return the values a function closes over.

    Raises:
        UsageError: One of them is not plain data, and the function declares no version to stand for it.
    """
    target, declared = plugin.target, VERSION_ATTRIBUTE[plugin.kind]
    values: dict[str, Any] = {}
    for name, value in inspect.getclosurevars(target).nonlocals.items():
        if is_plain(value):
            values[name] = value
        elif not getattr(target, declared, ""):
            raise UsageError(
                f"it closes over {name!r}, which is not plain data, so results could be mixed up",
                where=f"{registry.SINGULAR[plugin.kind]} {object_name(target)}",
                fix=f"give the function an attribute `{declared}`",
            )
    return values


def code_version(plugin: Located) -> str:
    """Return the version of a plugin's distribution, or the hash of a user's own source files.

    The source files are those of `local_source`. A package that is installed from a folder where it is edited has a
    version and a hash.
    """
    target = plugin.target
    kind = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if plugin.origin != registry.LOCAL:
        if not file or not registry.is_edited_in_place(plugin.origin, file):
            return plugin.origin
        return f"{plugin.origin} source {source_digest(Path(file), kind.__module__)}"
    try:
        digest = source_digest(Path(file), kind.__module__) if file else _digest(inspect.getsource(kind))
    except (OSError, TypeError) as error:
        raise UsageError(
            "its source code was not found, so results of different versions could be mixed up",
            where=object_name(target),
            fix="give it a class attribute `revision`",
        ) from error
    return f"source {digest}"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]
