"""`knowgen board pin`: pin the task of a board to a version."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.boards.options import root_option

EPILOG = """\b
Example:
  knowgen board pin knowgen-official
"""


@click.command("pin", epilog=EPILOG)
@click.argument("board")
@root_option
@click.option("--task-version", default="", metavar="V", help="Version that the task on this machine must have.")
@click.option("--force", is_flag=True, help="Move a board that has submissions of another version.")
def command(board: str, root: Path, task_version: str, force: bool) -> None:
    """Pin the task of a BOARD to the version on this machine: into board.yaml and samples.jsonl.

    The samples have the hashes of the ground truths, and nothing else of them.
    """
    from knowgen.workflows.board_submission import find_board, pin_board

    pinned = pin_board(find_board(root, board), task_version, force=force)
    moved = f" (before: {pinned.before})" if pinned.before not in (None, pinned.version) else ""
    task = pinned.board.file.task.name
    click.echo(f"{pinned.board.name}: pinned to {task} {pinned.version}{moved}, {pinned.samples} samples")
    if pinned.outdated:
        names = ", ".join(pinned.outdated)
        click.echo(f"warning: of another version of the task, and no longer shown: {names}", err=True)
