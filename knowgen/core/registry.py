"""Find plugins by name. Names are read from package metadata, so that listing them imports nothing.

A name is `name`, `name:model`, `module:attribute` or `file.py:attribute`. Plugins register by entry points in the
groups `knowgen.tasks`, `knowgen.search`, `knowgen.generators`, `knowgen.scorers`, `knowgen.policies` and
`knowgen.tools`. An error while a plugin is imported, including `SystemExit` and a call of `os._exit`, is reported with
the plugin's name and does not affect other plugins.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distribution, distributions, entry_points
from pathlib import Path
from typing import Any, Literal

from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError, UsageError
from knowgen.core.guarded_import import guarded_import
from knowgen.core.import_path import current_folder_last, folder_last
from knowgen.core.secrets import refuse_secrets
from knowgen.core.text import error_summary
from knowgen.core.tracebacks import is_local, place_of
from knowgen.core.version import __version__

Kind = Literal["tasks", "search", "generators", "scorers", "policies", "tools"]
"""A kind of plugin, as its entry-point group is called."""

KINDS: tuple[Kind, ...] = ("tasks", "search", "generators", "scorers", "policies", "tools")
SINGULAR: dict[str, str] = {
    "tasks": "task", "search": "search backend", "generators": "generator", "scorers": "scorer",
    "policies": "policy", "tools": "tool",
}  # fmt: skip
OWN = "knowgen"
LOCAL = "local"
"""Origin of a module or file that no installed distribution registers."""


@dataclass(frozen=True)
class RegistryEntry:
    """A registered name.

    Attributes:
        kind: Kind of the plugin.
        name: The name.
        target: Its target as `module:attribute`.
        origin: Distribution that registers it, with its version.
        clash: Another distribution that registers the same name; empty when there is none.
    """

    kind: Kind
    name: str
    target: str
    origin: str
    clash: str = ""


@cache
def entries(kind: Kind) -> Mapping[str, RegistryEntry]:
    """Return the registered names of a kind, sorted, from package metadata alone.

    Example:
        >>> "vlm" in entries("scorers")
        True
    """
    registered: dict[str, RegistryEntry] = {}
    for point in sorted(_points(f"knowgen.{kind}"), key=lambda point: (point.name, point.value)):
        origin = _origin(point)
        earlier = registered.get(point.name)
        if earlier is None or earlier.target == point.value:
            registered[point.name] = RegistryEntry(kind, point.name, point.value, origin)
        elif is_bundled(earlier.origin):
            continue  # a plugin cannot take over a bundled name
        elif is_bundled(origin):
            registered[point.name] = RegistryEntry(kind, point.name, point.value, origin)
        else:
            registered[point.name] = RegistryEntry(kind, point.name, earlier.target, earlier.origin, clash=origin)
    return dict(sorted(registered.items()))


def is_bundled(origin: str) -> bool:
    """Tell whether an origin is this project's own distribution.

    Example:
        >>> is_bundled("knowgen 0.2.0"), is_bundled("knowgen-duck 1.0"), is_bundled(LOCAL)
        (True, False, False)
    """
    return origin.split(" ", maxsplit=1)[0] == OWN


def is_edited_in_place(origin: str, file: str) -> bool:
    """Tell whether a source file of another distribution lies outside the folder into which that is installed.

    Args:
        origin: Name and version of the distribution.
        file: The source file.
    """
    if is_bundled(origin) or not is_local(file):
        return False
    try:
        folder = Path(str(distribution(origin.rpartition(" ")[0]).locate_file("")))
    except Exception:  # noqa: BLE001 - damaged metadata raises many types
        return True
    return not Path(file).resolve().is_relative_to(folder.resolve())


def _origin(point: EntryPoint) -> str:
    try:
        return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    except Exception:  # noqa: BLE001 - damaged metadata raises many types
        return "unknown"


def _points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group. A distribution whose metadata cannot be read is skipped; see `unreadable`."""
    try:
        return list(entry_points(group=group))
    except Exception:  # noqa: BLE001 - damaged metadata raises many types; find out whose it is
        return [point for points in _readable().values() for point in points if point.group == group]


@cache
def _readable() -> dict[str, list[EntryPoint]]:
    """Return the entry points of each distribution whose metadata can be read, the first of each name."""
    found: dict[str, list[EntryPoint]] = {}
    for installed in distributions():
        with contextlib.suppress(Exception):  # reported by `unreadable`
            name = str(installed.name).lower().replace("_", "-")
            points = list(installed.entry_points)
            found.setdefault(name, points)
    return found


@cache
def unreadable() -> Mapping[str, str]:
    """Return the folders of distributions whose entry points cannot be read, with the reason."""
    broken: dict[str, str] = {}
    for installed in distributions():
        try:
            list(installed.entry_points)
        except Exception as error:  # noqa: BLE001 - damaged metadata raises many types
            folder = getattr(installed, "_path", None) or "an installed package"
            broken[str(folder)] = f"its entry points cannot be read: {error_summary(error)}"
    return broken


@dataclass(frozen=True)
class ResolvedName:
    """A name with its target.

    Attributes:
        kind: Kind of the plugin.
        spec: The name as the user wrote it.
        target: Its target as `module:attribute`.
        model: Model of `name:model`; None when there is none.
        origin: Distribution of the plugin; `local` for a module or file of the user.
    """

    kind: Kind
    spec: str
    target: str
    model: str | None
    origin: str


