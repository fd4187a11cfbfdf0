"""Rewards: worked examples, properties of their formula, and masks wherever a scorer returned nothing."""

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
IMAGE = ImageRef(sha256="0" * 64, width=1, height=1, format="PNG")


def item(name: str = "a", references: int = 1, **changes: Any) -> Item:
    fields: dict[str, Any] = {
        "sample_id": name, "status": GenerationStatus.OK, "image": IMAGE, "references": (REFERENCE,) * references,
    }  # fmt: skip
    truth = GroundTruth(sample_id=name, image=IMAGE, required_text=("1907",))
    return Sample(id=name, prompt="Draw."), truth, Generation(**(fields | changes))


def knowgen_score(f: float, v: float, t: float | None, a: float, name: str = "a", repeat: int = 0) -> Score:
    values = {"faithfulness": f, "visual_correctness": v, "text_accuracy": t, "aesthetics": a}
    parsing = ParsedScore(
        status=ScoreStatus.OK,
        values={key: value for key, value in values.items() if value is not None},
        na=("text_accuracy",) if t is None else (),
    )
    return Score(sample_id=name, repeat=repeat, scorer="vlm:x", status=ScoreStatus.OK, strict=parsing)


def one_value(dimension: str, value: float, name: str = "a", repeat: int = 0) -> Score:
    parsing = ParsedScore(status=ScoreStatus.OK, values={dimension: value})
    return Score(sample_id=name, repeat=repeat, scorer=dimension, status=ScoreStatus.OK, strict=parsing)


class PresetImage:
    """An image scorer with preset scores, by sample id; an exception is raised, a function is called."""

    needs = frozenset({"image"})

    def __init__(self, script: Any = None) -> None:
        self.script, self.calls, self.peak, self.active = script, 0, 0, 0
        self.closed = False

    def value(self, item: Item) -> Score:
        name, repeat = item[0].id, item[2].repeat
        script = self.script[name] if isinstance(self.script, dict) else self.script
        if callable(script):
            script = script()
        if isinstance(script, BaseException):
            raise script
        if isinstance(script, Score):
            return script.model_copy(update={"sample_id": name, "repeat": repeat})
        return self.plain(script, name, repeat)

    def plain(self, script: Any, name: str, repeat: int) -> Score:
        f, v, t, a = script or (1, 1, 1, 1)
        return knowgen_score(f, v, t, a, name=name, repeat=repeat)

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        self.calls += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        await asyncio.sleep(0.001)
        self.active -= 1
        return self.value((sample, truth, generation))

    async def close(self) -> None:
        self.closed = True


class PresetAnswer(PresetImage):
    """A text scorer with preset scores."""

    needs = frozenset({"references"})

    def plain(self, script: Any, name: str, repeat: int) -> Score:
        return one_value("answer", 1.0 if script is None else script, name, repeat)


class PresetBatch:
    """A batch scorer with preset values by sample id; an exception is raised at its item, None yields no score."""

    needs = frozenset({"image"})
    concurrency = 3

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        self.batches.append([sample.id for sample, _, _ in items])
        self.threads.add(threading.get_ident())
        for sample, _, generation in reversed(items):
            script = self.script[sample.id]
            if isinstance(script, Exception):
                raise script
            if script is not None:
                yield one_value("truth", script, sample.id, generation.repeat)


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
def test_the_image_reward_is_the_overall_score(values: tuple[Any, ...], expected: float) -> None:
    reward = image_reward(knowgen_score(*values))
    assert (reward.value, reward.image, reward.text, reward.masked) == (expected, expected, None, False)


def test_the_dual_reward_of_a_worked_example() -> None:
    dual = DualReward(PresetImage((1, 0.5, 0, 0.5)), PresetAnswer(0.75))
    [reward] = rewards(dual, item())
    assert reward.value == pytest.approx(0.55)  # .5 * .35 + .5 * .75
    assert (reward.image, reward.text, reward.reason) == (0.35, 0.75, "")
    [reward] = rewards(DualReward(PresetImage((1, 0.5, 0, 0.5)), PresetAnswer(0.75), coefficient=0.2), item())
    assert reward.value == pytest.approx(0.43)  # .8 * .35 + .2 * .75
    assert len(reward.scores) == 2


