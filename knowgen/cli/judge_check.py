"""`knowgen judge-check`: check whether a judge is fit for use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import again, exit_code, failure_lines, running_options

if TYPE_CHECKING:
    from knowgen.judge_check.run import CompletedJudgeCheck

EPILOG = """\b
Examples:
  knowgen judge-check --scorer world_check
  knowgen judge-check --scorer vlm:gpt-4.1 --samples 48 --budget 5
  knowgen judge-check --scorer my_judge.py:Judge --task worlds/seven -s strength=2
The judge scores ground-truth images, unchanged and with one thing changed.
Run the same command again to continue an earlier check.
"""


@click.command("judge-check", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--scorer", required=True, metavar="J", help="The judge.")
@click.option("--task", default="knowgen_mini", metavar="T", show_default=True, help="A synthetic world.")
@click.option("--samples", type=click.IntRange(1), default=24, metavar="N", help="Number of samples to change [24].")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, metavar="N", help="Seed of the changes.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [reports/judge-check__J].")
@click.option("--json", "as_json", is_flag=True, help="Print only the record, as JSON.")
@running_options
def command(scorer: str, task: str, samples: int, seed: int, out: Path | None, as_json: bool, **options: Any) -> int:
    """Check whether a judge is fit for use, on images with known changes."""
    from knowgen import api, outputs
    from knowgen.judge_check.run import execute_judge_check, plan_judge_check

    target = out or Path("reports") / f"judge-check__{outputs.slug(scorer)}"
    settings = api.Settings(
        policy=options["policy"],
        limit=options["limit"],
        ids=options["ids"],
        judge_repeats=options["judge_repeats"],
        concurrency=options["concurrency"],
        budget=options["budget"],
        fresh=options["fresh"],
        progress=True,
    )
    ready = plan_judge_check(scorer, task, samples, seed, dict(options["scorer_args"]), settings)
    if options["dry_run"]:
        click.echo(api.forecast(ready.plan, target))
        return 0
    completed = execute_judge_check(ready, target)
    if completed.check is None:
        click.echo("interrupted; finished scores are stored", err=True)
        click.echo(f"resume   {again()}", err=as_json)
    elif as_json:
        click.echo(completed.check.model_dump_json(indent=1))
    else:
        _print(completed)
    return exit_code(completed.run)


def _print(completed: CompletedJudgeCheck) -> None:
    from knowgen.judge_check import tables

    assert completed.check is not None and completed.page is not None
    run = completed.run
    click.echo(f"\n{tables.terminal(completed.check)}\n")
    for line in failure_lines(run):
        click.echo(line)
    if run.outcome is not None and run.outcome.stopped == "budget":
        click.echo(f"budget   {run.outcome.refusal}; raise --budget to continue", err=True)
    click.echo(f"resume   {again()}")
    click.echo(f"page     {completed.page.resolve()}")
