"""Scorers in short form in a run: the stored records are those of a scorer that assembles its `Score` by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen.core.errors import UsageError
from knowgen.core.records import GroundTruth, Sample, Score, ScoreStatus
from knowgen.store.run import RunStore
from knowgen.tasks.in_memory import InMemoryTask

SCORERS = """
from PIL import ImageStat

from knowgen.plugin import UnscorableError, ok_score


def _red(image):
    return ImageStat.Stat(image).mean[0] / 255


class ByHand:
    dimensions = ("red",)
    version = "1"

    def score_batch(self, items):
        for sample, _, generation in items:
            yield ok_score(sample, generation, {"red": _red(generation.image.open())}, scorer="by hand")


class Method:
    dimensions = ("red",)
    version = "1"

    def __init__(self, scale=1.0):
        self.scale = scale

    def score(self, sample, truth, generation):
        return self.scale * _red(generation.image.open())


def red(prompt, image):
    return _red(image)


async def red_later(prompt, image, truth):
    return {"red_later": _red(image)}


def sometimes(prompt, image, truth):
    if "s1" in prompt:
        return float("nan")
    if "s2" in prompt:
        raise UnscorableError("not this one")
    if "s3" in prompt:
        raise SystemExit(3)
    return _red(image)


def needs_text(prompt, image, truth):
    return len(truth.required_text[0]) / 10


needs_text.needs = {"image", "required_text"}
"""


def generator(prompt: str, seed: int) -> Image.Image:
    return Image.new("RGB", (24, 16), (20 * len(prompt) % 256, 0, int(prompt.rpartition("s")[2]) * 9))


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Score five samples with scorers of the file, and return the stored scores by scorer and sample."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SCORERS)
    samples = [Sample(id=f"s{n}", prompt=f"{'very ' * n}plain s{n}", category="art") for n in range(5)]
    task = InMemoryTask("plain", samples, [GroundTruth(sample_id="s0", required_text=("OPEN",))])

    def score(*names: str, **fields: Any) -> dict[str, dict[str, Score]]:
        full = [f"mine.py:{name}" for name in names]
        knowgen.evaluate(task, generator, full, out="out", **fields)
        scores: dict[str, dict[str, Score]] = {name: {} for name in names}
        with RunStore.read(Path("out")) as store:
            for _, each in store.scores():
                scores[each.scorer.removeprefix("mine.py:")][each.sample_id] = each
        return scores

    return score


def plain(score: Score, dimension: str) -> dict[str, Any]:
    """Return a record without what differs between two scorers: name and time, and the name of the dimension."""
    record = score.model_dump(exclude={"scorer", "seconds"})
    record["strict"]["values"] = {"red": record["strict"]["values"][dimension]}
    return record


def test_every_form_gives_the_same_records(scored: Any) -> None:
    scores = scored("ByHand", "Method", "red", "red_later")
    dimensions = {"ByHand": "red", "Method": "red", "red": "red", "red_later": "red_later"}
    by_hand = {name: plain(score, "red") for name, score in scores["ByHand"].items()}
    assert len(by_hand) == 5 and len({record["strict"]["values"]["red"] for record in by_hand.values()}) > 2
    for name, dimension in dimensions.items():
        assert {each: plain(score, dimension) for each, score in scores[name].items()} == by_hand, name


def test_an_error_of_a_scorer_fails_only_its_own_sample(scored: Any) -> None:
    scores = scored("sometimes")["sometimes"]
    assert {name: score.status.value for name, score in scores.items()} == {
        "s0": "ok", "s1": "failed", "s2": "failed", "s3": "failed", "s4": "ok"
    }  # fmt: skip
    assert "returned nan for sometimes" in scores["s1"].strict.reason
    assert scores["s2"].strict.reason == "not this one"
    assert "sys.exit" in scores["s3"].strict.reason


def test_a_missing_need_is_not_applicable_and_the_function_is_not_called(scored: Any) -> None:
    scores = scored("needs_text")["needs_text"]
    assert scores["s0"].strict.values == {"needs_text": 0.4}
    assert {scores[name].status for name in ("s1", "s2", "s3", "s4")} == {ScoreStatus.NOT_APPLICABLE}
    assert "required_text" in scores["s1"].strict.reason


def test_a_measure_scores_once_and_a_judge_each_repeat(scored: Any) -> None:
    scored("red", "red_later", judge_repeats=2)
    with RunStore.read(Path("out")) as store:
        counts: dict[str, int] = {}
        for _, each in store.scores():
            counts[each.scorer] = counts.get(each.scorer, 0) + 1
    assert counts == {"mine.py:red": 5, "mine.py:red_later": 10}


def greenness(prompt: str, image: Image.Image) -> float:
    return image.resize((1, 1)).getpixel((0, 0))[2] / 255  # type: ignore[index]


class Tinted:
    """A scorer as an object.

    Args:
        channel: Which of red, green and blue.
    """

    dimensions = ("tint",)

    def __init__(self, channel: int) -> None:
        self.channel = channel

    def score(self, sample: Sample, truth: GroundTruth, generation: Any) -> float:
        return float(generation.image.open().getpixel((0, 0))[self.channel] / 255)


def test_functions_and_objects_are_scorers_in_python(tmp_path: Path) -> None:
    task = InMemoryTask("plain", [Sample(id=f"s{n}", prompt=f"plain s{n}", category="art") for n in range(3)])
    run = knowgen.evaluate(task, generator, [greenness, Tinted(2)], out=tmp_path / "out")
    blue = [0.0, 9 / 255, 18 / 255]
    with RunStore.read(tmp_path / "out") as store:
        values = [(each.scorer, each.sample_id, each.strict.values) for _, each in store.scores()]
        first, second = store.spec.scorers
    expected = {(first.name, f"s{n}"): {"greenness": blue[n]} for n in range(3)}
    expected |= {(second.name, f"s{n}"): {"tint": blue[n]} for n in range(3)}
    assert {(scorer, sample) for scorer, sample, _ in values} == expected.keys()
    assert all(value == pytest.approx(expected[scorer, sample]) for scorer, sample, value in values)
    assert first.name.endswith(":greenness") and second.args == {"channel": 2}
    assert run.spec.scorers == (first, second)


def test_an_object_whose_arguments_are_unknown_needs_a_version(tmp_path: Path) -> None:
    class Hidden(Tinted):
        def __init__(self, shade: int) -> None:
            super().__init__(0)

    task = InMemoryTask("plain", [Sample(id="s0", prompt="plain s0")])
    with pytest.raises(UsageError, match="argument 'shade' is unknown") as caught:
        knowgen.evaluate(task, generator, [Hidden(3)], out=tmp_path / "out")
    assert "give the class a `version`" in str(caught.value)
