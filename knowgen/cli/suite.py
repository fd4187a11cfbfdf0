"""`knowgen suite`: run several systems on several tasks from one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import command_line, resume_command
from knowgen.cli.options import DRY_RUN_HELP, JSON_HELP, ParamType, run_option

if TYPE_CHECKING:
    from knowgen.suites.result import SuiteResult

EPILOG = """\b
Examples:
  knowgen suite example --out reports/example
  knowgen suite my_suite.yaml --only open_book --budget 5
FILE is a YAML file, or the name of a suite that comes with the package.
Every run has a directory DIR/TASK__SYSTEM. The same command resumes the suite.
"""


class Names(ParamType):
    """Names, separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the list of names."""
        names = [part.strip() for part in str(value).split(",") if part.strip()]
        if not names:
            self.fail(f"{value!r} contains no name of a system", param, ctx)
        return names


@click.command("suite", epilog=EPILOG)
@click.argument("file")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Directory of all runs [reports/NAME].")
@click.option("--only", type=Names(), metavar="A,B", help="Run only these systems [all].")
@run_option("budget", help="Maximum total cost in USD for all runs of the suite [the file's].")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@click.option("--dry-run", is_flag=True, help=DRY_RUN_HELP)
def command(
    file: str, out: Path | None, only: list[str] | None, budget: float | None, *, as_json: bool, dry_run: bool
) -> int:
    """Run every system of a suite on every task, and print one table per task."""
    import json

    from knowgen.suites import execute_suite, plan_suite

    plan = plan_suite(file, out, only=only or (), budget=budget, progress=True)
    if dry_run:
        click.echo(plan.forecast())
        return 0
    result = execute_suite(plan, lambda line: click.echo(line, err=True))
    if as_json and not result.interrupted:
        click.echo(json.dumps(result.to_json(), indent=1, sort_keys=True, ensure_ascii=False))
    else:
        _closing_lines(result)
    return result.exit_code


def _closing_lines(result: SuiteResult) -> None:
    """Print the tables, incomplete runs with their reasons, and the commands to resume and compare."""
    from knowgen.report.text_table import visible
    from knowgen.suites import artifacts

    if result.interrupted:
        click.echo("interrupted; finished results are saved", err=True)
        click.echo(f"resume   {resume_command()}")
        return
    click.echo()
    click.echo(artifacts.terminal(result))
    click.echo()
    for run in result.runs:
        if run.status != "done":
            state = "failed" if run.status == "failed_samples" else run.status.replace("_", " ")
            click.echo(visible(f"{state} {run.system} on {run.task}: {run.reason}"))
    if any(run.status == "budget" for run in result.runs):
        click.echo(f"budget   ${result.budget:g} for all of {result.path}; raise --budget to continue", err=True)
    click.echo(f"resume   {resume_command()}")
    for task in result.tasks:
        ranked = artifacts.ranked(result, task)
        if len(ranked) > 1:
            click.echo(f"compare  {command_line('compare', ranked[1].path, ranked[0].path)}")
    click.echo(f"tables   {result.path / artifacts.TABLES}")
    click.echo(f"json     {result.path / artifacts.SUITE_FILE}")
    for page in result.pages.values():
        click.echo(f"report   {page.resolve()}")
