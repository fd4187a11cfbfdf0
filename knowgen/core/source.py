"""What a plugin does and takes, read from its source file: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from knowgen.core.python_source import parse_python

FOLLOWED = 3
"""Maximum number of re-exports that are followed to a definition."""


@dataclass(frozen=True)
class SourceFacts:
    """Facts from a definition.

    Attributes:
        summary: First line of the docstring; empty when there is none.
        takes: Parameters with their defaults, such as `("size=512", "style")`.
    """

    summary: str = ""
    takes: tuple[str, ...] = ()


def read_source(target: str) -> SourceFacts:
    """Return the facts on `module:attribute`; empty ones where the source cannot be read.

    Example:
        >>> read_source("knowgen.worlds.baselines.systems:OpenBook").takes
        ('search',)
    """
    module, _, attribute = target.partition(":")
    found = _definition(module, attribute)
    if found is None:
        return SourceFacts()
    node, tree, module = found
    summary = (ast.get_docstring(node) or "").partition("\n")[0].strip()
    parameters = _parameters(node, tree, module)
    return SourceFacts(
        summary, tuple(name if default is None else f"{name}={default}" for name, default in parameters.items())
    )


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definition(module: str, attribute: str) -> tuple[_Definition, ast.Module, str] | None:
    """Return the definition of an attribute with its module, whose re-exports are followed; None without one."""
    for _ in range(FOLLOWED):
        tree = _parsed(module)
        if tree is None:
            return None
        for node in tree.body:
            if isinstance(node, _Definition) and node.name == attribute:
                return node, tree, module
        followed = _imported(tree, module, attribute)
        if followed is None:
            return None
        module, attribute = followed
    return None


def _parsed(module: str) -> ast.Module | None:
    path = _file_of(module)
    try:
        return parse_python(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError, SyntaxError):
        return None


def _file_of(module: str) -> Path | None:
    """Return the source file of a module; only the top package is looked up, which imports nothing."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _imported(tree: ast.Module, module: str, attribute: str) -> tuple[str, str] | None:
    """Return module and name of an attribute that a module imports from elsewhere."""
    file = _file_of(module)
    package = module.split(".") if file is not None and file.name == "__init__.py" else module.split(".")[:-1]
    for node in tree.body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if (alias.asname or alias.name) == attribute and isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                return ".".join([*base, *filter(None, [node.module])]), alias.name
    return None


def _parameters(node: _Definition, tree: ast.Module, module: str, depth: int = FOLLOWED) -> dict[str, str | None]:
    """Return the parameters of a definition with their defaults, None for those without one."""
    if not isinstance(node, ast.ClassDef):
        return _arguments(node.args)
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if own is not None:
        return _arguments(own.args)
    inherited: dict[str, str | None] = {}
    for base in reversed(node.bases) if depth else ():
        found = _definition(module, base.id) if isinstance(base, ast.Name) else None
        if found is not None:
            inherited |= _parameters(*found, depth - 1)
    return inherited | (_fields(node) if any(map(_is_dataclass, node.decorator_list)) else {})


def _arguments(arguments: ast.arguments) -> dict[str, str | None]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        name.arg: None if default is None else ast.unparse(default) for name, default in pairs if name.arg != "self"
    }


def _is_dataclass(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in ("dataclass", "dataclasses.dataclass")


def _fields(node: ast.ClassDef) -> dict[str, str | None]:
    """Return the fields of a dataclass that its constructor takes."""
    fields: dict[str, str | None] = {}
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        if ast.unparse(each.annotation).partition("[")[0].rpartition(".")[2] in ("ClassVar", "KW_ONLY"):
            continue
        value = each.value
        given = {keyword.arg: keyword.value for keyword in value.keywords} if _is_field(value) else {}
        if "init" in given and ast.unparse(given["init"]) == "False":
            continue
        if _is_field(value):
            stated = given.get("default")
            default = ast.unparse(stated) if stated is not None else "…" if "default_factory" in given else None
        else:
            default = None if value is None else ast.unparse(value)
        fields[each.target.id] = default
    return fields


def _is_field(value: ast.expr | None) -> TypeGuard[ast.Call]:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in ("field", "dataclasses.field")
