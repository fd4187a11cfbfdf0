"""Command-line options made from the fields of `RunConfig`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import click

from knowgen.core.arguments import ArgumentText
from knowgen.core.errors import DataError
from knowgen.core.run_config import DeclaredField, RunConfig, run_fields
from knowgen.core.text_files import numbered_lines

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

GENERATOR_HELP = "Generator: NAME, NAME:MODEL, module:Class or file.py:Class."
SCORER_HELP = "Scorer: NAME, NAME:MODEL, module:Name or file.py:Name; repeatable"
TASK_HELP = "Name of a task, or a task's folder."
DRY_RUN_HELP = "Print the plan and estimated cost, then stop."
JSON_HELP = "Print JSON instead of tables."
DEVICE_HELP = "Device, such as cuda:0 [automatic]."


class KeyValue(ParamType):
    """`key=value`. The value stays text until the parameter that it is for is known: its annotation says what it is."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ArgumentText]:
        """Split an argument."""
        key, equals, text = str(value).partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)?", key):
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, ArgumentText(text)


KEY_VALUE = KeyValue()


class Ids(ParamType):
    """Sample ids, separated by commas, or @FILE with one per line."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the list of ids."""
        text = str(value)
        parts = text.split(",")
        if text.startswith("@"):
            try:
                parts = [line for _, line in numbered_lines(Path(text[1:]))]
            except DataError as error:
                self.fail(str(error), param, ctx)
        ids = [part.strip() for part in parts if part.strip()]
        if not ids:
            self.fail(f"{text!r} contains no sample id", param, ctx)
        return ids


IDS = Ids()


def run_option(name: str, help: str = "", **settings: Any) -> Callable[[F], F]:
    """Return a decorator that adds the option of one field.

    Args:
        name: Name of the field of `RunConfig`.
        help: Help text; the field's help with its default when empty.
        settings: Further settings of `click.option`, such as a command's own default.
    """
    declared = next(each for each in run_fields() if each.name == name)

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if declared.option.repeatable:
            value = value or None
        if not (isinstance(value, tuple) and get_origin(declared.type) is Mapping):  # pairs become a dict later
            declared.check(value)
        return value

    settings = {"help": help or declared.help(), "callback": check, **_settings(declared), **settings}
    return click.option(declared.flag, declared.name, **settings)


def run_options(command: str, **helps: str) -> Callable[[F], F]:
    """Return a decorator that adds every option of `RunConfig` that a command has.

    Args:
        command: Name of the command.
        helps: Help texts of single fields, by name; the others have their own.
    """

    def add(function: F) -> F:
        for declared in reversed(run_fields(command)):
            function = run_option(declared.name, helps.get(declared.name, ""))(function)
        return function

    return add


def scoring_options(function: F) -> F:
    """Add the options that every scoring command has besides those of `RunConfig`."""
    for option in (
        click.option("--dry-run", is_flag=True, help=DRY_RUN_HELP),
        click.option("--upstream-dir", metavar="DIR", help="Folder of the official evaluator, for upstream."),
        click.option(
            "--rubric",
            type=click.Choice(["own", "upstream"]),
            help="Rubric of a vlm scorer: own or official [own].",
        ),
    ):
        function = option(function)
    return function


def _settings(declared: DeclaredField) -> dict[str, Any]:
    """Return click's settings for a field: type, default and placeholder."""
    kind, metavar = declared.type, {"metavar": declared.option.metavar} if declared.option.metavar else {}
    if kind is bool:
        return {"is_flag": True}
    if get_origin(kind) is Mapping:
        return {"type": KEY_VALUE, "multiple": True}
    if declared.option.repeatable:
        return {"type": str, "multiple": True, **metavar}
    shared: dict[str, Any] = {"default": declared.default, **metavar}
    if declared.choices:
        return {"type": click.Choice(declared.choices), "default": declared.default}
    if get_origin(kind) is Sequence:
        return {"type": IDS, **shared}
    return {"type": kind if kind in (int, float, str) else click.Path(path_type=Path), **shared}


def run_config(command: str, options: Mapping[str, Any], scorers: Sequence[str] = ()) -> RunConfig:
    """Return the configuration that a command line describes.

    Args:
        command: Name of the command.
        options: Values of its options.
        scorers: Names of the scorers. `--rubric` and `--upstream-dir` need a vlm scorer among them.
    """
    fields = {each.name: options[each.name] for each in run_fields(command) if each.name in options}
    if "generator_args" in fields:
        fields["generator_args"] = dict(fields["generator_args"])
    return RunConfig(**{**fields, "scorer_args": scorer_arguments(options, scorers), "progress": True})


def scorer_arguments(options: Mapping[str, Any], scorers: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the scorers: those of `-s`, with `--rubric` and `--upstream-dir` for every vlm scorer."""
    arguments = dict(options["scorer_args"])
    own = {name: options[name] for name in ("rubric", "upstream_dir") if options[name] is not None}
    if own and scorers and not any(name.partition(":")[0] == "vlm" for name in scorers):
        flag = f"--{next(iter(own)).replace('_', '-')}"
        raise click.UsageError(f"{flag} needs a vlm scorer; give --scorer vlm:MODEL, or remove it")
    prefix = "vlm." if len(scorers) > 1 else ""
    return arguments | {f"{prefix}{name}": value for name, value in own.items()}
