"""`knowgen score`: pictures that exist already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from knowgen.cli.common import again, closing_lines, directory_of, exit_code, running_options, scorer_arguments

EPILOG = """\b
Examples:
  knowgen score reports/open_book --scorer vlm:gpt-4.1
  knowgen score results.json --scorer vlm:gpt-4.1 --out reports/theirs
  knowgen score pictures/ --task knowgen_mini --out reports/mine
SOURCE: a run, an official results.json, or a folder of pictures named by sample id.
"""


@click.command("score", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--task", metavar="T", help="The task a folder of pictures answers.")
@click.option("--scorer", "scorers", multiple=True, metavar="S", help="Who judges; the task's own when left out.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [a run: itself].")
@click.option(
    "--duplicates", type=click.Choice(["error", "last"]), default="error", help="Rows of a results file with one id."
)
@running_options
def command(source: Path, task: str | None, scorers: tuple[str, ...], out: Path | None, **options: Any) -> int:
    """Score pictures drawn elsewhere, or a run anew. No generator is loaded."""
    from knowgen import api

    settings = api.Settings(
        protocol=options["protocol"],
        limit=options["limit"],
        ids=options["ids"],
        shard=options["shard"],
        judge_repeats=options["judge_repeats"],
        concurrency=options["concurrency"],
        budget=options["budget"],
        fresh=options["fresh"],
        progress=True,
    )
    scorer_args = scorer_arguments(options, scorers)
    plan = api.plan_scoring(
        source,
        scorers,
        task=task,
        scorer_args=scorer_args,
        settings=settings,
        out=out,
        duplicates=options["duplicates"],
    )
    target = out or plan.source
    if target is None:
        target = directory_of(api.default_out(plan.task.name, plan.spec.generator.name), options["shard"])
    if options["dry_run"]:
        click.echo(api.forecast(plan, target))
        return 0
    run = api.execute(plan, target)
    closing_lines(run, again())
    return exit_code(run)
