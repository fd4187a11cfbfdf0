"""Rewards: worked by hand, held to their formula by properties, and masked wherever a judge said nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knowgen.core.errors import BudgetReachedError, ConfigError, TransientError, UsageError
from knowgen.core.records import (
    DIMENSIONS,
    Attempt,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Item,
    ParsedScore,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.scorers.contract import failed_score, not_applicable_score
from knowgen.scorers.vlm.answer import AnswerJudge
from knowgen.scorers.vlm.judge import VlmJudge
from knowgen.training.rewards import DualReward, EpisodeReward, ReferencesRule, image_reward, masked, text_reward
from tests.helpers.judge_server import Call, JudgeServer, Step, good

REFERENCE = {"img_id": "IMG_001", "title": "A crest"}
PICTURE = ImageRef(sha256="0" * 64, width=1, height=1, format="PNG")


def item(name: str = "a", references: int = 1, **changes: Any) -> Item:
    fields: dict[str, Any] = {
        "sample_id": name, "status": GenerationStatus.OK, "image": PICTURE, "references": (REFERENCE,) * references,
    }  # fmt: skip
    truth = GroundTruth(sample_id=name, image=PICTURE, required_text=("1907",))
    return Sample(id=name, prompt="Draw."), truth, Generation(**(fields | changes))


def knowgen_score(f: float, v: float, t: float | None, a: float, name: str = "a", repeat: int = 0) -> Score:
    values = {"faithfulness": f, "visual_correctness": v, "text_accuracy": t, "aesthetics": a}
    reading = ParsedScore(
        status=ScoreStatus.OK,
        values={key: value for key, value in values.items() if value is not None},
        na=("text_accuracy",) if t is None else (),
    )
    return Score(sample_id=name, repeat=repeat, scorer="vlm:x", status=ScoreStatus.OK, strict=reading)


def one_value(dimension: str, value: float, name: str = "a", repeat: int = 0) -> Score:
    reading = ParsedScore(status=ScoreStatus.OK, values={dimension: value})
    return Score(sample_id=name, repeat=repeat, scorer=dimension, status=ScoreStatus.OK, strict=reading)


class Picture:
    """A judge of images that gives preset scores by sample id; an exception is raised, a function is called."""

    needs = frozenset({"image"})

    def __init__(self, told: Any = None) -> None:
        self.told, self.asked, self.most, self.now = told, 0, 0, 0
        self.closed = False

    def value(self, item: Item) -> Score:
        name, repeat = item[0].id, item[2].repeat
        told = self.told[name] if isinstance(self.told, dict) else self.told
        if callable(told):
            told = told()
        if isinstance(told, BaseException):
            raise told
        if isinstance(told, Score):
            return told.model_copy(update={"sample_id": name, "repeat": repeat})
        return self.plain(told, name, repeat)

    def plain(self, told: Any, name: str, repeat: int) -> Score:
        f, v, t, a = told or (1, 1, 1, 1)
        return knowgen_score(f, v, t, a, name=name, repeat=repeat)

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return self.value((sample, truth, generation))

    async def close(self) -> None:
        self.closed = True


class Answer(Picture):
    """The same for answers."""

    needs = frozenset({"references"})

    def plain(self, told: Any, name: str, repeat: int) -> Score:
        return one_value("answer", 1.0 if told is None else told, name, repeat)


class Batch:
    """A measure that computes in batches; an exception that it was made with is raised when its turn comes."""

    needs = frozenset({"image"})
    concurrency = 3

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        self.batches.append([sample.id for sample, _, _ in items])
        self.threads.add(threading.get_ident())
        for sample, _, generation in reversed(items):
            told = self.told[sample.id]
            if isinstance(told, Exception):
                raise told
            if told is not None:
                yield one_value("truth", told, sample.id, generation.repeat)


def rewards(dual: DualReward, *items: Item) -> list[EpisodeReward]:
    return asyncio.run(dual.rewards(items))


# ------------------------------------------------------------------------------------------------------ worked by hand


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 1, 1, 1), 1.0),
        ((0, 0, 0, 0), 0.0),
        ((1, 0.5, 0, 0.5), 0.35),  # .1 + .2 + 0 + .05
        ((0.5, 0.5, None, 1), 0.55),  # .05 + .2 + .4 * .5 + .1
        ((0, 1, None, 0), 0.6),
        ((0.5, 0, 0, 0), 0.05),
    ],
)
def test_the_image_half_is_the_sample_s_overall(values: tuple[Any, ...], expected: float) -> None:
    found = image_reward(knowgen_score(*values))
    assert (found.value, found.image, found.text, found.masked) == (expected, expected, None, False)


def test_the_sum_worked_by_hand() -> None:
    dual = DualReward(Picture((1, 0.5, 0, 0.5)), Answer(0.75))
    [found] = rewards(dual, item())
    assert found.value == pytest.approx(0.55)  # .5 * .35 + .5 * .75
    assert (found.image, found.text, found.reason) == (0.35, 0.75, "")
    [found] = rewards(DualReward(Picture((1, 0.5, 0, 0.5)), Answer(0.75), coefficient=0.2), item())
    assert found.value == pytest.approx(0.43)  # .8 * .35 + .2 * .75
    assert len(found.scores) == 2


GRID = st.sampled_from([0.0, 0.5, 1.0])


@given(GRID, GRID, GRID | st.none(), GRID)
def test_the_image_half_against_exact_arithmetic(f: float, v: float, t: float | None, a: float) -> None:
    found = image_reward(knowgen_score(f, v, t, a)).value
    exact = Fraction(1, 10) * Fraction(f) + Fraction(2, 5) * Fraction(v + (0.5 if t is None else t))
    exact += Fraction(1, 10) * Fraction(a)
    assert found is not None and Decimal(str(found)) == Decimal(exact.numerator) / Decimal(exact.denominator)


@given(GRID, GRID, GRID | st.none(), GRID, st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.floats(0, 1))
def test_the_sum_lies_between_its_halves(
    f: float, v: float, t: float | None, a: float, text: float, share: float
) -> None:
    [found] = rewards(DualReward(Picture((f, v, t, a)), Answer(text), coefficient=share), item())
    assert found.value is not None and not found.masked
    halves = [image_reward(knowgen_score(f, v, t, a)).value, float(text)]
    assert min(halves) - 1e-12 <= found.value <= max(halves) + 1e-12  # type: ignore[type-var,operator]
    assert found.value == pytest.approx((1 - share) * halves[0] + share * halves[1], abs=1e-12)  # type: ignore[operator]


@given(st.floats(0, 1))
def test_a_measure_of_one_dimension_is_taken_as_it_is(value: float) -> None:
    assert image_reward(one_value("truth", value)).value == value


# -------------------------------------------------------------------------------------------------- masks, and no zeros


@given(st.sampled_from(["failed", "not applicable"]), st.text(max_size=20))
def test_a_score_that_says_nothing_is_a_mask_and_never_a_zero(kind: str, words: str) -> None:
    make = failed_score if kind == "failed" else not_applicable_score
    for reward in (image_reward, text_reward):
        found = reward(make("a", 0, "vlm:x", words))
        assert found.masked and found.value is None and found.reason.startswith("vlm:x: ")
        assert words in found.reason


def test_either_half_lost_masks_the_whole() -> None:
    lost = failed_score("a", 0, "vlm:x", "the reply was empty")
    [found] = rewards(DualReward(Picture(lost), Answer(1.0)), item())
    assert found.masked and found.reason == "vlm:x: the reply was empty" and found.text == 1.0
    [found] = rewards(DualReward(Picture((0, 0, 0, 0)), Answer(lost)), item())
    assert found.masked and found.image == 0.0 and found.scores[1].status is ScoreStatus.FAILED
    [found] = rewards(DualReward(Picture(ValueError("a bug\nof a plugin")), Answer(lost)), item())
    assert found.reason == "Picture: a bug of a plugin; vlm:x: the reply was empty"


def test_an_image_that_was_not_generated_is_a_mask() -> None:
    image = Picture()
    fields: dict[str, Any] = {"status": GenerationStatus.FAILED, "image": None, "reason": "out of memory"}
    [found] = rewards(DualReward(image, Answer()), item(**fields))
    assert found.masked and found.reason == "there is no picture: out of memory" and not found.drawn
    assert image.asked == 0
    [found] = rewards(DualReward(image, Answer(0.25), coefficient=1.0), item(**fields))
    assert found.value == 0.25 and image.asked == 0, "the answer alone needs no picture"


def test_values_out_of_range_are_masked() -> None:
    found = image_reward(one_value("truth", 1.5))
    assert found.masked and "outside [0, 1]" in found.reason


@pytest.mark.parametrize(
    "fields", [{"value": 1.5}, {"value": None}, {"value": float("nan")}, {"value": 0.0, "masked": True}]
)
def test_a_reward_keeps_its_own_rules(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reward"):
        EpisodeReward(**fields)
    with pytest.raises(ValueError, match="reward"):
        masked("")


def test_scores_of_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="no image reward is made of ssim, lab_histogram_intersection"):
        reading = ParsedScore(status=ScoreStatus.OK, values={"ssim": 1, "lab_histogram_intersection": 1})
        image_reward(Score(sample_id="a", scorer="pixels", status=ScoreStatus.OK, strict=reading))
    with pytest.raises(UsageError, match="no text reward is made of faithfulness"):
        text_reward(knowgen_score(1, 1, 1, 1))
    partial = ParsedScore(status=ScoreStatus.OK, values={"faithfulness": 1.0})
    with pytest.raises(UsageError, match="no image reward"):
        image_reward(Score(sample_id="a", scorer="x", status=ScoreStatus.OK, strict=partial))


def test_the_lenient_reading_can_be_taken() -> None:
    lenient = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.7))
    score = failed_score("a", 0, "vlm:x", "off the grid").model_copy(update={"lenient": lenient})
    assert image_reward(score).masked
    assert image_reward(score, "lenient").value == 0.7
    [found] = rewards(DualReward(Picture(score), Answer(0.5), reading="lenient"), item())
    assert found.value == pytest.approx(0.6)


# ----------------------------------------------------------------------------------------------- the rule of references


@given(st.integers(0, 9))
def test_one_to_four_references_are_asked_for(count: int) -> None:
    image = Picture()
    [found] = rewards(DualReward(image, Answer()), item(references=count))
    if 1 <= count <= 4:
        assert found.value == 1.0 and not found.reason
    else:
        assert found.value == 0.0 and not found.masked, "a verdict on the answer, not a fault of a judge"
        assert found.reason == f"the answer has {count} usable references, and 1 to 4 are asked for"
        assert image.asked == 0


def test_only_references_that_name_an_image_count() -> None:
    rule = ReferencesRule()
    assert rule.broken_by([{"title": "a page"}, REFERENCE | {"usable": False}]).startswith("the answer has 0 usable")
    assert rule.broken_by([{"url": "http://a.test/1.png"}, {"sha256": "ab"}]) == ""
    own = ReferencesRule(least=2, most=2, usable=lambda reference: reference.get("kept", False))
    assert own.broken_by([{"kept": True}, {"kept": True}, {}]) == ""
    [found] = rewards(DualReward(Picture(), Answer(), rule=None), item(references=5))
    assert found.value == 1.0


# ----------------------------------------------------------------------------------------------- many, and in order


@given(st.lists(st.tuples(GRID, st.integers(0, 6), st.booleans()), max_size=12))
def test_order_is_preserved_whatever_becomes_of_each(told: list[tuple[float, int, bool]]) -> None:
    names = [f"s{number}" for number in range(len(told))]
    images = {
        name: failed_score(name, 0, "vlm:x", name) if broken else (value, value, value, value)
        for name, (value, _, broken) in zip(names, told, strict=True)
    }
    items = [item(name, references=count) for name, (_, count, _) in zip(names, told, strict=True)]
    found = rewards(DualReward(Picture(images), Answer(0.0), coefficient=0.0), *items)
    for name, (value, count, broken), reward in zip(names, told, found, strict=True):
        if not 1 <= count <= 4:
            assert reward.value == 0.0 and "usable references" in reward.reason
        elif broken:
            assert reward.reason == f"vlm:x: {name}"
        else:
            assert reward.value == value


def test_scores_run_side_by_side_within_bounds() -> None:
    image, answer = Picture(), Answer()
    found = rewards(DualReward(image, answer, concurrency=3), *(item(f"s{n}") for n in range(12)))
    assert len(found) == 12 and image.asked == answer.asked == 12
    assert image.most == 3 and answer.most == 3


def test_a_half_without_a_share_is_not_asked_for() -> None:
    image, answer = Picture((0, 0, 0, 0)), Answer()
    [found] = rewards(DualReward(image, answer, coefficient=1.0), item())
    assert (found.value, found.image, image.asked, answer.asked) == (1.0, None, 0, 1)
    [found] = rewards(DualReward(image, answer, coefficient=0.0), item())
    assert (found.value, found.text, image.asked, answer.asked) == (0.0, None, 1, 1)


def test_a_transient_error_is_retried_and_its_calls_are_recorded() -> None:
    faults = [TransientError("busy", retry_after=0.01, attempts=(Attempt(error="busy"),))]

    def told() -> Any:
        return faults.pop() if faults else (1, 1, 1, 1)

    dual = DualReward(Picture(told), Answer())
    [found] = rewards(dual, item())
    assert found.value == 1.0
    assert [attempt.error for attempt in found.scores[0].attempts] == ["busy"]
    [found] = rewards(DualReward(Picture(TransientError("gone", retry_after=0.001)), Answer(), tries=2), item())
    assert found.masked and found.reason == "Picture: gone"


@pytest.mark.parametrize("error", [ConfigError("no price"), BudgetReachedError("spent")])
def test_what_would_hit_every_episode_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        rewards(DualReward(Picture(error), Answer()), item("a"), item("b"))


def test_measures_compute_in_batches_in_one_thread_and_distinguish_episodes_of_one_sample() -> None:
    batch = Batch({"a": 0.25, "b": 0.5, "c": None, "d": 1.0})
    items = [item("a", repeat=7), item("a", repeat=7), item("b"), item("c"), item("d")]
    found = rewards(DualReward(batch, Answer(), coefficient=0.0), *items)
    assert [reward.value for reward in found] == [0.25, 0.25, 0.5, None, 1.0]
    assert found[3].masked and "gave no score of this sample" in found[3].reason
    assert found[0].scores[0].repeat == 7
    assert batch.batches == [["a", "a", "b"], ["c", "d"]]
    assert threading.get_ident() not in batch.threads


def test_one_that_breaks_a_batch_is_masked_alone() -> None:
    batch = Batch({"a": 0.25, "b": RuntimeError("does not fit"), "c": 1.0})
    found = rewards(DualReward(batch, Answer(), coefficient=0.0), *(item(name) for name in "abc"))
    assert [reward.value for reward in found] == [0.25, None, 1.0]
    assert found[1].reason == "Batch: does not fit"


def test_one_dual_reward_serves_several_event_loops() -> None:
    dual = DualReward(Picture(), Answer(), concurrency=1)
    for _ in range(2):
        assert [reward.value for reward in rewards(dual, item("a"), item("b"))] == [1.0, 1.0]
    asyncio.run(dual.close())
    assert dual._image._scorer.closed and dual._text._scorer.closed


@pytest.mark.parametrize(
    "args",
    [{"coefficient": 1.1}, {"coefficient": True}, {"reading": "loose"}, {"concurrency": 0}, {"tries": 0}],
)
def test_arguments_out_of_range_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DualReward(Picture(), Answer(), **args)


def test_a_text_judge_that_computes_is_refused() -> None:
    with pytest.raises(UsageError, match="async score"):
        DualReward(Picture(), Batch({}))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ over real HTTP


def episode(place: Path, name: str) -> Item:
    path = place / f"{name}.png"
    Image.new("RGB", (40, 30), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    image = ImageRef(sha256=digest, width=40, height=30, format="PNG", path=path)
    truth = GroundTruth(sample_id=name, image=image, required_text=("1907",), text_required=True)
    fields = {"sample_id": name, "status": GenerationStatus.OK, "image": image, "references": (REFERENCE,)}
    return Sample(id=name, prompt="Draw.", text_required=True), truth, Generation(**fields)


def test_a_judge_whose_replies_fail_masks_and_the_rest_is_rewarded(tmp_path: Path) -> None:
    def script(call: Call) -> Step:
        answers = "gen_prompt" in call.text
        if call.sample_id == "babble":
            return Step("I cannot say.")
        if call.sample_id == "broken" and answers:
            return Step(status=500)
        if call.sample_id == "refused" and not answers:
            return Step(reply=None, refusal="I will not judge this.")
        return Step(json.dumps({"rationale": "So.", "answer": 0.75}) if answers else good())

    async def go(url: str) -> list[EpisodeReward]:
        settings: dict[str, Any] = {"base_url": url, "attempts": 2}
        dual = DualReward(VlmJudge("any", **settings), AnswerJudge("any", **settings), tries=2)
        try:
            return await dual.rewards([episode(tmp_path, name) for name in ("good", "babble", "broken", "refused")])
        finally:
            await dual.close()

    with JudgeServer(script) as server:
        found = asyncio.run(go(server.url))
    assert found[0].value == pytest.approx(0.5 * round(0.1 + 0.2 + 0.4 + 0.05, 2) + 0.5 * 0.75)
    assert [reward.masked for reward in found] == [False, True, True, True]
    assert "not one JSON object" in found[1].reason
    assert found[2].image == 0.75 and "500" in found[2].reason
    assert "I will not judge this." in found[3].reason and found[3].text == 0.75
