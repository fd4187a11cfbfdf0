"""Scripted parts of rollouts that run in the current event loop, so that a step runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from knowgen.agents.records import Ending, SeenImage, Segment, Trajectory
from knowgen.core.metering import current_meter
from knowgen.core.records import GroundTruth, ImageRef, ParsedScore, Sample, Score, ScoreStatus
from knowgen.core.spec import GeneratorSpec, ScorerSpec
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.dispatcher import Dispatcher
from knowgen.engine.executors.concurrency import END, Invocation, InvocationEvent
from knowgen.engine.executors.in_process import TimeoutOutcome
from knowgen.engine.executors.invoke import report_waiting
from knowgen.generators.contract import GeneratedImage, GeneratorCapabilities
from knowgen.scorers.contract import ScorerCapabilities
from knowgen.search.nothing import NothingSearch
from knowgen.training.backends.contract import Episode, TrainingPrompt
from knowgen.training.config import ModelConfig, TrainingConfig
from knowgen.training.episode_images import StoredImage
from knowgen.training.episode_runner import EpisodeRunner
from knowgen.training.plugin_calls import PainterCalls, ScorerCalls, TrainingServices
from knowgen.training.searches import Searches
from tests.helpers.virtual_time import VirtualLoop

T = TypeVar("T")

PICTURE = ImageRef(sha256="0" * 64, width=16, height=16, format="PNG", path=Path("picture.png"))
SEEN = SeenImage(id="IMG_001", image=PICTURE, title="A crest", url="https://example.org/crest.png")


class InLoop:
    """An executor that runs a plugin's coroutine in the current event loop."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]], meter: Any) -> None:
        self._function, self._meter = function, meter
        self.running: dict[Invocation[Any], asyncio.Task[None]] = {}
        self.closed = False

    async def ready_slot(self, slot: int, batch: Sequence[Any] = ()) -> InLoop:
        return self

    def start(self, invocation: Invocation[Any]) -> None:
        self.running[invocation] = asyncio.create_task(self._call(invocation))

    async def _call(self, invocation: Invocation[Any]) -> None:
        current_meter.set(self._meter)
        report_waiting(invocation.emit)
        try:
            event = InvocationEvent("result", "", await self._function(invocation.batch[0]))
        except Exception as error:
            event = InvocationEvent("error", "", error)
        finally:
            del self.running[invocation]
        invocation.emit(event)
        invocation.emit(END)

    async def room_again(self, slot: int) -> None:
        raise AssertionError("no device is disabled")

    async def abandon(self, slot: int, invocation: Invocation[Any]) -> TimeoutOutcome:
        invocation.closed = True
        if task := self.running.get(invocation):
            task.cancel()
        return TimeoutOutcome(left_behind=False)

    def drop(self, slot: int, invocation: Invocation[Any]) -> None:
        """Do nothing: these calls report no waits that matter."""

    async def close(self) -> None:
        self.kill()
        self.closed = True

    def kill(self) -> None:
        for task in self.running.values():
            task.cancel()

    def join(self, seconds: float) -> None:
        """Do nothing."""


class MemoryLedger:
    """Reservations in memory."""

    def __init__(self, spent: float = 0.0) -> None:
        self.entries: dict[int, float] = {0: spent}
        self.notes: list[tuple[str, str]] = []

    def spent(self) -> float:
        return sum(self.entries.values())

    def reserve(self, amount: float, caller: str, /) -> int:
        self.entries[len(self.entries)] = amount
        return len(self.entries) - 1

    def settle(self, number: int, amount: float | None, /) -> None:
        if amount is not None:
            self.entries[number] = amount

    def put_note(self, caller: str, kind: str, data: dict[str, Any], /) -> None:
        self.notes.append((caller, kind))


class NoFiles:
    """Images that are stored nowhere."""

    async def store(self, image: Any) -> StoredImage:
        return StoredImage(PICTURE)


def answered(prompt: str = "a crest, in red", references: int = 1, ending: Ending = Ending.ANSWER) -> Trajectory:
    """Return a trajectory of a policy of tokens: by default one that ends with an answer."""
    good = ending is Ending.ANSWER
    return Trajectory(
        segments=[Segment([1, 2, 3], False), Segment([4, 5], True, [-0.1, -0.2])],
        images={SEEN.id: SEEN},
        ending=ending,
        reason="" if good else "as scripted",
        gen_prompt=prompt if good else None,
        references=[(SEEN, "its form")] * references if good else [],
    )


class ScriptedAgent:
    """An agent whose trajectories take some time and end as scripted, by prompt and number of the call.

    Args:
        script: Returns a trajectory, or raises.
        seconds: Time of a trajectory.
    """

    def __init__(
        self, script: Callable[[str, int], Any] = lambda prompt, call: answered(), seconds: float = 1.0
    ) -> None:
        self.script, self.seconds = script, seconds
        self.calls: list[tuple[str, int | None]] = []
        self.active = self.peak = self.cancelled = 0

    async def run(self, prompt: str, *, session: str = "", seed: int | None = None, search: Any = None) -> Trajectory:
        self.calls.append((session, seed))
        call = len(self.calls) - 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.seconds)
            result = self.script(prompt, call)
            value: Trajectory = await result if asyncio.iscoroutine(result) else result
            return value
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1


