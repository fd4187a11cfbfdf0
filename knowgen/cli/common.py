"""What several verbs share: `key=value` arguments, options, closing lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from knowgen.api import Run

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class KeyValue(ParamType):
    """`key=value`, the value read as YAML: 3 is a number, true a truth value, [a, b] a list, anything else a word."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Splits and reads one argument."""
        import yaml

        key, equals, text = str(value).partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)?", key):
            self.fail(f"{value!r} is not key=value", param, ctx)
        try:
            return key, yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            return key, text


KEY_VALUE = KeyValue()


class Ids(ParamType):
    """Sample ids, separated by commas, or @FILE with one a line."""

    name = "ids"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Reads the list."""
        text = str(value)
        if text.startswith("@"):
            try:
                return [
                    line.strip() for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()
                ]
            except OSError as error:
                self.fail(f"{text[1:]} cannot be read: {error.strerror}", param, ctx)
        return [part.strip() for part in text.split(",") if part.strip()]


IDS = Ids()


def running_options(function: F) -> F:
    """Adds the options that `run` and `score` share."""
    for option in reversed(
        [
            click.option("-s", "scorer_args", type=KEY_VALUE, multiple=True, help="Argument of the scorer."),
            click.option("--judge-repeats", type=click.IntRange(1), default=1, metavar="J", help="Judgements of each."),
            click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples."),
            click.option("--ids", type=IDS, metavar="A,B|@FILE", help="Only these samples."),
            click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Calls that wait at once."),
            click.option("--budget", type=click.FloatRange(0), metavar="USD", help="Never spend more than this."),
            click.option("--policy", default="strict", metavar="P", help="strict (default) or official."),
            click.option("--fresh", is_flag=True, help="Forget what an earlier run left here."),
            click.option("--dry-run", is_flag=True, help="Say what would be done, and stop."),
        ]
    ):
        function = option(function)
    return function


def command_line(*words: str | Path) -> str:
    """Returns words as a line to paste into a shell."""
    return shlex.join(str(word) for word in words)


def closing_lines(run: Run, resume: str | None) -> None:
    """Prints the table of a run, and how to go on from here."""
    from knowgen.report import tables

    if run.outcome is not None and run.outcome.stopped == "interrupted":
        click.echo("interrupted; what was finished is kept", err=True)
        click.echo(f"resume   {resume or command_line('knowgen', 'score', run.path)}")
        return
    click.echo()
    click.echo(tables.terminal(list(run.summaries(policies=(run.policy,)))))
    click.echo()
    if resume:
        click.echo(f"resume   {resume}")
    click.echo(f"rescore  {command_line('knowgen', 'score', run.path, '--scorer', run.spec.scorers[0].name)}")
    click.echo(f"report   {(run.path / 'report' / 'index.html').resolve()}")


def exit_code(run: Run) -> int:
    """Returns the exit code of a run: 0, 5 for a spent budget, 6 for failed samples, 130 when interrupted."""
    outcome = run.outcome
    if outcome is None:
        return 0
    if outcome.stopped == "interrupted":
        return 130
    if outcome.stopped == "budget":
        return 5
    failed = outcome.generation_failed + outcome.score_failed
    return 6 if failed else 0
