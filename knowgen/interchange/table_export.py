"""Export a run as one flat table, one row per generation and score: JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from knowgen.core.atomic import draft_of
from knowgen.core.errors import MissingDependencyError
from knowgen.core.records import DIMENSIONS, Generation, ParsedScore, Score
from knowgen.core.steps import counted
from knowgen.core.text import csv_cell
from knowgen.stats.counting import counted_score
from knowgen.stats.protocol import get_protocol
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.files import explain_os_error
from knowgen.store.run import RunStore

Format = Literal["jsonl", "csv", "parquet"]

BATCH = 1024
"""Number of rows per batch written to Parquet."""

COLUMNS: dict[str, type] = {
    "sample_id": str, "repeat": int, "category": str, "group": str, "difficulty": str, "text_required": bool,
    "prompt": str, "task": str, "selection": str, "system": str,
    "generation_status": str, "generation_reason": str, "generation_cause": str, "image": str,
    "image_sha256": str, "width": int, "height": int, "used_prompt": str, "answer_status": str, "ending": str,
    "fallback": str, "seed": int, "settings": str,
    "generation_seconds": float, "generation_cost": float, "generation_attempts": int,
    "scorer": str, "judge_repeat": int, "score_status": str, "score_reason": str, "score_cause": str,
    "counts_as": str, "overall": float, "na": str, "rationale": str,
    "lenient_status": str, "lenient_na": str, "judge_asked": str, "judge_returned": str, "parser": str,
    "details": str, "replies": str, "score_seconds": float, "input_tokens": int, "output_tokens": int,
    "score_cost": float, "score_tries": int,
}  # fmt: skip
"""Columns in order, before those of the dimensions. `image` is relative to the run directory; `settings`, `details` and
`replies` are JSON text; `na` contains dimensions separated by spaces; a missing value is empty (null).

