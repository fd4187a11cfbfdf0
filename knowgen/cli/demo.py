"""`knowgen demo`: the four reference systems on the embedded world."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen demo --out reports/demo
"""


@click.command("demo", epilog=EPILOG)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("reports/demo"), metavar="DIR", help="[reports/demo]"
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples.")
def command(out: Path, limit: int | None) -> int:
    """Run four reference systems end to end: no key, no GPU, no network."""
    from knowgen.demo import run_demo

    return run_demo(out, limit)
