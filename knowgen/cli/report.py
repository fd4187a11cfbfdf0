"""`knowgen report`: one page of one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen report reports/closed_book reports/open_book -o reports/both
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the page.")
def command(runs: tuple[Path, ...], out: Path) -> int:
    """Make a page that opens from disk: figures, failures, gallery."""
    from knowgen import api

    page = api.write_report([api.load_run(run) for run in runs], out)
    click.echo(page.resolve())
    return 0