GRID = st.sampled_from([0.0, 0.5, 1.0])


@given(GRID, GRID, GRID | st.none(), GRID)
def test_the_image_reward_against_exact_arithmetic(f: float, v: float, t: float | None, a: float) -> None:
    reward = image_reward(knowgen_score(f, v, t, a)).value
    exact = Fraction(1, 10) * Fraction(f) + Fraction(2, 5) * Fraction(v + (0.5 if t is None else t))
    exact += Fraction(1, 10) * Fraction(a)
    assert reward is not None and Decimal(str(reward)) == Decimal(exact.numerator) / Decimal(exact.denominator)


@given(GRID, GRID, GRID | st.none(), GRID, st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.floats(0, 1))
def test_the_dual_reward_is_between_both_rewards(
    f: float, v: float, t: float | None, a: float, text: float, share: float
) -> None:
    [reward] = rewards(DualReward(PresetImage((f, v, t, a)), PresetAnswer(text), coefficient=share), item())
    assert reward.value is not None and not reward.masked
    halves = [image_reward(knowgen_score(f, v, t, a)).value, float(text)]
    assert min(halves) - 1e-12 <= reward.value <= max(halves) + 1e-12  # type: ignore[type-var,operator]
    assert reward.value == pytest.approx((1 - share) * halves[0] + share * halves[1], abs=1e-12)  # type: ignore[operator]


@given(st.floats(0, 1))
def test_the_value_of_a_single_dimension_is_the_image_reward(value: float) -> None:
    assert image_reward(one_value("truth", value)).value == value


# -------------------------------------------------------------------------------------------------- masks


@given(st.sampled_from(["failed", "not applicable"]), st.text(max_size=20))
def test_a_failed_score_is_masked_and_never_zero(kind: str, words: str) -> None:
    make = failed_score if kind == "failed" else not_applicable_score
    for reward_of in (image_reward, text_reward):
        reward = reward_of(make("a", 0, "vlm:x", words))
        assert reward.masked and reward.value is None and reward.reason.startswith("vlm:x: ")
        assert words in reward.reason


def test_one_missing_score_masks_the_episode() -> None:
    lost = failed_score("a", 0, "vlm:x", "the reply was empty")
    [reward] = rewards(DualReward(PresetImage(lost), PresetAnswer(1.0)), item())
    assert reward.masked and reward.reason == "vlm:x: the reply was empty" and reward.text == 1.0
    [reward] = rewards(DualReward(PresetImage((0, 0, 0, 0)), PresetAnswer(lost)), item())
    assert reward.masked and reward.image == 0.0 and reward.scores[1].status is ScoreStatus.FAILED
    [reward] = rewards(DualReward(PresetImage(ValueError("a bug\nof a plugin")), PresetAnswer(lost)), item())
    assert reward.reason == "PresetImage: a bug of a plugin; vlm:x: the reply was empty"


def test_an_episode_without_an_image_is_masked() -> None:
    image = PresetImage()
    fields: dict[str, Any] = {"status": GenerationStatus.FAILED, "image": None, "reason": "out of memory"}
    [reward] = rewards(DualReward(image, PresetAnswer()), item(**fields))
    assert reward.masked and reward.reason == "no image: out of memory" and not reward.generated
    assert image.calls == 0
    [reward] = rewards(DualReward(image, PresetAnswer(0.25), coefficient=1.0), item(**fields))
    assert reward.value == 0.25 and image.calls == 0, "the answer alone needs no image"


def test_values_out_of_range_are_masked() -> None:
    reward = image_reward(one_value("truth", 1.5))
    assert reward.masked and "outside [0, 1]" in reward.reason


@pytest.mark.parametrize(
    "fields", [{"value": 1.5}, {"value": None}, {"value": float("nan")}, {"value": 0.0, "masked": True}]
)
def test_invalid_rewards_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reward"):
        EpisodeReward(**fields)
    with pytest.raises(ValueError, match="reward"):
        masked("")


