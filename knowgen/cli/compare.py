"""`knowgen compare`: is the difference real?"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import click

from knowgen.cli.options import run_option

EPILOG = """\b
Examples:
  knowgen compare reports/closed_book reports/open_book
  knowgen compare reports/a reports/b --panel vlm:a,vlm:b,vlm:c --quorum 2
Every further run is compared with the first, over the samples that both hold;
p-values of several comparisons are corrected for their number.
"""


@click.command("compare", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--scorer", metavar="S", help="Whose judgements; the first that they share when left out.")
@click.option("--panel", metavar="A,B,C", help="Scorers whose judgements are combined into one.")
@click.option("--quorum", type=click.IntRange(1), metavar="N", help="Members that must have judged; more than half.")
@click.option("--pairs", is_flag=True, help="Compare every two runs, not each with the first.")
@run_option("protocol", help="strict, official, na-renormalise or genevolve-micro [strict].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    runs: tuple[Path, ...],
    scorer: str | None,
    panel: str | None,
    quorum: int | None,
    pairs: bool,
    protocol: str,
    as_json: bool,
) -> int:
    """Compare runs sample by sample, with paired intervals and tests."""
    from knowgen import api
    from knowgen.core.errors import UsageError
    from knowgen.report import tables
    from knowgen.stats.compare.holm import corrected

    if len(runs) < 2:
        raise UsageError("one run cannot be compared", fix="name two or more")
    loaded = [api.load_run(run) for run in runs]
    made = list(combinations(loaded, 2)) if pairs else [(loaded[0], other) for other in loaded[1:]]
    members = members_of(panel, quorum)
    found = corrected(
        [
            api.compare(first, second, protocol=protocol, scorer=scorer, panel=members, quorum=quorum)
            for first, second in made
        ]
    )
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=1, sort_keys=True))
    else:
        click.echo(tables.comparison_terminal(found))
    return 0


def members_of(panel: str | None, quorum: int | None) -> tuple[str, ...]:
    """Reads the members of a panel from the command line.

    Raises:
        UsageError: A quorum was named without a panel.
    """
    from knowgen.core.errors import UsageError

    members = tuple(name.strip() for name in (panel or "").split(",") if name.strip())
    if quorum is not None and not members:
        raise UsageError("--quorum needs a panel", fix="name its members with --panel A,B,C")
    return members