`overall` (the sample's K-Score for the four KnowGen dimensions) and the columns of the dimensions hold what counts
under `strict`: 0 for a failed or refused generation, nothing for what is left out. `counts_as` says which: `excluded`,
`0`, or the overall. `selection` says which samples of the task the run covers."""

COUNTING = get_protocol("strict")
"""The protocol whose values `overall`, `counts_as` and the columns of the dimensions hold."""


def columns_of(store: RunStore, scorers: Iterable[str]) -> dict[str, type]:
    """Return all columns of a run's table: `COLUMNS`, then the strict and the lenient value of each dimension."""
    selected = set(scorers)
    names = dict.fromkeys(
        name for spec in store.spec.scorers if spec.name in selected for name in (spec.dimensions or DIMENSIONS)
    )
    return {**COLUMNS, **dict.fromkeys(names, float), **{f"lenient_{name}": float for name in names}}


def flat_rows(store: RunStore, scorer: str) -> Iterator[dict[str, Any]]:
    """Yield one row for every selected sample x repeat x judge repeat, in order, whether or not it has a score.

    Raises:
        UsageError: The run has no such scorer.
    """
    spec = next((each for each in store.spec.scorers if each.name == scorer), None)
    dimensions = (spec.dimensions if spec else ()) or DIMENSIONS
    for expected in counted(store.expected_generations(scorer), f"writing rows of {scorer}"):
        fields = _sample_fields(store, expected) | _generation_fields(store, expected.generation)
        for row, score in zip(expected.rows(), expected.scores, strict=True):
            counts = counted_score(row, COUNTING, dimensions)
            yield {
                **fields,
                "answer_status": row.answer.value if row.answer is not None else None,
                "ending": row.ending or None,
                "fallback": row.fallback or None,
                "scorer": scorer,
                "judge_repeat": row.judge_repeat,
                **_score_fields(score),
                "score_cause": row.score_cause.value if row.score_cause else None,
                "counts_as": counts.counts_as,
                "overall": counts.overall,
                **counts.values,
            }


def _sample_fields(store: RunStore, expected: ExpectedGeneration) -> dict[str, Any]:
    sample = expected.sample
    return {
        "sample_id": sample.id,
        "repeat": expected.repeat,
        "category": sample.category,
        "group": sample.group,
        "difficulty": sample.difficulty,
        "text_required": sample.text_required,
        "prompt": sample.prompt,
        "task": f"{store.spec.task} {store.spec.task_version}",
        "selection": store.spec.selection.label,
        "system": store.spec.generator_names,
    }


def _generation_fields(store: RunStore, generation: Generation | None) -> dict[str, Any]:
    if generation is None:
        return {"generation_status": "not_run"}
    fields: dict[str, Any] = {
        "generation_status": generation.status.value,
        "generation_reason": generation.reason,
        "generation_cause": generation.cause.value if generation.cause else None,
        "used_prompt": generation.used_prompt,
        "seed": generation.seed,
        "settings": json.dumps(generation.settings, ensure_ascii=False),
        "generation_seconds": generation.seconds,
        "generation_cost": generation.usage.cost,
        "generation_attempts": generation.attempts,
    }
    if generation.image is not None:
        file = store.image_path(generation.image)
        fields |= {
            "image": file.relative_to(store.path.absolute()).as_posix(),
            "image_sha256": generation.image.sha256,
            "width": generation.image.width,
            "height": generation.image.height,
        }
    return fields


def _score_fields(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"score_status": "not_run"}
    fields: dict[str, Any] = {
        "score_status": score.status.value,
        "score_reason": score.strict.reason,
        "na": " ".join(score.strict.na),
        "rationale": score.strict.rationale,
        "judge_asked": score.judge_asked,
        "judge_returned": score.judge_returned,
        "parser": score.parser,
        "details": json.dumps(score.details, ensure_ascii=False),
        "replies": json.dumps([attempt.reply for attempt in score.attempts], ensure_ascii=False),
        "score_seconds": score.seconds,
        "input_tokens": score.usage.input_tokens,
        "output_tokens": score.usage.output_tokens,
        "score_cost": score.usage.cost,
        "score_tries": score.tries,
    }
    if score.lenient is not None:
        fields |= {"lenient_status": score.lenient.status.value, "lenient_na": " ".join(score.lenient.na)}
        fields |= _values(score.lenient, "lenient_")
    return fields


def _values(parsed: ParsedScore, prefix: str) -> dict[str, float]:
    return {prefix + name: value for name, value in parsed.values.items()}


def export_rows(store: RunStore, format: Format, path: Path, scorer: str | None = None) -> int:
    """Write the table of a run row by row, atomically.

    Args:
        store: The run.
        format: jsonl, csv or parquet.
        path: File to write.
        scorer: Name of a scorer; all scorers of the run, one after the other, if None.

    Returns:
        Number of rows.

    Raises:
        UsageError: The run has no such scorer.
        MissingDependencyError: `format` is parquet and pyarrow is not installed.
        ConfigError, DataError: The file cannot be written.
    """
    scorers = [scorer] if scorer is not None else [spec.name for spec in store.spec.scorers]
    columns = columns_of(store, scorers)
    rows = (_in_order(row, columns) for name in scorers for row in flat_rows(store, name))
    try:
        with draft_of(path) as draft:
            return _WRITERS[format](draft, rows, columns)
    except OSError as error:
        raise explain_os_error(error, path) from error


def _in_order(row: dict[str, Any], columns: Mapping[str, type]) -> dict[str, Any]:
    return {name: row.get(name) for name in columns}


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]], columns: Mapping[str, type]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_csv(path: Path, rows: Iterator[dict[str, Any]], columns: Mapping[str, type]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: csv_cell(value) if isinstance(value, str) else value for name, value in row.items()})
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], columns: Mapping[str, type]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("writing Parquet needs pyarrow", fix="pip install pyarrow") from error
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


_WRITERS: dict[Format, Callable[[Path, Iterator[dict[str, Any]], Mapping[str, type]], int]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