def test_scores_with_other_dimensions_are_refused() -> None:
    with pytest.raises(UsageError, match="no image reward is defined for ssim, lab_histogram_intersection"):
        parsing = ParsedScore(status=ScoreStatus.OK, values={"ssim": 1, "lab_histogram_intersection": 1})
        image_reward(Score(sample_id="a", scorer="pixels", status=ScoreStatus.OK, strict=parsing))
    with pytest.raises(UsageError, match="no text reward is defined for faithfulness"):
        text_reward(knowgen_score(1, 1, 1, 1))
    partial = ParsedScore(status=ScoreStatus.OK, values={"faithfulness": 1.0})
    with pytest.raises(UsageError, match="no image reward"):
        image_reward(Score(sample_id="a", scorer="x", status=ScoreStatus.OK, strict=partial))


def test_the_lenient_parsed_score_can_be_used() -> None:
    lenient = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.7))
    score = failed_score("a", 0, "vlm:x", "off the grid").model_copy(update={"lenient": lenient})
    assert image_reward(score).masked
    assert image_reward(score, "lenient").value == 0.7
    [reward] = rewards(DualReward(PresetImage(score), PresetAnswer(0.5), parsing="lenient"), item())
    assert reward.value == pytest.approx(0.6)


# ----------------------------------------------------------------------------------------------- the rule of references


@given(st.integers(0, 9))
def test_one_to_four_references_are_required(count: int) -> None:
    image = PresetImage()
    [reward] = rewards(DualReward(image, PresetAnswer()), item(references=count))
    if 1 <= count <= 4:
        assert reward.value == 1.0 and not reward.reason
    else:
        assert reward.value == 0.0 and not reward.masked, "an assessment of the answer, not an error of a scorer"
        assert reward.reason == f"the answer has {count} usable references, required are 1 to 4"
        assert image.calls == 0


def test_only_references_that_name_an_image_count() -> None:
    rule = ReferencesRule()
    assert rule.violation([{"title": "a page"}, REFERENCE | {"usable": False}]).startswith("the answer has 0 usable")
    assert rule.violation([{"url": "http://a.test/1.png"}, {"sha256": "ab"}]) == ""
    own = ReferencesRule(minimum=2, maximum=2, usable=lambda reference: reference.get("good", False))
    assert own.violation([{"good": True}, {"good": True}, {}]) == ""
    [reward] = rewards(DualReward(PresetImage(), PresetAnswer(), rule=None), item(references=5))
    assert reward.value == 1.0


# ----------------------------------------------------------------------------------------------- many episodes


@given(st.lists(st.tuples(GRID, st.integers(0, 6), st.booleans()), max_size=12))
def test_rewards_are_in_the_order_of_the_episodes(script: list[tuple[float, int, bool]]) -> None:
    names = [f"s{number}" for number in range(len(script))]
    images = {
        name: failed_score(name, 0, "vlm:x", name) if broken else (value, value, value, value)
        for name, (value, _, broken) in zip(names, script, strict=True)
    }
    items = [item(name, references=count) for name, (_, count, _) in zip(names, script, strict=True)]
    results = rewards(DualReward(PresetImage(images), PresetAnswer(0.0), coefficient=0.0), *items)
    for name, (value, count, broken), reward in zip(names, script, results, strict=True):
        if not 1 <= count <= 4:
            assert reward.value == 0.0 and "usable references" in reward.reason
        elif broken:
            assert reward.reason == f"vlm:x: {name}"
        else:
            assert reward.value == value


def test_concurrent_calls_are_limited() -> None:
    image, answer = PresetImage(), PresetAnswer()
    results = rewards(DualReward(image, answer, concurrency=3), *(item(f"s{n}") for n in range(12)))
    assert len(results) == 12 and image.calls == answer.calls == 12
    assert image.peak == 3 and answer.peak == 3


def test_a_scorer_with_weight_zero_is_not_called() -> None:
    image, answer = PresetImage((0, 0, 0, 0)), PresetAnswer()
    [reward] = rewards(DualReward(image, answer, coefficient=1.0), item())
    assert (reward.value, reward.image, image.calls, answer.calls) == (1.0, None, 0, 1)
    [reward] = rewards(DualReward(image, answer, coefficient=0.0), item())
    assert (reward.value, reward.text, image.calls, answer.calls) == (0.0, None, 1, 1)


