"""The suite file: its schema, and the line of an error in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from knowgen.core.errors import DataError
from knowgen.core.run_config import DeclaredField, RunConfig, declared_fields, run_fields
from knowgen.core.secrets import find_secret
from knowgen.core.yaml_files import read_yaml
from knowgen.workflows import artifacts
from knowgen.workflows.run import PROTOCOLS

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

RUN_FIELDS = declared_fields(RunConfig)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _field(declared: DeclaredField, default: Any) -> Any:
    """Return a field with the bounds of an option of a run."""
    option = declared.option
    return Field(
        default=default,
        ge=option.minimum,
        gt=option.above,
        le=option.maximum,
        allow_inf_nan=False if declared.type is float else None,
        strict=True if declared.type in (int, float) else None,
    )


_MODEL_FIELDS: dict[str, Any] = {
    each.name: (each.type | None if each.optional else each.type, _field(each, each.default))
    for each in run_fields()
    if each.option.suite
}

if TYPE_CHECKING:
    _RunOptions = _Part
else:
    _RunOptions = create_model("_RunOptions", __base__=_Part, **_MODEL_FIELDS)


class SystemEntry(_Part):
    """One system. A string is the name of its generator.

    Attributes:
        generator: NAME, NAME:MODEL, module:Class or file.py:Class.
        name: Its name in tables and directories; the generator's name by default.
        args: Arguments of the generator.
        seed: Seed of the first repeat; the suite's when None.
    """

    generator: str = Field(min_length=1)
    name: str = Field(min_length=1, max_length=60)
    args: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = _field(RUN_FIELDS["seed"], None)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        data = {"generator": data} if isinstance(data, str) else data
        if isinstance(data, dict) and "name" not in data and isinstance(data.get("generator"), str):
            return {**data, "name": data["generator"]}
        return data

    @model_validator(mode="after")
    def _can_be_named(self) -> SystemEntry:
        if "," in self.name:
            raise ValueError(f"the name {self.name!r} contains a comma, which --only cannot express")
        return self


class TaskEntry(_Part):
    """One task. A string is its name or folder.

    Attributes:
        task: Name of a task, or a task's folder.
        name: Its name in tables and directories; the task's own name when None.
        limit: Maximum number of samples, from the first on.
        ids: Only these samples.
    """

    task: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1, max_length=60)
    limit: int | None = _field(RUN_FIELDS["limit"], None)
    ids: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"task": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_choice(self) -> TaskEntry:
        if self.limit is not None and self.ids is not None:
            raise ValueError("limit and ids exclude each other")
        if duplicate := _duplicate(self.ids or ()):
            raise ValueError(f"duplicate id {duplicate!r}")
        return self


class ScorerEntry(_Part):
    """One scorer. A string is its name.

    Attributes:
        scorer: NAME, NAME:MODEL, module:Class or file.py:Class.
        args: Arguments of the scorer.
    """

    scorer: str = Field(min_length=1)
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"scorer": data} if isinstance(data, str) else data


class SuiteFile(_RunOptions):
    """The content of a suite file: every system answers every task, and every scorer scores every image.

    It has a field for every option of a run that is declared with `suite=True`; these apply to all runs.

    Attributes:
        name: Name of the suite; the file's stem by default.
        description: Text for readers; not used.
        systems: The systems.
        tasks: The tasks.
        scorers: The scorers; each task's own when empty.
    """

    name: str = Field(default="", max_length=60)
    description: str = ""
    systems: tuple[SystemEntry, ...] = Field(min_length=1)
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    scorers: tuple[ScorerEntry, ...] = ()

    @field_validator("protocol", check_fields=False)
    @classmethod
    def _is_written(cls, protocol: str) -> str:
        if protocol not in PROTOCOLS:
            raise ValueError(f"must be one of {', '.join(PROTOCOLS)}")
        return protocol

    @property
    def config(self) -> RunConfig:
        """The options of all runs."""
        return RunConfig(**{name: getattr(self, name) for name in _MODEL_FIELDS})


@dataclass(frozen=True)
class SuiteSource:
    """A suite file with its text, so that an error found later can name its line.

    Attributes:
        path: The file.
        root: Its syntax tree.
        suite: Its parsed content.
    """

    path: Path
    root: Node
    suite: SuiteFile

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.suite.name or self.path.stem

    def where(self, *place: str | int) -> str:
        """Return `file:line` of a value, or of the innermost part around it that the file contains."""
        return f"{self.path}:{_line(self.root, place)}"


def read_suite(path: Path) -> SuiteSource:
    """Read a suite file.

    Raises:
        DataError: It cannot be read, is not YAML, or has a wrong, unknown or duplicate field or name.
    """
    file = read_yaml(path)
    root, data = file.root, file.data
    if root is None:
        raise DataError("is empty", where=str(path), fix="write at least `systems:` and `tasks:`")
    if not isinstance(data, dict):
        raise DataError(
            "has no fields", where=str(path), fix="write at least `systems: [open_book]` and `tasks: [knowgen_mini]`"
        )
    if secret := find_secret(data):
        raise secret.error(f"{path}:{_line(root, secret.place)}")
    for mapping in _mappings(root, set()):
        _refuse_duplicate_keys(path, mapping)
    try:
        suite = SuiteFile.model_validate(data)
    except ValidationError as error:
        raise _wrong(path, root, error) from error
    source = SuiteSource(path, root, suite)
    _refuse_duplicates(source)
    return source


def _wrong(path: Path, root: Node, error: ValidationError) -> DataError:
    """Return the first error with its line and field, and a suggestion for a misspelt field."""
    import difflib

    places = [each["loc"] for each in error.errors()]
    # pydantic reports a list with a wrong entry as too short as well
    errors = [
        each
        for each in error.errors()
        if not any(len(place) > len(each["loc"]) and place[: len(each["loc"])] == each["loc"] for place in places)
    ]
    first = errors[0]
    place = first["loc"]
    field = ".".join(str(part) for part in place)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    what, fix = first["msg"].removeprefix("Value error, "), "fix that field"
    if first["type"] == "extra_forbidden":
        known = list(_model_at(place[:-1]).model_fields)
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        what, fix = "unknown field", f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return DataError(f"{field}: {what}{more}", where=f"{path}:{_line(root, place)}", fix=fix)


def _model_at(place: Sequence[str | int]) -> type[BaseModel]:
    parts: dict[str | int, type[BaseModel]] = {"systems": SystemEntry, "tasks": TaskEntry, "scorers": ScorerEntry}
    return parts.get(place[0], SuiteFile) if place else SuiteFile


def _line(root: Node, place: Sequence[str | int]) -> int:
    """Return the line, from 1, of the innermost part of a place that the file contains."""
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


def _mappings(node: Node, seen: set[int]) -> Iterator[MappingNode]:
    import yaml

    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for key, value in node.value:
            yield from _mappings(key, seen)
            yield from _mappings(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value, seen)


def _refuse_duplicate_keys(path: Path, mapping: MappingNode) -> None:
    """Refuse duplicate keys, of which YAML readers silently use the last."""
    seen: set[str] = set()
    for key, _ in mapping.value:
        if isinstance(key.value, str) and key.value in seen:
            where = f"{path}:{key.start_mark.line + 1}"
            raise DataError(f"duplicate field {key.value!r}", where=where, fix="remove one of them")
        seen.add(str(key.value))


def _refuse_duplicates(source: SuiteSource) -> None:
    """Refuse systems of the same name or directory, and scorers that are listed twice."""
    names = [entry.name for entry in source.suite.systems]
    if name := _duplicate(names):
        where = source.where("systems", _last(names, name))
        raise DataError(f"duplicate system name {name!r}", where=where, fix="give it another name with `name:`")
    folders = [artifacts.slug(name).lower() for name in names]
    if folder := _duplicate(folders):
        where = source.where("systems", _last(folders, folder))
        raise DataError(
            f"two systems would use the directory {folder!r}", where=where, fix="give one another name with `name:`"
        )
    scorers = [entry.scorer for entry in source.suite.scorers]
    if name := _duplicate(scorers):
        where = source.where("scorers", _last(scorers, name))
        raise DataError(
            f"duplicate scorer {name!r}",
            where=where,
            fix="list it once; for more scores per image set `judge_repeats:`",
        )


def _duplicate(names: Sequence[str]) -> str | None:
    return next((name for name, number in Counter(names).items() if number > 1), None)


def _last(names: Sequence[str], name: str) -> int:
    return max(index for index, each in enumerate(names) if each == name)
