"""Rewrite the outputs of every run and training in a folder by this version, and write an index of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from knowgen.core.errors import KnowgenError, UsageError
from knowgen.core.secrets import mask_secrets
from knowgen.core.steps import counted
from knowgen.core.text import count, error_summary, one_line, parse_json
from knowgen.report.runs_index import IndexedRun, IndexedTraining, OtherDirectory
from knowgen.store.folder import IMAGE_FOLDER, is_run_directory
from knowgen.store.lock import InUseError, RunLock
from knowgen.store.training_run import TrainingRun

if TYPE_CHECKING:
    from knowgen.workflows.run import Run

REPORT = "report"
"""Folder of the report in the directory of a run or a training."""

NO_SCORES = "it has not been scored"


@dataclass(frozen=True)
class Rewritten:
    """What became of one directory.

    Attributes:
        path: The directory.
        state: Whether its outputs were written, were not to be written, or could not be written.
        words: Its result, or the reason.
        entry: Its line of the index; None without a report.
    """

    path: Path
    state: Literal["written", "skipped", "failed"]
    words: str
    entry: IndexedRun | IndexedTraining | None = None


def rewrite_reports(folder: Path, index: Path | None, say: Callable[[str], object]) -> int:
    """Rewrite summary, tables and report of each run, and the report of each training, in several processes.

    Nothing else in the directories changes. One that another process is writing at that moment is left alone.

    Args:
        folder: The folder; runs and trainings are searched at every depth.
        index: Folder of the index page; None for none.
        say: Receives one line for each directory, and one at the end.

    Returns:
        How many could not be written.

    Raises:
        UsageError: The folder has neither runs nor trainings.
        ConfigError: The folder of the index has something else in it.
        DataError: The index cannot be written.
    """
    from knowgen.report.folder import check_replaceable

    if not folder.is_dir():
        raise UsageError("is not a folder", where=str(folder), fix="name a folder with runs")
    runs, trainings = found_directories(folder)
    if not runs and not trainings:
        raise UsageError("no run or training is in this folder", where=str(folder), fix="name the folder above them")
    if index is not None:
        check_replaceable(index)
    results = []
    # trainings last: their pages link to the reports of their evaluations
    for paths in (runs, trainings):
        for result in _in_processes(paths, folder):
            say(one_line(mask_secrets(f"{_below(result.path, folder)}: {result.state}: {result.words}")))
            results.append(result)
    counts = {state: sum(result.state == state for result in results) for state in ("written", "skipped", "failed")}
    say(", ".join(f"{number} {state}" for state, number in counts.items() if number))
    if index is not None:
        say(str(_write_index(folder, results, index).resolve()))
    return counts["failed"]


def found_directories(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the run directories and the directories of trainings at every depth, sorted; links are not followed."""
    runs, trainings = [], []
    for place, names, _ in os.walk(folder):
        path = Path(place)
        if is_run_directory(path):
            runs.append(path)
            names.clear()
            continue
        if TrainingRun.at(path):
            trainings.append(path)
            names[:] = [name for name in names if name not in (IMAGE_FOLDER, REPORT)]
        # a folder that another process is writing has a name with a dot
        names[:] = [name for name in names if not name.startswith(".")]
    return sorted(runs), sorted(trainings)


def _in_processes(paths: Sequence[Path], folder: Path) -> Iterator[Rewritten]:
    """Yield the result of each directory, in order."""
    workers = min(len(paths), os.cpu_count() or 1)
    if workers == 0:
        return
    done = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_rewrite, path, folder) for path in paths]
        try:
            for future in counted(futures, f"rewriting reports of {_below(folder, folder)}"):
                yield future.result()
                done += 1
        except BrokenProcessPool:
            pass  # one process was killed, and took with it what the others had not finished
    # each of the others alone, so that the one whose process is killed is known
    for path in paths[done:]:
        yield _alone(path, folder)


def _alone(path: Path, folder: Path) -> Rewritten:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_rewrite, path, folder).result()
        except BrokenProcessPool:
            return Rewritten(path, "failed", "its process was killed, perhaps for lack of memory")


def _rewrite(path: Path, folder: Path) -> Rewritten:
    """Rewrite the outputs of one directory; an error is a result."""
    try:
        lock = RunLock(path)
        try:
            if TrainingRun.at(path):
                return _rewrite_training(path, folder)
            return _rewrite_run(path, folder)
        finally:
            lock.release()
    except InUseError as error:
        return Rewritten(path, "skipped", error.what)
    except KnowgenError as error:
        return Rewritten(path, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - one damaged directory must not stop the others
        return Rewritten(path, "failed", f"unexpected {error_summary(error)}")


def _rewrite_run(path: Path, folder: Path) -> Rewritten:
    from knowgen.report.headline import score_words
    from knowgen.report.numbers import interval, number
    from knowgen.store.run import RunStore
    from knowgen.workflows.run import load_run

    run = load_run(path)
    if not run.spec.scorers:
        return Rewritten(path, "skipped", NO_SCORES)
    run.protocol = _protocol_of(run)
    run.write_outputs()
    with RunStore.read(path) as store:
        day = store.manifest.started[:10]
    summaries = tuple(run.summarise(run.protocol, scorer.name) for scorer in run.spec.scorers)
    entry = IndexedRun(_below(path, folder), path / REPORT / "index.html", day, summaries, run.spec.privileged)
    first, figure = summaries[0], summaries[0].headline
    if first.no_result or figure.value is None:
        return Rewritten(path, "written", f"no result: {first.no_result or figure.note}", entry)
    between = f" ({interval(figure)})" if figure.low is not None else ""
    return Rewritten(path, "written", f"{score_words(first.dimensions)} {number(figure.value)}{between}", entry)


def _protocol_of(run: Run) -> str:
    """Return the protocol of the headline that the run was made with, as its summary has it."""
    from knowgen.stats.protocol import PROTOCOLS
    from knowgen.workflows.artifacts import SUMMARY_FILE

    try:
        written = parse_json((run.path / SUMMARY_FILE).read_text(encoding="utf-8"))
        name = written["summaries"][0]["protocol"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return run.protocol  # a run that was interrupted before its first summary, or whose summary is damaged
    return name if name in PROTOCOLS else run.protocol


def _rewrite_training(path: Path, folder: Path) -> Rewritten:
    from knowgen.report.training.answer import answer
    from knowgen.report.training.view import trainings_of
    from knowgen.workflows.report_training import write_training_report

    store = TrainingRun(path)
    (training,) = trainings_of([store])
    page = write_training_report([path], path / REPORT)
    metrics = path / TrainingRun.METRICS
    day = datetime.fromtimestamp(metrics.stat().st_mtime, UTC).date().isoformat() if metrics.is_file() else ""
    best = training.best.figure if training.best is not None else None
    sentence = answer([training]).sentence
    entry = IndexedTraining(_below(path, folder), page, day, training.method, sentence, len(training.metrics), best)
    return Rewritten(path, "written", f"{count(entry.steps, 'step')}: {sentence}", entry)


def _below(path: Path, folder: Path) -> str:
    below = path.relative_to(folder).as_posix()
    return folder.resolve().name if below == "." else below


def _write_index(folder: Path, results: Sequence[Rewritten], out: Path) -> Path:
    from knowgen.report.runs_index import write_index

    runs = [result.entry for result in results if isinstance(result.entry, IndexedRun)]
    trainings = [result.entry for result in results if isinstance(result.entry, IndexedTraining)]
    others = [
        OtherDirectory(_below(result.path, folder), result.words) for result in results if result.state != "written"
    ]
    return write_index(folder.resolve().name, runs, trainings, others, out)