def test_a_transient_error_is_retried_and_its_calls_are_recorded() -> None:
    faults = [TransientError("busy", retry_after=0.01, attempts=(Attempt(error="busy"),))]

    def script() -> Any:
        return faults.pop() if faults else (1, 1, 1, 1)

    dual = DualReward(PresetImage(script), PresetAnswer())
    [reward] = rewards(dual, item())
    assert reward.value == 1.0
    assert [attempt.error for attempt in reward.scores[0].attempts] == ["busy"]
    [reward] = rewards(
        DualReward(PresetImage(TransientError("gone", retry_after=0.001)), PresetAnswer(), tries=2),
        item(),
    )
    assert reward.masked and reward.reason == "PresetImage: gone"


@pytest.mark.parametrize("error", [ConfigError("no price"), BudgetReachedError("spent")])
def test_an_error_that_affects_every_episode_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        rewards(DualReward(PresetImage(error), PresetAnswer()), item("a"), item("b"))


def test_batch_scorers_run_in_a_thread_and_distinguish_episodes_of_one_sample() -> None:
    batch = PresetBatch({"a": 0.25, "b": 0.5, "c": None, "d": 1.0})
    items = [item("a", repeat=7), item("a", repeat=7), item("b"), item("c"), item("d")]
    results = rewards(DualReward(batch, PresetAnswer(), coefficient=0.0), *items)
    assert [reward.value for reward in results] == [0.25, 0.25, 0.5, None, 1.0]
    assert results[3].masked and "returned no score for this sample" in results[3].reason
    assert results[0].scores[0].repeat == 7
    assert batch.batches == [["a", "a", "b"], ["c", "d"]]
    assert threading.get_ident() not in batch.threads


def test_an_episode_that_makes_its_batch_fail_is_masked_alone() -> None:
    batch = PresetBatch({"a": 0.25, "b": RuntimeError("does not fit"), "c": 1.0})
    results = rewards(DualReward(batch, PresetAnswer(), coefficient=0.0), *(item(name) for name in "abc"))
    assert [reward.value for reward in results] == [0.25, None, 1.0]
    assert results[1].reason == "PresetBatch: does not fit"


def test_one_dual_reward_serves_several_event_loops() -> None:
    dual = DualReward(PresetImage(), PresetAnswer(), concurrency=1)
    for _ in range(2):
        assert [reward.value for reward in rewards(dual, item("a"), item("b"))] == [1.0, 1.0]
    asyncio.run(dual.close())
    assert dual._image._scorer.closed and dual._text._scorer.closed


@pytest.mark.parametrize(
    "args",
    [{"coefficient": 1.1}, {"coefficient": True}, {"parsing": "loose"}, {"concurrency": 0}, {"tries": 0}],
)
def test_arguments_out_of_range_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DualReward(PresetImage(), PresetAnswer(), **args)


def test_a_batch_scorer_of_the_text_is_refused() -> None:
    with pytest.raises(UsageError, match="async score"):
        DualReward(PresetImage(), PresetBatch({}))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ over real HTTP


def episode(place: Path, name: str) -> Item:
    path = place / f"{name}.png"
    Image.new("RGB", (40, 30), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    image = ImageRef(sha256=digest, width=40, height=30, format="PNG", path=path)
    truth = GroundTruth(sample_id=name, image=image, required_text=("1907",), text_required=True)
    fields = {"sample_id": name, "status": GenerationStatus.OK, "image": image, "references": (REFERENCE,)}
    return Sample(id=name, prompt="Draw.", text_required=True), truth, Generation(**fields)


def test_unusable_replies_mask_their_episode_only(tmp_path: Path) -> None:
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
        results = asyncio.run(go(server.url))
    assert results[0].value == pytest.approx(0.5 * round(0.1 + 0.2 + 0.4 + 0.05, 2) + 0.5 * 0.75)
    assert [reward.masked for reward in results] == [False, True, True, True]
    assert "not one JSON object" in results[1].reason
    assert results[2].image == 0.75 and "500" in results[2].reason
    assert "I will not judge this." in results[3].reason and results[3].text == 0.75
