"""`knowgen compare`: compare runs with paired intervals and tests."""

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
Every further run is compared with the first, over the samples that both have.
p-values of several comparisons are corrected for their number (Holm).
Where runs have agents, a table shows side by side what these did.
"""


@click.command("compare", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--scorer", metavar="SCORER", help="Scorer whose scores are compared [the first shared one].")
@click.option("--panel", metavar="A,B,C", help="Scorers to combine: lower median per image.")
@click.option(
    "--quorum", type=click.IntRange(1), metavar="N", help="Minimum scores of the panel per image [more than half]."
)
@click.option("--pairs", is_flag=True, help="Compare every pair of runs, not each with the first.")
@run_option("protocol", help="Protocol: strict, official, na-renormalise, genevolve-micro [strict].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
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
    from knowgen.workflows.compare import run_names

    if len(runs) < 2:
        raise UsageError("a comparison needs at least two runs", fix="name two or more run directories")
    loaded = [api.load_run(run) for run in runs]
    named = list(zip(loaded, run_names(loaded), strict=True))
    pairings = list(combinations(named, 2)) if pairs else [(named[0], other) for other in named[1:]]
    members = members_of(panel, quorum)
    comparisons = corrected(
        [
            api.compare(
                first, second, protocol=protocol, scorer=scorer, panel=members, quorum=quorum, names=(a_name, b_name)
            )
            for (first, a_name), (second, b_name) in pairings
        ]
    )
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in comparisons], indent=1, sort_keys=True))
    else:
        click.echo(tables.comparison_terminal(comparisons))
    return 0


def members_of(panel: str | None, quorum: int | None) -> tuple[str, ...]:
    """Return the members of a panel from its option.

    Raises:
        UsageError: There is a quorum without a panel.
    """
    from knowgen.core.errors import UsageError

    members = tuple(name.strip() for name in (panel or "").split(",") if name.strip())
    if quorum is not None and not members:
        raise UsageError("--quorum needs a panel", fix="name its members with --panel A,B,C")
    return members
