"""`knowgen list`: what there is, read from metadata alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from knowgen.core.errors import DataError

KINDS = ("tasks", "generators", "scorers", "search", "runs")
EPILOG = """\b
Examples:
  knowgen list generators -v
  knowgen list runs reports
"""


@click.command("list", epilog=EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="With generators: the presets of published systems.")
def command(kind: str, folder: Path | None, verbose: bool) -> int:
    """List tasks, generators, scorers, search backends, or the runs below FOLDER [reports]."""
    if folder is not None and kind == "runs" and not folder.is_dir():
        raise DataError("is no folder", where=str(folder), fix="name the folder that holds the runs")
    rows = _runs(folder or Path("reports")) if kind == "runs" else _names(kind)
    if not rows:
        click.echo(f"no {kind}", err=True)
    _print(rows)
    if verbose and kind == "generators":
        click.echo("\npresets of diffusers (seed, most references and more: knowgen/generators/diffusers/presets.yaml)")
        _print(_presets())
    return 0


def _print(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _presets() -> list[tuple[str, ...]]:
    """Returns a line a preset: name, model, class, size, steps, guidance, and why it cannot be drawn with here."""
    from knowgen.generators.diffusers.presets import presets

    return [
        (
            f"diffusers:{preset.name}",
            f"{preset.model}@{preset.revision}",
            preset.pipeline,
            preset.size or "own size",
            f"{preset.steps} steps" if preset.steps else "own steps",
            " ".join(f"{name}={value:g}" for name, value in preset.guidance.items()),
            preset.elsewhere,
        )
        for preset in presets()
    ]


def _names(kind: str) -> list[tuple[str, ...]]:
    from knowgen.core import registry

    found = registry.entries(next(each for each in registry.KINDS if each == kind))
    return [
        (entry.name, entry.target, entry.origin + (f" (also claimed by {entry.clash})" if entry.clash else ""))
        for entry in found.values()
    ]


def _runs(folder: Path) -> list[tuple[str, ...]]:
    """Returns a line a run, newest last; a run that cannot be read is shown with the reason."""
    manifests = sorted(folder.glob("**/run.json"), key=lambda path: path.stat().st_mtime)
    rows: list[tuple[str, ...]] = []
    for manifest in manifests:
        try:
            spec = json.loads(manifest.read_text(encoding="utf-8"))["spec"]
            rows.append(
                (
                    str(manifest.parent),
                    str(spec["task"]),
                    str(spec["generator"]["name"]),
                    ",".join(str(scorer["name"]) for scorer in spec["scorers"]),
                    _headline(manifest.parent / "summary.json"),
                )
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
            rows.append((str(manifest.parent), "?", "?", "?", f"cannot be read: {type(error).__name__}"))
    return rows


def _headline(path: Path) -> str:
    """Returns the K-Score of a run as its summary file tells it."""
    if not path.is_file():
        return "not finished"
    summary = json.loads(path.read_text(encoding="utf-8"))["summaries"][0]
    if reason := summary.get("no_result"):
        return f"{summary['protocol']} no result: {reason}"
    figure = next(part for part in summary["slices"] if part["kind"] == "all")["figures"]["overall"]
    return f"{summary['protocol']} n/a" if figure["value"] is None else f"{summary['protocol']} {figure['value']:.3f}"
