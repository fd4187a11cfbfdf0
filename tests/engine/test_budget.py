"""The spend counted by the server stays within the budget, with many calls in flight and over several runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.setting import NumberedTask
from knowgen.core.errors import BudgetReachedError, ConfigError, TransientError
from knowgen.core.metering import paid_call
from knowgen.core.records import Attempt, Generation, GenerationRequest, GroundTruth, Sample, Score, ScoreStatus, Usage
from knowgen.engine import ComponentRef, ScorerHandle
from knowgen.engine.budget import BudgetMeter
from knowgen.generators.contract import GeneratedImage
from knowgen.store.run import RunStore
from tests.helpers.engine import (
    Bench,
    Half,
    Plain,
    ScoreServer,
    generator_handle,
    loopback_handle,
    png,
    quick,
    score_of,
    scorer_handle,
    spec_for,
)

PRICE = 0.01


def test_with_64_calls_in_flight_the_spend_stays_within_the_budget(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    with ScoreServer(seconds=0.3) as server:
        judge = loopback_handle(server.url, worst_case=2 * PRICE, cost=PRICE)
        outcome = bench.run(300, Plain(), [judge], quick(budget=1.5, concurrency=64))
        assert outcome.stopped == "budget"
        assert server.most_open >= 32, "or this test shows nothing"
        spent = len(server.calls) * PRICE
        assert 1.5 - 64 * 2 * PRICE <= spent <= 1.5
        assert outcome.cost == pytest.approx(spent)
        assert outcome.scored == len(server.calls), "every paid score is stored"

        # the spend is stored in the run directory: another run with the same budget has nothing left
        left = (1.5 - spent) // (2 * PRICE)
        again = bench.run(300, Plain(), [judge], quick(budget=1.5, concurrency=64))
        assert again.stopped == "budget"
        assert len(server.calls) * PRICE <= 1.5
        assert again.scored <= left + 1

        more = bench.run(300, Plain(), [judge], quick(budget=10.0, concurrency=64))
        assert more.stopped == ""
        assert len(server.calls) == 300
    assert {row.strict.status for row in bench.rows()} == {ScoreStatus.OK}


def test_reservations_left_open_by_a_killed_run_count_as_spent(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    task, generator = NumberedTask(3), generator_handle(Plain())
    with ScoreServer() as server:
        judge = loopback_handle(server.url, worst_case=PRICE, cost=PRICE)
        with RunStore.open(bench.path, spec_for(task, generator, [judge])) as store:
            store.reserve(0.99, "a call that was under way when the power went")
        outcome = bench.run(3, Plain(), [judge], quick(budget=1.0))
        assert len(server.calls) == 1
    assert (outcome.scored, outcome.stopped) == (1, "budget")
    statuses = [row.strict.status for row in bench.rows()]
    assert statuses.count(ScoreStatus.NOT_RUN) == 2


def test_a_call_of_unknown_price_under_a_budget_is_an_error(tmp_path: Path) -> None:
    with ScoreServer() as server:
        judge = loopback_handle(server.url, worst_case=None)
        with pytest.raises(ConfigError, match="price of its calls is unknown"):
            Bench(tmp_path / "run").run(3, Plain(), [judge], quick(budget=1.0))
        assert server.calls == []
        assert Bench(tmp_path / "free").run(3, Plain(), [judge]).scored == 3


def test_a_call_that_is_not_settled_counts_at_its_worst_case(tmp_path: Path) -> None:
    with ScoreServer(answer=lambda name, call: (500, {})) as server:
        judge = loopback_handle(server.url, worst_case=PRICE, cost=0.0)
        outcome = Bench(tmp_path / "run").run(4, Plain(), [judge], quick(budget=1.0))
    assert outcome.score_failed == 4
    assert outcome.cost == pytest.approx(4 * PRICE)


class PaidGenerator:
    """A hosted generator whose images cost money."""

    concurrency = 4

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        async with paid_call(0.1, "painter") as ticket:
            ticket.settle(0.1)
        return GeneratedImage(image=png(request.prompt))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_budget_limits_a_generator_too_also_in_worker_processes(tmp_path: Path, workers: int) -> None:
    bench = Bench(tmp_path / "run")
    path = Path(__file__).resolve()
    generator = generator_handle(PaidGenerator(), component_ref=ComponentRef("generators", f"{path}:PaidGenerator"))
    outcome = bench.run(20, generator, options=quick(budget=0.75, workers=workers))
    assert outcome.stopped == "budget"
    assert outcome.generated == 7
    assert outcome.cost == pytest.approx(0.7)
    assert len(bench.generations()) == 7, "the rest is not run, not failed"


def test_a_free_scorer_continues_after_the_paid_one_had_to_stop(tmp_path: Path) -> None:
    with ScoreServer() as server:
        paid = loopback_handle(server.url, worst_case=PRICE, cost=PRICE)
        free = scorer_handle(Half(), name="free")
        bench = Bench(tmp_path / "run")
        bench.run(10, Plain(), [paid, free], quick(budget=3 * PRICE))
    scores = bench.scores()
    assert sum(name == "judge" for _, _, name, _ in scores) == 3
    assert all((sample, 0, "free", 0) in scores for sample, _, name, _ in scores if name == "judge")


@pytest.mark.parametrize("schedule", ["stream", "phased"])
def test_images_generated_before_the_budget_ended_are_scored_by_the_free_scorer(
    tmp_path: Path, schedule: Literal["stream", "phased"]
) -> None:
    bench = Bench(tmp_path / "run")
    with ScoreServer() as server:
        paid = loopback_handle(server.url, worst_case=0.1, cost=0.1)
        free = scorer_handle(Half(), name="free")
        scorers = [free] if schedule == "stream" else [paid, free]
        outcome = bench.run(20, PaidGenerator(), scorers, quick(budget=0.75, schedule=schedule))
        assert server.calls == []
    assert (outcome.stopped, outcome.generated, outcome.scored) == ("budget", 7, 7)
    assert outcome.cost == pytest.approx(0.7)
    assert {(sample, name) for sample, _, name, _ in bench.scores()} == {
        (sample, "free") for sample, _ in bench.generations()
    }


def paid_scorer(worst_case: float, cost: float) -> ScorerHandle:
    class Paid:
        concurrency = 16

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            async with paid_call(worst_case, "judge") as ticket:
                await asyncio.sleep(0.002)
                ticket.settle(cost)
            return score_of(sample, generation)

    return scorer_handle(Paid())


def test_worst_cases_far_above_the_cost_do_not_end_a_run_that_the_budget_has_room_for(tmp_path: Path) -> None:
    outcome = Bench(tmp_path / "run").run(60, Plain(), [paid_scorer(0.1, 0.001)], quick(budget=0.25))
    assert (outcome.stopped, outcome.scored) == ("", 60)
    assert outcome.cost == pytest.approx(0.06)


def test_a_call_that_waits_for_one_that_never_ends_is_refused(tmp_path: Path) -> None:
    task, generator = NumberedTask(1), generator_handle(Plain())
    refused: list[str] = []
    with RunStore.open(tmp_path / "run", spec_for(task, generator, [])) as store:
        meter = BudgetMeter(store, 0.15, lambda: refused.append(meter.refusal), patience=0.05)

        async def reserve_twice() -> None:
            await meter.reserve(0.1, "judge")
            with pytest.raises(BudgetReachedError):
                await meter.reserve(0.1, "judge")

        asyncio.run(reserve_twice())
        meter.close()
        assert store.spent() == pytest.approx(0.1), "the open call counts as spent"
    assert len(refused) == 1 and "0.15" in refused[0]


def test_a_reservation_cancelled_while_it_waits_reserves_nothing(tmp_path: Path) -> None:
    task, generator = NumberedTask(1), generator_handle(Plain())
    with RunStore.open(tmp_path / "run", spec_for(task, generator, [])) as store:
        meter = BudgetMeter(store, 0.15, lambda: None)

        async def scene() -> None:
            first = await meter.reserve(0.1, "judge")
            second = asyncio.create_task(meter.reserve(0.1, "judge"))
            await asyncio.sleep(0.05)
            second.cancel()
            await meter.settle(first, 0.01)
            third = await meter.reserve(0.1, "judge")
            await meter.settle(third, 0.01)

        asyncio.run(scene())
        meter.close()
        assert store.spent() == pytest.approx(0.02)


def test_a_reservation_whose_caller_was_cancelled_is_released(tmp_path: Path) -> None:
    task, generator = NumberedTask(1), generator_handle(Plain())
    with RunStore.open(tmp_path / "run", spec_for(task, generator, [])) as store:
        meter = BudgetMeter(store, 0.15, lambda: None)

        async def scene() -> None:
            waiting = asyncio.create_task(meter.reserve(0.1, "judge"))
            await asyncio.sleep(0)
            while store.spent() == 0.0:  # the blocked event loop cannot deliver the reservation to the caller
                time.sleep(0.001)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            await meter.settle(await meter.reserve(0.1, "judge"), 0.01)

        asyncio.run(scene())
        meter.close()
        assert store.spent() == pytest.approx(0.01)


def test_a_reply_paid_for_before_the_budget_ended_a_retry_is_stored_for_the_next_run(tmp_path: Path) -> None:
    class Busy:
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            async with paid_call(0.1, "judge") as ticket:
                ticket.settle(0.1)
            raise TransientError("busy", attempts=(Attempt(reply="not yet", usage=Usage(cost=0.1)),))

    bench = Bench(tmp_path / "run")
    outcome = bench.run(1, Plain(), [scorer_handle(Busy())], quick(budget=0.15))
    assert outcome.stopped == "budget"
    (failed,) = bench.scores().values()
    assert (failed.status, [attempt.reply for attempt in failed.attempts]) == (ScoreStatus.FAILED, ["not yet"])
    bench.run(1, Plain(), [paid_scorer(0.1, 0.1)], quick(budget=1.0))
    (done,) = bench.scores().values()
    assert (done.status, [attempt.reply for attempt in done.attempts]) == (ScoreStatus.OK, ["not yet"])
