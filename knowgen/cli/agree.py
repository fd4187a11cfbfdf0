"""`knowgen agree`: can the judge be trusted?"""

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
The labels have the columns sample_id, repeat, rater, system (all but the first
may be left out) and any of the dimensions, from 0 to 1; blank is not rated.
"""


@click.command("agree", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="What people said, as CSV.")
@click.option("--panel", metavar="A,B,C", help="Scorers whose panel is one more rater.")
@click.option("--quorum", type=click.IntRange(1), metavar="N", help="Members that must have judged; more than half.")
@run_option("protocol")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    runs: tuple[Path, ...],
    labels: Path | None,
    panel: str | None,
    quorum: int | None,
    protocol: str,
    as_json: bool,
) -> int:
    """Say how far judges agree, with each other and with people."""
    from knowgen import api
    from knowgen.cli.compare import members_of
    from knowgen.report.agreement_tables import agreement_terminal

    found = api.agree(
        [api.load_run(run) for run in runs],
        labels=labels,
        panel=members_of(panel, quorum),
        quorum=quorum,
        protocol=protocol,
    )
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=1, sort_keys=True))
    else:
        click.echo(agreement_terminal(found))
    return 0
