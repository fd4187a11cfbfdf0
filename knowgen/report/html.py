"""Write a report that opens from disk without a network: as a folder with page, images and data, or as one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from knowgen.core.steps import counted, step
from knowgen.report import payload
from knowgen.report.folder import check_replaceable, report_draft
from knowgen.report.gallery import Gallery, collect
from knowgen.report.headline import lead_of
from knowgen.report.output import FolderOutput, ImageChoice, PageOutput, check_target, single_file
from knowgen.report.page import render
from knowgen.report.search_effect import SearchEffect, search_effect
from knowgen.report.view import ReportRun, ReportSystem, ReportView, systems_of, views_of

STATIC = (
    "report.css",
    "theme.js",
    "folds.js",
    "address.js",
    "elements.js",
    "entries.js",
    "page.js",
    "viewer.js",
    "card.js",
    "depth.js",
    "trajectory.js",
    "gallery.js",
)


def write_report(runs: Sequence[ReportRun], out: Path) -> Path:
    """Write the report of one or more runs as a folder.

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
        _fill(FolderOutput(draft, STATIC), systems, views, collected, None)
    return out / "index.html"


def write_single_report(
    runs: Sequence[ReportRun], out: Path, images: ImageChoice = "small", most_samples: int | None = None
) -> Path:
    """Write the report of one or more runs as one file.

    Args:
        runs: Runs in the order of the page; the first summary of the first run is the headline.
        out: File to write, with the ending .html; an earlier report is replaced.
        images: Which images are put in.
        most_samples: Maximum number of samples that are put in, the first of the task; the figures rest on all of
            them. All when None.

    Returns:
        Path of the file.

    Raises:
        UsageError: No run is given, one has no summary, or the file has another ending.
        ConfigError: `out` is a folder, or a file that is not a report.
        DataError: The file cannot be written.
    """
    systems = systems_of(runs)
    views = views_of(systems)
    check_target(out)
    collected = collect(systems, views)
    with single_file(out, STATIC, images) as output:
        _fill(output, systems, views, collected, most_samples)
    return out


def _fill(
    output: PageOutput,
    systems: Sequence[ReportSystem],
    views: Sequence[ReportView],
    collected: Gallery,
    most_samples: int | None,
) -> None:
    effects = {view.index: search_effect(systems, view, collected) for view in views}
    leads = {view.index: lead for view in views if (lead := lead_of(systems, view)) is not None}
    shown = replace(collected, entries=collected.entries[:most_samples])
    if len(shown.entries) < len(collected.entries):
        wanted = {*_digests(shown), *_effect_digests(effects.values())}
        shown.images = [entry for entry in collected.images if entry[0].sha256 in wanted]

    def write_details() -> None:
        for number, chunk in enumerate(counted(payload.chunks(shown), "writing details")):
            output.data(f"chunk-{number}", chunk)

    images = output.images(shown.images, meanwhile=write_details)
    with step("writing the index of samples"):
        output.data("index", payload.index(systems, views, shown, images))
    for number, lines in counted(payload.trajectories(shown, images), "writing trajectories"):
        output.data(f"trajectories-{number}", lines)
    with step("writing the page"):
        output.page(render(output, systems, views, collected, len(shown.entries), images, leads, effects))


def _digests(gallery: Gallery) -> Iterator[str]:
    """Yield the digest of every image that the entries of a gallery show."""
    for entry in gallery.entries:
        yield gallery.truth_images[entry.task_version, entry.sample.id]
        for cell in entry.cells:
            if cell is None:
                continue
            yield cell.image
            if cell.trajectory is not None:
                details = cell.trajectory.details()
                yield from (each["image"] for taken in details["steps"] for each in taken["images"])
                yield from (each["image"] for each in details["chosen"])


def _effect_digests(effects: Iterable[SearchEffect | None]) -> Iterator[str]:
    for effect in effects:
        for pair in (*effect.gains, *effect.losses) if effect is not None else ():
            yield pair.without.image
            yield pair.with_search.image
