"""What an experiment tracker gets of a run: its specification, its progress, and at the end its figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from knowgen.core.spec import RunSpec
from knowgen.core.text import one_line
from knowgen.engine.options import RunOutcome
from knowgen.engine.progress import Progress, RunCounts
from knowgen.stats.coverage import score_coverage
from knowgen.stats.summary import OVERALL, Figure, Summary
from knowgen.store.manifest import library_versions
from knowgen.store.run import RunStore
from knowgen.tracking.contract import Ending, TrackedImage, TrackedRun
from knowgen.tracking.session import Tracking
from knowgen.workflows.artifacts import SUMMARY_FILE, TABLES
from knowgen.workflows.run import Run

LOG_SECONDS = 2.0
"""Seconds between two points of the curves of a run."""

CAPTION_LENGTH = 200
"""Maximum length of the caption of an image in characters."""


def tracked_run(spec: RunSpec, path: Path, protocol: str) -> TrackedRun:
    """Return the description of a run for trackers.

    Args:
        spec: Its specification, which has no secrets.
        path: Its directory, absolute.
        protocol: Scoring protocol of the headline.
    """
    config = {**spec.model_dump(mode="json"), "protocol": protocol, "versions": library_versions()}
    return TrackedRun(name=f"{spec.system} on {spec.task}", kind="run", folder=str(path), config=config)


class TrackedProgress(Progress):
    """Shows the progress of a run, and sends it to trackers.

    Args:
        enabled: Whether to show anything on stderr.
        tracking: The trackers.
        clock: Current time in seconds.
    """

    def __init__(self, enabled: bool, tracking: Tracking, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(enabled, clock)
        self._tracking = tracking
        self._last: tuple[RunCounts, float] | None = None
        self._logged, self._next = -1, clock()

    def show(self, counts: RunCounts | None, cost: float, waiting: str = "") -> None:
        """Update the display and the curves; arguments as in `Progress.show`."""
        super().show(counts, cost, waiting)
        if counts is None:
            return
        self._last = counts, cost
        if counts.done > self._logged and self._clock() >= self._next:
            self._log()

    def close(self) -> None:
        """Remove the bar, and send the last counts."""
        super().close()
        if self._last is not None:
            self._log()
            self._last = None

    def _log(self) -> None:
        assert self._last is not None
        counts, cost = self._last
        self._logged, self._next = counts.done, self._clock() + LOG_SECONDS
        values = progress_values(counts.outcome, cost)
        seconds = {"progress/seconds": self._clock() - self._started}
        self._tracking.log({"progress/failed": counts.failed, **values, **seconds}, counts.done)


def progress_values(outcome: RunOutcome, cost: float) -> dict[str, float]:
    """Return the counts of a run by the names of their curves; results that existed before are included.

    Args:
        outcome: The counts so far.
        cost: US dollars spent so far.
    """
    return {
        "progress/answered": outcome.answered + outcome.answer_cached,
        "progress/answer_failed": outcome.answer_failed,
        "progress/generated": outcome.generated + outcome.generation_cached,
        "progress/generation_failed": outcome.generation_failed,
        "progress/scored": outcome.scored + outcome.score_cached,
        "progress/score_failed": outcome.score_failed,
        "progress/cost": cost,
    }


def log_results(tracking: Tracking, run: Run) -> None:
    """Send the figures, the tables and, where asked for, a few images of a run that has ended.

    Args:
        tracking: The trackers.
        run: The run, with its outputs written.
    """
    if not tracking:
        return
    if run.spec.scorers:
        for summary in run.summaries():
            tracking.figures(final_figures(summary))
        tables = sorted((run.path / TABLES).glob("*"))
        tracking.files([path for path in (run.path / SUMMARY_FILE, *tables) if path.is_file()])
    if tracking.images_wanted:
        tracking.images(_images(run.path, tracking.images_wanted))


def ending_of(outcome: RunOutcome) -> Ending:
    """Return how a run ended, in the words of a tracker."""
    if outcome.stopped == "interrupted":
        return "interrupted"
    return "failed" if outcome.stopped else "done"


def final_figures(summary: Summary) -> dict[str, float | None]:
    """Return the figures of a summary by the names `SCORER/PROTOCOL/FIGURE`, with intervals and coverage.

    A figure without a result, because too few scores exist, is None; its coverage says so.
    """
    start = f"{summary.scorer}/{summary.protocol}"
    values: dict[str, float | None] = {}
    for part in summary.slices:
        if part.kind == "all":
            for name, figure in part.figures.items():
                values |= _named(f"{start}/{name}", figure)
        elif part.kind == "group":
            values |= _named(f"{start}/group/{part.name}", part.figures[OVERALL])
    coverage = score_coverage(summary.slice().coverage)
    values[f"{start}/coverage"] = coverage.covered / coverage.expected if coverage.expected else None
    values[f"{start}/missing"] = coverage.missing
    return {**values, "cost": summary.cost, "seconds": summary.seconds}


def _named(name: str, figure: Figure) -> dict[str, float | None]:
    # not `name/low`: a store that keeps metrics as files cannot have a file and a folder of one name
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high, f"{name}_n": figure.n}


def _images(path: Path, wanted: int) -> list[TrackedImage]:
    """Return the first images of a run in the order of its task."""
    with RunStore.read(path) as store:
        prompts = {sample.id: sample.prompt for sample in store.samples()}
        made = ((each.sample_id, each.image) for _, each in store.generations() if each.image is not None)
        return [
            TrackedImage(str(store.image_path(image)), one_line(f"{sample}: {prompts[sample]}", CAPTION_LENGTH))
            for sample, image in islice(made, wanted)
            if image is not None
        ]
