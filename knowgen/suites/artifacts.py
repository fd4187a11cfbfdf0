"""Write the outputs of a suite beside its runs: tables, report pages and suite.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from knowgen.report import tables
from knowgen.report.folder import MARKER, OWN
from knowgen.report.html import write_report
from knowgen.report.tables import format_figure, score_name, with_interval
from knowgen.report.text_table import TextTable, csv_text, markdown_text, terminal_text
from knowgen.report.view import ReportRun
from knowgen.stats.coverage import NO_RESULT
from knowgen.stats.summary import Figure, is_part
from knowgen.store.files import write_text
from knowgen.store.run import RunStore
from knowgen.suites.macro_mean import MacroMean
from knowgen.suites.result import SuiteResult, SuiteRun
from knowgen.workflows import artifacts
from knowgen.workflows.run import PROTOCOLS

SUITE_FILE = "suite.json"
REPORT = "report"
TABLES = "tables"
MEANS = "all-tasks"

_MEANS_HEAD = ("system", "scorer", "protocol", "figure", "selection", "value", "low", "high", "n", "note")


def terminal(result: SuiteResult) -> str:
    """Return the tables for the terminal: one per task and, for several tasks, the means over them."""
    parts = []
    for task in result.tasks:
        title = [f"{task}:"] if len(result.tasks) > 1 else []
        parts.append("\n".join([*title, tables.terminal(result.summaries(task))]))
    means = [mean for mean in result.means if mean.protocol == result.protocol]
    if means:
        parts.append(terminal_text(_mean_tables(result, means)))
    elif len(result.tasks) > 1:
        parts.append("no mean over tasks: no scorer has scored all of them")
    return "\n\n".join(parts)


def write(result: SuiteResult) -> dict[str, Path]:
    """Write tables, pages and, last, suite.json. Nothing is written when they exist and no result is new.

    Returns:
        Path of the page of each task that has results.

    Raises:
        ConfigError: A folder contains something other than a report, or cannot be written.
        DataError: The disk is full.
    """
    text = json.dumps(result.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    folders = {task: _folder(result, task) for task in result.tasks if ranked(result, task)}
    pages = {task: folder / "index.html" for task, folder in folders.items()}
    file = result.path / SUITE_FILE
    files = _table_files(result)
    if (
        all(page.is_file() for page in (*pages.values(), *files))
        and file.is_file()
        and file.read_bytes() == text.encode()
    ):
        return pages
    (result.path / TABLES).mkdir(exist_ok=True)
    for path, content in files.items():
        write_text(path, content)
    _clear_report(result.path / REPORT, several=len(result.tasks) > 1)
    for task, folder in folders.items():
        _write_page(ranked(result, task), folder)
    write_text(file, text)
    return pages


def _table_files(result: SuiteResult) -> dict[Path, str]:
    """Return the content of each table file: one table per task and protocol, and the means over tasks."""
    folder, files = result.path / TABLES, dict[Path, str]()
    for task in result.tasks:
        for protocol in PROTOCOLS:
            summaries = result.summaries(task, protocol)
            files[folder / f"{artifacts.slug(task)}-{protocol}.md"] = tables.markdown(summaries)
            files[folder / f"{artifacts.slug(task)}-{protocol}.csv"] = tables.csv(summaries)
    if result.means:
        rows = (row for mean in result.means for row in _csv_rows(result, mean))
        files[folder / f"{MEANS}.md"] = markdown_text(_mean_tables(result, result.means))
        files[folder / f"{MEANS}.csv"] = csv_text(_MEANS_HEAD, rows)
    return files


def _selection(result: SuiteResult, task: str) -> str:
    """Return the label of the samples of a task, such as `limit 20 (3f2a…)`."""
    return " and ".join(dict.fromkeys(one.selection for one in result.summaries(task) if one.selection))


def _csv_rows(result: SuiteResult, mean: MacroMean) -> Iterator[list[str | float | int | None]]:
    whole = "; ".join(f"{task}: {_selection(result, task)}" for task in result.tasks)
    for name, figure in [("mean over tasks", mean.figure), *mean.by_task.items()]:
        selection = _selection(result, name) if name in mean.by_task else whole
        yield [
            mean.system, mean.scorer, mean.protocol, name, selection, figure.value, figure.low, figure.high, figure.n,
            figure.note,
        ]  # fmt: skip


def _mean_tables(result: SuiteResult, means: Sequence[MacroMean]) -> list[TextTable]:
    """Return one table per scorer and protocol, with the highest mean first and systems without a mean last."""
    mean_tables = []
    labels = {task: _selection(result, task) for task in result.tasks}
    for protocol, scorer in dict.fromkeys((mean.protocol, mean.scorer) for mean in means):
        ranking = [mean for mean in means if (mean.protocol, mean.scorer) == (protocol, scorer)]
        ranking.sort(key=lambda mean: (mean.figure.value is None, -(mean.figure.value or 0.0), mean.system))
        rows = [
            [mean.system, with_interval(mean.figure), *(_of_task(mean.by_task[task]) for task in result.tasks)]
            for mean in ranking
        ]
        lines = [
            f"macro mean of {score_name(ranking[0].dimensions)} over {len(result.tasks)} tasks with equal weights; "
            f"protocol {protocol}; scorer {scorer}; [95 % interval, by sample within each task]",
            *(f"{task}: only a part of the task ({label})" for task, label in labels.items() if is_part(label)),
            *_notes(ranking),
        ]
        head = ["system", "mean", *(f"{task} (part)" if is_part(label) else task for task, label in labels.items())]
        mean_tables.append(TextTable(f"Over all tasks ({protocol})", head, rows, lines=lines))
    return mean_tables


def _of_task(figure: Figure) -> str:
    return "no result" if figure.note.startswith(NO_RESULT) else format_figure(figure)


def _notes(means: Sequence[MacroMean]) -> list[str]:
    """Return one line per note, with the systems that it applies to."""
    notes: dict[str, list[str]] = {}
    for mean in means:
        notes.setdefault(mean.figure.note, []).append(mean.system)
    return [f"{', '.join(systems)}: {note}" for note, systems in notes.items() if note]


def _folder(result: SuiteResult, task: str) -> Path:
    report = result.path / REPORT
    return report if len(result.tasks) == 1 else report / artifacts.slug(task)


def ranked(result: SuiteResult, task: str) -> list[SuiteRun]:
    """Return the runs of a task that have results, with the highest headline first, in the order of its page."""
    runs = [run for run in result.of_task(task) if run.run is not None]
    return sorted(runs, key=lambda run: -_headline(run))


def _headline(run: SuiteRun) -> float:
    value = run.summaries[0].headline.value
    return -1.0 if value is None or run.summaries[0].no_result else value


def _write_page(runs: Sequence[SuiteRun], folder: Path) -> None:
    with ExitStack() as stack:
        pages = [ReportRun(store=stack.enter_context(RunStore.read(run.path)), summaries=run.summaries) for run in runs]
        write_report(pages, folder)


def _clear_report(folder: Path, *, several: bool) -> None:
    """Remove pages of an earlier call that had one task where this one has several, or several where it has one."""
    if not folder.is_dir():
        return
    if several and (folder / MARKER).is_file():
        for name in OWN:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    elif not several and not (folder / MARKER).is_file():
        for path in [each for each in folder.iterdir() if (each / MARKER).is_file()]:
            shutil.rmtree(path)
