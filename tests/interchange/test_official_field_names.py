"""Results files of related benchmarks, which use other field names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.records import DIMENSIONS, ParsedScore, ScoreStatus
from knowgen.interchange.official import EMPTY_PROMPT, OfficialRow, read_results
from knowgen.interchange.official_export import ExportedVerdict, evaluated
from tests.helpers import store_records


def row(**fields: Any) -> OfficialRow:
    return OfficialRow(0, {"id": 1, **fields}, Path("/base"))


@pytest.mark.parametrize("name", ["prompt", "question", "user_prompt", "image_prompt"])
def test_each_field_name_of_the_prompt_is_accepted(name: str) -> None:
    assert row(**{name: " A placard "}).prompt == "A placard"


def test_the_official_prompt_goes_first_and_a_blank_one_stays_blank() -> None:
    assert row(question="other", prompt="official").prompt == "official"
    assert row(prompt="", question="other").prompt == ""  # the official evaluator calls it empty
    assert row(image_prompt="third", user_prompt="second").prompt == "second"
    assert row().prompt == "" and row(question=7).prompt == ""


@pytest.mark.parametrize("name", ["output_path", "image_path", "generated_image", "gen_image"])
def test_each_field_name_of_the_generated_image_is_accepted(name: str) -> None:
    result = row(**{name: "a.png"})
    assert (result.output, result.truth) == (Path("/base/a.png"), None)


@pytest.mark.parametrize("name", ["gt_image", "ground_truth", "target_image", "reference_image"])
def test_each_field_name_of_the_ground_truth_is_accepted(name: str) -> None:
    result = row(**{name: "t.png"})
    assert (result.output, result.truth) == (None, Path("/base/t.png"))


@pytest.mark.parametrize(
    ("fields", "output", "truth"),
    [
        # another name for the image and none for the truth: as in the official files, it is the truth
        ({"output_path": "o", "gen_image": "g"}, "o", "g"),
        ({"image_path": "o", "gen_image": "g"}, "o", "g"),
        ({"generated_image": "o", "gen_image": "g"}, "o", "g"),
        ({"output_path": None, "gen_image": "g"}, None, "g"),  # a failed row
        ({"output_path": "o", "gt_image": None, "gen_image": "g"}, "o", "g"),
        ({"output_path": "o", "gt_image": " ", "gen_image": "g"}, "o", "g"),
        # no other name for the image: it is the image
        ({"gen_image": "g", "gt_image": "t"}, "g", "t"),
        ({"gen_image": "g", "ground_truth": "t"}, "g", "t"),
        ({"gen_image": "g", "reference_image": "t"}, "g", "t"),
        ({"gen_image": "g"}, "g", None),
        # both have names of their own: it is not needed
        ({"output_path": "o", "gt_image": "t", "gen_image": "g"}, "o", "t"),
        ({"image_path": "o", "target_image": "t", "gen_image": "g"}, "o", "t"),
        # no path at all
        ({"gen_image": None, "gt_image": "t"}, None, "t"),
        ({"output_path": "o", "gen_image": 3}, "o", None),
        ({"output_path": "o", "image_path": "i", "gt_image": "t", "ground_truth": "u"}, "o", "t"),
    ],
)
def test_the_meaning_of_gen_image_depends_on_the_other_fields(
    fields: dict[str, Any], output: str | None, truth: str | None
) -> None:
    result = row(**fields)
    assert result.output == (Path("/base") / output if output else None)
    assert result.truth == (Path("/base") / truth if truth else None)


def test_success_is_read_from_the_flag_or_the_status_of_the_image() -> None:
    assert row(success=True).success and row(image_status="ok").success and row(success=1).success
    assert not row(image_status="failed").success and not row().success
    assert not row(success=False, image_status="ok").success  # the official field decides where it is there


def test_a_file_with_other_field_names_is_a_task_and_a_source_and_is_exported_unchanged(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png", "t.png")):
        (tmp_path / name).write_bytes(store_records.image_bytes(number))
    rows: list[dict[str, Any]] = [
        {"id": "1", "question": "one", "image_status": "ok", "generated_image": "a.png", "ground_truth": "t.png",
         "meta": {"category": "art"}},
        {"id": "2", "user_prompt": "two", "image_status": "ok", "gen_image": "b.png", "target_image": "none.png",
         "meta": {"category": "art"}},
        {"id": "3", "image_prompt": "three", "image_status": "error", "image_path": "gone.png",
         "reference_image": "t.png"},
        {"id": "4", "question": "four", "success": True, "image_path": "gone.png", "gen_image": "t.png"},
    ]  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(rows))
    results = read_results(tmp_path / "results.json")
    assert [row.to_be_judged for row in results.rows] == [True, False, False, False]
    task, source = results.task(), results.images()
    assert [sample.prompt for sample in task.samples()] == ["one", "two", "three", "four"]
    truth, lost = task.truth("1").image, task.truth("2")
    assert truth is not None and truth.path == tmp_path / "t.png"
    assert "none.png: " in lost.extra["image_fault"]
    assert task.truth("4").image is not None
    assert source.generation("1", 0).path == tmp_path / "a.png" and source.generation("2", 0).path == tmp_path / "b.png"
    assert source.generation("3", 0).reason == "results.json, row 2: success is false"
    assert source.generation("4", 0).reason == "results.json, row 3: gone.png: is missing"
    parsed = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 1.0))
    verdicts = {"1": (results.rows[0], ExportedVerdict({"overall": parsed.values["aesthetics"]}, None))}
    written = list(evaluated(results, verdicts))
    for before, after in zip(rows, written, strict=True):
        assert list(after)[: len(before)] == list(before)
        assert {key: after[key] for key in before} == before
    assert [each["eval_success"] for each in written] == [True, False, False, False]
    assert EMPTY_PROMPT not in {each["error"] for each in written}
