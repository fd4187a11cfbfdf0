"""Rewards: computed by hand, checked against their formula, and masked where a score is missing."""

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


class FakeImageJudge:
    """A judge of images that gives preset scores by sample id; an exception is raised, a function is called."""

    needs = frozenset({"image"})

    def __init__(self, outcomes: Any = None) -> None:
        self.outcomes, self.asked, self.max_running, self.running = outcomes, 0, 0, 0
        self.closed = False

    def value(self, item: Item) -> Score:
        name, repeat = item[0].id, item[2].repeat
        outcomes = self.outcomes[name] if isinstance(self.outcomes, dict) else self.outcomes
        if callable(outcomes):
            outcomes = outcomes()
        if isinstance(outcomes, BaseException):
            raise outcomes
        if isinstance(outcomes, Score):
            return outcomes.model_copy(update={"sample_id": name, "repeat": repeat})
        return self.plain(outcomes, name, repeat)

    def plain(self, outcomes: Any, name: str, repeat: int) -> Score:
        f, v, t, a = outcomes or (1, 1, 1, 1)
        return knowgen_score(f, v, t, a, name=name, repeat=repeat)

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        self.asked += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        return self.value((sample, truth, generation))

    async def close(self) -> None:
        self.closed = True


class FakeAnswerJudge(FakeImageJudge):
    """A judge of answers that gives preset scores by sample id."""

    needs = frozenset({"references"})

    def plain(self, outcomes: Any, name: str, repeat: int) -> Score:
        return one_value("answer", 1.0 if outcomes is None else outcomes, name, repeat)


class FakeMeasure:
    """A measure in batch form with preset values by sample id; a preset exception is raised at its sample."""

    needs = frozenset({"image"})
    concurrency = 3

    def __init__(self, outcomes: dict[str, Any]) -> None:
        self.outcomes = outcomes
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def score_batch(self, items: Sequence[Item]) -> Iterator[Score]:
        self.batches.append([sample.id for sample, _, _ in items])
        self.threads.add(threading.get_ident())
        for sample, _, generation in reversed(items):
            outcomes = self.outcomes[sample.id]
            if isinstance(outcomes, Exception):
                raise outcomes
            if outcomes is not None:
                yield one_value("truth", outcomes, sample.id, generation.repeat)


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
    results = image_reward(knowgen_score(*values))
    assert (results.value, results.image, results.text, results.masked) == (expected, expected, None, False)


def test_the_weighted_sum_by_hand() -> None:
    dual = DualReward(FakeImageJudge((1, 0.5, 0, 0.5)), FakeAnswerJudge(0.75))
    [result] = rewards(dual, item())
    assert result.value == pytest.approx(0.55)  # .5 * .35 + .5 * .75
    assert (result.image, result.text, result.reason) == (0.35, 0.75, "")
    [result] = rewards(DualReward(FakeImageJudge((1, 0.5, 0, 0.5)), FakeAnswerJudge(0.75), coefficient=0.2), item())
    assert result.value == pytest.approx(0.43)  # .8 * .35 + .2 * .75
    assert len(result.scores) == 2


GRID = st.sampled_from([0.0, 0.5, 1.0])


@given(GRID, GRID, GRID | st.none(), GRID)
def test_the_image_half_against_exact_arithmetic(f: float, v: float, t: float | None, a: float) -> None:
    results = image_reward(knowgen_score(f, v, t, a)).value
    exact = Fraction(1, 10) * Fraction(f) + Fraction(2, 5) * Fraction(v + (0.5 if t is None else t))
    exact += Fraction(1, 10) * Fraction(a)
    assert results is not None and Decimal(str(results)) == Decimal(exact.numerator) / Decimal(exact.denominator)


@given(GRID, GRID, GRID | st.none(), GRID, st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.floats(0, 1))
def test_the_reward_is_between_its_parts(
    f: float, v: float, t: float | None, a: float, text: float, share: float
) -> None:
    [result] = rewards(DualReward(FakeImageJudge((f, v, t, a)), FakeAnswerJudge(text), coefficient=share), item())
    assert result.value is not None and not result.masked
    halves = [image_reward(knowgen_score(f, v, t, a)).value, float(text)]
    assert min(halves) - 1e-12 <= result.value <= max(halves) + 1e-12  # type: ignore[type-var,operator]
    assert result.value == pytest.approx((1 - share) * halves[0] + share * halves[1], abs=1e-12)  # type: ignore[operator]


@given(st.floats(0, 1))
def test_the_value_of_a_single_dimension_is_the_reward(value: float) -> None:
    assert image_reward(one_value("truth", value)).value == value


# -------------------------------------------------------------------------------------------------- masks, and no zeros


@given(st.sampled_from(["failed", "not applicable"]), st.text(max_size=20))
def test_a_missing_score_masks_the_reward(kind: str, words: str) -> None:
    make = failed_score if kind == "failed" else not_applicable_score
    for reward in (image_reward, text_reward):
        results = reward(make("a", 0, "vlm:x", words))
        assert results.masked and results.value is None and results.reason.startswith("vlm:x: ")
        assert words in results.reason


