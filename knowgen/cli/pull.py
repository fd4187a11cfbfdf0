"""`knowgen pull`: fetch a run or a board from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  knowgen pull someone/open-book-on-mini -o reports/theirs
  knowgen pull someone/worlds-board --revision v1
The same command goes on after an interruption. HF_ENDPOINT names another hub.
"""


@click.command("pull", epilog=EPILOG)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="New folder [./NAME].")
@click.option("--revision", default="main", metavar="REV", help="Branch, tag or commit [main].")
def command(repo: str, out: Path | None, revision: str) -> int:
    """Fetch a run or a board that `knowgen push` sent, into a new folder.

    The folder appears when every file is there and has the listed content.
    """
    from knowgen.cli.common import command_line
    from knowgen.workflows.sharing.pull import pull

    pulled = pull(repo, out, revision, lambda line: click.echo(line, err=True))
    click.echo(f"{pulled.kind:<8} {pulled.path}")
    if pulled.kind == "board":
        single = (pulled.path / "board.yaml").is_file()
        click.echo(f"check    {command_line('board', 'check', *(() if single else ('--root',)), pulled.path)}")
        return 0
    if not pulled.images:
        click.echo("note: its images were not sent; `verify` says so for each", err=True)
    if not pulled.truths:
        click.echo("note: its task is not on this machine in that version; reports show no ground truth", err=True)
    click.echo(f"verify   {command_line('verify', pulled.path)}")
    click.echo(f"report   {command_line('report', pulled.path, '-o', pulled.path / 'report')}")
    return 0
