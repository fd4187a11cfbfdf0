"""`knowgen demo`: run the four baseline systems on the bundled task."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.options import run_option

SYSTEMS = ("noise", "closed_book", "open_book", "oracle")
TASK = "knowgen_mini"

EPILOG = """\b
Examples:
  knowgen demo
  knowgen demo --out reports/demo --limit 8
The systems are noise (lower bound), closed_book (no search), open_book (the
bundled agent, which searches) and oracle (ground truth, upper bound), on the
bundled task knowgen_mini. The page shows what the agent did for each sample.
"""


@click.command("demo", epilog=EPILOG)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports/demo"),
    metavar="DIR",
    help="Directory of the four runs and their report [reports/demo].",
)
@run_option("limit")
def command(out: Path, limit: int | None) -> int:
    """Run four baseline systems end to end, without API keys, GPU or network."""
    return run_demo(out, limit)


def run_demo(out: Path, limit: int | None = None) -> int:
    """Run the demo, and print its table and the paths of its outputs.

    Args:
        out: Directory of the four runs and the report page.
        limit: Maximum number of samples; all when None.

    Returns:
        The exit code.
    """
    from knowgen import api
    from knowgen.cli.common import command_line, exit_code
    from knowgen.report import tables

    runs: list[api.Run] = []
    for system in SYSTEMS:
        click.echo(f"{system} on {TASK}", err=True)
        config = api.RunConfig(limit=limit, progress=True)
        run = api.execute(api.plan(TASK, system, config=config), out / system)
        runs.append(run)
        if run.outcome is not None and run.outcome.stopped:
            click.echo(f"stopped ({run.outcome.stop_reason}); run the same command to resume", err=True)
            return exit_code(run)
    page = api.write_report(runs[::-1], out / "report")  # with the oracle next to the ground truth
    click.echo()
    click.echo(tables.terminal([run.summary for run in runs]))
    click.echo()
    click.echo(f"compare  {command_line('compare', out / 'closed_book', out / 'open_book')}")
    click.echo(f"agent    {command_line('trajectories', 'show', out / 'open_book')}")
    click.echo(f"report   {page.resolve()}")
    return max(exit_code(run) for run in runs)
