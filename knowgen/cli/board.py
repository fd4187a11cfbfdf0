"""`knowgen board`: leaderboards as folders of files."""

from __future__ import annotations

import importlib

import click

SUBCOMMANDS: dict[str, str] = {
    "add": "Add a run to a board as a submission.",
    "check": "Check the submissions of a board.",
    "build": "Build the site of one or more boards.",
    "withdraw": "Withdraw a submission, with a reason.",
    "rerun": "Run a submitted system again on some samples.",
    "pin": "Pin the task of a board to a version.",
    "season": "Publish, score, close, reveal and verify a private season.",
}
"""Subcommands and their one-line help, here so that `knowgen board --help` imports none of them."""


EPILOG = """\b
Examples:
  knowgen board add reports/mine --board worlds
  knowgen board check
  knowgen board build -o site
"""


class _Subcommands(click.Group):
    """A group that imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        command = importlib.import_module(f"knowgen.cli.boards.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group("board", cls=_Subcommands, epilog=EPILOG)
def command() -> None:
    """Leaderboards as folders of files: submissions, their checks, and the site."""