def test_a_missing_part_masks_the_reward() -> None:
    lost = failed_score("a", 0, "vlm:x", "the reply was empty")
    [result] = rewards(DualReward(FakeImageJudge(lost), FakeAnswerJudge(1.0)), item())
    assert result.masked and result.reason == "vlm:x: the reply was empty" and result.text == 1.0
    [result] = rewards(DualReward(FakeImageJudge((0, 0, 0, 0)), FakeAnswerJudge(lost)), item())
    assert result.masked and result.image == 0.0 and result.scores[1].status is ScoreStatus.FAILED
    [result] = rewards(DualReward(FakeImageJudge(ValueError("a bug\nof a plugin")), FakeAnswerJudge(lost)), item())
    assert result.reason == "FakeImageJudge: a bug of a plugin; vlm:x: the reply was empty"


def test_a_failed_generation_masks_the_reward() -> None:
    image = FakeImageJudge()
    fields: dict[str, Any] = {"status": GenerationStatus.FAILED, "image": None, "reason": "out of memory"}
    [result] = rewards(DualReward(image, FakeAnswerJudge()), item(**fields))
    assert result.masked and result.reason.endswith(": out of memory") and not result.drawn
    assert image.asked == 0
    [result] = rewards(DualReward(image, FakeAnswerJudge(0.25), coefficient=1.0), item(**fields))
    assert result.value == 0.25 and image.asked == 0, "the answer alone needs no picture"


def test_values_out_of_range_are_masked() -> None:
    results = image_reward(one_value("truth", 1.5))
    assert results.masked and "outside [0, 1]" in results.reason


@pytest.mark.parametrize(
    "fields", [{"value": 1.5}, {"value": None}, {"value": float("nan")}, {"value": 0.0, "masked": True}]
)
def test_invalid_rewards_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reward"):
        EpisodeReward(**fields)
    with pytest.raises(ValueError, match="reward"):
        masked("")


def test_scores_of_other_scorers_are_rejected() -> None:
    with pytest.raises(UsageError, match="no image reward is made of ssim, lab_histogram_intersection"):
        reading = ParsedScore(status=ScoreStatus.OK, values={"ssim": 1, "lab_histogram_intersection": 1})
        image_reward(Score(sample_id="a", scorer="pixels", status=ScoreStatus.OK, strict=reading))
    with pytest.raises(UsageError, match="no text reward is made of faithfulness"):
        text_reward(knowgen_score(1, 1, 1, 1))
    partial = ParsedScore(status=ScoreStatus.OK, values={"faithfulness": 1.0})
    with pytest.raises(UsageError, match="no image reward"):
        image_reward(Score(sample_id="a", scorer="x", status=ScoreStatus.OK, strict=partial))


def test_the_lenient_score_can_be_used() -> None:
    lenient = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, 0.7))
    score = failed_score("a", 0, "vlm:x", "off the grid").model_copy(update={"lenient": lenient})
    assert image_reward(score).masked
    assert image_reward(score, "lenient").value == 0.7
    [result] = rewards(DualReward(FakeImageJudge(score), FakeAnswerJudge(0.5), reading="lenient"), item())
    assert result.value == pytest.approx(0.6)


# ----------------------------------------------------------------------------------------------- the rule of references


@given(st.integers(0, 9))
def test_an_answer_needs_one_to_four_references(count: int) -> None:
    image = FakeImageJudge()
    [result] = rewards(DualReward(image, FakeAnswerJudge()), item(references=count))
    if 1 <= count <= 4:
        assert result.value == 1.0 and not result.reason
    else:
        assert result.value == 0.0 and not result.masked, "a verdict on the answer, not a fault of a judge"
        assert result.reason == f"the answer has {count} usable references, and 1 to 4 are asked for"
        assert image.asked == 0


def test_only_references_that_name_an_image_count() -> None:
    rule = ReferencesRule()
    assert rule.broken_by([{"title": "a page"}, REFERENCE | {"usable": False}]).startswith("the answer has 0 usable")
    assert rule.broken_by([{"url": "http://a.test/1.png"}, {"sha256": "ab"}]) == ""
    own = ReferencesRule(least=2, most=2, usable=lambda reference: reference.get("kept", False))
    assert own.broken_by([{"kept": True}, {"kept": True}, {}]) == ""
    [result] = rewards(DualReward(FakeImageJudge(), FakeAnswerJudge(), rule=None), item(references=5))
    assert result.value == 1.0


# ----------------------------------------------------------------------------------------------- many, and in order


@given(st.lists(st.tuples(GRID, st.integers(0, 6), st.booleans()), max_size=12))
def test_rewards_keep_the_order_of_episodes(outcomes: list[tuple[float, int, bool]]) -> None:
    names = [f"s{number}" for number in range(len(outcomes))]
    images = {
        name: failed_score(name, 0, "vlm:x", name) if broken else (value, value, value, value)
        for name, (value, _, broken) in zip(names, outcomes, strict=True)
    }
    items = [item(name, references=count) for name, (_, count, _) in zip(names, outcomes, strict=True)]
    results = rewards(DualReward(FakeImageJudge(images), FakeAnswerJudge(0.0), coefficient=0.0), *items)
    for name, (value, count, broken), reward in zip(names, outcomes, results, strict=True):
        if not 1 <= count <= 4:
            assert reward.value == 0.0 and "usable references" in reward.reason
        elif broken:
            assert reward.reason == f"vlm:x: {name}"
        else:
            assert reward.value == value


