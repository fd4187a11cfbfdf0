"""The suite file: its schema, and the line of an error in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from knowgen.core.errors import DataError
from knowgen.core.run_config import DeclaredField, RunConfig, declared_fields, run_fields
from knowgen.core.yaml_files import read_yaml
from knowgen.core.yaml_schema import line_of, yaml_record
from knowgen.workflows import artifacts
from knowgen.workflows.run import PROTOCOLS

if TYPE_CHECKING:
    from yaml.nodes import Node

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
        return f"{self.path}:{line_of(self.root, place)}"


def read_suite(path: Path) -> SuiteSource:
    """Read a suite file.

    Raises:
        DataError: It cannot be read, is not YAML, or has a wrong, unknown or duplicate field or name.
    """
    file = read_yaml(path)
    suite = yaml_record(SuiteFile, file)
    assert file.root is not None
    source = SuiteSource(path, file.root, suite)
    _refuse_duplicates(source)
    return source


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
