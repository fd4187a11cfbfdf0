"""Writes `results_eval.json` as the official evaluator does: the rows, their verdicts, and three summary rows.

The summary arithmetic is not here: whoever exports hands in the function that makes it from the evaluated rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import (
    DIMENSIONS,
    POP,
    SCIENCE,
    TEXT,
    GenerationStatus,
    ParsedScore,
    Row,
    ScoreStatus,
    group_of,
)
from knowgen.interchange.official import EMPTY_PROMPT, NOT_EVALUATED, SUMMARY_MARK, OfficialResults, OfficialRow
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.folder import SOURCE_FILE
from knowgen.store.manifest import write_atomically
from knowgen.store.run import RunStore

SUMMARY_TYPES = (SCIENCE, POP, "overall_avg")
FIGURES = (*DIMENSIONS, "overall")
TEXT_IF_NA = 0.5
ERROR_LIMIT = 300
RATIONALE_LIMIT = 1000

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class SummaryRow:
    """One of the three rows at the end.

    Attributes:
        kind: Out of `SUMMARY_TYPES`.
        figures: By dimension and `overall`, each in [0, 1], rounded to 4 decimals; all zeros for an empty group.
        count: Evaluated rows in it.
    """

    kind: str
    figures: Mapping[str, float]
    count: int


Summarise = Callable[[Sequence[Row]], Sequence[SummaryRow]]
"""Makes the three summary rows from the evaluated rows, in the order of `SUMMARY_TYPES`. Each row has a sample_id of
its own, so that rows that share an id in the file count as often as they stand there."""


@dataclass(frozen=True)
class ExportedVerdict:
    """What became of one row.

    Attributes:
        scores: As the file has them, in its order; None when the row was not scored.
        error: Why not; None when it was scored.
    """

    scores: dict[str, Any] | None
    error: str | None


def scores_of(reading: ParsedScore) -> dict[str, Any]:
    """Returns a reading as the `scores` of a row, with the official overall of one sample.

    Raises:
        DataError: A dimension other than text accuracy has no value.
    """
    values: dict[str, float] = {}
    for name in DIMENSIONS:
        if name in reading.values:
            values[name] = float(reading.values[name])
        elif name == TEXT:
            values[name] = TEXT_IF_NA
        else:
            raise DataError(f"there is no value for {name}")
    weighted = (
        0.1 * values["faithfulness"]
        + 0.4 * values["visual_correctness"]
        + 0.4 * values[TEXT]
        + 0.1 * values["aesthetics"]
    )
    scores: dict[str, Any] = {"rationale": reading.rationale[:RATIONALE_LIMIT], **values, "overall": round(weighted, 2)}
    if TEXT not in reading.values:
        scores["text_accuracy_na"] = True
    return scores


def verdict_of(cell: ExpectedGeneration, judge_repeat: int = 0) -> ExportedVerdict:
    """Returns what became of a drawing under one judgement, by the official reading where there is one."""
    if not cell.sample.prompt.strip():
        return ExportedVerdict(None, EMPTY_PROMPT)
    score = cell.scores[judge_repeat] if judge_repeat < len(cell.scores) else None
    if score is None or score.status in {ScoreStatus.NOT_APPLICABLE, ScoreStatus.NOT_RUN}:
        return ExportedVerdict(None, NOT_EVALUATED)
    reading = score.lenient or score.strict
    if reading.status is not ScoreStatus.OK:
        return ExportedVerdict(None, (reading.reason or score.strict.reason)[:ERROR_LIMIT] or "failed")
    try:
        return ExportedVerdict(scores_of(reading), None)
    except DataError as error:
        return ExportedVerdict(None, error.what)


def evaluated_rows(items: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns the scored rows of an evaluated file, each under a sample_id of its own, for the statistics.

    Rows that failed and rows without scores are left out, as the official arithmetic leaves them out.
    """
    rows: list[Row] = []
    for place, item in enumerate(items):
        scores = item.get("scores")
        if item.get("eval_success") is not True or not isinstance(scores, dict):
            continue
        meta = item.get("meta")
        category = meta.get("category") if isinstance(meta, dict) else None
        known = category.strip().lower() if isinstance(category, str) else ""
        na = (TEXT,) if scores.get("text_accuracy_na") else ()
        reading = ParsedScore(
            status=ScoreStatus.OK,
            values={name: float(scores[name]) for name in DIMENSIONS if name not in na and _is_number(scores, name)},
            na=na,
            rationale=str(scores.get("rationale", "")),
        )
        rows.append(
            Row(
                sample_id=f"row {place}",
                category=known,
                group=group_of(known),
                generation=GenerationStatus.OK,
                strict=reading,
                lenient=reading,
            )
        )
    return rows


def _is_number(scores: Mapping[str, Any], name: str) -> bool:
    return isinstance(scores.get(name), int | float)


Verdicts = Mapping[str, tuple[OfficialRow, ExportedVerdict]]


def evaluated(results: OfficialResults, verdicts: Verdicts) -> Iterator[dict[str, Any]]:
    """Yields the rows of a results file with their verdicts, in order.

    Args:
        results: The file.
        verdicts: By id, the row that was judged and what became of it. It shows in every row of that id; a row
            without id is looked up under its number, as the official evaluator does.
    """
    for row in results.rows:
        judged = verdicts.get(str(row.place) if row.id is None else row.id)
        if judged is None or not judged[0].to_be_judged:
            yield {**row.fields, "eval_success": False, "scores": None, "error": NOT_EVALUATED}
        else:
            shown, verdict = judged
            yield {
                **shown.fields,
                "eval_success": verdict.scores is not None,
                "scores": verdict.scores,
                "error": verdict.error,
            }


