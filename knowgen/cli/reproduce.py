"""`knowgen reproduce`: generate the images of a run again, and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.options import DEVICE_HELP, JSON_HELP, run_option
from knowgen.core.text import one_line

if TYPE_CHECKING:
    from knowgen.workflows.reproduce import ImageComparison, Reproduction

EPILOG = """\b
Examples:
  knowgen reproduce reports/open_book --limit 8
  knowgen reproduce reports/mine --ids s1,s7 --device cuda:1 --json
The exit code is 0 when every image is reproduced, 6 otherwise.
"""

SHOWN = 20
"""Maximum number of images for which all are listed; above it, only those that are not byte-identical."""


@click.command("reproduce", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@run_option("ids")
@run_option("limit")
@click.option("--device", metavar="DEVICE", help=DEVICE_HELP)
@click.option("--task", metavar="TASK", help="Task with the generator's search backend [the run's].")
@run_option("requests", help="Agent answers (run or file) that the run used as prompts.")
@run_option("generator_args", help="Generator argument that keys leave out: a URL, search; repeatable.")
@click.option(
    "--tolerance",
    type=click.IntRange(0, 255),
    default=2,
    metavar="N",
    help="Allowed per-channel pixel difference, 0-255 [2].",
)
@run_option("budget", help="Maximum cost in USD of generating again.")
@run_option("timeout")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
def command(run: Path, as_json: bool, generator_args: tuple[tuple[str, Any], ...], **options: Any) -> int:
    """Generate the images of a run again, and compare their hashes and pixels.

    Finds image files that were changed, records whose seed is not the run's, and generators that are not deterministic.
    The run is not modified. Hosted generators are paid again.
    """
    from knowgen.workflows.reproduce import reproduce

    result = reproduce(run, generator_args=dict(generator_args), progress=not as_json, **options)
    if as_json:
        click.echo(json.dumps(result.plain(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(result)))
    if result.stopped:
        return {"interrupted": 130, "budget": 5}.get(result.stopped, 6)
    return 0 if result.ok else 6


def _lines(result: Reproduction) -> list[str]:
    """Return the changes of the environment since the run, a table of images, and the counts."""
    from collections import Counter

    from knowgen.workflows.reproduce import NOT_COMPARED

    lines = [
        f"changed  {name}: {then or 'none'} then, {now or 'none'} now" for name, (then, now) in result.changes.items()
    ]
    shown = [each for each in result.images if len(result.images) <= SHOWN or each.verdict != "same"]
    if shown:
        lines += ["", *_table(shown), ""]
    counts = Counter(each.verdict for each in result.images if each.verdict not in NOT_COMPARED)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines.append(f"{result.reproduced} of {result.compared} images reproduced: {verdicts}")
    if result.stopped:
        lines.append(f"stopped before all images were generated: {result.stopped}")
    return lines


def _table(images: list[ImageComparison]) -> list[str]:
    rows = [["sample", "repeat", "verdict", "mean", "largest", "differ", "PSNR", ""]]
    for each in images:
        difference = each.difference
        figures = ["", "", "", ""]
        if difference is not None:
            psnr = f"{difference.psnr:.1f} dB" if difference.psnr is not None else "equal"
            figures = [f"{difference.mean:.2f}", str(difference.largest), f"{difference.share:.1%}", psnr]
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
