"""`knowgen figure`: figures of runs for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.options import run_option

KINDS = ("ladder", "group", "category", "difficulty", "cost", "time", "search", "agreement")

EPILOG = """\b
Kinds:
  ladder      each system's headline figure with its 95 % interval
  group, category, difficulty
              the overall figure of each part, with a dot for each system
  cost, time  the headline figure against dollars or seconds for each image
  search      where search helped and hurt: RUNS are the run without search
              and the one with it
  agreement   agreement of scorers, and of people with --labels

\b
Examples:
  knowgen figure ladder reports/closed_book reports/open_book -o ladder.pdf
  knowgen figure search reports/closed_book reports/open_book -o search.svg
The same runs give the same file. A caption is printed.
"""


@click.command("figure", epilog=EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="File: .svg, .png or .pdf."
)
@click.option("--scorer", metavar="SCORER", help="Scorer whose scores are shown [the first of the first run].")
@run_option("protocol")
@click.option("--names", metavar="A,B,…", help="Names of the systems, in the order of RUNS.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="CSV file of human ratings.")
@click.option("--percent", is_flag=True, help="Multiply figures by 100.")
@click.option(
    "--width",
    type=click.FloatRange(2, 20),
    default=6.9,
    show_default=True,
    metavar="INCHES",
    help="Width: 3.4 is a column, 6.9 a page.",
)
def command(
    kind: str,
    runs: tuple[Path, ...],
    out: Path,
    scorer: str | None,
    protocol: str,
    names: str | None,
    labels: Path | None,
    percent: bool,
    width: float,
) -> int:
    """Write a figure of runs for a paper: SVG, PNG or PDF."""
    from knowgen import api
    from knowgen.cli.table import names_of
    from knowgen.core.errors import UsageError
    from knowgen.report.paper.style import Layout
    from knowgen.workflows.paper import draw

    if labels is not None and kind != "agreement":
        raise UsageError("--labels is for agreement", where=kind, fix="leave it out")
    caption = draw(
        kind,
        [api.load_run(run) for run in runs],
        out,
        protocol=protocol,
        scorer=scorer,
        names=names_of(names),
        labels=labels,
        layout=Layout(width, percent),
    )
    click.echo(f"{out.resolve()}\n{caption}")
    return 0
