"""The options of a run, each declared once: for Python, the command line, suite files and the engine.

To add an option, add one field to `ResultConfig`, `EngineConfig` or `RunConfig`: type, default and an `Option` with its
help, bounds and the places that offer it. The signatures of `knowgen.evaluate` and `knowgen.score`, the flags of the
commands, the fields of a suite file and `engine.options.EngineOptions` follow from it.

Only the standard library is imported here, so that `--help` stays fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from knowgen.core.errors import UsageError

GENERATION_TIMEOUT = 600.0
"""Default time limit of one generation, in seconds."""

PATIENCE = 1800.0
"""Default time without any answer of a service, in seconds, after which a run stops waiting for it."""

RUN = ("run",)
"""Commands that generate images for a task."""
SCORING = ("run", "score")
"""Commands that write a run directory from a task or from images."""
JUDGING = ("run", "score", "judge-check")
"""Commands that score images."""


@dataclass(frozen=True)
class Option:
    """Help, bounds and places of one field.

    Attributes:
        help: Description, as a phrase without a full stop; the default is appended.
        metavar: Placeholder of the value in `--help`.
        flag: Name on the command line; made from the field's name when empty.
        minimum: Smallest allowed value.
        above: Exclusive lower bound.
        maximum: Largest allowed value.
        default: Text for the default in the help, where the default itself is None.
        commands: Commands that have the flag; none for an option that only Python has.
        suite: Whether a suite file can set it for all of its runs.
        repeatable: Whether the flag is given once for each element of a list.
    """

    help: str
    metavar: str = ""
    flag: str = ""
    minimum: int | None = None
    above: int | None = None
    maximum: int | None = None
    default: str = ""
    commands: tuple[str, ...] = SCORING
    suite: bool = False
    repeatable: bool = False


@dataclass(frozen=True, kw_only=True)
class _Checked:
    def __post_init__(self) -> None:
        """Check every declared field.

        Raises:
            UsageError: A value has the wrong type or is out of range.
        """
        for declared in declared_fields(type(self)).values():
            declared.check(getattr(self, declared.name))


@dataclass(frozen=True, kw_only=True)
class ResultConfig(_Checked):
    """Options that decide the results: samples, repeats, arguments and the protocol of the headline."""

    generator_args: Annotated[
        Mapping[str, Any] | None,
        Option("Generator argument; repeatable", flag="-g", metavar="KEY=VALUE", commands=RUN),
    ] = None
    scorer_args: Annotated[
        Mapping[str, Any] | None,
        Option(
            "Scorer argument, or NAME.KEY=VALUE for one",
            flag="-s", metavar="KEY=VALUE", commands=JUDGING,
        ),
    ] = None  # fmt: skip
    seed: Annotated[
        int, Option("Seed of the first repeat", metavar="N", minimum=0, maximum=2**31 - 1, commands=RUN, suite=True)
    ] = 0
    repeats: Annotated[int, Option("Images per sample", metavar="N", minimum=1, commands=RUN, suite=True)] = 1
    judge_repeats: Annotated[
        int, Option("Scores per image and scorer", metavar="N", minimum=1, commands=JUDGING, suite=True)
    ] = 1
    limit: Annotated[
        int | None,
        Option("Only N samples, of every category", metavar="N", minimum=1, default="all", commands=JUDGING),
    ] = None
    ids: Annotated[
        Sequence[str] | None,
        Option("Only these samples, by id or file of ids", metavar="A,B|@FILE", default="all", commands=JUDGING),
    ] = None
    shard: Annotated[str | None, Option("Every Nth sample from the Ith on (see merge)", metavar="I/N")] = None
    requests: Annotated[
        Path | str | None,
        Option("Agent answers used as prompts: a run or a file", metavar="SRC", commands=RUN),
    ] = None
    images: Annotated[
        Path | str | None, Option("Folder of the images of a results file", metavar="DIR", commands=("score",))
    ] = None
    pattern: Annotated[
        str | None, Option("File names, such as {id}_seed*.png", metavar="NAMES", default="{id}", commands=("score",))
    ] = None
    protocol: Annotated[
        str, Option("Scoring protocol: strict, official, …", metavar="PROTOCOL", commands=JUDGING, suite=True)
    ] = "strict"


@dataclass(frozen=True, kw_only=True)
class EngineConfig(_Checked):
    """Options that decide how a run is executed. They do not affect results and are not part of keys."""

    concurrency: Annotated[
        int | None,
        Option(
            "Maximum concurrent API calls",
            metavar="N", minimum=1, default="the plugin's own", commands=JUDGING, suite=True,
        ),
    ] = None  # fmt: skip
    budget: Annotated[
        float | None,
        Option(
            "Maximum cost of the run directory in USD",
            metavar="USD", minimum=0, commands=JUDGING, suite=True,
        ),
    ] = None  # fmt: skip
    schedule: Annotated[
        Literal["stream", "phased"],
        Option("phased: one stage after the other", commands=RUN, suite=True),
    ] = "stream"
    workers: Annotated[
        int | None,
        Option(
            "Plugin processes; 0: in-process",
            metavar="N", minimum=0, default="1 per GPU", commands=JUDGING, suite=True,
        ),
    ] = None  # fmt: skip
    executor: Annotated[
        str,
        Option(
            "Where plugins run: local, ray or ray:HOST:PORT",
            metavar="EXECUTOR", suite=True,
        ),
    ] = "local"  # fmt: skip
    timeout: Annotated[
        float,
        Option("Maximum seconds per generation", metavar="SECONDS", above=0, commands=RUN, suite=True),
    ] = GENERATION_TIMEOUT
    patience: Annotated[
        float,
        Option(
            "Longest wait for a silent service",
            metavar="SECONDS", minimum=0, commands=JUDGING, suite=True,
        ),
    ] = PATIENCE  # fmt: skip
    progress: Annotated[bool, Option("Show progress on stderr", commands=())] = False


@dataclass(frozen=True, kw_only=True)
class RunConfig(EngineConfig, ResultConfig):
    """Every option of a run. The help of a field is in its `Option`; `help(knowgen.evaluate)` lists them.

    Example:
        >>> RunConfig(limit=8, seed=1).repeats
        1
    """

    name: Annotated[
        str | None,
        Option("Name in tables and pages", metavar="NAME", default="generator with arguments"),
    ] = None
    out: Annotated[Path | str | None, Option("Run directory", metavar="DIR", default="reports/TASK__SYSTEM")] = None
    fresh: Annotated[bool, Option("Delete earlier results first; ask judges again", commands=JUDGING)] = False
    log: Annotated[
        Sequence[str] | None,
        Option(
            "Also log to wandb, mlflow or tensorboard; repeatable",
            metavar="TRACKER[:TARGET]", default="none", suite=True, repeatable=True,
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class DeclaredField:
    """A field with its `Option`.

    Attributes:
        name: Name of the field.
        type: Type of its values, without None.
        optional: Whether None is allowed.
        default: Default value.
        option: Help, bounds and places.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed values; empty when every value of the type is allowed."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def help(self) -> str:
        """Return the help with the default, such as `Seed of the first repeat [0].`"""
        default = self.option.default
        if not default and self.default is not None and not isinstance(self.default, bool):
            default = f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        return f"{self.option.help} [{default}]." if default else f"{self.option.help}."

    def check(self, value: Any) -> None:
        """Check a value.

        Raises:
            UsageError: The value has the wrong type or is out of range.
        """
        if value is None and self.optional:
            return
        if not self._fits(value):
            raise UsageError(f"{self.name} must be {self._expected()}, got {value!r}")

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.type in (int, float):
            kinds = (int,) if self.type is int else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool) and self._in_range(value)
        if get_origin(self.type) is Sequence:
            return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        origin = get_origin(self.type)
        return isinstance(value, self.type if origin in (None, UnionType) else origin)

    def _in_range(self, value: float) -> bool:
        option = self.option
        return (
            math.isfinite(value)
            and (option.minimum is None or value >= option.minimum)
            and (option.above is None or value > option.above)
            and (option.maximum is None or value <= option.maximum)
        )

    def _expected(self) -> str:
        option = self.option
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type in (int, float):
            kind = "a whole number" if self.type is int else "a number"
            if option.maximum is not None:
                return f"{kind} from {option.minimum} to {option.maximum}"
            return f"{kind} > {option.above}" if option.above is not None else f"{kind} >= {option.minimum}"
        if get_origin(self.type) is Sequence:
            return "a list of one or more names"
        if get_origin(self.type) is Mapping:
            return "a dict"
        names = {str: "text", bool: "True or False"}
        return names.get(self.type, "a path")


