"""`knowgen board season`: private seasons of a world that nobody has seen."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import command_line
from knowgen.cli.options import run_option

if TYPE_CHECKING:
    from knowgen.seasons.verification import SeasonVerification

EPILOG = """\b
Examples:
  knowgen board season publish spring --samples 96 --public spring/public --board spring/board --private spring/private
  knowgen run --task spring/public --generator open_book --out mine
  knowgen board season score mine --board spring/board --private spring/private --system system.yaml
  knowgen board season close --board spring/board
  knowgen board season reveal --board spring/board --private spring/private
  knowgen board season verify --board spring/board
"""

EXIT_FINDINGS = 3
_PATH = click.Path(path_type=Path)

board_option = click.option("--board", required=True, type=_PATH, metavar="DIR", help="Folder of the board.")
private_option = click.option(
    "--private", required=True, type=_PATH, metavar="DIR",
    help="Private folder with secret, ground truths and runs. Keep it, and show it to nobody.",
)  # fmt: skip


class Day(click.ParamType[str] if TYPE_CHECKING else click.ParamType):  # type: ignore[misc]
    """A day such as 2026-12-31."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the day, ISO 8601."""
        try:
            day = datetime.date.fromisoformat(str(value)).isoformat()
        except ValueError:
            self.fail(f"{value!r} is not a day such as 2026-12-31", param, ctx)
        return day


DAY = Day()


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@click.group("season", epilog=EPILOG)
def command() -> None:
    """Hold a private season: systems are scored on a world that nobody has seen, and that is revealed at the end."""


