"""`knowgen export`: export the results of a run for other tools."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen export reports/open_book --format official -o results_eval.json
"""


@click.command("export", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(["official", "jsonl", "parquet", "csv"]),
    metavar="FORMAT",
    help="Format of the file: official, jsonl, parquet or csv.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="File to write.")
@click.option("--scorer", metavar="SCORER", help="Scorer whose scores are exported [the first].")
def command(run: Path, form: str, out: Path, scorer: str | None) -> int:
    """Export the results of a run as official JSON, JSONL, CSV or Parquet."""
    from knowgen import api

    loaded = api.load_run(run)
    count = api.export(loaded, form, out, scorer=scorer)
    selection = loaded.spec.selection
    part = f" (only a part of the task: {selection.label})" if selection.kind != "all" else ""
    click.echo(f"{count} rows in {out}{part}")
    return 0
