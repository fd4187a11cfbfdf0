"""`knowgen task`: fetch published data, and label which prompts require text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.options import KEY_VALUE

if TYPE_CHECKING:
    from knowgen.tasks.data_home import PreparedData
    from knowgen.tasks.text_labels.annotate import AnnotationOutcome

EPILOG = """\b
Examples:
  knowgen task prepare knowgen
  knowgen task annotate knowgen --judge vlm:gpt-4.1
  knowgen check task knowgen
"""

PREPARE_EPILOG = """\b
Names: knowgen, gen_searcher_sft, gen_searcher_rl
Examples:
  knowgen task prepare knowgen
  knowgen task prepare gen_searcher_rl --data-dir downloads/Train-Data
Data is stored in $KNOWGEN_DATA, else $XDG_DATA_HOME/knowgen, else
~/.local/share/knowgen. HF_ENDPOINT, HF_HOME and HF_TOKEN are respected.
"""

ANNOTATE_EPILOG = """\b
Examples:
  knowgen task annotate knowgen --judge vlm:gpt-4.1 --budget 2 \\
      -s price_in=2 -s price_out=8
  knowgen task annotate my_task --judge vlm:qwen3-8b \\
      -s base_url=http://127.0.0.1:8000/v1
Run again, it asks only about missing prompts. Exit code 6: a prompt failed.
"""

LEFT_OUT_SHOWN = 5
FAILURES_SHOWN = 20


@click.group("task", epilog=EPILOG)
def command() -> None:
    """Fetch and prepare a task's data, or label which prompts require text."""


@command.command("prepare", epilog=PREPARE_EPILOG, short_help="Fetch, check and install a data set.")
@click.argument("name")
@click.option("--revision", metavar="REV", help="Branch, tag or commit [main]; pinned to a commit on first use.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Read this folder instead of the hub.")
@click.option("--force", is_flag=True, help="Prepare it again; a given revision is resolved again.")
def prepare(name: str, revision: str | None, data_dir: Path | None, force: bool) -> int:
    """Fetch data set NAME, unpack it, check every image, and install it."""
    from knowgen.tasks.prepare.run import prepare as prepare_data

    data, done = prepare_data(
        name, revision=revision, data_dir=data_dir, force=force, on_progress=lambda line: click.echo(line, err=True)
    )
    click.echo(f"{_summary(data)}" if done else f"already prepared: {_summary(data)}; --force prepares it again")
    left_out = list(data.index.get("left_out", ()))
    for line in left_out[:LEFT_OUT_SHOWN] if done else ():
        click.echo(f"left out  {line}")
    if done and len(left_out) > LEFT_OUT_SHOWN:
        click.echo(f"left out  and {len(left_out) - LEFT_OUT_SHOWN} more, all listed in {data.folder / 'index.json'}")
    return 0


def _summary(data: PreparedData) -> str:
    index = data.index
    size = f"{index['rows']} rows, {index['pictures']} images ({index['bytes'] / 1e6:.1f} MB)"
    out = f", {len(index['left_out'])} rows left out" if index.get("left_out") else ""
    return f"{data.name} at {data.commit[:22]}, {size}{out}, in {data.folder}"


@command.command("annotate", epilog=ANNOTATE_EPILOG, short_help="Label which prompts require text.")
@click.argument("name")
@click.option("--judge", required=True, metavar="vlm:MODEL", help="Language model that reads each prompt once.")
@click.option("-s", "args", type=KEY_VALUE, multiple=True, help="Judge argument; repeatable.")
@click.option("--budget", type=click.FloatRange(0), metavar="USD", help="Maximum total cost in USD for this task.")
@click.option("--force", is_flag=True, help="Ask again about prompts with frozen labels.")
def annotate(name: str, judge: str, args: tuple[tuple[str, Any], ...], budget: float | None, force: bool) -> int:
    """Ask a judge which prompts of task NAME require text, and freeze the answers."""
    from knowgen.tasks.text_labels.annotate import annotate as annotate_task

    outcome = annotate_task(
        name, judge, dict(args), budget=budget, force=force, on_progress=lambda line: click.echo(line, err=True)
    )
    return _print_outcome(outcome)


def _print_outcome(outcome: AnnotationOutcome) -> int:
    """Print the result of an annotation; return the exit code."""
    task, frozen = outcome.task, outcome.frozen
    if frozen is None:
        for sample_id, why in outcome.failures[:FAILURES_SHOWN]:
            click.echo(f"failed  {sample_id}: {why}")
        if len(outcome.failures) > FAILURES_SHOWN:
            click.echo(f"failed  and {len(outcome.failures) - FAILURES_SHOWN} more")
        click.echo(
            f"nothing is frozen: {len(outcome.failures)} prompts have no answer; run it again to ask about those"
        )
        return 6
    required = sum(answer.required for answer in frozen.answers.values())
    count = f"text is required in {required} of {len(frozen.answers)} prompts of {task.name}"
    click.echo(f"frozen: {count}" if outcome.fresh else f"already frozen: {count}; --force asks again")
    click.echo(f"judge    {frozen.judge_asked}, which returned {', '.join(frozen.judge_returned) or 'no name'}")
    if len(frozen.judge_returned) > 1:
        click.echo("warning  several models answered: the model alias was moved during the annotation", err=True)
    if outcome.spent:
        click.echo(f"spent    ${outcome.spent:.4f} over all calls")
    click.echo(f"version  {task.version}")
    return 0
