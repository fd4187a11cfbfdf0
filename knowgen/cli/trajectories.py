"""`knowgen trajectories`: show what the agent of a run did, export it, and make conversations for fine-tuning."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.options import IDS
from knowgen.cli.trajectories_make import command as make

EPILOG = """\b
Examples:
  knowgen trajectories show reports/open_book --ids 1caa0aa4ffb0b211 --full
  knowgen trajectories export reports/open_book -o trajectories.jsonl
  knowgen run --task knowgen_mini --generator my_model.py:Model --requests trajectories.jsonl
"""


@click.group("trajectories", epilog=EPILOG)
def command() -> None:
    """Show and export the trajectories of a run's agent: what it thought, asked, was shown and chose.

    `make` runs a policy and writes its trajectories as conversations for fine-tuning.
    """


command.add_command(make)


_RUN = click.argument("run", type=click.Path(path_type=Path))
_ONLY = click.option("--ids", type=IDS, metavar="A,B|@FILE", help="Only these samples [all].")


@command.command("show", epilog=EPILOG, short_help="Print trajectories.")
@_RUN
@_ONLY
@click.option("--full", is_flag=True, help="Print replies and results whole.")
def show(run: Path, ids: list[str] | None, full: bool) -> int:
    """Print the trajectories of a run, a few lines a step."""
    from knowgen.store.run import RunStore
    from knowgen.workflows.trajectories import stored_answers
    from knowgen.workflows.trajectory_text import trajectory_text

    shown = 0
    with RunStore.read(run) as store:
        for sample, answer in stored_answers(store, ids):
            click.echo(f"{chr(10) if shown else ''}{trajectory_text(sample, answer, full=full)}")
            shown += 1
    if not shown:
        click.echo("no answers yet", err=True)
    return 0


@command.command("export", epilog=EPILOG, short_help="Write trajectories as JSON Lines in chat form.")
@_RUN
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="File to write.")
@_ONLY
def export(run: Path, out: Path, ids: list[str] | None) -> int:
    """Write one line for each answer: messages, images by path and hash, tool calls, ending; no scores.

    `--requests FILE` generates from its prompts and references, and `-g policy=replay:FILE` repeats its replies.
    """
    from knowgen.core.text import count
    from knowgen.workflows.trajectories import export_trajectories

    written = export_trajectories(run, out, ids)
    left_out = f"; {count(written.left_out, 'failed answer')} left out" if written.left_out else ""
    click.echo(f"{count(written.lines, 'trajectory', 'trajectories')} in {out}{left_out}")
    return 0
