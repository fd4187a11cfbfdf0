"""The suite file: what it may say, and where in it a fault stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from knowgen import outputs
from knowgen.core.errors import DataError
from knowgen.core.secrets import find_secret

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

Place = tuple[str | int, ...]
"""Where something stands in the file, such as `("systems", 2, "args")`."""

Whole = Field(default=1, ge=1, strict=True)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SystemEntry(_Part):
    """One system. A word alone is the name of its generator.

    Attributes:
        generator: Who draws: NAME, NAME:MODEL, module:Class or file.py:Class.
        name: What tables and directories call it; the generator's name when left out.
        args: Arguments of the generator.
        seed: Seed of the first repeat; the suite's when None.
    """

    generator: str = Field(min_length=1)
    name: str = Field(min_length=1, max_length=60)
    args: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=0, lt=2**31, strict=True)

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
            raise ValueError(f"the name {self.name!r} holds a comma, so --only could not name it")
        return self


class TaskEntry(_Part):
    """One task. A word alone is its name or folder.

    Attributes:
        task: Name of a task, or a task's folder.
        name: What tables and directories call it; the task's own name when None.
        limit: Only the first so many samples.
        ids: Only these samples.
    """

    task: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1, max_length=60)
    limit: int | None = Field(default=None, ge=1, strict=True)
    ids: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"task": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_choice(self) -> TaskEntry:
        if self.limit is not None and self.ids is not None:
            raise ValueError("limit and ids exclude each other")
        if double := _double(self.ids or ()):
            raise ValueError(f"the id {double!r} comes twice")
        return self


class ScorerEntry(_Part):
    """One scorer. A word alone is its name.

    Attributes:
        scorer: Who judges: NAME, NAME:MODEL, module:Class or file.py:Class.
        args: Arguments of the scorer.
    """

    scorer: str = Field(min_length=1)
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"scorer": data} if isinstance(data, str) else data


class SuiteFile(_Part):
    """The content of a suite file: every system answers every task, and every scorer judges every picture.

    Attributes:
        name: Of the suite; the file's stem when left out.
        description: For readers.
        systems: Who draws.
        tasks: What is drawn.
        scorers: Who judges; each task's own when empty.
        seed: Seed of the first repeat.
        repeats: Pictures a sample.
        judge_repeats: Judgements a picture and scorer.
        policy: Policy of the headline; both are always written.
        budget: US dollars for all runs of the suite's directory together; None for no limit.
        concurrency: Calls that wait at once; None takes what generators and scorers declare.
        schedule: stream or phased.
        workers: Processes that draw; 0 draws in this one; left out, one a GPU where there are several.
        timeout: Seconds a drawing may take.
    """

    name: str = Field(default="", max_length=60)
    description: str = ""
    systems: tuple[SystemEntry, ...] = Field(min_length=1)
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    scorers: tuple[ScorerEntry, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)
    repeats: int = Whole
    judge_repeats: int = Whole
    policy: Literal["strict", "official"] = "strict"
    budget: float | None = Field(default=None, ge=0, allow_inf_nan=False, strict=True)
    concurrency: int | None = Field(default=None, ge=1, strict=True)
    schedule: Literal["stream", "phased"] = "stream"
    workers: int | None = Field(default=None, ge=0, strict=True)
    timeout: float = Field(default=600.0, gt=0, allow_inf_nan=False, strict=True)


@dataclass(frozen=True)
class SuiteSource:
    """A suite file with its text, so that a fault found later can still be told by its line.

    Attributes:
        path: The file.
        text: Its content.
        suite: What it says.
    """

    path: Path
    text: str
    suite: SuiteFile

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.suite.name or self.path.stem

    def where(self, *place: str | int) -> str:
        """Returns `file:line` of a place; of the nearest part around it when it is not written out."""
        return f"{self.path}:{_line(self._root, place)}"

    @cached_property
    def _root(self) -> Node:
        return _compose(self.path, self.text)


def read_suite(path: Path) -> SuiteSource:
    """Reads a suite file.

    Raises:
        DataError: It cannot be read, is no YAML, or has a wrong, unknown or repeated field or name.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    root = _compose(path, text)
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a tag, or a date that is none
        raise _broken(path, error) from error
    if not isinstance(data, dict):
        raise DataError("must hold fields such as `systems: [open_book]`", where=str(path))
    if secret := find_secret(data):
        raise secret.error(f"{path}:{_line(root, secret.place)}")
    for mapping in _mappings(root, set()):
        _refuse_double_keys(path, mapping)
    try:
        suite = SuiteFile.model_validate(data)
    except ValidationError as error:
        raise _wrong(path, root, error) from error
    source = SuiteSource(path, text, suite)
    _refuse_doubles(source)
    return source


