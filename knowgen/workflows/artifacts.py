"""Write the outputs of a run: summary.json, tables, pages and exports."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import UsageError
from knowgen.core.records import Row, Score
from knowgen.core.spec import RunSpec
from knowgen.core.text import count, parse_json
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Summary
from knowgen.store.files import write_text
from knowgen.store.rows import answer_cost, cost_unknown
from knowgen.store.run import UNPRICED_NOTE, RunStore

if TYPE_CHECKING:
    from knowgen.report.output import ImageChoice
    from knowgen.stats.agent_figures import AgentFigures
    from knowgen.store.current_view import ExpectedGeneration

SUMMARY_FILE = "summary.json"
TABLES = "tables"
AGENT_TABLE = "agent"


@dataclass(frozen=True)
class OneFile:
    """What a page in one file has.

    Attributes:
        images: small for reduced images, or none.
        samples: Maximum number of samples, the first of the task; all when None.
    """

    images: ImageChoice = "small"
    samples: int | None = None


def summarise(
    path: Path, spec: RunSpec, protocols: Sequence[str], scorer: str, cost: float | None
) -> tuple[Summary, ...]:
    """Aggregate a run directory for one scorer, under each of some protocols; the results are read once.

    Args:
        path: The run directory.
        spec: Specification of the run.
        protocols: Names of scoring protocols, such as strict or official.
        scorer: Name of the scorer.
        cost: Cost in US dollars from `cost_of`; None when unknown.

    Raises:
        UsageError: The scorer or a protocol is unknown.
    """
    known = {each.name: each for each in spec.scorers}
    if scorer not in known:
        raise UsageError(f"no scorer {scorer!r} in this run", where=str(path), fix=f"it has {', '.join(known)}")
    scorer_spec = known[scorer]
    with RunStore.read(path) as store:
        replies, seconds = _Replies(), store.seconds()
        rows = list(replies.passing(store.expected_generations(scorer, paths=False)))
    summaries = []
    for protocol in protocols:
        summary = aggregate(
            rows,
            protocol,
            dimensions=scorer_spec.dimensions,
            system=spec.system,
            task=spec.task,
            task_version=spec.task_version,
            scorer=scorer,
            scorer_version=scorer_spec.version,
            scorer_note=scorer_spec.note,
            selection=spec.selection.label,
            cost=cost,
            seconds=seconds,
        )
        summaries.append(summary.model_copy(update={"notes": (*summary.notes, *replies.notes())}))
    return tuple(summaries)


class _Replies:
    """Counts the replies of a judge while its results are read.

    Attributes:
        cached: Replies that came from the cache.
        total: All replies.
        changes: How requests differed from what was asked for, because the endpoint does not accept it.
    """

    def __init__(self) -> None:
        self.cached = self.total = 0
        self.changes: dict[str, None] = {}

    def passing(self, expected: Iterable[ExpectedGeneration]) -> Iterator[Row]:
        """Yield the rows of results, and count their replies."""
        for each in expected:
            for score in each.scores:
                if score is not None:
                    self._add(score)
            yield from each.rows()

    def _add(self, score: Score) -> None:
        for attempt in score.attempts:
            self.total += bool(attempt.reply)
            self.cached += attempt.cached
        self.changes.update(dict.fromkeys(map(str, score.details.get("decoding", ()))))

    def notes(self) -> list[str]:
        """Return what a summary says about the replies."""
        notes = [f"decoding: {', '.join(self.changes)}"] if self.changes else []
        if self.cached:
            of = count(self.total, "reply", "replies")
            notes.append(f"{self.cached} of {of} of the judge come from the reply cache; --fresh asks again")
        return notes


def cost_of(path: Path) -> float | None:
    """Return the US dollars spent in a run directory; None where a call was paid at an unknown price.

    The budget meter may count more than the records do: results that were replaced, and calls without a reply, which
    count at their worst case.
    """
    with RunStore.read(path) as store:
        if any(True for _ in store.notes(UNPRICED_NOTE)):
            return None
        total = 0.0
        for _, answer in store.answers():
            cost = answer_cost(answer)
            if cost is None:
                return None
            total += cost
        for _, generation in store.generations(paths=False):
            if cost_unknown(generation.usage, called=False):
                return None
            total += generation.usage.cost or 0.0
        for _, score in store.scores():
            if any(cost_unknown(attempt.usage, called=bool(attempt.reply)) for attempt in score.attempts):
                return None
            total += score.usage.cost or 0.0
        return max(total, store.spent())


def complete(path: Path, spec: RunSpec) -> bool:
    """Return whether the outputs exist and are those of this specification and of the latest results."""
    summary = path / SUMMARY_FILE
    if not (path / "report" / "index.html").is_file() or not summary.is_file():
        return False
    try:
        written = parse_json(summary.read_text(encoding="utf-8"))
    except ValueError:
        return False  # a summary that a kill truncated is written again
    with RunStore.read(path) as store:  # a run that was killed before it wrote its outputs has newer results
        latest = store.last_numbers()
    return bool(written.get("spec") == spec.model_dump(mode="json") and written.get("results") == latest)


def write(path: Path, spec: RunSpec, summaries: Sequence[Summary]) -> None:
    """Write summary.json and the tables, each file atomically."""
    (path / TABLES).mkdir(exist_ok=True)
    for summary in summaries:
        for file, text in table_files(path, summary).items():
            write_text(file, text)
    with RunStore.read(path) as store:
        for file, text in agent_table_files(store).items():
            write_text(file, text)
        latest = store.last_numbers()
    data = {
        "spec": spec.model_dump(mode="json"),
        "results": latest,
        "summaries": [summary.model_dump(mode="json") for summary in summaries],
    }
    write_text(path / SUMMARY_FILE, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def table_files(path: Path, summary: Summary) -> dict[Path, str]:
    """Return the content of each table file of a summary in a run directory."""
    from knowgen.report import tables

    # a scorer's model may contain a slash, and the part before it distinguishes it
    stem = path / TABLES / f"{slug(summary.scorer.replace('/', '-'))}-{summary.protocol}"
    return {
        stem.with_name(f"{stem.name}.md"): tables.markdown([summary]),
        stem.with_name(f"{stem.name}.csv"): tables.csv([summary]),
    }


def figures_of_agent(store: RunStore) -> tuple[AgentFigures, ...]:
    """Return what the agent of a run did, the whole first; an empty tuple in a run without an agent."""
    from knowgen.stats.agent_figures import agent_figures

    if store.spec.agent is None:
        return ()
    return agent_figures(
        store.samples(),
        store.spec.repeats,
        (answer for _, answer in store.answers()),
        (generation for _, generation in store.generations()),
    )


def agent_table_files(store: RunStore) -> dict[Path, str]:
    """Return the content of each table file on what the agent of a run did; none in a run without an agent."""
    from knowgen.report.agent_tables import agent_csv, agent_markdown

    figures = figures_of_agent(store)
    if not figures:
        return {}
    stem, system = store.path / TABLES / AGENT_TABLE, store.spec.system
    return {
        stem.with_suffix(".md"): agent_markdown(system, figures),
        stem.with_suffix(".csv"): agent_csv(system, figures),
    }


def write_page(runs: Sequence[tuple[Path, Sequence[Summary]]], out: Path, one_file: OneFile | None = None) -> Path:
    """Write one page of several runs and return the path of its `index.html`, or of its only file.

    Args:
        runs: Directory and summaries of each run, the headline's first.
        out: Folder of the page, or its file.
        one_file: What a page in one file has; None for a folder.

    Raises:
        UsageError: No run was given, or the file has another ending than that of a page.
        ConfigError: The folder contains something other than a report, or the file is another one.
    """
    from knowgen.report.html import write_report, write_single_report
    from knowgen.report.view import ReportRun

    if not runs:
        raise UsageError("no run to report on", fix="name one or more run directories")
    with contextlib.ExitStack() as stack:
        pages = [
            ReportRun(store=stack.enter_context(RunStore.read(path)), summaries=tuple(summaries))
            for path, summaries in runs
        ]
        if one_file is not None:
            return write_single_report(pages, out, one_file.images, one_file.samples)
        return write_report(pages, out)


def slug(text: str) -> str:
    """Return a name as part of a file name.

    Example:
        >>> slug("vlm:gpt-4.1")
        'vlm-gpt-4.1'
    """
    name = Path(text).name if "/" in text else text
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def distinct_names(runs: Sequence[tuple[Path, str]]) -> list[str]:
    """Return a label for each run: the system's name, with the directory's where two share it."""
    names = [name for _, name in runs]
    return [name if names.count(name) == 1 else f"{name} ({path.resolve().name})" for path, name in runs]


def export(store: RunStore, form: str, out: Path, scorer: str) -> int:
    """Write one of the export formats.

    Args:
        store: The run.
        form: official, jsonl, csv or parquet.
        out: The file to write.
        scorer: Name of the scorer whose scores are exported.

    Returns:
        The number of rows.

    Raises:
        UsageError: The format is unknown, or `out` is a folder.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder", fix="name a file")
    from knowgen.interchange.official_export import export_official
    from knowgen.interchange.table_export import Format, export_rows

    if form == "official":
        return export_official(store, out, scorer)
    tables: dict[str, Format] = {"jsonl": "jsonl", "csv": "csv", "parquet": "parquet"}
    if form not in tables:
        raise UsageError(f"unknown format {form!r}", fix="official, jsonl, csv or parquet")
    return export_rows(store, tables[form], out, scorer)
