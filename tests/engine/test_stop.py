"""What a stop of the run drops: calls that wait for their turn, and never one whose request is on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.agents.time_limit import TimeLimit
from knowgen.core.metering import current_meter, paid_call
from knowgen.core.records import GenerationRequest
from knowgen.core.waiting import DroppedError, WaitReporter, current_reporter, sending, waiting
from knowgen.engine.components import ComponentRef
from knowgen.engine.deadline import Deadline
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import LoopBridge
from knowgen.engine.executors.in_process import Executor, LazyPlugin, LoopExecutor, ThreadExecutor
from knowgen.engine.executors.invoke import generate
from knowgen.engine.executors.links import WorkerLaunch
from knowgen.engine.executors.subprocess import SubprocessExecutor
from knowgen.engine.retry import StoppedError
from knowgen.engine.run_state import RunState
from knowgen.generators.contract import GeneratedImage
from knowgen.serving.executor import UnmeteredCalls
from tests.helpers.processes import wait_until


class Turns:
    """Waits for a turn, sends a request, and waits for its answer. Each step is a file, by which a test directs it."""

    revision = "1"
    concurrency = 2

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def file(self, prompt: str, step: str) -> Path:
        return self.folder / f"{prompt}.{step}"


class AsyncTurns(Turns):
    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        try:
            with waiting():
                await self.wait(request.prompt, "turn")
            self.file(request.prompt, "sent").touch()
            await self.wait(request.prompt, "answer")
        finally:
            self.file(request.prompt, "ended").touch()
        return GeneratedImage(noise_image(request.prompt))

    async def wait(self, prompt: str, step: str) -> None:
        while not self.file(prompt, step).exists():
            await asyncio.sleep(0.002)


class AsyncTurnsWithAnAnswer(AsyncTurns):
    """Has an answer that may have been paid for before it waits; an attempt before that gave none."""

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        for works in (False, True):
            try:
                async with paid_call(0.0, "turns"):
                    if not works:
                        raise ConnectionError("refused")
            except ConnectionError:
                continue
        return await super().generate(request)


class SyncTurns(Turns):
    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        try:
            with waiting():
                self.wait(prompt, "turn")
            self.file(prompt, "sent").touch()
            self.wait(prompt, "answer")
        finally:
            self.file(prompt, "ended").touch()
        return noise_image(prompt)

    def wait(self, prompt: str, step: str) -> None:
        while not self.file(prompt, step).exists():
            time.sleep(0.002)


def in_process(kind: type[Turns], folder: Path, bridge: LoopBridge) -> Executor:
    plugin = LazyPlugin(bridge, lambda: kind(str(folder)), lambda: "cpu", "turns")
    if issubclass(kind, AsyncTurns):
        return LoopExecutor(bridge, plugin, generate, UnmeteredCalls(), "turns")
    return ThreadExecutor(bridge, plugin, "draw", UnmeteredCalls(), "turns")


def in_workers(workers: int) -> Callable[[type[Turns], Path, LoopBridge], Executor]:
    def executor(kind: type[Turns], folder: Path, bridge: LoopBridge) -> Executor:
        ref = ComponentRef("generators", f"tests.engine.test_stop:{kind.__name__}", {"folder": str(folder)})
        shape = "generate" if issubclass(kind, AsyncTurns) else "draw"
        launch = WorkerLaunch(ref, shape, "turns", folder, workers, 2 // workers)
        return SubprocessExecutor(launch, bridge, UnmeteredCalls())

    return executor


class Calls:
    """Two calls of a plugin, `first` and `second`, that both wait for their turn, and a stop while they do."""

    def __init__(self, plugin: Turns, executor: Executor, bridge: LoopBridge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plugin, self.state = plugin, RunState()
        self.dispatcher = Dispatcher(
            bridge, self.state, executor, slots=2, batch_size=1, timeout=3600, result_name="image", where="turns"
        )
        self.waiting = 0
        self.changed = asyncio.Event()
        wait = Deadline.wait

        def heard(deadline: Deadline, waits: bool) -> None:
            wait(deadline, waits)
            self.waiting = sum(one.waiting for _, one in self.dispatcher._running.values())
            self.changed.set()

        monkeypatch.setattr(Deadline, "wait", heard)

    async def call(self, prompt: str) -> str:
        async def keep(value: Any, seconds: float) -> Any:
            return value

        await self.dispatcher.submit(prompt, GenerationRequest(id=prompt, prompt=prompt, seed=0), keep)
        return prompt

    async def until_both_wait(self) -> None:
        """Wait until the engine knows of both calls that they wait."""
        while self.waiting < 2:
            await self.changed.wait()
            self.changed.clear()

    def stop(self) -> None:
        self.state.stop("interrupted")
        self.dispatcher.stop()


async def calls_of(
    kind: type[Turns],
    executor: Callable[[type[Turns], Path, LoopBridge], Executor],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Calls, asyncio.Task[str], asyncio.Task[str]]:
    """Return two calls that both wait, as the engine knows."""
    bridge = LoopBridge(asyncio.get_running_loop())
    calls = Calls(kind(str(folder)), executor(kind, folder, bridge), bridge, monkeypatch)
    first, second = (asyncio.create_task(calls.call(prompt)) for prompt in ("first", "second"))
    await calls.until_both_wait()
    return calls, first, second


@pytest.mark.parametrize(
    ("kind", "executor"),
    [
        pytest.param(AsyncTurns, in_process, id="event loop"),
        pytest.param(SyncTurns, in_process, id="threads"),
        pytest.param(AsyncTurns, in_workers(1), id="event loop of a worker"),
        pytest.param(SyncTurns, in_workers(1), id="threads of a worker"),
        pytest.param(SyncTurns, in_workers(2), id="workers"),
    ],
)
def test_a_call_that_was_sent_before_the_engine_heard_of_its_turn_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Turns], executor: Any
) -> None:
    async def stop() -> None:
        calls, first, second = await calls_of(kind, executor, tmp_path, monkeypatch)
        calls.plugin.file("first", "turn").touch()
        # the engine's event loop stands still here: it has not heard that the first call waits no longer
        wait_until(calls.plugin.file("first", "sent").exists)
        calls.stop()
        with pytest.raises(StoppedError, match="interrupted"):
            await second
        calls.plugin.file("second", "turn").touch()
        await asyncio.to_thread(wait_until, calls.plugin.file("second", "ended").exists)
        assert not calls.plugin.file("second", "sent").exists(), "it waited, and was dropped: it is never sent"
        calls.plugin.file("first", "answer").touch()
        assert await first == "first"
        await calls.dispatcher.close()

    asyncio.run(stop())


def test_a_call_that_waits_once_more_after_an_answer_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop() -> None:
        calls, first, second = await calls_of(AsyncTurnsWithAnAnswer, in_process, tmp_path, monkeypatch)
        calls.stop()
        for step in ("turn", "answer"):
            for prompt in ("first", "second"):
                calls.plugin.file(prompt, step).touch()
        assert (await first, await second) == ("first", "second")
        await calls.dispatcher.close()

    asyncio.run(stop())


def test_a_call_is_dropped_once_and_only_without_a_request_in_any_of_its_parts() -> None:
    call = WaitReporter(lambda waits: None)
    assert not call.drop(), "it does not wait"
    call.begin()
    call.begin_request()
    assert not call.drop(), "another part has sent a request"
    call.fail_request()
    assert call.drop() and not call.drop() and call.dropped
    for go_on in (call.end, call.begin, call.begin_request):
        with pytest.raises(DroppedError):
            go_on()


def test_a_time_limit_within_a_call_passes_on_its_waits_and_requests() -> None:
    reports: list[bool] = []
    call = WaitReporter(reports.append)

    async def parts() -> None:
        current_reporter.set(call)
        async with TimeLimit(60.0):
            with waiting():
                assert reports == [True]
            assert reports == [True, False]
            with sending():
                call.begin()
                assert not call.drop()
                call.end()
            call.begin()
            assert not call.drop(), "it has an answer"

    asyncio.run(parts())


def test_a_call_that_is_dropped_while_it_reserves_its_cost_gives_it_back() -> None:
    call = WaitReporter(lambda waits: None)
    settled: list[tuple[int, float | None]] = []

    class Meter(UnmeteredCalls):
        async def reserve(self, worst_case: float | None, caller: str) -> int:
            assert call.drop()
            return 7

        async def settle(self, number: int, cost: float | None) -> None:
            settled.append((number, cost))

    async def pay() -> None:
        current_reporter.set(call)
        current_meter.set(Meter())
        async with paid_call(0.5, "judge"):
            raise AssertionError("it is not sent")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(pay())
    assert settled == [(7, 0.0)]