@command.command("publish", short_help="Draw a secret world and publish it without ground truths.")
@click.argument("name")
@click.option("--samples", required=True, type=click.IntRange(1), metavar="N", help="Samples; 96: four per category.")
@click.option("--public", required=True, type=_PATH, metavar="DIR", help="Folder to write for the participants.")
@board_option
@private_option
@click.option("--opens", type=DAY, metavar="DAY", help="Announced first day [none].")
@click.option("--closes", type=DAY, metavar="DAY", help="Announced last day [none].")
@click.option(
    "--revisions", type=click.IntRange(1), default=3, metavar="N", help="Maximum number of revisions of a system [3]."
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of processes [one per core].")
def publish(
    name: str,
    samples: int,
    public: Path,
    board: Path,
    private: Path,
    *,
    opens: str | None,
    closes: str | None,
    revisions: int,
    workers: int | None,
) -> int:
    """Draw a secret world, and write what participants get, the board, and the private folder.

    The same command completes one that was interrupted.
    """
    from knowgen.seasons.publish import SeasonPlaces
    from knowgen.seasons.publish import publish as publish_season

    places = SeasonPlaces(public, board, private)
    season = publish_season(
        places, name, samples, opens=opens or "", closes=closes or "", revisions=revisions, workers=workers
    )
    click.echo(f"published  {public}: {season.samples} prompts and the search corpus, task {season.task_version}")
    click.echo(f"commitment {season.commitment}")
    click.echo(f"board      {board}")
    click.echo(f"private    {private}: keep a copy; without it nothing can be scored or revealed")
    return 0


@command.command("score", short_help="Score the images of a system and add it to the board.")
@click.argument("source", type=_PATH)
@board_option
@private_option
@click.option("--system", required=True, type=_PATH, metavar="FILE", help="The submitter's system.yaml.")
@run_option("pattern")
@run_option("workers")
def score(source: Path, board: Path, private: Path, system: Path, *, pattern: str | None, workers: int | None) -> int:
    """Score SOURCE, a run of the season's task or a folder of images named by sample id, and add it to the board.

    The same command continues one that was interrupted.
    """
    from knowgen.cli.common import exit_code, failure_lines, resume_command
    from knowgen.core.run_config import RunConfig
    from knowgen.core.secrets import mask_secrets
    from knowgen.core.text import one_line
    from knowgen.report import tables
    from knowgen.seasons.scoring import score as score_season

    config = RunConfig(workers=workers, progress=True)
    done = score_season(source, board, private, system, pattern=pattern, config=config)
    for reason in done.reasons:
        click.echo(f"not eligible: {one_line(mask_secrets(reason))}", err=True)
    if done.reasons:
        return EXIT_FINDINGS
    assert done.run is not None
    if done.path is None:
        click.echo("stopped; finished scores are saved", err=True)
        click.echo(f"resume   {resume_command()}")
        return exit_code(done.run)
    click.echo()
    click.echo(tables.terminal(list(done.run.summaries(protocols=(done.run.protocol,)))))
    for line in failure_lines(done.run):
        click.echo(line)
    click.echo(f"added    {done.path}")
    return 0


@command.command("close", short_help="Take no more submissions.")
@board_option
@click.option("--date", type=DAY, metavar="DAY", help="Day of the closing [today].")
def close(board: Path, date: str | None) -> int:
    """Close a season: it takes no more submissions."""
    from knowgen.seasons.reveal import close as close_season

    season = close_season(board, date or _today())
    click.echo(f"closed   season {season.name} on {season.closed}")
    click.echo(f"reveal   {command_line('board', 'season', 'reveal', '--board', board, '--private', 'DIR')}")
    return 0


@command.command("reveal", short_help="Publish the seed of a closed season.")
@board_option
@private_option
@click.option("--date", type=DAY, metavar="DAY", help="Day of the reveal [today].")
def reveal(board: Path, private: Path, date: str | None) -> int:
    """Publish the seed of a closed season, hashes of its ground truths, and the images of the submissions."""
    from knowgen.seasons.reveal import reveal as reveal_season

    done = reveal_season(board, private, date or _today())
    for key in done.without_run:
        click.echo(f"warning: {key} has no run in {private}, and stays without images and rationales", err=True)
    click.echo(f"revealed season {done.season.name}, with {done.images} images of its submissions")
    click.echo(f"verify   {command_line('board', 'season', 'verify', '--board', board)}")
    return 0


@command.command("verify", short_help="Build a revealed season again and compare everything.")
@board_option
@click.option("--public", type=_PATH, metavar="DIR", help="A copy of the public folder, to compare as well.")
@click.option("--out", type=_PATH, metavar="DIR", help="Folder for the world with its ground truths [temporary].")
@click.option("--no-rescore", is_flag=True, help="Do not score the images of submissions again.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of processes [one per core].")
def verify(board: Path, public: Path | None, out: Path | None, *, no_rescore: bool, workers: int | None) -> int:
    """Build a revealed season from its seed, and compare commitment, prompts, corpus, ground truths and scores.

    Exit codes: 0 all is as published; 3 something is not.
    """
    from knowgen.seasons.verification import verify as verify_season

    found = verify_season(board, public=public, out=out, rescore=not no_rescore, workers=workers, progress=True)
    _print_verification(found)
    if out is not None and out.is_dir():
        click.echo(f"world    {out}")
    return 0 if found.ok else EXIT_FINDINGS


def _print_verification(found: SeasonVerification) -> None:
    from knowgen.core.text import count, one_line

    for word, lines in (("ok", found.passed), ("note", found.notes), ("wrong", found.findings)):
        for line in lines:
            click.echo(f"{word:<8} {one_line(line)}")
    click.echo(f"{count(len(found.findings), 'finding')}")


@command.command("status", short_help="Print the state of a season.")
@board_option
def status(board: Path) -> int:
    """Print the state of a season, and what can be done next."""
    from knowgen.core.text import count
    from knowgen.leaderboards.folder import read_board
    from knowgen.leaderboards.season import season_of

    opened = read_board(board)
    season = season_of(opened)
    words = {
        "open": f"open{f', closes on {season.closes}' if season.closes else ''}",
        "closed": f"closed on {season.closed}",
        "revealed": f"revealed on {season.revealed.date}" if season.revealed else "",
    }
    following = {"open": "score or close", "closed": "reveal", "revealed": "verify"}
    click.echo(f"season   {season.name}, {words[season.state]}")
    click.echo(f"task     {season.task_version}, {count(season.samples, 'sample')}")
    click.echo(f"systems  {count(len(list(opened.submissions())), 'submission')}")
    click.echo(f"next     {following[season.state]}")
    return 0
