"""`knowgen push`: send a run or a board to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  knowgen push reports/open_book me/open-book-on-mini --dry-run
  knowgen push reports/open_book me/open-book-on-mini --private
  knowgen push leaderboards/worlds me/worlds-board
The same command sends what is missing after an interruption, and what has
changed. HF_ENDPOINT names another hub.
"""


@click.command("push", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--revision", default="main", metavar="BRANCH", help="Branch, made if it does not exist [main].")
@click.option("--private", is_flag=True, help="Make a new repository private; an existing one must be.")
@click.option("--images/--no-images", default=True, help="Send the images too [yes].")
@click.option("--license", "licence", default="unknown", metavar="ID", help="Licence, as the hub names it [unknown].")
@click.option("--keep-paths", is_flag=True, help="Send folders of this machine that decide the result.")
@click.option("--replace", is_flag=True, help="Replace another run or board in the repository.")
@click.option("--dry-run", is_flag=True, help="Prepare and check everything, print what would be sent, then stop.")
def command(
    source: Path,
    repo: str,
    *,
    revision: str,
    private: bool,
    images: bool,
    licence: str,
    keep_paths: bool,
    replace: bool,
    dry_run: bool,
) -> int:
    """Send a run or a board to a dataset repository of the Hugging Face hub, with a data card.

    SOURCE is a run directory, a board's folder or a folder of boards. It is verified first, and refused if it has a
    key or names folders of this machine. Logs, reports and the host name are left out.
    """
    from knowgen.cli.common import command_line
    from knowgen.workflows.sharing.push import PushOptions, push

    options = PushOptions(revision, private, images, licence, keep_paths, replace, dry_run)
    pushed = push(source, repo, options, lambda line: click.echo(line, err=True))
    if dry_run:
        click.echo(f"would send {pushed.sent} files to {pushed.url}")
        return 0
    removed = f", {pushed.removed} removed" if pushed.removed else ""
    click.echo(f"pushed   {pushed.url} at {pushed.commit[:12]}: {pushed.sent} sent, {pushed.kept} unchanged{removed}")
    at = () if revision == "main" else ("--revision", revision)
    click.echo(f"fetch    {command_line('pull', repo, *at)}")
    return 0
