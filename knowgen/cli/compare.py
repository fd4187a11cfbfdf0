"""`knowgen compare`: is the difference real?"""

from __future__ import annotations

import json
from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen compare reports/closed_book reports/open_book
Every further run is compared with the first, over the samples that both hold.
"""


@click.command("compare", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--scorer", metavar="S", help="Whose judgements; the first that they share when left out.")
@click.option("--policy", default="strict", metavar="P", help="strict (default) or official.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(runs: tuple[Path, ...], scorer: str | None, policy: str, as_json: bool) -> int:
    """Compare runs sample by sample, with paired intervals."""
    from knowgen import api
    from knowgen.errors import UsageError
    from knowgen.report import tables

    if len(runs) < 2:
        raise UsageError("one run cannot be compared", fix="name two or more")
    loaded = [api.load_run(run) for run in runs]
    found = [api.compare(loaded[0], other, policy=policy, scorer=scorer) for other in loaded[1:]]
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=1, sort_keys=True))
    else:
        click.echo(tables.comparison_terminal(found))
    return 0
