"""What a plugin does and takes, read from its source file: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

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
    for _ in range(FOLLOWED):
        tree = _parsed(module)
        if tree is None:
            return SourceFacts()
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == attribute:
                summary = (ast.get_docstring(node) or "").partition("\n")[0].strip()
                return SourceFacts(summary, _parameters(node))
        followed = _imported(tree, module, attribute)
        if followed is None:
            return SourceFacts()
        module, attribute = followed
    return SourceFacts()


def _parsed(module: str) -> ast.Module | None:
    path = _file_of(module)
    try:
        return ast.parse(path.read_text(encoding="utf-8")) if path is not None else None
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


def _parameters(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    if isinstance(node, ast.ClassDef):
        found = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        if not found:
            return ()
        arguments = found[0].args
    else:
        arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return tuple(
        name.arg if default is None else f"{name.arg}={ast.unparse(default)}"
        for name, default in pairs
        if name.arg != "self"
    )
