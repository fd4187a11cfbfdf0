"""`knowgen report`: write an HTML report of one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen report reports/closed_book reports/open_book -o reports/both
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report."
)
def command(runs: tuple[Path, ...], out: Path) -> int:
    """Write an HTML report that opens from disk: figures, failures and images of one or more runs."""
    from knowgen import api

    page = api.write_report([api.load_run(run) for run in runs], out)
    click.echo(page.resolve())
    return 0
