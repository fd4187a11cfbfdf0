"""`knowgen agree`: agreement of judges with each other and with people."""

from __future__ import annotations

import json
from pathlib import Path

import click

EPILOG = """\b
Examples:
  knowgen agree reports/mine
  knowgen agree reports/mine --labels labels.csv
  knowgen agree reports/a reports/b reports/c --panel vlm:a,vlm:b,vlm:c
The labels have the column sample_id, optionally repeat, rater and system, and
any of the dimensions, from 0 to 1; a blank value is not rated.
"""


@click.command("agree", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="Human labels, as CSV.")
@click.option("--panel", metavar="A,B,C", help="Scorers of a panel, which is a further rater.")
@click.option("--quorum", type=click.IntRange(1), metavar="N", help="Members that must have a score [more than half].")
@click.option("--policy", default="strict", metavar="P", help="Scoring protocol: strict or official.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    runs: tuple[Path, ...],
    labels: Path | None,
    panel: str | None,
    quorum: int | None,
    policy: str,
    as_json: bool,
) -> int:
    """Compute the agreement of judges with each other and with people."""
    from knowgen import api
    from knowgen.cli.compare import members_of
    from knowgen.report.agreement_tables import agreement_terminal

    agreement = api.agree(
        [api.load_run(run) for run in runs],
        labels=labels,
        panel=members_of(panel, quorum),
        quorum=quorum,
        policy=policy,
    )
    if as_json:
        click.echo(json.dumps(agreement.model_dump(mode="json"), indent=1, sort_keys=True))
    else:
        click.echo(agreement_terminal(agreement))
    return 0
