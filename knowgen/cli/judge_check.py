"""`knowgen judge-check`: check whether a judge is fit for use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import exit_code, failure_lines, notice_lines, resume_command
from knowgen.cli.options import run_config, run_options, scoring_options

if TYPE_CHECKING:
    from knowgen.judge_check.run import CompletedJudgeCheck

SAMPLES = 24

EPILOG = """\b
Examples:
  knowgen judge-check --scorer world_check
  knowgen judge-check --scorer vlm:gpt-4.1 --samples 48 --budget 5
  knowgen judge-check --scorer my_judge.py:Judge --task worlds/seven -s strength=2
The judge scores ground-truth images, unchanged and with one known error each.
The same command resumes an earlier one.
"""


@click.command("judge-check", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--scorer", required=True, metavar="SCORER", help="The judge: any scorer.")
@click.option("--task", default="knowgen_mini", metavar="TASK", help="Synthetic world with the images [knowgen_mini].")
@click.option(
    "--samples", type=click.IntRange(1), default=SAMPLES, metavar="N", help=f"Number of samples to change [{SAMPLES}]."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, metavar="N", help="Seed of the random errors [0]."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [reports/judge-check__SCORER]."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@run_options("judge-check", limit="Choose among the first N samples [all].")
@scoring_options
def command(scorer: str, task: str, samples: int, seed: int, out: Path | None, as_json: bool, **options: Any) -> int:
    """Check a judge on ground-truth images with known errors: does it find them?"""
    from knowgen import api
    from knowgen.judge_check.run import execute_judge_check, plan_judge_check
    from knowgen.workflows import artifacts

    target = out or Path("reports") / f"judge-check__{artifacts.slug(scorer)}"
    ready = plan_judge_check(scorer, task, samples, seed, run_config("judge-check", options, (scorer,)))
    if options["dry_run"]:
        click.echo(api.forecast(ready.plan, target))
        return 0
    completed = execute_judge_check(ready, target)
    if completed.check is None:
        click.echo("interrupted; finished results are saved", err=True)
        click.echo(f"resume   {resume_command()}", err=as_json)
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
    for line in notice_lines(run):
        click.echo(line, err=True)
    click.echo(f"resume   {resume_command()}")
    click.echo(f"page     {completed.page.resolve()}")
