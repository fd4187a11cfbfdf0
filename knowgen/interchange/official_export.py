"""Write `results_eval.json` in the format of the official evaluator: rows with their scores, and three summary rows.

The figures are those of `knowgen.stats.official`. Source of the format and its constants: see
`knowgen.interchange.official`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError
from knowgen.core.records import (
    DIMENSIONS,
    TEXT,
    AnswerStatus,
    GenerationStatus,
    ParsedScore,
    Row,
    ScoreStatus,
    group_of,
)
from knowgen.core.steps import counted
from knowgen.core.text import parse_json
from knowgen.interchange.official import (
    EMPTY_PROMPT,
    NOT_EVALUATED,
    OfficialResults,
    OfficialRow,
)
from knowgen.stats.aggregate import aggregate
from knowgen.stats.official import stored_overall, summary_rows
from knowgen.stats.protocol import TEXT_IF_NA
from knowgen.store.current_view import ExpectedGeneration
from knowgen.store.files import write_text
from knowgen.store.folder import SOURCE_FILE
from knowgen.store.run import RunStore

ERROR_LIMIT = 300
RATIONALE_LIMIT = 1000
"""Maximum length of `error` and `rationale`, in characters."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ExportedVerdict:
    """Result of one row.

    Attributes:
        scores: Value of `scores`, in the order of the file; None if the row was not scored.
        error: Value of `error`; None if it was scored.
    """

    scores: dict[str, Any] | None
    error: str | None


def scores_of(parsed: ParsedScore) -> dict[str, Any]:
    """Return a parsed score as the `scores` of a row, with the official overall of the sample.

    Raises:
        DataError: A dimension other than text accuracy has no value.
    """
    values: dict[str, float] = {}
    for name in DIMENSIONS:
        if name in parsed.values:
            values[name] = float(parsed.values[name])
        elif name == TEXT:
            values[name] = TEXT_IF_NA
        else:
            raise DataError(f"{name} has no value")
    rationale = parsed.rationale[:RATIONALE_LIMIT]
    scores: dict[str, Any] = {"rationale": rationale, **values, "overall": stored_overall(values)}
    if TEXT not in parsed.values:
        scores["text_accuracy_na"] = True
    return scores


def verdict_of(expected: ExpectedGeneration, judge_repeat: int = 0) -> ExportedVerdict:
    """Return the result of a generation by one of its scores; its lenient parsed score is used if there is one."""
    if not expected.sample.prompt.strip():
        return ExportedVerdict(None, EMPTY_PROMPT)
    score = expected.scores[judge_repeat] if judge_repeat < len(expected.scores) else None
    if score is None or score.status in {ScoreStatus.NOT_APPLICABLE, ScoreStatus.NOT_RUN}:
        return ExportedVerdict(None, NOT_EVALUATED)
    parsed = score.lenient or score.strict
    if parsed.status is not ScoreStatus.OK:
        return ExportedVerdict(None, (parsed.reason or score.strict.reason)[:ERROR_LIMIT] or "failed")
    try:
        return ExportedVerdict(scores_of(parsed), None)
    except DataError as error:
        return ExportedVerdict(None, error.what)


def evaluated_rows(items: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the scored rows of an evaluated file for the statistics.

    Each has a unique sample_id, so that rows with the same id in the file all count.
    Failed rows and rows without scores are left out, as in the official arithmetic.
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
        parsed = ParsedScore(
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
                strict=parsed,
                lenient=parsed,
            )
        )
    return rows


def _is_number(scores: Mapping[str, Any], name: str) -> bool:
    return isinstance(scores.get(name), int | float)


Verdicts = Mapping[str, tuple[OfficialRow, ExportedVerdict]]
"""Row and result by sample id."""


def evaluated(results: OfficialResults, verdicts: Verdicts) -> Iterator[dict[str, Any]]:
    """Yield the rows of a results file with their results, in order.

    Args:
        results: The file.
        verdicts: By id, the evaluated row and its result, which all rows of that id get. A row without id is looked up
            by its number, as in the official evaluator.
    """
    for row in results.rows:
        entry = verdicts.get(str(row.place) if row.id is None else row.id)
        if entry is None or not entry[0].to_be_judged or results.skipped(entry[0]):
            yield {**row.fields, "eval_success": False, "scores": None, "error": NOT_EVALUATED}
        else:
            evaluated_row, verdict = entry
            yield {
                **evaluated_row.fields,
                "eval_success": verdict.scores is not None,
                "scores": verdict.scores,
                "error": verdict.error,
            }


def write_results(path: Path, items: Sequence[dict[str, Any]], *, selection: str = "") -> None:
    """Write evaluated rows and their three summary rows.

    Args:
        path: File to write; replaced atomically.
        items: Rows with `eval_success`, `scores` and `error`.
        selection: Label of the selected samples if they are only a part of the task; the summary rows then have it as a
            further key, because their figures are not those of the benchmark.

    Raises:
        ConfigError, DataError: The file cannot be written.
    """
    mark = {"selection": selection} if selection else {}
    closing = [{**row, **mark} for row in summary_rows(aggregate(evaluated_rows(items), "official"))]
    text = json.dumps([*items, *closing], ensure_ascii=False, indent=2)
    if _SURROGATE.search(text):  # a lone surrogate cannot be written as UTF-8, but its escape sequence can
        text = json.dumps([*items, *closing], indent=2)
    write_text(path, text)


