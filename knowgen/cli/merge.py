"""`knowgen merge`: merge the shards of a run."""

from __future__ import annotations

from pathlib import Path

import click

from knowgen.cli.options import run_option

EPILOG = """\b
Example:
  knowgen merge parts/* -o reports/whole
after these runs on four machines (sbatch --array=1-4):
  knowgen run --task TASK --generator GENERATOR --shard $SLURM_ARRAY_TASK_ID/4
      --out parts/$SLURM_ARRAY_TASK_ID
"""


@click.command("merge", epilog=EPILOG)
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Merged run directory."
)
@run_option("protocol")
@click.option("--unfinished", is_flag=True, help="Merge even if images or scores are missing; they count as not run.")
@click.option("--fresh", is_flag=True, help="Replace an earlier run in DIR.")
def command(shards: tuple[Path, ...], out: Path, protocol: str, unfinished: bool, fresh: bool) -> int:
    """Merge the shards of a run into the directory that one unsharded run would have written.

    A shard is a run directory made by `knowgen run --shard I/N`: every Nth sample of the selection, from the Ith on.
    Images are hard links where the file system supports them.
    """
    from knowgen.cli.common import command_line, failure_lines
    from knowgen.report import tables
    from knowgen.store.manifest import read_manifest
    from knowgen.workflows.merge import merge

    run = merge(shards, out, protocol=protocol, unfinished=unfinished, fresh=fresh)
    click.echo()
    click.echo(tables.terminal(list(run.summaries(protocols=(run.protocol,)))))
    click.echo()
    for line in failure_lines(run):
        click.echo(line)
    manifest = read_manifest(run.path)
    for name, versions in manifest.versions.items() if manifest is not None else ():
        if ", " in versions:
            click.echo(f"differ   the shards were made with {name} {versions}")
    click.echo(f"merged   {len(shards)} shards into {run.path}: {run.spec.selection.label}")
    click.echo(f"rescore  {command_line('score', run.path, '--scorer', run.spec.scorers[0].name)}")
    click.echo(f"report   {(run.path / 'report' / 'index.html').resolve()}")
    return 0
