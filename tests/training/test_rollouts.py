"""Rollouts in virtual time: no episode waits for another; what is the policy's fault is 0, and all else is masked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knowgen.agents.records import Ending
from knowgen.core.errors import (
    AccountError,
    BudgetReachedError,
    RefusalError,
    ServiceUnavailableError,
    TransientError,
)
from knowgen.core.metering import paid_call
from knowgen.core.records import GenerationStatus
from knowgen.engine.retry import WorkerDiedError
from knowgen.generators.contract import GeneratedImage
from tests.helpers.episodes import (
    MemoryLedger,
    ScriptedAgent,
    Step,
    answered,
    grpo_config,
    prompt_of,
    red_image,
    scoring,
)


def test_the_reward_is_the_weighted_sum_of_both_halves() -> None:
    (episode,) = Step().run([prompt_of()])
    assert episode.reward.value == pytest.approx(0.75) and not episode.reward.masked
    assert (episode.reward.image, episode.reward.text) == (0.5, 1.0)
    assert episode.generation is not None and episode.generation.status is GenerationStatus.OK
    assert {score.scorer for score in episode.reward.scores} == {"similarity", "answer"}


def test_the_text_half_starts_before_the_image_is_there() -> None:
    times: dict[str, float] = {}

    async def slow_image(request: Any) -> Any:
        await asyncio.sleep(60)
        times["image"] = asyncio.get_running_loop().time()
        return await red_image(request)

    async def text(item: Any) -> Any:
        times["text"] = asyncio.get_running_loop().time()
        assert item[2].image is None and item[2].used_prompt == "a crest, in red"
        return await scoring(1.0, seconds=5)(item)

    (episode,) = Step(painter=slow_image, text=text).run([prompt_of()])
    assert times["image"] - times["text"] == pytest.approx(60, abs=0.1)
    assert episode.seconds == pytest.approx({"agent": 1, "image": 60, "image_reward": 0, "text_reward": 5}, abs=0.1)


def test_no_episode_waits_for_the_slowest_one() -> None:
    ends: dict[str, float] = {}

    async def slow() -> Any:
        await asyncio.sleep(500)
        return answered()

    async def image(item: Any) -> Any:
        ends[item[0].id] = asyncio.get_running_loop().time()
        return await scoring(0.5, "similarity")(item)

    agent = ScriptedAgent(lambda prompt, call: slow() if "slow" in prompt else answered())
    Step(agent, image=image).run([prompt_of("slow"), prompt_of("quick")])
    assert ends["slow"] - ends["quick"] == pytest.approx(500, abs=0.1)


def test_as_many_trajectories_run_at_once_as_the_configuration_says() -> None:
    agent = ScriptedAgent()
    Step(agent, grpo_config(rollout={"concurrency": 3})).run([prompt_of(str(n)) for n in range(8)])
    assert agent.peak == 3


@pytest.mark.parametrize(
    "ending",
    [
        Ending.ANSWER_PARSE_FAILED,
        Ending.REPEATED_RESPONSE,
        Ending.MAX_RESPONSE_LENGTH_EXCEEDED,
        Ending.NO_ANSWER,
        Ending.TIME_LIMIT,
    ],
)
def test_a_failure_of_the_policy_is_0_and_not_masked(ending: Ending) -> None:
    (episode,) = Step(ScriptedAgent(lambda prompt, call: answered(ending=ending))).run([prompt_of()])
    assert episode.reward.value == 0.0 and not episode.reward.masked
    assert episode.reward.reason == f"{ending.value}: as scripted" and episode.generation is None


def test_a_failed_call_of_the_policy_is_masked() -> None:
    (episode,) = Step(ScriptedAgent(lambda prompt, call: answered(ending=Ending.ERROR))).run([prompt_of()])
    assert episode.reward.masked and episode.reward.reason == "the policy's call failed: as scripted"
    assert episode.trajectory is not None


@pytest.mark.parametrize(("references", "value"), [(0, 0.0), (1, 0.75), (4, 0.75), (5, 0.0)])
def test_the_rule_on_references_decides_before_an_image_is_generated(references: int, value: float) -> None:
    generated = []

    async def counted(request: Any) -> Any:
        generated.append(request)
        return await red_image(request)

    agent = ScriptedAgent(lambda prompt, call: answered(references=references))
    (episode,) = Step(agent, painter=counted).run([prompt_of()])
    assert episode.reward.value == value and bool(generated) is bool(value)
    assert (str(references) in episode.reward.reason) is not bool(value)


def test_an_answer_without_references_is_used_where_none_is_required() -> None:
    requests = []

    async def counted(request: Any) -> Any:
        requests.append((request.prompt, request.references))
        return await red_image(request)

    agent = ScriptedAgent(lambda prompt, call: answered(references=0))
    (episode,) = Step(agent, grpo_config(reward={"least_references": 0}), painter=counted).run([prompt_of()])
    assert episode.reward.value == pytest.approx(0.75) and requests == [("a crest, in red", ())]


@pytest.mark.parametrize(("weight", "value"), [(0.0, 0.5), (1.0, 1.0)])
def test_a_half_without_weight_is_not_computed(weight: float, value: float) -> None:
    async def never(payload: Any) -> Any:
        raise AssertionError("this half has no weight")

    halves: dict[str, Any] = {"text": never} if weight == 0 else {"image": never, "painter": never}
    (episode,) = Step(config=grpo_config(reward={"text_weight": weight}), **halves).run([prompt_of()])
    assert episode.reward.value == value and not episode.reward.masked


def test_a_constant_reward_runs_the_agent_and_nothing_else() -> None:
    async def never(payload: Any) -> Any:
        raise AssertionError("a constant reward needs no call")

    agent = ScriptedAgent(lambda prompt, call: answered(ending=Ending.NO_ANSWER if call else Ending.ANSWER))
    step = Step(agent, grpo_config(reward={"constant": 0.5}), painter=never, image=never, text=never)
    assert [episode.reward.value for episode in step.run([prompt_of("a"), prompt_of("b")])] == [0.5, 0.5]


def test_a_hanging_image_model_masks_its_episode_and_frees_its_place() -> None:
    async def hangs(request: Any) -> Any:
        if request.id.endswith("-0"):
            await asyncio.sleep(10**6)
        return await red_image(request)

    config = grpo_config(painter={"timeout": 30, "concurrency": 1})
    first, second = Step(config=config, painter=hangs).run([prompt_of("a"), prompt_of("b")])
    assert first.reward.masked and first.reward.reason == "no image: no image within 30 s"
    assert first.reward.text == 1.0, "the half that was there is kept for the record"
    assert first.generation is not None and first.generation.status is GenerationStatus.FAILED
    assert second.reward.value == pytest.approx(0.75)


def test_an_agent_that_hangs_masks_its_episode_and_frees_its_place() -> None:
    async def hangs() -> Any:
        await asyncio.sleep(10**7)

    agent = ScriptedAgent(lambda prompt, call: hangs() if "slow" in prompt else answered())
    first, second = Step(agent).run([prompt_of("slow"), prompt_of("quick")])
    assert first.reward.masked and first.reward.reason == "the agent gave no answer within 3 h"
    assert first.trajectory is None and second.reward.value is not None


def test_an_image_model_that_crashes_masks_its_episode() -> None:
    calls: list[str] = []

    async def crashes(request: Any) -> Any:
        calls.append(request.id)
        if request.id.endswith("-0"):
            raise WorkerDiedError("its process died with signal 9", machine=True)
        return await red_image(request)

    first, second = Step(painter=crashes).run([prompt_of("a"), prompt_of("b")])
    assert first.reward.masked and first.reward.reason == "no image: its process died with signal 9"
    assert calls.count("1-0") > 1 and second.reward.value == pytest.approx(0.75)


def test_an_image_that_cannot_be_used_masks_its_episode() -> None:
    async def refuses(request: Any) -> Any:
        if request.id.endswith("-0"):
            return GeneratedImage(status=GenerationStatus.REFUSED, reason="names a living person")
        raise RefusalError("not this prompt")

    first, second = Step(painter=refuses).run([prompt_of("a"), prompt_of("b")])
    assert first.reward.reason == "no image: names a living person"
    assert second.reward.reason == "no image: not this prompt" and second.reward.masked


def test_a_failing_search_is_tried_again_and_then_masks_its_episode() -> None:
    def search(prompt: str, call: int) -> Any:
        if prompt == "Draw a.":
            raise TransientError("the search is down")
        return answered()

    agent = ScriptedAgent(search)
    first, second = Step(agent, grpo_config(services={"tries": 3})).run([prompt_of("a"), prompt_of("b")])
    assert first.reward.masked and first.reward.reason == "the search is down" and first.trajectory is None
    assert second.reward.value == pytest.approx(0.75)
    assert [session for session, _ in agent.calls if session.startswith("1/t/a")] == [
        "1/t/a/0", "1/t/a/0/2", "1/t/a/0/3",
    ]  # fmt: skip


def test_a_trajectory_that_met_an_outage_is_run_again_with_its_seed() -> None:
    def search(prompt: str, call: int) -> Any:
        if call == 0:
            raise ServiceUnavailableError("busy", busy=True)
        return answered()

    agent = ScriptedAgent(search)
    (episode,) = Step(agent).run([prompt_of()])
    assert episode.reward.value == pytest.approx(0.75) and [seed for _, seed in agent.calls] == [0, 0]


def test_an_announced_wait_is_kept() -> None:
    times: list[float] = []

    async def busy(item: Any) -> Any:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise ServiceUnavailableError("rate limit", busy=True, retry_after=240)
        return await scoring(1.0)(item)

    (episode,) = Step(text=busy).run([prompt_of()])
    assert episode.reward.value == pytest.approx(0.75) and times[1] - times[0] >= 240


@pytest.mark.parametrize("half", ["text", "image"])
def test_a_judge_that_fails_masks_its_episodes(half: str) -> None:
    async def down(item: Any) -> Any:
        if item[0].id == "a":
            raise TransientError("HTTP 500")
        return await scoring(1.0, "answer" if half == "text" else "similarity")(item)

    first, second = Step(**{half: down}).run([prompt_of("a"), prompt_of("b")])  # type: ignore[arg-type]
    name = "answer" if half == "text" else "similarity"
    assert first.reward.masked and first.reward.value is None and first.reward.reason == f"{name}: HTTP 500"
    assert second.reward.value is not None and not second.reward.masked


def test_a_judge_out_of_quota_ends_the_training_after_a_few_rejections() -> None:
    calls = []

    async def no_credit(item: Any) -> Any:
        calls.append(item)
        await asyncio.sleep(1)
        raise AccountError("HTTP 402: no credit", where="vlm:x", fix="top up the account")

    with pytest.raises(AccountError, match="HTTP 402: no credit") as caught:
        Step(text=no_credit).run([prompt_of(str(n)) for n in range(40)])
    assert caught.value.fix == "top up the account" and len(calls) <= 2 * 16


def test_a_single_rejection_is_tried_again() -> None:
    calls = []

    async def once(item: Any) -> Any:
        calls.append(item)
        if len(calls) == 1:
            raise AccountError("HTTP 403")
        return await scoring(1.0)(item)

    (episode,) = Step(text=once).run([prompt_of()])
    assert episode.reward.value == pytest.approx(0.75)


def test_a_service_that_is_silent_for_longer_than_the_patience_ends_the_training() -> None:
    async def silent(item: Any) -> Any:
        raise ServiceUnavailableError("no connection", service="vlm:x", busy=True)

    step = Step(config=grpo_config(services={"patience": 300}), text=silent)
    with pytest.raises(ServiceUnavailableError, match="vlm:x gave no answer for .*; run the same command again"):
        step.run([prompt_of()], steps=200)
    assert 1300 <= step.loop.time() < 1700


def test_an_image_model_that_always_hangs_ends_the_training() -> None:
    async def hangs(request: Any) -> Any:
        await asyncio.sleep(10**6)

    config = grpo_config(painter={"timeout": 60}, services={"patience": 150})
    with pytest.raises(ServiceUnavailableError, match="gave no answer"):
        Step(config=config, painter=hangs).run([prompt_of()], steps=20)


def test_a_scorer_that_is_broken_ends_the_training() -> None:
    async def broken(item: Any) -> Any:
        raise ValueError("no such column")

    with pytest.raises(Exception, match="scorer answer is paused: 10 results in a row failed.*no such column"):
        Step(text=broken).run([prompt_of()], steps=20)


def test_the_budget_is_never_exceeded_by_calls_in_flight_and_counts_earlier_spending() -> None:
    async def paid(item: Any) -> Any:
        async with paid_call(0.10, "answer") as reservation:
            await asyncio.sleep(0)
            reservation.settle(0.10)
        return await scoring(1.0)(item)

    ledger = MemoryLedger(spent=0.55)
    agent = ScriptedAgent(seconds=0)
    step = Step(agent, grpo_config(services={"budget": 1.0}), text=paid, ledger=ledger, virtual=False)
    with pytest.raises(BudgetReachedError, match=r"the budget of \$1 allows no further call"):
        step.run([prompt_of(str(n)) for n in range(16)])
    assert 0.55 < ledger.spent() <= 1.0
    assert not step.left, "no episode is left running"


def test_costs_of_agent_and_scorers_are_the_cost_of_the_episode() -> None:
    async def paying() -> Any:
        async with paid_call(0.5, "search") as reservation:
            reservation.settle(0.25)
        return answered()

    async def text(item: Any) -> Any:
        score = await scoring(1.0)(item)
        return score.model_copy(update={"usage": score.usage.model_copy(update={"cost": 0.5})})

    agent = ScriptedAgent(lambda prompt, call: paying(), seconds=0)
    (episode,) = Step(agent, text=text, virtual=False).run([prompt_of()])
    assert episode.cost == pytest.approx(0.75)


def test_a_cancelled_step_leaves_no_task_behind() -> None:
    agent = ScriptedAgent(seconds=1000)

    class Interrupted(Step):
        async def _steps(self, prompts: Any, steps: int) -> Any:
            running = asyncio.create_task(super()._steps(prompts, steps))
            await asyncio.sleep(10)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return []

    step = Interrupted(agent)
    step.run([prompt_of(str(n)) for n in range(5)])
    assert agent.cancelled == 5 and agent.active == 0 and not step.left


def test_episodes_of_a_group_are_numbered_and_share_the_seed_of_their_images() -> None:
    requests = []

    async def seen(request: Any) -> Any:
        requests.append(request)
        return await red_image(request)

    prompts = [prompt_of("a"), prompt_of("a"), prompt_of("b"), prompt_of("b")]
    episodes = Step(painter=seen).run(prompts)
    assert [(each.prompt.key, each.number) for each in episodes] == [("t/a", 0), ("t/a", 1), ("t/b", 0), ("t/b", 1)]
    seeds = [request.seed for request in sorted(requests, key=lambda request: request.id)]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert all(e.generation is not None and e.generation.repeat == e.number for e in episodes)
    assert all(score.repeat == episode.number for episode in episodes for score in episode.reward.scores)
