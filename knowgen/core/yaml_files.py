"""Read YAML files, with one-line errors for broken, endless and exploding documents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import DataError
from knowgen.core.text import error_message
from knowgen.core.text_files import read_text

if TYPE_CHECKING:
    from yaml.nodes import Node

MAX_VALUES = 100_000
"""Maximum number of values of a document, each alias counted with everything that it repeats."""


@dataclass(frozen=True)
class YamlFile:
    """A YAML file.

    Attributes:
        path: The file.
        text: Its text.
        root: Its syntax tree, which knows lines; None for an empty file.
        data: Its values.
    """

    path: Path
    text: str
    root: Node | None
    data: Any


def read_yaml(path: Path, *, fix: str = "") -> YamlFile:
    """Read a YAML file.

    Args:
        path: The file.
        fix: How to fix it when the file does not exist.

    Raises:
        DataError: The file cannot be read, is not YAML, or has more than `MAX_VALUES` values.
    """
    import yaml

    text = read_text(path, fix=fix)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and _values(root, {}) > MAX_VALUES:
            raise DataError(
                f"has more than {MAX_VALUES} values once its aliases are replaced", where=str(path), fix="write less"
            )
        return YamlFile(path, text, root, yaml.safe_load(text))
    except RecursionError as error:
        raise DataError("broken YAML: nested too deeply", where=str(path), fix="nest its values less deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # a tag, an invalid date, or a number of too many digits
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or error_message(error)
        raise DataError(f"broken YAML: {problem}", where=where, fix="fix that line") from error


def _values(node: Node, known: dict[int, int]) -> int:
    """Return the number of values of a node with those of its aliases; more than `MAX_VALUES` if it contains itself."""
    import yaml

    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # until it is counted, which a node that contains itself never is
        parts: list[Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
