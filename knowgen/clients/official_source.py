"""Texts of the published evaluator and agent, read at run time and not copied into this project.

A file comes from a checkout that the user names, or over HTTPS from the public repository. It is parsed and not run:
literals and f-strings are extracted, and compared with hashes from the pinned commit.
"""

from __future__ import annotations

import ast
import hashlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.errors import ConfigError, DataError
from knowgen.core.home import expand_user
from knowgen.core.python_source import parse_python

COMMIT = "e5078d31859bafee6b6b610f0cd40095cc72e2a4"
REPOSITORY = "tulerfeng/Gen-Searcher"
RAW_URL = "https://raw.githubusercontent.com"
_MAX_BYTES = 4 << 20
_SECONDS = 30.0


@dataclass(frozen=True)
class OfficialFile:
    """A Python file of the published repository.

    Attributes:
        tree: Its syntax tree.
        where: Its path or URL, for error messages.
    """

    tree: ast.Module
    where: str

    def literal(self, name: str) -> str:
        """Return the string that the module assigns to a name, stripped if the source does so.

        Raises:
            DataError: It assigns no string to it.
        """
        for node in self.tree.body:
            if _assigns(node, name) and isinstance(node, ast.Assign):
                text = _string(node.value)
                if text is not None:
                    return text
        raise DataError(f"assigns no string to {name}", where=self.where)

    def literals_in(self, function: str, name: str) -> list[str]:
        """Return the strings that a function or method assigns to a name, in the order of the source."""
        return [text for node in self._assignments(function, name) if (text := _string(node.value)) is not None]

    def f_strings_in(self, function: str, name: str, fields: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the f-strings that a function or method assigns to a name, in the order of the source.

        Each is a tuple of pieces: literal text, and names in braces.

        Raises:
            DataError: One has other fields than plain names among `fields`.
        """
        values = [node.value for node in self._assignments(function, name)]
        return [
            tuple(self._piece(part, fields) for part in value.values)
            for value in values
            if isinstance(value, ast.JoinedStr)
        ]

    def checked(self, text: str, name: str, sha256: str) -> str:
        """Return a text of this file.

        Args:
            text: The text.
            name: Name of it, for the error.
            sha256: Hash of its UTF-8 at the pinned commit.

        Raises:
            DataError: Its hash is another one.
        """
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise DataError(
                f"{name} is not that of commit {COMMIT[:12]}",
                where=self.where,
                fix=f"check out {REPOSITORY} at that commit",
            )
        return text

    def _assignments(self, function: str, name: str) -> list[ast.Assign]:
        found: list[ast.Assign] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function:
                found += [inner for inner in ast.walk(node) if _assigns(inner, name) and isinstance(inner, ast.Assign)]
        return sorted(found, key=lambda node: node.lineno)

    def _piece(self, part: ast.expr, fields: Sequence[str]) -> str:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            return part.value
        if isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
            name = part.value.id if isinstance(part.value, ast.Name) else ""
            if name in fields:
                return "{" + name + "}"
        raise DataError(f"an f-string contains more fields than {' and '.join(fields)}", where=self.where)


def official_file(file: str, upstream_dir: str, what: str, fix: str) -> OfficialFile:
    """Return a Python file of the published repository.

    Args:
        file: Path in the repository.
        upstream_dir: Checkout of the repository; empty to fetch the file.
        what: What it is read for, such as `the official rubric`.
        fix: How to name a checkout.

    Raises:
        ConfigError: The file cannot be read or fetched.
        DataError: It is not a Python file.
    """
    source, where = _source(file, upstream_dir, what, fix)
    try:
        return OfficialFile(parse_python(source), where)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"not a Python file ({error})", where=where) from error


def _source(file: str, upstream_dir: str, what: str, fix: str) -> tuple[str, str]:
    if upstream_dir:
        path = expand_user(upstream_dir) / file
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            checkout = f"name a checkout of {REPOSITORY} at {COMMIT[:12]}"
            raise ConfigError(f"cannot be read ({error})", where=str(path), fix=checkout) from error
    url = f"{RAW_URL}/{REPOSITORY}/{COMMIT}/{file}"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            return response.read(_MAX_BYTES).decode("utf-8"), url
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(f"{what} cannot be fetched ({error})", where=url, fix=fix) from error


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)


def _string(value: ast.expr) -> str | None:
    """Return the value of a string literal, or of one with `.strip()`; None for anything else."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and not value.args and not value.keywords:
        inner = _string(value.func.value)
        return inner.strip() if value.func.attr == "strip" and inner is not None else None
    return None
