"""`knowgen board check`: check the submissions of boards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.boards.options import root_option
from knowgen.cli.options import KEY_VALUE, run_option
from knowgen.core.text import one_line

if TYPE_CHECKING:
    from knowgen.leaderboards.checks.findings import BoardFinding
    from knowgen.workflows.board_check import BoardCheck, Rejudging

EPILOG = """\b
Examples:
  knowgen board check
  knowgen board check worlds/open-book --markdown comment.md
  knowgen board check --root pull/leaderboards --against base/leaderboards
  knowgen board check worlds/open-book --rejudge 40 --images reports/open_book
Exit codes: 0 no error; 3 errors; 6 no error, but a check that was asked for
could not be made in full.
"""

MAX_FINDINGS = 20
"""Maximum number of printed findings of one submission; --json has all of them."""

EXIT_ERRORS = 3
EXIT_INCOMPLETE = 6


@click.command("check", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[BOARD[/SYSTEM[/REVISION]]]...")
@root_option
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The boards before a change: only what changed is checked, and no revision may have been altered.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all findings.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write a comment in Markdown.")
@click.option("--rejudge", type=click.IntRange(1), metavar="N", help="Judge N images of each submission again.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), metavar="S", help="Seed of the draw of images [random].")
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run directory or folder with the images to judge again; repeatable.",
)
@click.option("-s", "scorer_args", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Scorer argument.")
@run_option("budget", help="Maximum cost of judging again in USD.")
@run_option("workers")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the new scores [reports].")
def command(
    names: tuple[str, ...], root: Path, against: Path | None, as_json: bool, markdown: Path | None, **options: Any
) -> int:
    """Check submissions: files, samples, figures, eligibility, images, and what changed.

    A name may also be the path of a folder. Without names, all submissions of all boards are checked. No code of a
    submission runs, and nothing is called unless images are judged again.
    """
    from knowgen.workflows.board_check import check, named_boards

    root, chosen = named_boards(root, names)
    result = check(root, chosen, against=against, rejudging=_rejudging(options))
    if markdown is not None:
        from knowgen.core.atomic import write_file
        from knowgen.leaderboards.checks.comment import comment

        write_file(markdown, comment(result.report, root, [each.line() for each in result.rejudged]))
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1, ensure_ascii=False))
    else:
        _print(result)
    if not result.report.ok:
        return EXIT_ERRORS
    return EXIT_INCOMPLETE if result.report.incomplete else 0


def _rejudging(options: dict[str, Any]) -> Rejudging | None:
    """Return how to judge again; None where it was not asked for."""
    from knowgen.workflows.board_check import Rejudging

    if options["rejudge"] is None:
        given = [
            name
            for name in ("seed", "images", "scorer_args", "budget", "workers", "out")
            if options[name] not in (None, ())
        ]
        if given:
            flag = "-s" if given[0] == "scorer_args" else f"--{given[0]}"
            raise click.UsageError(f"{flag} needs --rejudge N")
        return None
    return Rejudging(
        number=options["rejudge"],
        seed=options["seed"],
        images=options["images"],
        scorer_args=dict(options["scorer_args"]),
        budget=options["budget"],
        out=options["out"],
        workers=options["workers"],
        progress=True,
    )


def _print(result: BoardCheck) -> None:
    report = result.report
    groups: list[tuple[BoardFinding, ...]] = [report.findings, *(each.findings for each in report.submissions)]
    for findings in groups:
        for finding in findings[:MAX_FINDINGS]:
            click.echo(one_line(finding))
        if rest := findings[MAX_FINDINGS:]:
            click.echo(f"and {len(rest)} more (see --json)")
    for each in result.rejudged:
        click.echo(f"rejudged {one_line(each.line())}")
    for note in report.notes:
        click.echo(f"note     {one_line(note)}")
    click.echo(report.closing_line())
