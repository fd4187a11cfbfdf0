"""What a run leaves beside its store: summary.json, tables, exports."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from knowgen.core.errors import UsageError
from knowgen.core.records import Row, Usage
from knowgen.core.spec import RunSpec
from knowgen.interchange.official_export import SummaryRow
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Summary
from knowgen.store.manifest import write_atomically
from knowgen.store.run import RunStore

SUMMARY_FILE = "summary.json"
TABLES = "tables"


def summarise(path: Path, spec: RunSpec, policy: str, scorer: str, cost: float | None) -> Summary:
    """Aggregates a run directory under one policy and scorer.

    Args:
        path: The run directory.
        spec: What was run.
        policy: strict or official.
        scorer: Label of a scorer.
        cost: From `cost_of`.
    """
    known = {each.name: each for each in spec.scorers}
    if scorer not in known:
        raise UsageError(f"no scorer {scorer!r} in this run", where=str(path), fix=f"it has {', '.join(known)}")
    judge = known[scorer]
    with RunStore.read(path) as store:
        return aggregate(
            store.rows(scorer),
            policy,
            dimensions=judge.dimensions,
            system=spec.generator.name,
            task=spec.task,
            task_version=spec.task_version,
            scorer=scorer,
            scorer_version=judge.version,
            scorer_note=judge.note,
            selection=spec.selection.label,
            cost=cost,
            seconds=store.seconds(),
        )


def cost_of(path: Path) -> float | None:
    """Returns the US dollars spent in a run directory; None where a call was paid at an unknown price.

    The books may know of more than the records do: of drawings and judgements that were replaced, and of calls whose
    reply never came and which count at their worst case.
    """
    with RunStore.read(path) as store:
        total = 0.0
        for _, generation in store.generations():
            if _unknown(generation.usage, called=False):
                return None
            total += generation.usage.cost or 0.0
        for _, score in store.scores():
            if any(_unknown(attempt.usage, called=bool(attempt.reply)) for attempt in score.attempts):
                return None
            total += score.usage.cost or 0.0
        return max(total, store.spent())


def _unknown(usage: Usage, *, called: bool) -> bool:
    return usage.cost is None and (called or usage.input_tokens + usage.output_tokens > 0)


def complete(path: Path, spec: RunSpec) -> bool:
    """Tells whether the outputs of exactly this specification and of all its results are there."""
    summary = path / SUMMARY_FILE
    if not (path / "report" / "index.html").is_file() or not summary.is_file():
        return False
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
    except ValueError:
        return False  # a summary cut off by a kill is written anew
    with RunStore.read(path) as store:  # a run that was killed before its outputs has newer results than they
        latest = store.latest()
    return bool(found.get("spec") == spec.model_dump(mode="json") and found.get("results") == latest)


def write(path: Path, spec: RunSpec, summaries: Sequence[Summary]) -> None:
    """Writes summary.json and the tables; each file whole or not at all."""
    from knowgen.report import tables

    folder = path / TABLES
    folder.mkdir(exist_ok=True)
    for summary in summaries:
        # a scorer's model may hold a slash, and what stands before it tells it from others
        name = f"{slug(summary.scorer.replace('/', '-'))}-{summary.protocol}"
        write_atomically(folder / f"{name}.md", tables.markdown([summary]))
        write_atomically(folder / f"{name}.csv", tables.csv([summary]))
    with RunStore.read(path) as store:
        latest = store.latest()
    data = {
        "spec": spec.model_dump(mode="json"),
        "results": latest,
        "summaries": [summary.model_dump(mode="json") for summary in summaries],
    }
    write_atomically(path / SUMMARY_FILE, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def slug(text: str) -> str:
    """Returns a name as part of a file name."""
    name = Path(text).name if "/" in text else text
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def distinct_names(runs: Sequence[tuple[Path, str]]) -> list[str]:
    """Returns a label for each run: the generator's name, with the directory's where two share it."""
    names = [name for _, name in runs]
    return [name if names.count(name) == 1 else f"{name} ({path.resolve().name})" for path, name in runs]


def export(store: RunStore, form: str, out: Path, scorer: str) -> int:
    """Writes one of the export formats.

    Args:
        store: The run.
        form: official, jsonl, csv or parquet.
        out: The file to write.
        scorer: Whose judgements.

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
        return export_official(store, out, scorer, _official_rows)
    tables: dict[str, Format] = {"jsonl": "jsonl", "csv": "csv", "parquet": "parquet"}
    if form not in tables:
        raise UsageError(f"unknown format {form!r}", fix="official, jsonl, csv or parquet")
    return export_rows(store, tables[form], out, scorer)


def _official_rows(rows: Sequence[Row]) -> list[SummaryRow]:
    """Makes the three closing rows of a result file from its scored rows."""
    from knowgen.stats.official import summary_rows

    made = summary_rows(aggregate(rows, "official", resamples=0))
    return [SummaryRow(kind=row["summary_type"], figures=row["avg_scores"], count=row["count"]) for row in made]
