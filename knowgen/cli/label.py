"""`knowgen label`: let people rate or compare images, and show what they said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from knowgen.cli.common import command_line
from knowgen.cli.options import IDS, JSON_HELP

if TYPE_CHECKING:
    from knowgen.labelling.items import LabelPlan
    from knowgen.labelling.server import LabelServer

EPILOG = """\b
Examples:
  knowgen label reports/mine
  knowgen label reports/a reports/b --mode pairs --samples 40
  knowgen label reports/mine --export labels.csv
  knowgen agree reports/mine --labels labels.csv
  knowgen label --show -o labels -o labels_of_ann
  knowgen label reports/a reports/b --show
Labels are in LABELS_DIR/<rater>.jsonl; stop with Ctrl-C, and the same command goes on.
"""

EXPORTS = {"rate": "ratings.csv", "pairs": "comparisons.csv"}
"""Files that are written into the folder of labels when the page is closed."""


@click.command("label", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "--labels", "folders", multiple=True, type=click.Path(path_type=Path), metavar="LABELS_DIR",
    help="Folder of the labels [labels]; repeatable with --show and --export.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["rate", "pairs"]), default="rate", show_default=True,
    help="Rate one image after the other, or pick the better of two.",
)  # fmt: skip
@click.option("--rater", metavar="NAME", help="Name of the rater [asked on the page].")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Label N samples drawn at random [all].")
@click.option("--ids", type=IDS, metavar="A,B,C|@FILE", help="Label these samples.")
@click.option("--scorer", metavar="NAME", help="Rate the dimensions of this scorer of the first run.")
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of the drawn samples and the orders [0].")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="TCP port [any free one].")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write a CSV of the labels, then stop.")
@click.option(
    "--show",
    is_flag=True,
    help="Show raters, their agreement and a Bradley-Terry board, then stop.",
)
@click.option("--markdown", is_flag=True, help="With --show: print Markdown.")
@click.option("--json", "as_json", is_flag=True, help=f"With --show: {JSON_HELP[0].lower()}{JSON_HELP[1:]}")
def command(runs: tuple[Path, ...], folders: tuple[Path, ...], **options: Any) -> int:
    """Open a local page on which people rate images or pick the better of two, blind to the system."""
    folders = folders or (Path("labels"),)
    if (options["markdown"] or options["as_json"]) and not options["show"]:
        raise click.UsageError("--markdown and --json need --show")
    if options["show"]:
        return _show(runs, folders, options)
    if not runs:
        raise click.UsageError("name one or more runs, or --show")
    plan = _plan(runs, options)
    if options["export"] is not None:
        click.echo(_export(plan, folders, options["export"]))
        return 0
    if len(folders) > 1:
        raise click.UsageError("several folders of labels need --show or --export; labels are written to one")
    return _serve(plan, folders[0], runs, options)


def _plan(runs: tuple[Path, ...], options: dict[str, Any]) -> LabelPlan:
    from knowgen import api
    from knowgen.labelling.items import make_plan
    from knowgen.workflows.compare import run_names

    loaded = [api.load_run(run) for run in runs]
    names = run_names(loaded)
    return make_plan(
        list(zip(names, runs, strict=True)),
        options["mode"],
        ids=options["ids"],
        samples=options["samples"],
        scorer=options["scorer"],
        seed=options["seed"],
    )


def _show(runs: tuple[Path, ...], folders: tuple[Path, ...], options: dict[str, Any]) -> int:
    import json

    from knowgen.labelling.overview import overview, overview_tables
    from knowgen.report.text_table import markdown_text, terminal_text

    modes = ("rate", "pairs") if len(runs) > 1 else ("rate",)
    found = overview(folders, [_plan(runs, {**options, "mode": mode}) for mode in modes] if runs else ())
    if options["as_json"]:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=1, sort_keys=True))
    elif options["markdown"]:
        click.echo(markdown_text(overview_tables(found)), nl=False)
    else:
        click.echo(terminal_text(overview_tables(found)))
    return 0


def _export(plan: LabelPlan, folders: tuple[Path, ...], path: Path) -> str:
    """Write the labels of a plan as CSV and return a line on it; notes go to the error stream."""
    from knowgen.core.text import count
    from knowgen.labelling.export import matched_labels, write_comparisons, write_ratings

    matched = matched_labels(plan, folders)
    for note in matched.notes:
        click.echo(f"note     {note}", err=True)
    if plan.mode == "rate":
        return f"wrote    {path} ({count(write_ratings(path, matched, plan.dimensions), 'rating')})"
    return f"wrote    {path} ({count(write_comparisons(path, matched), 'comparison')})"


def _serve(plan: LabelPlan, folder: Path, runs: tuple[Path, ...], options: dict[str, Any]) -> int:
    from knowgen.core.text import count
    from knowgen.labelling.items import left_out_lines
    from knowgen.labelling.label_files import require_writable
    from knowgen.labelling.server import LabelServer, listen, serve

    require_writable(folder)
    server = LabelServer(
        plan, folder, rater=options["rater"], warn=lambda line: click.echo(f"warning: {line}", err=True)
    )
    sock = listen(options["port"])
    what = count(plan.total, "image" if plan.mode == "rate" else "pair")
    click.echo(f"label    {what} of {count(len(plan.samples), 'sample')}, {count(len(plan.systems), 'system')}")
    for line in left_out_lines(plan):
        click.echo(f"left out {line}")
    serve(server, sock, lambda address: _announce(server, address, options["no_browser"]))
    _closing_lines(server, folder, runs, options["mode"])
    return 0


def _announce(server: LabelServer, address: str, no_browser: bool) -> None:
    """Print the address, with a way to it from another machine, and open a browser where there is one."""
    import webbrowser

    port = address.split(":")[2].split("/", maxsplit=1)[0]
    click.echo(f"open     {address}")
    if no_browser or _is_headless():
        click.echo(f"from another machine: ssh -L {port}:127.0.0.1:{port} <this machine>, then open the same address")
    elif not webbrowser.open(server.browser_address(address)):
        click.echo("no browser could be opened; open the address yourself", err=True)
    click.echo("stop with Ctrl-C")


def _is_headless() -> bool:
    if os.environ.get("SSH_CONNECTION"):
        return True
    return sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _closing_lines(server: LabelServer, folder: Path, runs: tuple[Path, ...], mode: Literal["rate", "pairs"]) -> None:
    """Print what was labelled, write the table, and print how to go on."""
    from knowgen.cli.common import resume_command

    click.echo()
    used = sorted(server.raters.values(), key=lambda one: one.name)
    for progress in used:
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        outdated = f"; {progress.outdated} earlier labels are of images or questions that have changed"
        click.echo(
            f"labelled {progress.name}: {progress.done} of {progress.total}{skipped}"
            f"{outdated if progress.outdated else ''}"
        )
    if not used:
        click.echo("labelled nothing")
    if any(progress.done > progress.skipped for progress in used):
        table = folder / EXPORTS[mode]
        click.echo(_export(server.plan, (folder,), table))
        if mode == "rate":
            click.echo(f"agree    {command_line('agree', *runs, '--labels', table)}")
        else:
            click.echo(f"board    {command_line('label', '--show', '-o', folder)}")
    click.echo(f"resume   {resume_command()}")