def remember_source(store: RunStore, results: OfficialResults) -> None:
    """Store the rows of the scored results file in the run directory, for `export_official`.

    Raises:
        ConfigError, DataError: The run directory cannot be written.
    """
    data = {
        "base": str(results.path.parent),
        "name": results.path.name,
        "rows": [[row.place, row.to_be_judged, row.fields] for row in results.rows],
    }
    write_text(store.path / SOURCE_FILE, json.dumps(data, ensure_ascii=True))


def export_official(store: RunStore, path: Path, scorer: str, *, repeat: int = 0, judge_repeat: int = 0) -> int:
    """Write the scores of a run as `results_eval.json`.

    A run that scored a results file gets the rows of that file; any other run gets one row per sample.

    Args:
        store: The run.
        path: File to write.
        scorer: Name of the scorer.
        repeat: Which generation of each sample; the format has only one.
        judge_repeat: Which score of that generation.

    Returns:
        Number of rows, without the three summary rows.

    Raises:
        UsageError: The run has no such scorer.
        DataError: The scorer has other dimensions than the official four.
        ConfigError: The file cannot be written.
    """
    generations = (
        each for each in counted(store.expected_generations(scorer), "writing rows") if each.repeat == repeat
    )
    _check_dimensions(store, scorer)
    source = _source(store)
    if source is None:
        items = [_own_row(store, each, path, judge_repeat) for each in generations]
    else:
        chosen = source.by_id("last")
        verdicts = {
            each.sample.id: (chosen[each.sample.id], _with_reason(verdict_of(each, judge_repeat), each))
            for each in generations
            if each.sample.id in chosen
        }
        items = list(evaluated(source, verdicts))
    label = store.spec.selection.label
    write_results(path, items, selection=label if store.spec.selection.kind != "all" else "")
    return len(items)


def _with_reason(verdict: ExportedVerdict, expected: ExpectedGeneration) -> ExportedVerdict:
    """Return the result with the reason of the generation if its image should have been judged but is unreadable."""
    if verdict.error != NOT_EVALUATED or expected.generation is None or not expected.generation.reason:
        return verdict
    return ExportedVerdict(None, expected.generation.reason[:ERROR_LIMIT])


def _check_dimensions(store: RunStore, scorer: str) -> None:
    spec = next(each for each in store.spec.scorers if each.name == scorer)
    if spec.dimensions and set(spec.dimensions) != set(DIMENSIONS):
        raise DataError(
            f"scorer {scorer!r} has {', '.join(spec.dimensions)}, the official format {', '.join(DIMENSIONS)}",
            where=str(store.path),
            fix="export as jsonl or csv",
        )


def _source(store: RunStore) -> OfficialResults | None:
    file = store.path / SOURCE_FILE
    if not file.is_file():
        return None
    try:
        data = parse_json(file.read_text(encoding="utf-8"))
        base = Path(data["base"])
        rows = tuple(OfficialRow(place, dict(fields), base, judged) for place, judged, fields in data["rows"])
        return OfficialResults(base / data["name"], rows)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"is damaged ({error})", where=str(file), fix="score the results file again") from error


def _own_row(store: RunStore, expected: ExpectedGeneration, path: Path, judge_repeat: int) -> dict[str, Any]:
    generation, sample = expected.generation, expected.sample
    image = generation.image.path if generation is not None and generation.image is not None else None
    truth = store.truth(sample.id).image
    verdict = verdict_of(expected, judge_repeat)
    return {
        "id": sample.id,
        "success": image is not None,
        "prompt": sample.prompt,
        "meta": {
            "category": sample.category,
            "difficulty": sample.difficulty,
            **sample.meta,
        },
        "output_path": _relative(image, path) if image is not None else None,
        "gt_image": _relative(truth.path, path) if truth is not None and truth.path is not None else None,
        **_answer_fields(store, expected, path),
        "eval_success": verdict.scores is not None,
        "scores": verdict.scores,
        "error": verdict.error,
    }


def _answer_fields(store: RunStore, expected: ExpectedGeneration, path: Path) -> dict[str, Any]:
    """Return an agent's answer in the form in which the published agent writes it; nothing without an answer.

    `--requests` reads it back, so that other image models generate from it.
    """
    if store.spec.agent is not None:
        answer = store.latest_answer(expected.sample.id, expected.repeat)
        if answer is None or answer.status is not AnswerStatus.OK:
            return {}
        notes: Sequence[Mapping[str, Any]] = answer.reference_notes or [{}] * len(answer.references)
        named = zip(notes, answer.references, strict=True)
        prompt, references = answer.prompt, [{**note, "path": image.path} for note, image in named]
    elif expected.generation is not None and expected.generation.used_prompt:
        prompt, references = expected.generation.used_prompt, [dict(each) for each in expected.generation.references]
    else:
        return {}
    return {"gen_prompt": prompt, "reference_images": [_reference(each, path) for each in references]}


def _reference(reference: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a reference image as the published agent writes it."""
    file = reference.get("path") or reference.get("local_path")
    local = {"local_path": _relative(Path(str(file)), path)} if file else {}
    fields = ("img_id", "url", "title", "page_url", "note")
    return {name: reference[name] for name in fields if isinstance(reference.get(name), str)} | local


def _relative(file: Path, results: Path) -> str:
    """Return a path relative to the folder of a results file if it is inside, else the absolute path."""
    folder = results.absolute().parent
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
