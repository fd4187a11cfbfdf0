"""A run as one flat table: a row a generation and judgement, as JSONL, CSV or Parquet."""

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
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.images import explain_os_error
from knowgen.store.run import RunStore

Format = Literal["jsonl", "csv", "parquet"]

BATCH = 1024
"""Rows that are held at once while Parquet is written."""

COLUMNS: dict[str, type] = {
    "sample_id": str, "repeat": int, "category": str, "group": str, "difficulty": str, "text_required": bool,
    "prompt": str, "generator": str, "generation_status": str, "generation_reason": str, "image": str,
    "image_sha256": str, "width": int, "height": int, "used_prompt": str, "seed": int, "settings": str,
    "generation_seconds": float, "generation_cost": float, "generation_attempts": int,
    "scorer": str, "judge_repeat": int, "score_status": str, "score_reason": str, "na": str, "rationale": str,
    "lenient_status": str, "lenient_na": str, "judge_asked": str, "judge_returned": str, "parser": str,
    "details": str, "replies": str, "score_seconds": float, "input_tokens": int, "output_tokens": int,
    "score_cost": float, "score_tries": int,
}  # fmt: skip
"""Columns in order, before those of the dimensions. `image` is relative to the run directory; `settings`, `details` and
`replies` are JSON text; `na` lists dimensions with spaces between; a value that is not there is empty (null)."""


def columns_of(store: RunStore, scorers: Iterable[str]) -> dict[str, type]:
    """Returns all columns of a run's table: those of `COLUMNS`, then each dimension strictly and leniently read."""
    wanted = set(scorers)
    names = dict.fromkeys(
        name for spec in store.spec.scorers if spec.name in wanted for name in (spec.dimensions or DIMENSIONS)
    )
    return {**COLUMNS, **dict.fromkeys(names, float), **{f"lenient_{name}": float for name in names}}


def flat_rows(store: RunStore, scorer: str) -> Iterator[dict[str, Any]]:
    """Yields one row for every selected sample x repeat x judge repeat, in order, whether or not it was judged.

    Raises:
        UsageError: The run has no such scorer.
    """
    for cell in store.cells(scorer):
        drawn = _sample_fields(store, cell) | _generation_fields(store, cell.generation)
        for judge_repeat, score in enumerate(cell.scores):
            yield drawn | {"scorer": scorer, "judge_repeat": judge_repeat} | _score_fields(score)


def _sample_fields(store: RunStore, cell: ExpectedGeneration) -> dict[str, Any]:
    sample = cell.sample
    return {
        "sample_id": sample.id,
        "repeat": cell.repeat,
        "category": sample.category,
        "group": sample.group,
        "difficulty": sample.difficulty,
        "text_required": sample.text_required,
        "prompt": sample.prompt,
        "generator": store.spec.generator.name,
    }


def _generation_fields(store: RunStore, generation: Generation | None) -> dict[str, Any]:
    if generation is None:
        return {"generation_status": "not_run"}
    fields: dict[str, Any] = {
        "generation_status": generation.status.value,
        "generation_reason": generation.reason,
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
        **_values(score.strict, ""),
    }
    if score.lenient is not None:
        fields |= {"lenient_status": score.lenient.status.value, "lenient_na": " ".join(score.lenient.na)}
        fields |= _values(score.lenient, "lenient_")
    return fields


def _values(reading: ParsedScore, prefix: str) -> dict[str, float]:
    return {prefix + name: value for name, value in reading.values.items()}


def export_rows(store: RunStore, form: Format, path: Path, scorer: str | None = None) -> int:
    """Writes the table of a run, row by row; the file appears whole or not at all.

    Args:
        store: The run.
        form: jsonl, csv or parquet.
        path: The file to write.
        scorer: Whose judgements; all scorers of the run, one after the other, when None.

    Returns:
        The number of rows.

    Raises:
        UsageError: The run has no such scorer.
        MissingDependencyError: Parquet without pyarrow.
        ConfigError, DataError: The file cannot be written.
    """
    scorers = [scorer] if scorer is not None else [spec.name for spec in store.spec.scorers]
    columns = columns_of(store, scorers)
    rows = (_in_order(row, columns) for name in scorers for row in flat_rows(store, name))
    try:
        with draft_of(path) as draft:
            return _WRITERS[form](draft, rows, columns)
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
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], columns: Mapping[str, type]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("writing Parquet needs pyarrow", fix="pip install 'knowgen[parquet]'") from error
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
