"""`knowgen run`: a task through a generator and its scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from knowgen.cli.common import (
    KEY_VALUE,
    again,
    closing_lines,
    directory_of,
    exit_code,
    running_options,
    scorer_arguments,
)

EPILOG = """\b
Examples:
  knowgen run --task knowgen_mini --generator open_book --out reports/x
  knowgen run --task knowgen_mini --generator my_model.py:MyModel -g steps=20
"""


@click.command("run", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--task", required=True, metavar="T", help="Task name, or a task's folder.")
@click.option("--generator", required=True, metavar="G", help="Who draws: NAME or file.py:Class.")
@click.option("--scorer", "scorers", multiple=True, metavar="S", help="Who judges; the task's own when left out.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [reports/TASK__GENERATOR].")
@click.option("-g", "generator_args", type=KEY_VALUE, multiple=True, help="Argument of the generator.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, metavar="N", help="Seed of the first repeat.")
@click.option("--repeats", type=click.IntRange(1), default=1, metavar="K", help="Pictures a sample.")
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that draw [one a GPU].")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=600.0, metavar="S", hidden=True)
@click.option("--requests", type=click.Path(path_type=Path), metavar="SRC", help="An agent's answers to draw.")
@click.option(
    "--schedule", type=click.Choice(["stream", "phased"]), default="stream", help="phased: draw all, then judge."
)
@running_options
def command(task: str, generator: str, scorers: tuple[str, ...], out: Path | None, **options: Any) -> int:
    """Draw a task's prompts, score the pictures, write a page; again: resume."""
    from knowgen import api

    target = out or directory_of(api.default_out(task, generator), options["shard"])
    settings = api.Settings(
        protocol=options["protocol"],
        limit=options["limit"],
        ids=options["ids"],
        shard=options["shard"],
        requests=options["requests"],
        seed=options["seed"],
        repeats=options["repeats"],
        judge_repeats=options["judge_repeats"],
        concurrency=options["concurrency"],
        budget=options["budget"],
        schedule=options["schedule"],
        workers=options["workers"],
        timeout=options["timeout"],
        fresh=options["fresh"],
        progress=True,
    )
    plan = api.plan(
        task,
        generator,
        scorers,
        generator_args=dict(options["generator_args"]),
        scorer_args=scorer_arguments(options, scorers),
        settings=settings,
    )
    if options["dry_run"]:
        click.echo(api.forecast(plan, target))
        return 0
    run = api.execute(plan, target)
    closing_lines(run, again())
    return exit_code(run)
