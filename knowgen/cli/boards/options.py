"""Options that several subcommands of `knowgen board` share."""

from __future__ import annotations

from pathlib import Path

import click

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of the boards.",
)
"""The folder of the boards."""
