"""Read YAML files into strict records; an error names file, line and field, and a suggestion for a misspelt field."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from knowgen.core.errors import DataError, KnowgenError
from knowgen.core.secrets import find_secret
from knowgen.core.yaml_files import YamlFile

if TYPE_CHECKING:
    from yaml.nodes import Node

M = TypeVar("M", bound=BaseModel)


def yaml_record(kind: type[M], file: YamlFile) -> M:
    """Return the content of a YAML file as a record.

    Raises:
        DataError: The file is empty or has no fields, a field is wrong, unknown or given twice. The error names the
            first one, and the number of the others.
        ConfigError: A value looks like a key.
    """
    errors = yaml_errors(kind, file)
    if not errors:
        return kind.model_validate(file.data)
    if len(errors) > 1:
        errors[0].what += f" (and {len(errors) - 1} more)"
    raise errors[0]


def yaml_errors(kind: type[BaseModel], file: YamlFile) -> list[KnowgenError]:
    """Return everything that is wrong with a YAML file that must hold a record of a kind, by place in the record."""
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    fix = f"write at least {', '.join(f'`{name}:`' for name in required) or 'one field'}"
    if file.root is None:
        return [DataError("is empty", where=str(file.path), fix=fix)]
    if not isinstance(file.data, dict):
        return [DataError("has no fields", where=str(file.path), fix=fix)]
    if secret := find_secret(file.data):
        return [secret.error(f"{file.path}:{line_of(file.root, secret.place)}")]
    errors: list[KnowgenError] = list(_duplicate_keys(file))
    try:
        kind.model_validate(file.data)
    except ValidationError as error:
        errors += _schema_errors(kind, file, error)
    return errors


def line_of(root: Node, place: Sequence[str | int]) -> int:
    """Return the line, from 1, of the innermost part of a place that a document contains.

    Args:
        root: Syntax tree of the document.
        place: Names and indices that lead to a value.
    """
    import yaml

    node, line = root, root.start_mark.line
    for step in place:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == step), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1


def _schema_errors(kind: type[BaseModel], file: YamlFile, error: ValidationError) -> Iterator[DataError]:
    assert file.root is not None
    places = [each["loc"] for each in error.errors()]
    for each in error.errors():
        place = each["loc"]
        # pydantic reports a list with a wrong entry as too short as well
        if any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue
        what, fix = each["msg"].removeprefix("Value error, "), "fix that field"
        if each["type"] == "extra_forbidden":
            known = list(_model_at(kind, place[:-1]).model_fields)
            near = difflib.get_close_matches(str(place[-1]), known, n=1)
            what, fix = "unknown field", f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        elif each["type"] == "missing":
            what, fix = "is missing", "add that field"
        elif each["input"] in (None, "", [], {}):
            what, fix = "is empty", "fill it in"
        field = ".".join(str(part) for part in place) or "top level"
        yield DataError(f"{field}: {what}", where=f"{file.path}:{line_of(file.root, place)}", fix=fix)


def _model_at(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """Return the record at a place, or the innermost one around it."""
    for step in place:
        field = kind.model_fields.get(str(step))
        if field is not None:
            kind = next(_models(field.annotation), kind)
    return kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _duplicate_keys(file: YamlFile) -> Iterator[DataError]:
    """Yield duplicate keys, of which YAML readers silently use the last."""
    import yaml

    waiting: list[Node] = [file.root] if file.root is not None else []
    known: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in known:  # an alias
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                waiting += [key, value]
                if isinstance(key.value, str) and key.value in names:
                    where = f"{file.path}:{key.start_mark.line + 1}"
                    yield DataError(f"duplicate field {key.value!r}", where=where, fix="remove one of them")
                names.add(str(key.value))
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
