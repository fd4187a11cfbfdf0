"""`knowgen board build`: build the static site of boards."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.boards.options import root_option

EPILOG = """\b
Examples:
  knowgen board build -o site
  knowgen board build -o site --root leaderboards worlds
"""


@click.command("build", epilog=EPILOG)
@click.argument("boards", nargs=-1, metavar="[BOARD…]")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the site.")
@root_option
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Processes that read submissions.",
)  # fmt: skip
def command(boards: tuple[str, ...], out: Path, root: Path, processes: int) -> int:
    """Build the site of all boards, or of those named: pages that open from a folder without a network.

    The same files give the same bytes. An earlier site in DIR is replaced.
    """
    from knowgen.leaderboards.site.build import build_site, chosen_boards

    page = build_site(chosen_boards(root, boards), out, processes=processes)
    click.echo(page.resolve())
    return 0
