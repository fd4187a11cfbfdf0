"""Hash a user's source files: the file of a plugin and every local module that it imports, directly or not.

After an edit of any of them, images of the earlier code must not be reused. Imports are read from the source, so those
inside functions count too. Installed packages, the standard library and this package have versions of their own
and are not hashed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from knowgen.core.python_source import parse_python
from knowgen.core.tracebacks import is_local

MAX_FILES = 5000
"""Maximum number of files that are hashed."""


def source_digest(file: Path, module: str) -> str:
    """Return 12 hex digits that change with a source file or a local module that it imports.

    Args:
        file: The source file.
        module: Name under which it is imported, from which its relative imports start.

    Raises:
        OSError: The file cannot be read.
    """
    files = local_files(file, module)
    first = files.pop(module)
    digest = hashlib.sha256(first.read_bytes())
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def local_files(file: Path, module: str, beside: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return a source file and the local modules that it imports, directly or not, by module name.

    Args:
        file: The source file.
        module: Name under which it is imported.
        beside: Folders that come last on the import path where it is imported, if that is another process.

    Raises:
        OSError: The file cannot be read.
    """
    found = {module: file}
    known = {file.resolve()}
    waiting = [(module, file)]
    while waiting and len(found) < MAX_FILES:
        name, path = waiting.pop()
        for imported in _imports(path, name):
            for inner, source in _sources(imported, beside):
                if source.resolve() not in known:
                    known.add(source.resolve())
                    found[inner] = source
                    waiting.append((inner, source))
    return found


def module_files(module: str, beside: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the source files of a local module, of its packages, and of the local modules that they import.

    Nothing is imported. Arguments as for `local_files`; empty for a module that is not local or has no source file.
    """
    found: dict[str, Path] = {}
    for name, path in _sources(module, beside):
        found |= local_files(path, name, beside)
    return found if module in found else {}


def _imports(path: Path, module: str) -> Iterator[str]:
    """Yield the names that a source file imports; `from a import b` gives `a.b`, which may be a module."""
    try:
        tree = parse_python(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # it cannot be imported either
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join([*kept, base] if base else kept)
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _sources(name: str, beside: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the local source files of a dotted name: of its packages, and of the module itself."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return
    origin, folders = _located(top, beside)
    if origin is not None:
        yield top, origin
    path = top
    for part in rest:
        path = f"{path}.{part}"
        for folder in folders:
            if (package := folder / part / "__init__.py").is_file():
                yield path, package
            elif (source := folder / f"{part}.py").is_file():
                yield path, source
        folders = tuple(folder / part for folder in folders if (folder / part).is_dir())


@cache
def _located(top: str, beside: tuple[str, ...]) -> tuple[Path | None, tuple[Path, ...]]:
    """Return the source file and the folders of a top-level module; None and none if it is not local."""
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    folders = tuple(str(folder) for folder in getattr(loaded, "__path__", ()))
    if loaded is None:
        try:
            spec = importlib.util.find_spec(top) or PathFinder.find_spec(top, list(beside))
        except Exception:  # noqa: BLE001 - finders of other packages may raise anything
            return None, ()
        if spec is None:
            return None, ()
        file, folders = spec.origin, tuple(spec.submodule_search_locations or ())
    local = tuple(Path(folder) for folder in folders if is_local(f"{folder}/"))
    return (Path(file) if file and file.endswith(".py") and is_local(file) else None), local
