"""`knowgen agree`: measure the agreement of scorers and human raters."""

from __future__ import annotations

import json
from pathlib import Path

import click

from knowgen.cli.options import run_option

EPILOG = """\b
Examples:
  knowgen agree reports/mine
  knowgen agree reports/mine --labels labels.csv
  knowgen agree reports/a reports/b reports/c --panel vlm:a,vlm:b,vlm:c
The CSV file has a column sample_id, optional columns repeat, rater and system,
and a column per rated dimension with values from 0 to 1; blank is not rated.
"""


@click.command("agree", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="CSV file of human ratings.")
@click.option("--panel", metavar="A,B,C", help="Scorers to combine into one more rater.")
@click.option(
    "--quorum", type=click.IntRange(1), metavar="N", help="Minimum scores of the panel per image [more than half]."
)
@run_option("protocol")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    runs: tuple[Path, ...],
    labels: Path | None,
    panel: str | None,
    quorum: int | None,
    protocol: str,
    as_json: bool,
) -> int:
    """Measure the agreement of scorers with each other and with human raters."""
    from knowgen import api
    from knowgen.cli.compare import members_of
    from knowgen.report.agreement_tables import agreement_terminal

    agreement = api.agree(
        [api.load_run(run) for run in runs],
        labels=labels,
        panel=members_of(panel, quorum),
        quorum=quorum,
        protocol=protocol,
    )
    if as_json:
        click.echo(json.dumps(agreement.model_dump(mode="json"), indent=1, sort_keys=True))
    else:
        click.echo(agreement_terminal(agreement))
    return 0
