"""`knowgen score`: score images that exist already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from knowgen.cli.common import again, closing_lines, directory_of, exit_code
from knowgen.cli.options import run_config, run_options, scoring_options

EPILOG = """\b
Examples:
  knowgen score reports/open_book --scorer vlm:gpt-4.1
  knowgen score results.json --scorer vlm:gpt-4.1 --out reports/theirs
  knowgen score images/ --task knowgen_mini --out reports/mine
SOURCE: a run, an official results.json, or a folder of images named by sample id.
"""


@click.command("score", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--task", metavar="T", help="Task of a folder of images.")
@click.option("--scorer", "scorers", multiple=True, metavar="S", help="Scorer [the run's or the task's own].")
@click.option(
    "--duplicates", type=click.Choice(["error", "last"]), default="error",
    help="Rows of a results file with one id: an error, or the last counts [error].",
)  # fmt: skip
@run_options("score", out="Run directory; a run is scored in place without it.")
@scoring_options
def command(
    source: Path,
    task: str | None,
    scorers: tuple[str, ...],
    *,
    duplicates: Literal["error", "last"],
    dry_run: bool,
    **options: Any,
) -> int:
    """Score images made elsewhere, or a run again. No generator is loaded."""
    from knowgen import api

    config = run_config("score", options, scorers)
    plan = api.plan_scoring(source, scorers, task, duplicates, config)
    default = directory_of(api.default_out(plan.task.name, plan.spec.generator.name), config.shard)
    target = Path(config.out or plan.source or default)
    if dry_run:
        click.echo(api.forecast(plan, target))
        return 0
    run = api.execute(plan, target)
    closing_lines(run, again())
    return exit_code(run)
