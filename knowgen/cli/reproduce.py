"""`knowgen reproduce`: draws again what a run has drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import IDS, KEY_VALUE

if TYPE_CHECKING:
    from knowgen.reproducing import RegeneratedImage, Reproduction

EPILOG = """\b
Examples:
  knowgen reproduce reports/open_book --limit 8
  knowgen reproduce reports/mine --ids s1,s7 --device cuda:1 --json
Ends with 0 when every picture comes out again, with 6 otherwise.
"""

SHOWN = 20
"""So many pictures are all shown; of more, only those that did not come out byte for byte."""


@click.command("reproduce", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--ids", type=IDS, metavar="A,B|@FILE", help="Only these samples.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples.")
@click.option("--device", metavar="D", help="Such as cuda:0; chosen when left out.")
@click.option("--task", metavar="T", help="The run's task, if its generator looks things up there.")
@click.option(
    "--requests", type=click.Path(path_type=Path), metavar="SRC", help="The agent's answers it was drawn from."
)
@click.option("-g", "generator_args", type=KEY_VALUE, multiple=True, help="What is not recorded, such as an address.")
@click.option("--tolerance", type=click.IntRange(0, 255), default=2, metavar="L", help="Levels of 255 [2].")
@click.option("--budget", type=click.FloatRange(0), metavar="USD", help="Spend no more.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=600.0, metavar="S", help="Seconds a drawing."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, as_json: bool, generator_args: tuple[tuple[str, Any], ...], **options: Any) -> int:
    """Draw again from a run's record and compare hashes and pixels.

    Finds stored pictures that were changed, records whose seed is not the run's, and generators that do not repeat.
    Nothing in the run is changed. Hosted generators are paid again.
    """
    from knowgen.reproducing import reproduce

    found = reproduce(run, generator_args=dict(generator_args), progress=not as_json, **options)
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(found)))
    if found.stopped:
        return {"interrupted": 130, "budget": 5}.get(found.stopped, 6)
    return 0 if found.ok else 6


def _lines(found: Reproduction) -> list[str]:
    """Says what came of it: what has changed since, the pictures, the count."""
    from collections import Counter

    from knowgen.reproducing import NOT_COMPARED

    lines = [
        f"changed  {name}: {then or 'none'} then, {now or 'none'} now" for name, (then, now) in found.changes.items()
    ]
    shown = [each for each in found.pictures if len(found.pictures) <= SHOWN or each.verdict != "same"]
    if shown:
        lines += ["", *_table(shown), ""]
    counts = Counter(each.verdict for each in found.pictures if each.verdict not in NOT_COMPARED)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines.append(f"{found.reproduced} of {found.compared} pictures come out again: {told}")
    if found.stopped:
        lines.append(f"ended before all were drawn: {found.stopped}")
    return lines


def _table(pictures: list[RegeneratedImage]) -> list[str]:
    rows = [["sample", "repeat", "verdict", "mean", "largest", "differ", "PSNR", ""]]
    for each in pictures:
        apart = each.difference
        figures = ["", "", "", ""]
        if apart is not None:
            psnr = f"{apart.psnr:.1f} dB" if apart.psnr is not None else "equal"
            figures = [f"{apart.mean:.2f}", str(apart.largest), f"{apart.share:.1%}", psnr]
        rows.append([_plain(each.sample_id), str(each.repeat), each.verdict, *figures, _plain(each.detail)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0, 2, 7}
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plain(text: str) -> str:
    """Returns text as one line that cannot steer a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