async def red_image(request: Any) -> GeneratedImage:
    """Generate at once."""
    return GeneratedImage(image=Image.new("RGB", (16, 16), "red"))


def scoring(
    value: float, dimension: str = "answer", seconds: float = 0.0
) -> Callable[[Any], Coroutine[Any, Any, Score]]:
    """Return a scorer with one value."""

    async def score(item: Any) -> Score:
        await asyncio.sleep(seconds)
        sample, _, generation, *_ = item
        parsed = ParsedScore(status=ScoreStatus.OK, values={dimension: value})
        return Score(
            sample_id=sample.id, repeat=generation.repeat, scorer=dimension, status=ScoreStatus.OK, strict=parsed
        )

    return score


def prompt_of(name: str = "a", task: str = "t") -> TrainingPrompt:
    """Return a prompt of a training."""
    return TrainingPrompt(
        f"{task}/{name}", Sample(id=name, prompt=f"Draw {name}."), GroundTruth(sample_id=name, image=PICTURE)
    )


def grpo_config(**sections: Any) -> TrainingConfig:
    """Return a configuration of GRPO, with values of the section `grpo`."""
    return TrainingConfig.model_validate(
        {"method": "grpo", "model": ModelConfig(path="mini:0").model_dump(), "grpo": sections}
    )


class Step:
    """A step of rollouts in virtual time.

    Args:
        agent: The agent.
        config: The training.
        painter: Coroutine of the image model.
        image: Coroutine of the scorer of the image.
        text: Coroutine of the scorer of the answer.
        ledger: Where costs are recorded.
        virtual: Whether time is virtual; not where threads take part, such as that of the budget's meter.

    Attributes:
        loop: Its event loop.
    """

    def __init__(
        self,
        agent: Any = None,
        config: TrainingConfig | None = None,
        *,
        painter: Callable[[Any], Awaitable[Any]] = red_image,
        image: Callable[[Any], Awaitable[Any]] = scoring(0.5, "similarity"),
        text: Callable[[Any], Awaitable[Any]] = scoring(1.0),
        ledger: Any = None,
        virtual: bool = True,
    ) -> None:
        self._virtual = virtual
        self.agent = agent or ScriptedAgent()
        self.config = config or grpo_config()
        self.painter, self.image, self.text = painter, image, text
        self.ledger = ledger or MemoryLedger()
        self.executors: list[InLoop] = []

    def run(self, prompts: Sequence[TrainingPrompt], steps: int = 1) -> list[Episode]:
        """Run steps and return the episodes of the last one."""
        with asyncio.Runner(loop_factory=VirtualLoop if self._virtual else None) as runner:
            self.loop = runner.get_loop()
            return runner.run(self._steps(prompts, steps))

    async def _steps(self, prompts: Sequence[TrainingPrompt], steps: int) -> list[Episode]:
        runner = self.runner()
        current_meter.set(self.services.meter)
        episodes: list[Episode] = []
        try:
            for step in range(1, steps + 1):
                episodes = await runner.run(prompts, step, list(range(len(prompts))))
        finally:
            self.left = [task for task in asyncio.all_tasks() if "_episode" in repr(task)]
        return episodes

    def runner(self) -> EpisodeRunner:
        """Return the runner, in the current event loop."""
        assert self.config.grpo is not None
        limits = self.config.grpo
        self.services = TrainingServices(self.ledger, limits.services, Path())
        model = GeneratorHandle(
            GeneratorSpec(name="model"), GeneratorCapabilities("generate", references=True), lambda: None
        )
        painter = PainterCalls(
            self._dispatcher(self.painter, limits.painter.concurrency, limits.painter.timeout, "image"),
            self.services,
            self.services.new_service("image model model"),
            model,
        )
        image, text = (
            self._scorer(name, function) for name, function in (("similarity", self.image), ("answer", self.text))
        )
        return EpisodeRunner(
            self.config,
            self.agent,
            self.services,
            NoFiles(),  # type: ignore[arg-type]
            Searches(NothingSearch()),
            painter=painter,
            image=image,
            text=text,
        )

    def _scorer(self, name: str, function: Callable[[Any], Awaitable[Any]]) -> ScorerCalls:
        needs = frozenset({"image"} if name == "similarity" else {"references"})
        handle = ScorerHandle(ScorerSpec(name=name), ScorerCapabilities("score", needs=needs), lambda: None)
        dispatcher = self._dispatcher(function, self.services.config.judge_concurrency, 300.0, "score")
        return ScorerCalls(dispatcher, self.services, self.services.new_service(f"scorer {name}"), handle)

    def _dispatcher(
        self, function: Callable[[Any], Awaitable[Any]], slots: int, timeout: float, name: str
    ) -> Dispatcher:
        executor = InLoop(function, self.services.meter)
        self.executors.append(executor)
        return Dispatcher(
            self.services.bridge,
            self.services.state,
            executor,
            slots=slots,
            batch_size=1,
            timeout=timeout,
            result_name=name,
            where=name,
        )
