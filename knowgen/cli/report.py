"""`knowgen report`: write an HTML report of runs or of trainings, or rewrite those of a whole folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from knowgen.report.output import ImageChoice

EPILOG = """\b
Examples:
  knowgen report reports/closed_book reports/open_book -o reports/both
  knowgen report reports/open_book -o open_book.html --single-file
  knowgen report reports/train_demo/real -o reports/train_demo/page
  knowgen report --all reports -o reports/all
"""

LARGE_FILE = 50_000_000
"""Size in bytes of a single file above which the command says how to make it smaller."""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder of the report, or its file with --single-file.",
)
@click.option("--single-file", is_flag=True, help="Write one HTML file with everything inside.")
@click.option(
    "--images",
    type=click.Choice(["small", "none"]),
    help="Images of a single file: reduced to 512 pixels, or none [default: small].",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of samples of a single file [default: all].",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of steps of a training whose episodes are in the report [default: 100].",
)
@click.option(
    "--all",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Rewrite summary, tables and report of every run and training in a folder; with -o, an index of them.",
)
def command(
    runs: tuple[Path, ...],
    out: Path | None,
    single_file: bool,
    images: str | None,
    samples: int | None,
    steps: int | None,
    folder: Path | None,
) -> int:
    """Write an HTML report that opens from disk.

    Of runs it shows figures, failures and images; of trainings curves, evaluations, and the trajectories of two steps
    side by side.
    """  # fmt: skip
    from knowgen.core.errors import UsageError

    if folder is not None:
        if runs or single_file or images or samples or steps:
            raise UsageError("--all takes a folder and -o alone", where=str(folder), fix="leave out the rest")
        return _rewrite(folder, out)
    if not runs:
        raise UsageError("no run is named", fix="name one or more run directories, or a folder with --all")
    if out is None:
        raise UsageError("no place for the report", fix="name a folder with -o, or a file with -o and --single-file")
    if (images or samples) and not single_file:
        option = "--images" if images else "--samples"
        raise UsageError(f"{option} is for one file", where=str(out), fix="add --single-file or leave it out")
    page = _write(runs, out, steps, single_file=single_file, images=images, samples=samples)
    click.echo(page.resolve())
    if single_file:
        _say_size(page)
    return 0


def _write(
    runs: tuple[Path, ...], out: Path, steps: int | None, *, single_file: bool, images: str | None, samples: int | None
) -> Path:
    from knowgen.core.errors import UsageError
    from knowgen.workflows.artifacts import OneFile
    from knowgen.workflows.report_training import are_trainings, write_training_report

    kept: ImageChoice = "none" if images == "none" else "small"
    if are_trainings(runs):
        if samples is not None:
            raise UsageError("--samples is for runs", where=str(runs[0]), fix="limit a training with --steps")
        return write_training_report(runs, out, steps, OneFile(kept) if single_file else None)
    if steps is not None:
        raise UsageError("--steps is for trainings", where=str(runs[0]), fix="leave it out")
    from knowgen import api

    loaded = [api.load_run(run) for run in runs]
    return api.write_report(loaded, out, single_file=single_file, images=kept, samples=samples)


def _say_size(page: Path) -> None:
    """Print the size of a single file, and how to make it smaller if it is large."""
    size = page.stat().st_size
    click.echo(f"{size / 1e6:.1f} MB in one file")
    if size > LARGE_FILE:
        click.echo(
            "knowgen: the file is large to send and slow to open on a phone; --images none, --samples N or "
            "--steps N (of a training) makes it smaller",
            err=True,
        )


def _rewrite(folder: Path, out: Path | None) -> int:
    """Rewrite the pages of a folder, one line each; the exit code is 6 if any failed."""
    from knowgen.workflows.rewrite import rewrite_reports

    failed = rewrite_reports(folder, out, click.echo)
    return 6 if failed else 0
