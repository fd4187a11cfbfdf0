"""`knowgen reproduce`: generate the images of a run again and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.options import run_option
from knowgen.core.text import one_line

if TYPE_CHECKING:
    from knowgen.workflows.reproduce import ImageComparison, Reproduction

EPILOG = """\b
Examples:
  knowgen reproduce reports/open_book --limit 8
  knowgen reproduce reports/mine --ids s1,s7 --device cuda:1 --json
Exit code 0 when every image is reproduced, 6 otherwise.
"""

SHOWN = 20
"""Maximum number of images that are all shown; of more, only those that differ in any byte."""


@click.command("reproduce", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@run_option("ids")
@run_option("limit")
@click.option("--device", metavar="D", help="Device, such as cuda:0 [chosen automatically].")
@click.option("--task", metavar="T", help="Task that provides the generator's search.")
@run_option("requests", help="The agent's answers that the run was generated from.")
@run_option("generator_args", help="Argument that is not recorded, such as a URL.")
@click.option(
    "--tolerance",
    type=click.IntRange(0, 255),
    default=2,
    metavar="L",
    help="Allowed per-channel pixel difference, 0-255 [2].",
)
@run_option("budget", help="Maximum cost in USD.")
@run_option("timeout")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, as_json: bool, generator_args: tuple[tuple[str, Any], ...], **options: Any) -> int:
    """Generate again from a run's record and compare hashes and pixels.

    Finds changed image files, records with a seed that is not the run's, and generators that are not deterministic.
    Nothing in the run is changed. Hosted generators are paid again.
    """
    from knowgen.workflows.reproduce import reproduce

    found = reproduce(run, generator_args=dict(generator_args), progress=not as_json, **options)
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(found)))
    if found.stopped:
        return {"interrupted": 130, "budget": 5}.get(found.stopped, 6)
    return 0 if found.ok else 6


def _lines(found: Reproduction) -> list[str]:
    """Return what has changed since, a table of images, and the counts."""
    from collections import Counter

    from knowgen.workflows.reproduce import NOT_COMPARED

    lines = [
        f"changed  {name}: {then or 'none'} then, {now or 'none'} now" for name, (then, now) in found.changes.items()
    ]
    shown = [each for each in found.images if len(found.images) <= SHOWN or each.verdict != "same"]
    if shown:
        lines += ["", *_table(shown), ""]
    counts = Counter(each.verdict for each in found.images if each.verdict not in NOT_COMPARED)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines.append(f"{found.reproduced} of {found.compared} images reproduced: {verdicts}")
    if found.stopped:
        lines.append(f"stopped before all were generated: {found.stopped}")
    return lines


def _table(images: list[ImageComparison]) -> list[str]:
    rows = [["sample", "repeat", "verdict", "mean", "largest", "differ", "PSNR", ""]]
    for each in images:
        apart = each.difference
        figures = ["", "", "", ""]
        if apart is not None:
            psnr = f"{apart.psnr:.1f} dB" if apart.psnr is not None else "equal"
            figures = [f"{apart.mean:.2f}", str(apart.largest), f"{apart.share:.1%}", psnr]
        rows.append([one_line(each.sample_id), str(each.repeat), each.verdict, *figures, one_line(each.detail)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0, 2, 7}
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
