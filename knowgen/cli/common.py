"""What several verbs share: `key=value` arguments, options, closing lines."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.core.text import one_line

if TYPE_CHECKING:
    from knowgen.api import Run

REASONS = 3
"""Reasons of failures that are told after a run; the report holds all."""

REASON_LETTERS = 160


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
    click.echo(tables.terminal(list(run.summaries(protocols=(run.protocol,)))))
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
    lines = [f"{count:<8} {one_line(reason, REASON_LETTERS)}" for reason, count in found[:REASONS]]
    if rest := found[REASONS:]:
        lines.append(f"{sum(count for _, count in rest):<8} for {len(rest)} other reasons, see the report")
    return lines


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
