"""`knowgen world`: build synthetic benchmarks."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen world build --seed 7 --samples 96 --out worlds/seven
  knowgen run --task worlds/seven --generator open_book
"""


@click.group("world", epilog=EPILOG)
def command() -> None:
    """Build a synthetic world: prompts, ground truths, pages and images to search."""


@command.command("build", epilog=EPILOG, short_help="Build a synthetic world from a seed.")
@click.option(
    "--seed", required=True, type=click.IntRange(0), metavar="N", help="Seed; equal seeds give identical worlds."
)
@click.option(
    "--samples",
    required=True,
    type=click.IntRange(1),
    metavar="N",
    help="Number of samples; 48 are two of each category.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the task.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Number of processes [one per core].")
def build(seed: int, samples: int, out: Path, workers: int | None) -> int:
    """Build a synthetic world from a seed, as a task folder for `knowgen run --task`."""
    from knowgen.worlds.build import build_world

    folder = build_world(out, seed, samples, workers=workers)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{samples} samples, {size / 1e6:.1f} MB in {folder}")
    return 0
