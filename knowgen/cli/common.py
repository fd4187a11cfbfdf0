"""What several verbs share: `key=value` arguments, options, closing lines."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from knowgen.api import Run

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

REASONS = 3
"""Reasons of failures that are told after a run; the report holds all."""

REASON_LETTERS = 160

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
        parts = text.split(",")
        if text.startswith("@"):
            try:
                parts = Path(text[1:]).read_text(encoding="utf-8").splitlines()
            except OSError as error:
                self.fail(f"{text[1:]} cannot be read: {error.strerror}", param, ctx)
            except UnicodeDecodeError:
                self.fail(f"{text[1:]} is not UTF-8 text", param, ctx)
        ids = [part.strip() for part in parts if part.strip()]
        if not ids:
            self.fail(f"{text!r} names no sample", param, ctx)
        return ids


IDS = Ids()


def running_options(function: F) -> F:
    """Adds the options that `run` and `score` share."""
    for option in reversed(
        [
            click.option("-s", "scorer_args", type=KEY_VALUE, multiple=True, help="Argument of the scorer."),
            click.option(
                "--rubric",
                type=click.Choice(["own", "upstream"]),
                metavar="R",
                help="own, or upstream (with --upstream-dir DIR).",
            ),
            click.option("--upstream-dir", metavar="DIR", hidden=True),
            click.option("--judge-repeats", type=click.IntRange(1), default=1, metavar="J", help="Judgements of each."),
            click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples."),
            click.option("--ids", type=IDS, metavar="A,B|@FILE", help="Only these samples."),
            click.option("--shard", metavar="I/N", hidden=True),
            click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Calls that wait at once."),
            click.option("--budget", type=click.FloatRange(0), metavar="USD", help="Spend no more, ever, in DIR."),
            click.option(
                "--policy",
                default="strict",
                metavar="P",
                help="strict (default), official, or another.",
            ),
            click.option("--fresh", is_flag=True, help="Forget what an earlier run left here."),
            click.option("--dry-run", is_flag=True, help="Say what would be done, and stop."),
        ]
    ):
        function = option(function)
    return function


def scorer_arguments(options: Mapping[str, Any], scorers: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of the scorers: those of `-s`, with `--rubric` and `--upstream-dir` for every vlm judge."""
    arguments = dict(options["scorer_args"])
    own = {name: options[name] for name in ("rubric", "upstream_dir") if options[name] is not None}
    if own and scorers and not any(name.partition(":")[0] == "vlm" for name in scorers):
        raise click.UsageError(f"--{next(iter(own)).replace('_', '-')} is for a vlm judge; give --scorer vlm:MODEL")
    prefix = "vlm." if len(scorers) > 1 else ""
    return arguments | {f"{prefix}{name}": value for name, value in own.items()}


def directory_of(out: Path, shard: str | None) -> Path:
    """Returns a default run directory, with the shard's name where it holds only one: shards share no directory."""
    return out.with_name(f"{out.name}__shard-{shard.replace('/', '-of-')}") if shard else out


def command_line(*words: str | Path) -> str:
    """Returns words as a line to paste into a shell."""
    return shlex.join(str(word) for word in words)


def again() -> str:
    """Returns the command that is running as a line that goes on with its work."""
    return command_line("knowgen", *(word for word in click.get_current_context().obj if word != "--fresh"))


def closing_lines(run: Run, resume: str) -> None:
    """Prints the table of a run, why samples failed, and how to go on from here."""
    from knowgen.report import tables

    stopped = run.outcome.stopped if run.outcome is not None else ""
    if stopped == "interrupted":
        click.echo("interrupted; what was finished is kept", err=True)
        click.echo(f"resume   {resume}")
        return
    click.echo()
    click.echo(tables.terminal(list(run.summaries(policies=(run.policy,)))))
    click.echo()
    for line in failure_lines(run):
        click.echo(line)
    if stopped == "budget" and run.outcome is not None:
        click.echo(f"budget   {run.outcome.refusal}; raise --budget to go on", err=True)
    click.echo(f"resume   {resume}")
    scorer = run.spec.scorers[0]
    # with its arguments: the same judge at another address would be another judge, and perhaps a paid one
    words = [word for name, value in scorer.args.items() for word in ("-s", f"{name}={_as_argument(value)}")]
    click.echo(f"rescore  {command_line('knowgen', 'score', run.path, '--scorer', scorer.name, *words)}")
    click.echo(f"report   {(run.path / 'report' / 'index.html').resolve()}")


def _as_argument(value: Any) -> str:
    """Writes a value so that `KeyValue` reads the same value from it."""
    import json

    import yaml

    if isinstance(value, str):
        try:
            if yaml.safe_load(value) == value:
                return value
        except yaml.YAMLError:
            return value
    return json.dumps(value)


def failure_lines(run: Run) -> list[str]:
    """Says in a few lines why drawings and judgements failed, the most frequent reasons first."""
    from knowgen.core.records import GenerationStatus, ScoreStatus

    drawings: dict[tuple[str, int], str] = {}
    judgements: Counter[str] = Counter()
    for scorer in run.spec.scorers:
        for row in run.rows(scorer.name):
            if row.generation in (GenerationStatus.FAILED, GenerationStatus.REFUSED):
                drawings[row.sample_id, row.repeat] = f"{row.generation.value}: {row.generation_reason}"
            elif row.strict.status is ScoreStatus.FAILED:
                judgements[f"{scorer.name} failed: {row.strict.reason}"] += 1
    found = (Counter(drawings.values()) + judgements).most_common()
    lines = [f"{count:<8} {_plain(reason)}" for reason, count in found[:REASONS]]
    if rest := found[REASONS:]:
        lines.append(f"{sum(count for _, count in rest):<8} for {len(rest)} other reasons, see the report")
    return lines


def _plain(reason: str) -> str:
    """Returns a reason as one short line that cannot steer a terminal."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    return text if len(text) <= REASON_LETTERS else text[: REASON_LETTERS - 1] + "…"


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
