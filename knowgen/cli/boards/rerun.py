"""`knowgen board rerun`: run a submitted system again on some samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from knowgen.cli.boards.options import root_option
from knowgen.cli.options import IDS, KEY_VALUE, run_option
from knowgen.core.text import one_line

EPILOG = """\b
Examples:
  knowgen board rerun open-book --board worlds --samples 4
  knowgen board rerun duck/2 --board worlds --ids a1,b2 -g device=cuda:0
This runs the code that the submission names: look at it first. Nothing is
installed. Exit codes: 0 identical or looks the same; 2 another version is
installed; 3 different; 4 the package is not installed; 6 images are missing.
"""

EXIT_DIFFERENT = 3
EXIT_INCOMPLETE = 6


@click.command("rerun", epilog=EPILOG)
@click.argument("system", metavar="SYSTEM[/REVISION]")
@click.option("--board", required=True, help="Name of the board.")
@root_option
@click.option("--ids", type=IDS, metavar="A,B|@FILE", help="Only these samples, by id or file of ids.")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="N samples, some of every group.")
@click.option("-g", "generator_args", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Generator argument.")
@click.option("-s", "scorer_args", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Scorer argument.")
@run_option("budget")
@run_option("workers")
@click.option("--any-version", is_flag=True, help="Go on where the system here is not the submitted one.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory [reports/rerun__…].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(system: str, board: str, root: Path, as_json: bool, **options: Any) -> int:
    """Run a submitted SYSTEM again on some samples, with its seed, and compare images and scores."""
    from knowgen.core.run_config import RunConfig
    from knowgen.workflows.board_submission import find_board
    from knowgen.workflows.rerun import rerun

    chosen = find_board(root, board)
    result = rerun(
        chosen,
        chosen.submission(system),
        ids=options["ids"],
        samples=options["samples"],
        generator_args=dict(options["generator_args"]),
        scorer_args=dict(options["scorer_args"]),
        config=RunConfig(budget=options["budget"], workers=options["workers"], progress=True),
        out=options["out"],
        any_version=options["any_version"],
    )
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1, ensure_ascii=False))
    else:
        for note in result.notes:
            click.echo(f"note            {one_line(note)}")
        for line in result.lines():
            click.echo(line)
        click.echo(f"run             {result.path}")
    if result.verdict == "different":
        return EXIT_DIFFERENT
    return EXIT_INCOMPLETE if result.verdict == "incomplete" else 0
