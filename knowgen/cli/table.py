"""`knowgen table`: tables of runs for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.options import run_option

KINDS = ("systems", "group", "category", "difficulty")

EPILOG = """\b
Kinds:
  systems     the headline figure and its dimensions, one row for each system
  group, category, difficulty
              the overall figure of each part, one column for each system

\b
Examples:
  knowgen table systems reports/closed_book reports/open_book --latex
  knowgen table category reports/a reports/b --markdown -o categories.md
Bold is the best of a column, and every system that a paired permutation test
does not tell apart from it at 5 % (Holm).
"""


@click.command("table", epilog=EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--latex", "form", flag_value="latex", help="LaTeX, with the package booktabs.")
@click.option("--markdown", "form", flag_value="markdown", default="markdown", help="Markdown [default].")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="File to write [standard output].")
@click.option("--scorer", metavar="SCORER", help="Scorer whose scores are shown [the first of the first run].")
@run_option("protocol")
@click.option("--names", metavar="A,B,…", help="Names of the systems, in the order of RUNS.")
@click.option("--percent", is_flag=True, help="Multiply figures by 100.")
@click.option("--intervals/--no-intervals", default=True, help="Whether the headline figure has its interval [yes].")
@click.option("--cost", is_flag=True, help="Add what services cost for each image.")
def command(
    kind: str,
    runs: tuple[Path, ...],
    form: str,
    out: Path | None,
    scorer: str | None,
    protocol: str,
    names: str | None,
    percent: bool,
    intervals: bool,
    cost: bool,
) -> int:
    """Write a table of runs for a paper, the statistically tied best in bold."""
    from knowgen import api
    from knowgen.report.paper.tables import TableLayout
    from knowgen.store.files import write_text
    from knowgen.workflows.paper import make_table

    text = make_table(
        kind,
        [api.load_run(run) for run in runs],
        "latex" if form == "latex" else "markdown",
        protocol=protocol,
        scorer=scorer,
        names=names_of(names),
        layout=TableLayout(percent, intervals, cost),
    )
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(out.resolve())
    return 0


def names_of(names: str | None) -> tuple[str, ...]:
    """Return the names of an option."""
    return tuple(name.strip() for name in names.split(",")) if names else ()