def test_scores_run_concurrently_within_the_limit() -> None:
    image, answer = FakeImageJudge(), FakeAnswerJudge()
    results = rewards(DualReward(image, answer, concurrency=3), *(item(f"s{n}") for n in range(12)))
    assert len(results) == 12 and image.asked == answer.asked == 12
    assert image.max_running == 3 and answer.max_running == 3


def test_a_part_with_weight_0_is_not_scored() -> None:
    image, answer = FakeImageJudge((0, 0, 0, 0)), FakeAnswerJudge()
    [result] = rewards(DualReward(image, answer, coefficient=1.0), item())
    assert (result.value, result.image, image.asked, answer.asked) == (1.0, None, 0, 1)
    [result] = rewards(DualReward(image, answer, coefficient=0.0), item())
    assert (result.value, result.text, image.asked, answer.asked) == (0.0, None, 1, 1)


def test_a_transient_error_is_retried_and_its_calls_are_recorded() -> None:
    faults = [TransientError("busy", retry_after=0.01, attempts=(Attempt(error="busy"),))]

    def outcomes() -> Any:
        return faults.pop() if faults else (1, 1, 1, 1)

    dual = DualReward(FakeImageJudge(outcomes), FakeAnswerJudge())
    [result] = rewards(dual, item())
    assert result.value == 1.0
    assert [attempt.error for attempt in result.scores[0].attempts] == ["busy"]
    [result] = rewards(
        DualReward(FakeImageJudge(TransientError("gone", retry_after=0.001)), FakeAnswerJudge(), tries=2), item()
    )
    assert result.masked and result.reason == "FakeImageJudge: gone"


@pytest.mark.parametrize("error", [ConfigError("no price"), BudgetReachedError("spent")])
def test_an_error_that_concerns_every_episode_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        rewards(DualReward(FakeImageJudge(error), FakeAnswerJudge()), item("a"), item("b"))


def test_measures_compute_in_batches_in_one_thread_and_distinguish_episodes_of_one_sample() -> None:
    batch = FakeMeasure({"a": 0.25, "b": 0.5, "c": None, "d": 1.0})
    items = [item("a", repeat=7), item("a", repeat=7), item("b"), item("c"), item("d")]
    results = rewards(DualReward(batch, FakeAnswerJudge(), coefficient=0.0), *items)
    assert [reward.value for reward in results] == [0.25, 0.25, 0.5, None, 1.0]
    assert results[3].masked and "gave no score of this sample" in results[3].reason
    assert results[0].scores[0].repeat == 7
    assert batch.batches == [["a", "a", "b"], ["c", "d"]]
    assert threading.get_ident() not in batch.threads


def test_an_episode_that_breaks_a_batch_is_masked_alone() -> None:
    batch = FakeMeasure({"a": 0.25, "b": RuntimeError("does not fit"), "c": 1.0})
    results = rewards(DualReward(batch, FakeAnswerJudge(), coefficient=0.0), *(item(name) for name in "abc"))
    assert [reward.value for reward in results] == [0.25, None, 1.0]
    assert results[1].reason == "FakeMeasure: does not fit"


def test_one_dual_reward_serves_several_event_loops() -> None:
    dual = DualReward(FakeImageJudge(), FakeAnswerJudge(), concurrency=1)
    for _ in range(2):
        assert [reward.value for reward in rewards(dual, item("a"), item("b"))] == [1.0, 1.0]
    asyncio.run(dual.close())
    assert dual._image._scorer.closed and dual._text._scorer.closed


@pytest.mark.parametrize(
    "args",
    [{"coefficient": 1.1}, {"coefficient": True}, {"reading": "loose"}, {"concurrency": 0}, {"tries": 0}],
)
def test_invalid_arguments_are_rejected(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DualReward(FakeImageJudge(), FakeAnswerJudge(), **args)


def test_a_text_judge_in_batch_form_is_rejected() -> None:
    with pytest.raises(UsageError, match="async score"):
        DualReward(FakeImageJudge(), FakeMeasure({}))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ over real HTTP


def episode(place: Path, name: str) -> Item:
    path = place / f"{name}.png"
    Image.new("RGB", (40, 30), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    image = ImageRef(sha256=digest, width=40, height=30, format="PNG", path=path)
    truth = GroundTruth(sample_id=name, image=image, required_text=("1907",), text_required=True)
    fields = {"sample_id": name, "status": GenerationStatus.OK, "image": image, "references": (REFERENCE,)}
    return Sample(id=name, prompt="Draw.", text_required=True), truth, Generation(**fields)


def test_failed_replies_mask_only_their_own_episodes(tmp_path: Path) -> None:
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
