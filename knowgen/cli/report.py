"""`knowgen report`: write an HTML report of one or more runs, or of one or more trainings."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  knowgen report reports/closed_book reports/open_book -o reports/both
  knowgen report reports/train_demo/real -o reports/train_demo/page
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report."
)
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N",
    help="Maximum number of steps of a training whose episodes are in the report [default: 100].",
)  # fmt: skip
def command(runs: tuple[Path, ...], out: Path, steps: int | None) -> int:
    """Write an HTML report that opens from disk.

    Of runs it shows figures, failures and images; of trainings curves, evaluations, and the trajectories of two steps
    side by side.
    """
    from knowgen.core.errors import UsageError
    from knowgen.workflows.report_training import are_trainings, write_training_report

    if are_trainings(runs):
        page = write_training_report(runs, out, steps)
    elif steps is not None:
        raise UsageError("--steps is for trainings", where=str(runs[0]), fix="leave it out")
    else:
        from knowgen import api

        page = api.write_report([api.load_run(run) for run in runs], out)
    click.echo(page.resolve())
    return 0
