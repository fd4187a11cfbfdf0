"""Write a report as a folder that opens from disk without a network: page, images and data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError, DataError
from knowgen.report import payload
from knowgen.report.gallery import Gallery, collect
from knowgen.report.headline import lead_of
from knowgen.report.image_files import RECIPE, ShownImage, make_images
from knowgen.report.page import render
from knowgen.report.payload import write_data
from knowgen.report.view import ReportRun, ReportSystem, ReportView, systems_of, views_of

MARKER = "knowgen-report.txt"
"""File in every report; a folder without it is not a report and is not replaced."""

OWN = frozenset({"img", "data", "static", "index.html", MARKER})
"""Names in a report folder; a folder with any other name is not replaced."""

STATIC = (
    "theme.js",
    "folds.js",
    "address.js",
    "page.js",
    "viewer.js",
    "card.js",
    "depth.js",
    "trajectory.js",
    "gallery.js",
    "report.css",
    "icon.svg",
)


def write_report(runs: Sequence[ReportRun], out: Path) -> Path:
    """Write the report of one or more runs.

    The folder is written under a temporary name and moved into place when complete, so that readers never see a partial
    report. An earlier report is replaced, and its images are reused.

    Args:
        runs: Runs in the order of the page; the first summary of the first run is the headline.
        out: Folder to write.

    Returns:
        Path of `index.html`.

    Raises:
        UsageError: No run is given, or one has no summary.
        ConfigError: `out` is a file, or a folder with other content.
        DataError: The folder cannot be written.
    """
    systems = systems_of(runs)
    views = views_of(systems)
    requested, out = out, out.resolve()
    _check_replaceable(out)
    collected = collect(systems, views)
    try:
        with folder_draft(out) as fresh:
            _fill(fresh, systems, views, collected, _images_of(out))
    except OSError as error:
        where = str(error.filename or out)
        raise DataError(
            f"cannot be written: {error.strerror or error}", where=where, fix="free space or name another folder"
        ) from error
    return requested / "index.html"


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("not a folder", where=str(out), fix="name another folder with -o")
    names = sorted(path.name for path in out.iterdir())
    if names and MARKER not in names:
        raise ConfigError("the folder is not a report", where=str(out), fix="name an empty or new folder with -o")
    others = [name for name in names if name not in OWN]
    if others:
        fix = "move it elsewhere, or name another folder with -o"
        raise ConfigError(f"the folder has {others[0]!r} beside an earlier report", where=str(out), fix=fix)


def _images_of(out: Path) -> Path | None:
    marker = out / MARKER
    return out / "img" if marker.is_file() and RECIPE in marker.read_text(encoding="utf-8") else None


def _fill(
    folder: Path, systems: Sequence[ReportSystem], views: Sequence[ReportView], collected: Gallery, earlier: Path | None
) -> None:
    for name in ("img", "data", "static"):
        (folder / name).mkdir()
    static = files("knowgen.report").joinpath("static")
    for name in STATIC:
        (folder / "static" / name).write_text(static.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    shown: dict[str, ShownImage] = make_images(collected.images, folder / "img", earlier)
    write_data(folder / "data", "index", payload.index(systems, views, collected, shown))
    for number, chunk in enumerate(payload.chunks(collected)):
        write_data(folder / "data", f"chunk-{number}", chunk)
    for number, lines in payload.trajectories(collected, shown):
        write_data(folder / "data", f"trajectories-{number}", lines)
    leads = {view.index: lead for view in views if (lead := lead_of(systems, view)) is not None}
    (folder / "index.html").write_text(render(systems, views, collected, shown, leads), encoding="utf-8")
    (folder / MARKER).write_text(f"A report written by knowgen. Images: {RECIPE}\n", encoding="utf-8")
