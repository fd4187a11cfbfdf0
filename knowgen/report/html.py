"""Write a report as a folder that opens from disk without a network: page, images and data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knowgen.report import payload
from knowgen.report.folder import ReportDraft, check_replaceable, report_draft
from knowgen.report.gallery import Gallery, collect
from knowgen.report.headline import lead_of
from knowgen.report.image_files import ShownImage, make_images
from knowgen.report.page import render
from knowgen.report.payload import write_data
from knowgen.report.view import ReportRun, ReportSystem, ReportView, systems_of, views_of

STATIC = (
    "theme.js",
    "folds.js",
    "address.js",
    "elements.js",
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

    An earlier report is replaced, and its images are reused; see `report_draft`.

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
    check_replaceable(out)  # before the runs are read
    collected = collect(systems, views)
    with report_draft(out) as draft:
        _fill(draft, systems, views, collected)
    return out / "index.html"


def _fill(draft: ReportDraft, systems: Sequence[ReportSystem], views: Sequence[ReportView], collected: Gallery) -> None:
    draft.add_static(STATIC)
    folder = draft.folder
    shown: dict[str, ShownImage] = make_images(collected.images, folder / "img", draft.earlier)
    write_data(folder / "data", "index", payload.index(systems, views, collected, shown))
    for number, chunk in enumerate(payload.chunks(collected)):
        write_data(folder / "data", f"chunk-{number}", chunk)
    for number, lines in payload.trajectories(collected, shown):
        write_data(folder / "data", f"trajectories-{number}", lines)
    leads = {view.index: lead for view in views if (lead := lead_of(systems, view)) is not None}
    (folder / "index.html").write_text(render(systems, views, collected, shown, leads), encoding="utf-8")
