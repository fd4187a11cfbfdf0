"""The official judge's prompt, read at run time from the published evaluator and not copied into this project.

The file is parsed and not run: a string literal and an f-string are extracted and compared with hashes from the pinned
commit. It comes from a checkout that the user names, or over HTTPS from the public repository.
"""

from __future__ import annotations

import ast
import hashlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from knowgen.core.errors import ConfigError, DataError
from knowgen.core.home import expand_user

COMMIT = "e5078d31859bafee6b6b610f0cd40095cc72e2a4"
REPOSITORY = "tulerfeng/Gen-Searcher"
RAW_URL = "https://raw.githubusercontent.com"
JUDGE_FILE = "KnowGen_Eval/gpt_eval_knowgen.py"
_MAX_BYTES = 4 << 20
_SECONDS = 30.0

HASHES = {
    "SYSTEM_PROMPT": "a1ce69f81b02e7017b6176df624f93af69216a69de538919010ec35cdfd5d918",
    "_build_user_message": "41576798fe49eed24322ac0a4a6ab5a05e25a369c8f506a4359128ed47a945db",
}
"""SHA-256 of the system prompt, and of the user text with its fields as `{sample_id}` and `{prompt}`, in UTF-8."""


@dataclass(frozen=True)
class OfficialPrompt:
    """The texts of the official call.

    Attributes:
        system: System message.
        user: Text of the user message in pieces: literal text, and field names in braces.
    """

    system: str
    user: tuple[str, ...]

    def user_text(self, sample_id: str, prompt: str) -> str:
        """Return the text of the user message, which goes before the two images."""
        fields = {"{sample_id}": sample_id, "{prompt}": prompt}
        return "".join(fields.get(piece, piece) for piece in self.user)


@cache
def official_call(upstream_dir: str) -> OfficialPrompt:
    """Return the official prompt.

    Args:
        upstream_dir: Checkout of the published repository; empty to fetch the file.

    Raises:
        ConfigError: The file cannot be read or fetched.
        DataError: It is not the file of the pinned commit.
    """
    source, where = _source(JUDGE_FILE, upstream_dir)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"not a Python file ({error})", where=where) from error
    system = _checked(_literal(tree, "SYSTEM_PROMPT", where), "SYSTEM_PROMPT", where)
    pieces = _f_string(tree, "_build_user_message", "text", ("sample_id", "prompt"), where)
    _checked("".join(pieces), "_build_user_message", where)
    return OfficialPrompt(system, pieces)


def _source(file: str, upstream_dir: str) -> tuple[str, str]:
    if upstream_dir:
        path = expand_user(upstream_dir) / file
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            fix = f"name a checkout of {REPOSITORY} at {COMMIT[:12]}"
            raise ConfigError(f"cannot be read ({error})", where=str(path), fix=fix) from error
    url = f"{RAW_URL}/{REPOSITORY}/{COMMIT}/{file}"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            return response.read(_MAX_BYTES).decode("utf-8"), url
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(
            f"the official rubric cannot be fetched ({error})",
            where=url,
            fix="name a local checkout of the repository with --upstream-dir DIR",
        ) from error


def _checked(text: str, name: str, where: str) -> str:
    if hashlib.sha256(text.encode()).hexdigest() != HASHES[name]:
        raise DataError(
            f"{name} is not that of commit {COMMIT[:12]}", where=where, fix=f"check out {REPOSITORY} at that commit"
        )
    return text


def _literal(tree: ast.Module, name: str, where: str) -> str:
    """Return the string that a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    raise DataError(f"assigns no string to {name}", where=where)


def _f_string(tree: ast.Module, function: str, name: str, fields: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the pieces of an f-string that a function assigns to a name; its fields must be plain names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name != function:
            continue
        for inner in ast.walk(node):
            named = isinstance(inner, ast.Assign) and any(
                isinstance(to, ast.Name) and to.id == name for to in inner.targets
            )
            if named and isinstance(inner, ast.Assign) and isinstance(inner.value, ast.JoinedStr):
                return tuple(_piece(part, fields, where) for part in inner.value.values)
    raise DataError(f"{function} assigns no f-string to {name}", where=where)


def _piece(part: ast.expr, fields: Sequence[str], where: str) -> str:
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return part.value
    plain = isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
    if plain and isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id in fields:
        return "{" + part.value.id + "}"
    raise DataError("the user text contains more fields than the sample's id and prompt", where=where)
