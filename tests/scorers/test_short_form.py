"""Scorers that return numbers: the record is the one that a scorer by hand would give, and wrong values are named."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from knowgen.core.errors import UnscorableError, UsageError
from knowgen.core.records import (
    DIMENSIONS,
    Generation,
    GenerationStatus,
    GroundTruth,
    Item,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
    image_ref,
)
from knowgen.scorers.contract import scorer_capabilities
from knowgen.scorers.short_form import compute_item, compute_items, function_scorer, score_item, score_record
from knowgen.workflows import resolve


@pytest.fixture
def item(tmp_path: Path) -> Item:
    path = tmp_path / "red.png"
    Image.new("RGB", (20, 10), "red").save(path)
    sample = Sample(id="a", prompt="A red wall.")
    truth = GroundTruth(sample_id="a", required_text=("wall",))
    return sample, truth, Generation(sample_id="a", repeat=2, status=GenerationStatus.OK, image=image_ref(path))


class Returns:
    """A scorer that returns a given value.

    Args:
        value: What `score` returns.
        dimensions: As declared.
    """

    def __init__(self, value: Any, dimensions: tuple[str, ...] | str) -> None:
        self.value, self.dimensions = value, dimensions

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        return self.value


def by_hand(**values: float) -> Score:
    reading = ParsedScore(status=ScoreStatus.OK, values=values)
    return Score(sample_id="a", repeat=2, scorer="Returns", status=ScoreStatus.OK, strict=reading)


@pytest.mark.parametrize("value", [0.25, numpy.float32(0.25), {"sharpness": 0.25}])
def test_a_number_becomes_a_complete_score_record(item: Item, value: Any) -> None:
    score = score_record(value, Returns(value, ("sharpness",)), item)
    assert score == by_hand(sharpness=0.25)
    assert score_record(value, Returns(value, "sharpness"), item) == score


def test_a_record_stays_as_it_is(item: Item) -> None:
    score = by_hand(sharpness=0.5)
    assert score_record(score, Returns(score, ()), item) is score


def test_none_marks_a_dimension_as_not_applicable(item: Item) -> None:
    score = score_record({"text": None, "sharpness": 1}, Returns(None, ("sharpness", "text")), item)
    assert score.strict.values == {"sharpness": 1.0} and score.strict.na == ("text",)


@pytest.mark.parametrize(
    ("value", "dimensions", "message"),
    [
        (math.nan, ("sharpness",), "returned nan for sharpness"),
        (1.2, ("sharpness",), "returned 1.2 for sharpness"),
        ({"sharpness": -0.1}, ("sharpness",), "returned -0.1 for sharpness"),
        ("0.5", ("sharpness",), "returned '0.5' for sharpness"),
        (object(), ("sharpness",), "returned object for sharpness"),
        (None, ("sharpness",), "returned None; return a number"),
        (0.5, ("a", "b"), "one value for 2 dimensions (a, b)"),
        ({"a": 0.5}, ("a", "b"), "returned no 'b'; return None where"),
        ({"a": 0.5, "c": 0.5}, ("a",), "returned 'c', and declares a"),
    ],
)
def test_an_invalid_value_is_an_error_with_its_reason(
    item: Item, value: Any, dimensions: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UnscorableError, match=r".") as caught:
        score_record(value, Returns(value, dimensions), item)
    assert message in str(caught.value)


def test_a_coroutine_from_a_plain_method_is_named(item: Item) -> None:
    async def later() -> float:
        return 0.5

    with pytest.raises(UnscorableError, match="declare it `async def`"):
        score_record(later(), Returns(None, ("a",)), item)


def test_a_function_gets_the_prompt_the_open_image_and_the_truth(item: Item) -> None:
    seen: list[Any] = []

    def redness(prompt: str, image: Image.Image, truth: GroundTruth) -> float:
        seen.extend([prompt, image.size, truth.required_text])
        return 0.75

    score = compute_item(function_scorer(redness), item)
    assert score.strict.values == {"redness": 0.75} and (score.sample_id, score.repeat) == ("a", 2)
    assert seen == ["A red wall.", (20, 10), ("wall",)] and score.seconds > 0


def test_a_function_may_wait_and_may_leave_the_truth_out(item: Item) -> None:
    async def redness(prompt: str, image: Image.Image) -> dict[str, float]:
        return {"red": 1.0, "green": 0.0}

    redness.dimensions = ("red", "green")  # type: ignore[attr-defined]
    assert scorer_capabilities(redness).shape == "score"
    score = asyncio.run(score_item(function_scorer(redness), item))
    assert score.strict.values == {"red": 1.0, "green": 0.0}


def test_items_come_from_the_batch_form_where_there_is_one(item: Item) -> None:
    class Batch(Returns):
        def score_batch(self, items: list[Item]) -> list[str]:
            return ["from the batch"] * len(items)

    assert list(compute_items(Batch(0.5, ("a",)), [item, item])) == ["from the batch"] * 2
    assert [score.strict.values for score in compute_items(Returns(0.5, ("a",)), [item, item])] == [{"a": 0.5}] * 2


def test_declarations_are_read_from_functions_and_classes() -> None:
    def likeness(prompt: str, image: Image.Image, truth: GroundTruth) -> float:
        return 0.0

    likeness.needs, likeness.version, likeness.note = "truth_image", "3", "a test"  # type: ignore[attr-defined]
    capabilities = scorer_capabilities(likeness)
    assert (capabilities.shape, capabilities.needs, capabilities.dimensions) == (
        "score_batch",
        frozenset({"truth_image"}),
        ("likeness",),
    )
    assert (capabilities.version, capabilities.note) == ("3", "a test")
    plain = scorer_capabilities(Returns)
    assert (plain.shape, plain.dimensions, plain.needs) == ("score_batch", DIMENSIONS, frozenset({"image"}))


@pytest.mark.parametrize(
    ("dimensions", "message"), [(("a", "a"), "names a dimension twice"), ((), "declares no dimension")]
)
def test_invalid_dimensions_are_refused(dimensions: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scorer_capabilities(Returns(0.5, dimensions))


def test_a_function_takes_no_arguments_and_its_version_follows_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    versions = []
    for number in range(2):
        Path(f"mine{number}.py").write_text(f"def plain(prompt, image):\n    return 0.{number}\n")
        versions.append(resolve.resolve_scorer(f"mine{number}.py:plain", {}).spec.version)
    assert len(set(versions)) == 2 and all(version.startswith("source ") for version in versions)
    with pytest.raises(UsageError, match="is a function and takes no arguments"):
        resolve.resolve_scorer("mine0.py:plain", {"size": 3})
