"""`knowgen demo`: the four reference systems on the embedded world."""

from __future__ import annotations

from pathlib import Path

import click

SYSTEMS = ("noise", "closed_book", "open_book", "oracle")
TASK = "knowgen_mini"

EPILOG = """\b
Example:
  knowgen demo --out reports/demo
"""


@click.command("demo", epilog=EPILOG)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("reports/demo"), metavar="DIR", help="[reports/demo]"
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples.")
def command(out: Path, limit: int | None) -> int:
    """Run four reference systems end to end: no key, no GPU, no network."""
    return run_demo(out, limit)


def run_demo(out: Path, limit: int | None = None) -> int:
    """Runs the demo and prints where to look.

    Args:
        out: Folder that takes one run directory a system, and the page of all four.
        limit: Only the first so many samples.

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
            click.echo(f"stopped ({run.outcome.stopped}); call it again to go on", err=True)
            return exit_code(run)
    page = api.write_report(runs[::-1], out / "report")  # the most knowing stands beside the ground truth
    click.echo()
    click.echo(tables.terminal([run.summary for run in runs]))
    click.echo()
    click.echo(f"compare  {command_line('knowgen', 'compare', out / 'closed_book', out / 'open_book')}")
    click.echo(f"report   {page.resolve()}")
    return max(exit_code(run) for run in runs)
