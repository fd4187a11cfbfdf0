"""The official result files, read and written exactly as the official evaluator does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import DIMENSIONS, ParsedScore, ScoreStatus
from knowgen.core.spec import GeneratorSpec, ScorerSpec
from knowgen.interchange.official import OfficialResults, read_results
from knowgen.interchange.official_export import (
    evaluated_rows,
    export_official,
    remember_source,
    write_results,
)
from knowgen.store.run import RunStore
from tests.helpers import store_records

KEYS = ["faithfulness", "visual_correctness", "text_accuracy", "aesthetics", "overall"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a results file that has every kind of row, and its images."""
    for name in ("out/1.png", "out/2.png", "out/7.png", "gt/1.png", "gt/2.png", "gt/7.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(store_records.image_bytes(len(name) + ord(name[-5])))
    (tmp_path / "out" / "torn.png").write_bytes(store_records.image_bytes(1, (99, 99))[:120])
    rows: list[dict[str, Any]] = [
        _row(1, out="out/1.png", gt="gt/1.png", extra={"nested": [1, "ü"]}),
        _row("2", out=str(tmp_path / "out/2.png"), gt="gt/2.png", category=" Anime "),
        _row(3, success=False, out="out/1.png", gt="gt/1.png", error="quota exceeded"),
        _row("no file", out="out/none.png", gt="gt/1.png"),
        _row("no truth", out="out/1.png", gt="gt/none.png"),
        _row("empty", prompt="  ", out="out/1.png", gt="gt/1.png"),
        _row("empty and lost", prompt=None, out=None, gt="gt/1.png"),
        {"success": True, "prompt": "no id", "output_path": "out/1.png", "gt_image": "gt/1.png"},
        _row("torn", out="out/torn.png", gt="gt/1.png"),
        _row(70, out="out/7.png", gt=None, gen_image="gt/7.png", category="unheard of"),
        _row("truthy", success=1, out="out/1.png", gt="gt/1.png"),
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def _row(
    name: Any, *, success: Any = True, prompt: str | None = "", out: str | None, gt: str | None, **more: Any
) -> dict[str, Any]:
    row = {
        "id": name, "success": success, "prompt": f" A placard, number {name} " if prompt == "" else prompt,
        "meta": {"category": more.pop("category", "art"), "difficulty": "hard", "source": "web"}, "output_path": out,
    }  # fmt: skip
    return {**row, **({"gt_image": gt} if gt is not None else {}), **more}


def test_rows_are_preserved_verbatim_and_in_order(folder: Path) -> None:
    results = read_results(folder / "results.json")
    assert [row.fields for row in results.rows] == json.loads((folder / "results.json").read_text())
    assert [row.id for row in results.rows] == [
        "1", "2", "3", "no file", "no truth", "empty", "empty and lost", None, "torn", "70", "truthy",
    ]  # fmt: skip
    scored_ids = [row.id for row in results.rows if row.to_be_judged]
    assert scored_ids == ["1", "2", "empty", None, "torn", "70", "truthy"]


def test_a_results_file_is_a_task_and_a_source(folder: Path) -> None:
    results = read_results(folder / "results.json")
    task, source = results.task("theirs"), results.images()
    samples = list(task.samples())
    assert len(task) == len(samples) == 10
    assert samples[0].prompt == "A placard, number 1"
    assert [(each.category, each.group) for each in samples[:2]] == [
        ("art", "science_and_knowledge"), ("anime", "pop_culture_and_news"),
    ]  # fmt: skip
    assert samples[0].difficulty == "hard" and samples[0].meta == {"source": "web"}
    truth = task.truth("70").image
    assert truth is not None and truth.path == folder / "gt/7.png" and truth.width == 24
    lost = task.truth("no truth")
    assert lost.image is None and "gt/none.png" in lost.extra["image_fault"]
    with pytest.raises(DataError, match="no sample 'x'"):
        task.truth("x")
    assert source.generation("1", 0).path == folder / "out/1.png"
    reasons = {name: source.generation(name, 0).reason for name in ("3", "no file", "empty", "torn", "empty and lost")}
    assert reasons["3"] == "results.json, row 2: success is false (quota exceeded)"
    assert reasons["no file"] == "results.json, row 3: out/none.png: is missing"
    assert reasons["empty"].endswith("the prompt is empty")
    assert "out/torn.png: does not open" in reasons["torn"]
    assert reasons["empty and lost"].endswith("names no image")
    assert source.generation("1", 1).status == "failed"


def test_versions_follow_prompts_truths_and_images(folder: Path) -> None:
    def versions() -> tuple[str, str]:
        results = read_results(folder / "results.json")
        return results.task().version, results.images().revision

    first = versions()
    assert versions() == first
    (folder / "gt/1.png").write_bytes(store_records.image_bytes(77))
    second = versions()
    assert second[0] != first[0] and second[1] == first[1]
    (folder / "out/1.png").write_bytes(store_records.image_bytes(78))
    third = versions()
    assert third[0] == second[0] and third[1] != second[1]


def test_a_duplicate_id_is_named_with_its_rows(folder: Path) -> None:
    rows = [
        _row(1, out="out/1.png", gt="gt/1.png"), _row("x", out="out/2.png", gt="gt/1.png"),
        _row("1", out="out/2.png", gt="gt/2.png"), _row(1, success=False, out=None, gt="gt/2.png"),
    ]  # fmt: skip
    (folder / "twice.json").write_text(json.dumps(rows))
    results = read_results(folder / "twice.json")
    assert len(results.rows) == 4
    with pytest.raises(DataError, match=r"twice\.json: duplicate id '1', in rows 0 and 2"):
        results.task()
    with pytest.raises(DataError, match="duplicate id"):
        results.images()
    assert results.images("last").generation("1", 0).path == folder / "out/2.png"
    assert [each.id for each in results.task(duplicates="last").samples()] == ["1", "x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "invalid JSON"), (b'{"id": 1}', "must be a JSON array"), (b"[1]", "row 0 is not an object"),
        (b'["\xff"]', "is not UTF-8"), (b"[" * 100_000, "invalid JSON"),
    ],
)  # fmt: skip
def test_a_broken_file_is_reported_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_results(tmp_path / "results.json")
    assert "\n" not in str(caught.value) and str(tmp_path / "results.json") in str(caught.value)
    with pytest.raises(DataError, match="is missing"):
        read_results(tmp_path / "absent.json")


def _scored(folder: Path, results: OfficialResults) -> RunStore:
    """Return a run of the file: 1 and truthy have scores, 2 has none for text, the score of 70 failed."""
    task, source = results.task(duplicates="last"), results.images("last")
    generator = GeneratorSpec(name="theirs", revision=source.revision)
    spec = store_records.spec(task="results", task_version=task.version, generator=generator)
    store = RunStore.open(folder / "run", spec)
    store.put_samples((sample, task.truth(sample.id)) for sample in task.samples())
    remember_source(store, results)
    parsed_scores = {
        "1": ParsedScore(
            status="ok", values=dict(zip(DIMENSIONS, (1, 0.5, 0.5, 0), strict=True)), rationale="ü" * 1200
        ),
        "2": ParsedScore(status="ok", values={"faithfulness": 0.33, "visual_correctness": 1, "aesthetics": 0.5}),
        "70": ParsedScore(status="failed", reason="f" * 400),
        "truthy": ParsedScore(status="ok", values=dict.fromkeys(DIMENSIONS, 1.0)),
        "no truth": ParsedScore(status="not_applicable", reason="lacks truth_image"),
    }
    for sample in task.samples():
        generation = source.generation(sample.id, 0)
        ref = None
        if generation.path is not None:
            ref = store.put_image(generation.path.read_bytes(), width=24, height=16, format="PNG")
        store.put_generation(sample.id, store_records.generation(sample.id, ref, reason=generation.reason))
        if ref is not None and sample.id in parsed_scores:
            parsed = parsed_scores[sample.id]
            strict = ParsedScore(status=ScoreStatus.FAILED, reason="off the grid") if sample.id == "2" else parsed
            score = store_records.score(sample.id, ref.sha256, status=strict.status, strict=strict, lenient=parsed)
            store.put_score(sample.id, score, store.spec.scorers[0])
    return store


def test_an_evaluated_file_has_all_rows_with_verdicts_and_three_summaries(folder: Path) -> None:
    results = read_results(folder / "results.json")
    store = _scored(folder, results)
    for path in (folder / "out").iterdir():  # deleting images later does not change which rows are scored
        path.unlink()
    with store:
        assert export_official(store, folder / "results_eval.json", "judge") == 11
    text = (folder / "results_eval.json").read_text(encoding="utf-8")
    assert text.startswith('[\n  {\n    "id": 1,') and "ü" in text and not text.endswith("\n")
    written = json.loads(text)
    rows, summaries = written[:-3], written[-3:]
    for row, original in zip(rows, results.rows, strict=True):
        added = ["eval_success", "scores"] if "error" in original.fields else ["eval_success", "scores", "error"]
        assert list(row) == [*original.fields, *added]
        assert {key: row[key] for key in original.fields if key != "error"} == {
            key: value for key, value in original.fields.items() if key != "error"
        }
    assert rows[0]["scores"] == {
        "rationale": "ü" * 1000, "faithfulness": 1.0, "visual_correctness": 0.5, "text_accuracy": 0.5,
        "aesthetics": 0.0, "overall": 0.5,
    }  # fmt: skip
    assert list(rows[0]["scores"]) == ["rationale", *KEYS]
    assert list(rows[1]["scores"]) == ["rationale", *KEYS, "text_accuracy_na"]
    # .1 * .33 + .4 * 1 + .4 * .5 + .1 * .5 = .683
    assert (rows[1]["scores"]["overall"], rows[1]["scores"]["text_accuracy_na"]) == (0.68, True)
    assert [row["eval_success"] for row in rows] == [True, True] + [False] * 8 + [True]
    assert [row["error"] for row in rows[:8]] == [
        None, None, "not_evaluated", "not_evaluated", "not_evaluated", "empty_prompt", "not_evaluated", "not_evaluated",
    ]  # fmt: skip
    assert "does not open" in rows[8]["error"] and rows[10]["error"] is None
    assert rows[9]["error"] == "not_evaluated"  # the evaluator does not read `gen_image`
    assert all(row["scores"] is None for row in rows if not row["eval_success"])
    assert [list(each) for each in summaries] == [["summary_type", "avg_scores", "count"]] * 3
    assert [each["summary_type"] for each in summaries] == [
        "science_and_knowledge",
        "pop_culture_and_news",
        "overall_avg",
    ]
    assert [list(each["avg_scores"]) for each in summaries] == [KEYS] * 3
    assert [each["count"] for each in summaries] == [2, 1, 3]
    science, pop, whole = (each["avg_scores"] for each in summaries)
    assert pop == {key: rows[1]["scores"][key] for key in KEYS[:-1]} | {"overall": 0.683}  # not that of the row, 0.68
    for key in KEYS[:-1]:
        assert science[key] == pytest.approx((rows[0]["scores"][key] + rows[10]["scores"][key]) / 2)
        assert whole[key] == pytest.approx((science[key] + pop[key]) / 2, abs=1e-4)


def test_an_exported_file_can_be_read_and_written_again(folder: Path) -> None:
    with _scored(folder, read_results(folder / "results.json")) as store:
        export_official(store, folder / "results_eval.json", "judge")
    again = read_results(folder / "results_eval.json")
    written = json.loads((folder / "results_eval.json").read_text())
    assert [row.fields for row in again.rows] == written[:-3]
    assert list(again.summaries) == written[-3:]
    rows = evaluated_rows([row.fields for row in again.rows])
    assert [(row.group, row.strict.na) for row in rows] == [
        ("science_and_knowledge", ()), ("pop_culture_and_news", ("text_accuracy",)), ("science_and_knowledge", ()),
    ]  # fmt: skip
    assert "text_accuracy" not in rows[1].strict.values
    write_results(folder / "copy.json", [row.fields for row in again.rows])
    assert (folder / "copy.json").read_bytes() == (folder / "results_eval.json").read_bytes()


def test_rows_with_the_same_id_all_get_the_row_that_was_scored_last(folder: Path) -> None:
    rows = [
        _row(1, out="out/2.png", gt="gt/1.png", note="first"), _row(1, out="out/1.png", gt="gt/1.png", note="last"),
        _row("1", success=False, out=None, gt="gt/1.png", note="failed"),
        {"success": True, "prompt": "no id, row 3", "output_path": "out/1.png", "gt_image": "gt/1.png"},
        _row("3", success=False, out=None, gt=None),
        {"success": True, "prompt": "no id, row 5", "output_path": "out/1.png", "gt_image": "gt/1.png"},
    ]  # fmt: skip
    (folder / "twice.json").write_text(json.dumps(rows))
    with _scored(folder, read_results(folder / "twice.json")) as store:
        export_official(store, folder / "eval.json", "judge")
    written = json.loads((folder / "eval.json").read_text())
    assert [row.get("note") for row in written[:3]] == ["last", "last", "last"]
    assert [row["eval_success"] for row in written[:6]] == [True, True, True, False, False, False]
    assert written[5]["prompt"] == "no id, row 5" and written[5]["error"] == "not_evaluated"
    assert written[-1]["count"] == 3  # each row counts, even if its id is a duplicate


def test_a_row_without_id_is_looked_up_by_its_number(folder: Path) -> None:
    rows = [
        {"success": True, "prompt": "no id, row 0", "output_path": "out/1.png", "gt_image": "gt/1.png"},
        {"success": True, "prompt": "no id, row 1", "output_path": "out/1.png", "gt_image": "gt/1.png"},
        _row(1, out="out/2.png", gt="gt/2.png"),
    ]
    (folder / "bare.json").write_text(json.dumps(rows))
    with _scored(folder, read_results(folder / "bare.json")) as store:
        export_official(store, folder / "eval.json", "judge")
    written = json.loads((folder / "eval.json").read_text())
    assert [row["error"] for row in written[:3]] == ["not_evaluated", None, None]
    assert written[1] == written[2]


def test_a_run_of_a_generator_exports_its_samples(tmp_path: Path) -> None:
    with RunStore.open(tmp_path / "run", store_records.spec(repeats=2)) as store:
        store.put_samples(store_records.items("a", "b", "c"))
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        for name in ("a", "b"):
            for repeat in (0, 1):
                store.put_generation(
                    f"{name}{repeat}", store_records.generation(name, ref if name == "a" else None, repeat)
                )
        store.put_score("s", store_records.score("a", ref.sha256, 1.0), store.spec.scorers[0])
        store.put_score("t", store_records.score("a", ref.sha256, 0.0, repeat=1), store.spec.scorers[0])
        assert export_official(store, tmp_path / "eval.json", "judge") == 3
        written = json.loads((tmp_path / "eval.json").read_text())
        export_official(store, tmp_path / "second.json", "judge", repeat=1)
        second = json.loads((tmp_path / "second.json").read_text())
        with pytest.raises(UsageError, match="no scorer 'x'"):
            export_official(store, tmp_path / "x.json", "x")
    assert list(written[0]) == [
        "id", "success", "prompt", "meta", "output_path", "gt_image", "eval_success", "scores", "error",
    ]  # fmt: skip
    assert written[0]["meta"] == {"category": "art", "difficulty": ""}
    assert (tmp_path / written[0]["output_path"]).read_bytes() == store_records.image_bytes()
    assert [row["success"] for row in written[:3]] == [True, False, False]
    assert [row["error"] for row in written[:3]] == [None, "not_evaluated", "not_evaluated"]
    assert (written[0]["scores"]["overall"], second[0]["scores"]["overall"]) == (1.0, 0.0)
    assert read_results(tmp_path / "eval.json").rows[0].output == tmp_path / written[0]["output_path"]


def test_a_scorer_with_other_dimensions_has_no_official_form(tmp_path: Path) -> None:
    other = ScorerSpec(name="similarity", dimensions=("cosine",))
    with RunStore.open(tmp_path, store_records.spec(other)) as store, pytest.raises(DataError, match="has cosine"):
        export_official(store, tmp_path / "eval.json", "similarity")


def test_a_missing_value_is_an_error_of_the_row_and_not_a_zero(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, store_records.spec()) as store:
        store.put_samples(store_records.items("a"))
        ref = store.put_image(store_records.image_bytes(), width=24, height=16, format="PNG")
        store.put_generation("a", store_records.generation("a", ref))
        parsed = ParsedScore(status="ok", values={"faithfulness": 1.0})
        store.put_score("s", store_records.score("a", ref.sha256, strict=parsed), store.spec.scorers[0])
        export_official(store, tmp_path / "eval.json", "judge")
    row = json.loads((tmp_path / "eval.json").read_text())[0]
    assert (row["scores"], row["error"]) == (None, "visual_correctness has no value")


def test_a_lone_surrogate_is_written(tmp_path: Path) -> None:
    row = {"id": 1, "prompt": "x\ud800", "eval_success": False, "scores": None, "error": None}
    write_results(tmp_path / "eval.json", [row])
    assert read_results(tmp_path / "eval.json").rows[0].fields == row


@pytest.mark.parametrize("row", ['{"id": 1, "prompt": "\\ud800"}', '{"id": 1, "prompt": "p", "meta": {"x": NaN}}'])
def test_values_that_are_not_valid_json_are_reported_in_one_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(f"[{row}]")
    with pytest.raises(DataError, match="a prompt or meta cannot be stored"):
        assert read_results(path).task().version
