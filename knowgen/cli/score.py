"""`knowgen score`: score images that exist already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from knowgen.cli.common import closing_lines, directory_of, exit_code, resume_command, warn_of_prices, warn_of_unfit
from knowgen.cli.options import SCORER_HELP, run_config, run_options, scoring_options

EPILOG = """\b
Examples:
  knowgen score reports/open_book --scorer vlm:gpt-4.1
  knowgen score results.json --scorer vlm:gpt-4.1 --out reports/theirs
  knowgen score images/ --task knowgen_mini --out reports/mine
SOURCE is a run directory, an official results file, or a folder of images whose
file names are sample ids.
"""


@click.command("score", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--task", metavar="TASK", help="Task of a folder of images: its name or folder.")
@click.option("--scorer", "scorers", multiple=True, metavar="SCORER", help=f"{SCORER_HELP} [the run's or task's].")
@click.option(
    "--duplicates", type=click.Choice(["error", "last"]), default="error",
    help="Rows with the same id: an error, or use the last [error].",
)  # fmt: skip
@run_options("score", out="Run directory [SOURCE for a run, else reports/TASK__SYSTEM].")
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
    """Score existing images, or score a run again. No generator is loaded."""
    from knowgen import api

    config = run_config("score", options, scorers)
    plan = api.plan_scoring(source, scorers, task, duplicates, config)
    default = directory_of(api.default_out(plan.spec), config.shard)
    target = Path(config.out or plan.source or default)
    warn_of_unfit(plan.spec.scorers)
    if dry_run:
        click.echo(api.forecast(plan, target))
        return 0
    run = api.execute(plan, target, lambda: warn_of_prices(plan))
    closing_lines(run, resume_command())
    return exit_code(run)
