"""`knowgen board withdraw`: withdraw a submission, with a reason."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.boards.options import root_option

EPILOG = """\b
Example:
  knowgen board withdraw my-model/1 --board worlds --reason "trained on the test prompts"
"""


@click.command("withdraw", epilog=EPILOG)
@click.argument("submission", metavar="SYSTEM[/REVISION]")
@click.option("--board", required=True, help="Name of the board.")
@root_option
@click.option("--reason", required=True, help="Why, for readers of the board.")
@click.option("--date", default="", metavar="YYYY-MM-DD", help="Day of the withdrawal; today by default.")
def command(submission: str, board: str, root: Path, reason: str, date: str) -> None:
    """Withdraw a submission. Its files stay, and the board says why it is not shown."""
    from knowgen.workflows.board_submission import find_board, withdraw

    done = withdraw(find_board(root, board), submission, reason, date)
    click.echo(f"{done.submission.board}: {done.submission.key} is withdrawn; its files stay in {done.submission.path}")
    if done.shown is None:
        click.echo(f"the board no longer shows {done.submission.slug}")
    else:
        click.echo(f"the board shows revision {done.shown} of {done.submission.slug} now")
