"""`knowgen run`: generate images for a task and score them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from knowgen.cli.common import closing_lines, directory_of, exit_code, resume_command, warn_of_prices, warn_of_unfit
from knowgen.cli.options import GENERATOR_HELP, SCORER_HELP, TASK_HELP, run_config, run_options, scoring_options

EPILOG = """\b
Examples:
  knowgen run --task knowgen_mini --generator open_book --out reports/x
  knowgen run --task knowgen_mini --generator my_model.py:MyModel -g steps=20
"""


@click.command("run", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--task", required=True, metavar="TASK", help=TASK_HELP)
@click.option("--generator", required=True, metavar="GENERATOR", help=GENERATOR_HELP)
@click.option("--scorer", "scorers", multiple=True, metavar="SCORER", help=f"{SCORER_HELP} [the task's].")
@run_options("run")
@scoring_options
def command(task: str, generator: str, scorers: tuple[str, ...], *, dry_run: bool, **options: Any) -> int:
    """Generate and score an image per prompt. The same command resumes a run."""
    from knowgen import api

    config = run_config("run", options, scorers)
    plan = api.plan(task, generator, scorers, config)
    target = Path(config.out or directory_of(api.default_out(plan.spec), config.shard))
    warn_of_unfit(plan.spec.scorers)
    if dry_run:
        click.echo(api.forecast(plan, target))
        return 0
    run = api.execute(plan, target, lambda: warn_of_prices(plan))
    closing_lines(run, resume_command())
    return exit_code(run)