def _compose(path: Path, text: str) -> Node:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _broken(path, error) from error
    if root is None:
        raise DataError("is empty", where=str(path), fix="write at least `systems:` and `tasks:`")
    return root


def _broken(path: Path, error: Exception) -> DataError:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    return DataError(f"broken YAML: {getattr(error, 'problem', None) or error}", where=where, fix="mend that line")


def _wrong(path: Path, root: Node, error: ValidationError) -> DataError:
    """Tells the first complaint by line and field, a misspelt field with the one that was meant."""
    import difflib

    places = [fault["loc"] for fault in error.errors()]
    # a list of which an entry is wrong is counted as too short as well
    faults = [
        fault
        for fault in error.errors()
        if not any(len(place) > len(fault["loc"]) and place[: len(fault["loc"])] == fault["loc"] for place in places)
    ]
    first = faults[0]
    place = first["loc"]
    field = ".".join(str(part) for part in place)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    what, fix = first["msg"].removeprefix("Value error, "), "mend that field"
    if first["type"] == "extra_forbidden":
        known = list(_model_at(place[:-1]).model_fields)
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        what, fix = "there is no such field", f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return DataError(f"{field}: {what}{more}", where=f"{path}:{_line(root, place)}", fix=fix)


def _model_at(place: Sequence[str | int]) -> type[BaseModel]:
    parts: dict[str | int, type[BaseModel]] = {"systems": SystemEntry, "tasks": TaskEntry, "scorers": ScorerEntry}
    return parts.get(place[0], SuiteFile) if place else SuiteFile


def _line(root: Node, place: Sequence[str | int]) -> int:
    """Returns the line, from 1, of the deepest part of a place that the file writes out."""
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


def _refuse_double_keys(path: Path, mapping: MappingNode) -> None:
    """YAML readers keep the last of two equal keys and say nothing."""
    seen: set[str] = set()
    for key, _ in mapping.value:
        if isinstance(key.value, str) and key.value in seen:
            where = f"{path}:{key.start_mark.line + 1}"
            raise DataError(f"the field {key.value!r} comes twice", where=where, fix="leave one of them out")
        seen.add(str(key.value))


def _refuse_doubles(source: SuiteSource) -> None:
    names = [entry.name for entry in source.suite.systems]
    if name := _double(names):
        where = source.where("systems", _last(names, name))
        raise DataError(f"a second system is called {name!r}", where=where, fix="give it a `name:` of its own")
    folders = [outputs.slug(name).lower() for name in names]
    if folder := _double(folders):
        where = source.where("systems", _last(folders, folder))
        raise DataError(f"a second system would lie in {folder!r}", where=where, fix="give it another `name:`")
    scorers = [entry.scorer for entry in source.suite.scorers]
    if name := _double(scorers):
        where = source.where("scorers", _last(scorers, name))
        raise DataError(
            f"scorer {name!r} is named twice", where=where, fix="name it once; more judgements are judge_repeats"
        )


def _double(names: Sequence[str]) -> str | None:
    return next((name for name, number in Counter(names).items() if number > 1), None)


def _last(names: Sequence[str], name: str) -> int:
    return max(index for index, each in enumerate(names) if each == name)