_DECLARED: dict[type[_Checked], Mapping[str, DeclaredField]] = {}


def declared_fields(config: type[_Checked]) -> Mapping[str, DeclaredField]:
    """Return the fields of a config class that carry an `Option`, by name, in order."""
    if config not in _DECLARED:
        _DECLARED[config] = _declared(config)
    return _DECLARED[config]


def _declared(config: type[_Checked]) -> Mapping[str, DeclaredField]:
    hints = get_type_hints(config, include_extras=True)
    declared: dict[str, DeclaredField] = {}
    for each in fields(config):
        hint = hints[each.name]
        option = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Option)), None)
        if option is None:
            continue  # a field of a subclass that users cannot set
        plain = get_args(hint)[0]
        parts = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
        kind = reduce(or_, (part for part in parts if part is not NoneType))
        declared[each.name] = DeclaredField(each.name, kind, NoneType in parts, each.default, option)
    return declared


def run_fields(command: str | None = None) -> list[DeclaredField]:
    """Return the options of a run.

    Args:
        command: Command whose flags are returned; the options of all commands and of Python when None.
    """
    every = declared_fields(RunConfig).values()
    return [each for each in every if command is None or command in each.option.commands]


def refuse_unused(config: RunConfig, command: str) -> None:
    """Check that a command uses every option that was set.

    Raises:
        UsageError: The command would ignore one of them.
    """
    for each in run_fields():
        if each.option.commands and command not in each.option.commands and getattr(config, each.name) != each.default:
            raise UsageError(f"{each.name} is not an option of {command}", fix="remove it")