def resolve(kind: Kind, spec: str) -> ResolvedName:
    """Return the target of a name without importing it.

    Raises:
        UsageError: The name is not registered, or two distributions register it. Similar names are suggested.
        ConfigError: The name contains what looks like an API key.
    """
    refuse_secrets({SINGULAR[kind]: spec})
    known = entries(kind)
    base, colon, rest = spec.partition(":")
    if base in known:
        entry = known[base]
        if entry.clash:
            raise UsageError(
                f"{SINGULAR[kind]} {base!r} is registered by both {entry.origin} and {entry.clash}",
                fix=f"name it as module:Class, such as {entry.target}",
            )
        return ResolvedName(kind, spec, entry.target, rest if colon else None, entry.origin)
    if colon and rest.isidentifier() and _importable(base):
        own = base.partition(".")[0] == OWN
        return ResolvedName(kind, spec, spec, None, f"{OWN} {__version__}" if own else LOCAL)
    if base.endswith(".py"):
        raise _no_file(kind, base, rest)
    near = difflib.get_close_matches(base, list(known), n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
    if broken := unreadable():
        fix += f" (skipped {'; '.join(f'{folder}: {reason}' for folder, reason in broken.items())})"
    raise UsageError(f"unknown {SINGULAR[kind]} {spec!r}", fix=fix)


def _no_file(kind: Kind, base: str, rest: str) -> UsageError:
    """Return the error for a name that looks like `file.py:attribute` and is not."""
    if not Path(base).is_file():
        return UsageError(f"the file {base!r} does not exist", where=SINGULAR[kind], fix="check the path")
    if rest:
        return UsageError(f"{rest!r} is not a Python name", where=base, fix=f"write {base}:NAME")
    return UsageError(f"{base} lacks the name of a class or function", where=SINGULAR[kind], fix=f"write {base}:NAME")


def _importable(base: str) -> bool:
    """Return whether there is a file or module of that name. Its package is looked up, and nothing is imported."""
    if base.endswith(".py"):
        return Path(base).is_file()
    current_folder_last()
    top, *inner = base.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None or not inner:
        return spec is not None
    if sys.modules.get(base) is not None:
        return True
    folders = spec.submodule_search_locations or ()
    return any(_has_module(Path(folder).joinpath(*inner[:-1]), inner[-1]) for folder in folders)


def _has_module(folder: Path, name: str) -> bool:
    suffixes = importlib.machinery.all_suffixes()
    return (folder / name).is_dir() or any((folder / f"{name}{suffix}").is_file() for suffix in suffixes)


def load(resolved: ResolvedName) -> Any:
    """Import the target of a name.

    Raises:
        MissingDependencyError: A package that it imports is not installed.
        ConfigError: A file or module of the user raised an error while it was imported.
        UsageError: An installed plugin raised an error while it was imported, or the module has no such attribute.
    """
    module_name, _, attribute = resolved.target.rpartition(":")
    origin = "" if resolved.origin == LOCAL else f" (from {resolved.origin})"
    where = f"{SINGULAR[resolved.kind]} {resolved.spec!r}{origin}"
    guard = contextlib.nullcontext() if is_bundled(resolved.origin) else guarded_import(where)
    try:
        with guard:
            module = _import_file(module_name) if module_name.endswith(".py") else _import_module(module_name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == module_name.split(".")[0]:
            raise _broken(resolved, f"the module {error.name!r} does not exist", where) from error
        raise MissingDependencyError(
            f"needs the package {error.name!r}, which is not installed", where=where, fix=f"pip install {error.name}"
        ) from error
    except (Exception, SystemExit) as error:
        place = place_of(error)
        what = f"failed while it was imported: {error_summary(error)}" + (f" ({place})" if place else "")
        raise _broken(resolved, what, where) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        file = str(getattr(module, "__file__", None) or "")
        hidden = resolved.origin == LOCAL and not is_local(file) and Path(f"{module_name}.py").is_file()
        fix = f"an installed module has that name; write {module_name}.py:{attribute}" if hidden else ""
        raise UsageError(f"{module_name} has no {attribute!r}", where=where, fix=fix) from error


def _broken(resolved: ResolvedName, what: str, where: str) -> KnowgenError:
    """Return the error for a plugin that cannot be imported; the fix depends on whether it is the user's own file."""
    if resolved.origin == LOCAL:
        return ConfigError(what, where=where, fix="fix that file")
    return UsageError(what, where=where, fix="update or uninstall the plugin")


def _import_module(name: str) -> Any:
    current_folder_last()
    return importlib.import_module(name)


def _import_file(name: str) -> Any:
    path = Path(name).resolve()
    current_folder_last()
    folder_last(str(path.parent))  # modules beside the file, as for a script
    module_name = f"knowgen_user_{path.stem}"
    if module_name in sys.modules and getattr(sys.modules[module_name], "__file__", None) == str(path):
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def create(resolved: ResolvedName, args: Mapping[str, Any]) -> Any:
    """Import the target of a name and call it.

    Args:
        resolved: Result of `resolve`.
        args: Keyword arguments; `model` is added from `name:model`.

    Raises:
        UsageError: An argument is unknown or missing.
        KnowgenError: The target cannot be imported, or raises this error.
    """
    return build(load(resolved), args, model=resolved.model, where=f"{SINGULAR[resolved.kind]} {resolved.spec!r}")


def build(factory: Callable[..., Any], args: Mapping[str, Any], *, model: str | None, where: str) -> Any:
    """Call a factory after checking the arguments against its signature.

    Args:
        factory: Class or function.
        args: Keyword arguments.
        model: Model of `name:model`, passed as `model`; None when there is none.
        where: The plugin, for error messages.

    Raises:
        UsageError: An argument is unknown or missing, or the factory takes no `model`.
        KnowgenError: The factory raises this error.
    """
    arguments = dict(args)
    if model is not None:
        arguments["model"] = model
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return factory(**arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(name for name in signature.parameters if name not in {"self", "args", "kwargs"}) or "nothing"
        raise UsageError(f"{error}", where=where, fix=f"it takes {takes}") from error
    return factory(**arguments)