def write_results(path: Path, items: Sequence[dict[str, Any]], summarise: Summarise) -> None:
    """Writes evaluated rows and their three summary rows.

    Args:
        path: The file to write; replaced in one step.
        items: Rows with `eval_success`, `scores` and `error`.
        summarise: Makes the summary rows.

    Raises:
        ValueError: `summarise` gave other rows than the three, or left out a figure.
        ConfigError, DataError: The file cannot be written.
    """
    summaries = list(summarise(evaluated_rows(items)))
    if tuple(row.kind for row in summaries) != SUMMARY_TYPES:
        raise ValueError(f"summary rows must be {', '.join(SUMMARY_TYPES)}, in this order")
    closing = [
        {
            SUMMARY_MARK: row.kind,
            "avg_scores": {name: float(row.figures[name]) for name in FIGURES},
            "count": row.count,
        }
        for row in summaries
    ]
    text = json.dumps([*items, *closing], ensure_ascii=False, indent=2)
    if _SURROGATE.search(text):  # half a character cannot be written as UTF-8; its escape can
        text = json.dumps([*items, *closing], indent=2)
    write_atomically(path, text)


def remember_source(store: RunStore, results: OfficialResults) -> None:
    """Keeps the rows of the results file that a run scores, for `export_official`.

    Raises:
        ConfigError, DataError: The run directory cannot be written.
    """
    data = {
        "base": str(results.path.parent),
        "name": results.path.name,
        "rows": [[row.place, row.to_be_judged, row.fields] for row in results.rows],
    }
    write_atomically(store.path / SOURCE_FILE, json.dumps(data, ensure_ascii=True))


def export_official(
    store: RunStore, path: Path, scorer: str, summarise: Summarise, *, repeat: int = 0, judge_repeat: int = 0
) -> int:
    """Writes the judgements of a run as `results_eval.json`.

    A run that scored a results file gets that file's rows back, as they were; any other gets one row a sample.

    Args:
        store: The run.
        path: The file to write.
        scorer: Whose judgements.
        summarise: Makes the summary rows under the official protocol.
        repeat: Which drawing of each sample; the format has room for one.
        judge_repeat: Which judgement.

    Returns:
        The number of rows, less the three of the summary.

    Raises:
        UsageError: The run has no such scorer.
        DataError: The scorer gives other values than the official four.
        ConfigError: The file cannot be written.
    """
    cells = (cell for cell in store.cells(scorer) if cell.repeat == repeat)
    _hold_dimensions(store, scorer)
    source = _source(store)
    if source is None:
        items = [_own_row(store, cell, path, judge_repeat) for cell in cells]
    else:
        chosen = source.by_id("last")
        verdicts = {
            cell.sample.id: (chosen[cell.sample.id], _with_reason(verdict_of(cell, judge_repeat), cell))
            for cell in cells
            if cell.sample.id in chosen
        }
        items = list(evaluated(source, verdicts))
    write_results(path, items, summarise)
    return len(items)


def _with_reason(verdict: ExportedVerdict, cell: ExpectedGeneration) -> ExportedVerdict:
    """Says what was wrong with a picture that should have been judged and did not open."""
    if verdict.error != NOT_EVALUATED or cell.generation is None or not cell.generation.reason:
        return verdict
    return ExportedVerdict(None, cell.generation.reason[:ERROR_LIMIT])


def _hold_dimensions(store: RunStore, scorer: str) -> None:
    spec = next(each for each in store.spec.scorers if each.name == scorer)
    if spec.dimensions and set(spec.dimensions) != set(DIMENSIONS):
        raise DataError(
            f"scorer {scorer!r} gives {', '.join(spec.dimensions)}, the official file holds {', '.join(DIMENSIONS)}",
            where=str(store.path),
            fix="export as jsonl or csv",
        )


def _source(store: RunStore) -> OfficialResults | None:
    file = store.path / SOURCE_FILE
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        base = Path(data["base"])
        rows = tuple(OfficialRow(place, dict(fields), base, judged) for place, judged, fields in data["rows"])
        return OfficialResults(base / data["name"], rows)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"is damaged ({error})", where=str(file), fix="score the results file again") from error


def _own_row(store: RunStore, cell: ExpectedGeneration, path: Path, judge_repeat: int) -> dict[str, Any]:
    drawn = cell.generation
    picture = drawn.image.path if drawn is not None and drawn.image is not None else None
    truth = store.truth(cell.sample.id).image
    verdict = verdict_of(cell, judge_repeat)
    return {
        "id": cell.sample.id,
        "success": picture is not None,
        "prompt": cell.sample.prompt,
        "meta": {
            "category": cell.sample.category,
            "difficulty": cell.sample.difficulty,
            **cell.sample.meta,
        },
        "output_path": _relative(picture, path) if picture is not None else None,
        "gt_image": _relative(truth.path, path) if truth is not None and truth.path is not None else None,
        "eval_success": verdict.scores is not None,
        "scores": verdict.scores,
        "error": verdict.error,
    }


def _relative(file: Path, results: Path) -> str:
    """Returns a path relative to a results file where it lies below its folder, else the absolute one."""
    folder = results.absolute().parent
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
