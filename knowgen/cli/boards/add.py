"""`knowgen board add`: add a run to a board as a submission."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from knowgen.cli.boards.options import root_option
from knowgen.cli.common import command_line
from knowgen.core.text import count, one_line

if TYPE_CHECKING:
    from knowgen.leaderboards.images import KeptImages
    from knowgen.workflows.board_submission import Added

EPILOG = """\b
Examples:
  knowgen board add reports/mine --board worlds
  knowgen board add reports/mine --board worlds --system reports/mine/system.yaml --images thumbnails
Exit codes: 0 added; 2 a template of system.yaml was written, fill it in; 3 not
eligible, with one line for each reason.
"""

EXIT_TEMPLATE = 2
EXIT_REFUSED = 3


@click.command("add", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--board", default="", help="Name of the board; the one of the run's task and scorer by default.")
@root_option
@click.option("--system", type=click.Path(path_type=Path), help="The filled-in system.yaml; a template without it.")
@click.option(
    "--images",
    type=click.Choice(["none", "thumbnails", "full"]),
    default="none",
    show_default=True,
    help="Keep thumbnails (JPEG, at most 384 pixels), or the scored files as well.",
)
@click.option("--replies", is_flag=True, help="Keep the raw replies of the judge.")
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
def command(
    run: Path, board: str, root: Path, system: Path | None, images: KeptImages, replies: bool, dry_run: bool
) -> int:
    """Add a RUN to a board as a submission: leaderboards/BOARD/SYSTEM/REVISION/.

    The run is verified first, as by `knowgen verify`. Nothing that exists is changed.
    """
    from knowgen.workflows.board_submission import add_submission, board_of_run, find_board, write_template
    from knowgen.workflows.run import load_run

    chosen = find_board(root, board) if board else board_of_run(root, load_run(run).spec)
    if system is None and not dry_run:
        path, written = write_template(run, chosen)
        given = command_line("board", "add", run, "--board", chosen.name, "--system", path)
        if chosen.file.season is not None:
            given = "send it with the run to those who hold the season"
        what = f"wrote {path}, a template to fill in" if written else f"{path} exists: fill it in"
        click.echo(f"knowgen: {what}; then {given}", err=True)
        return EXIT_TEMPLATE
    added = add_submission(run, chosen, system, images=images, replies=replies, dry_run=dry_run)
    return _refused(run, added) if added.reasons else _accepted(run, added, system)


def _refused(run: Path, added: Added) -> int:
    from knowgen.core.secrets import mask_secrets

    for reason in added.reasons:
        click.echo(f"not eligible: {one_line(mask_secrets(reason))}", err=True)
    click.echo(f"knowgen: {run} is not added to {added.board.name}: {count(len(added.reasons), 'reason')}", err=True)
    return EXIT_REFUSED


def _accepted(run: Path, added: Added, system: Path | None) -> int:
    from knowgen.report.tables import terminal

    assert added.summary is not None
    click.echo(terminal([added.summary]))
    if added.path is not None:
        click.echo(f"added    {added.path}")
        click.echo(f"check    {command_line('board', 'check', added.path)}")
    else:
        rest = "" if system is not None else "; a submission needs a system.yaml as well: leave --dry-run out"
        click.echo(f"{run} is eligible for {added.board.name}; nothing was written{rest}")
    return 0
