"""A task in memory, images that differ, and small generators and scorers for the engine's tests."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from benchmarks.setting import LoopbackServer, NumberedTask, Reply, noise_image, specification
from knowgen.core.errors import TransientError
from knowgen.core.metering import paid_call
from knowgen.core.records import (
    DIMENSIONS,
    AgentAnswer,
    Generation,
    GroundTruth,
    ParsedScore,
    Row,
    Sample,
    Score,
    ScoreStatus,
    Usage,
)
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec
from knowgen.engine import AgentHandle, ComponentRef, EngineOptions, GeneratorHandle, RunOutcome, ScorerHandle, run
from knowgen.engine.components import before_generator
from knowgen.generators.contract import GenerationSource, KeyedAnswers, capabilities_of
from knowgen.scorers.contract import scorer_capabilities
from knowgen.store.run import RunStore


def png(words: str, size: tuple[int, int] = (48, 32)) -> bytes:
    buffer = io.BytesIO()
    noise_image(words, size).save(buffer, "PNG")
    return buffer.getvalue()


def score_of(sample: Sample, generation: Generation, value: float = 0.5, **fields: Any) -> Score:
    return Score(
        sample_id=sample.id,
        repeat=generation.repeat,
        scorer="whatever it calls itself",
        status=ScoreStatus.OK,
        strict=ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value)),
        **fields,
    )


class Plain:
    """The simplest generator."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        return noise_image(f"{prompt} {seed}")


class Half:
    """The simplest scorer: 0.5 for every dimension."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        return score_of(sample, generation)


def generator_handle(
    target: Any,
    *,
    name: str = "mine",
    build: Callable[[], Any] | None = None,
    component_ref: ComponentRef | None = None,
) -> GeneratorHandle:
    capabilities = capabilities_of(target)
    spec = GeneratorSpec(name=name, privileged=capabilities.privileged)
    return GeneratorHandle(spec, capabilities, build or (lambda: target), component_ref)


def scorer_handle(
    target: Any,
    *,
    name: str = "judge",
    build: Callable[[], Any] | None = None,
    component_ref: ComponentRef | None = None,
) -> ScorerHandle:
    return ScorerHandle(ScorerSpec(name=name), scorer_capabilities(target), build or (lambda: target), component_ref)


def spec_for(
    task: NumberedTask, generator: GeneratorHandle | GenerationSource, scorers: list[ScorerHandle], **fields: Any
) -> RunSpec:
    generator_spec = generator.spec if isinstance(generator, GeneratorHandle) else GeneratorSpec(name=generator.name)
    return specification(task, generator_spec, [handle.spec for handle in scorers], **fields)


def quick(**fields: Any) -> EngineOptions:
    """Return options for a test, without progress display."""
    return EngineOptions(**{"progress": False, **fields})


class Bench:
    """Runs the engine in a folder, as often as a test likes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(
        self,
        count: int,
        generator: GeneratorHandle | GenerationSource | Any,
        scorers: list[ScorerHandle] | None = None,
        options: EngineOptions | None = None,
        agent: AgentHandle | None = None,
        answers: KeyedAnswers | None = None,
        **fields: Any,
    ) -> RunOutcome:
        if not isinstance(generator, GeneratorHandle) and not hasattr(generator, "generation"):
            generator = generator_handle(generator)
        if agent is not None and isinstance(generator, GeneratorHandle):
            agent = before_generator(agent, generator)
        scorers = scorers or []
        task = NumberedTask(count)
        spec = spec_for(task, generator, scorers, agent=None if agent is None else agent.spec, **fields)
        with RunStore.open(self.path, spec) as store:
            return run(spec, task, generator, scorers, store, options or quick(), agent=agent, answers=answers)

    def answers(self) -> dict[tuple[str, int], AgentAnswer]:
        with RunStore.read(self.path) as store:
            return {(a.sample_id, a.repeat): a for _, a in store.answers()}

    def generations(self) -> dict[tuple[str, int], Generation]:
        with RunStore.read(self.path) as store:
            return {(g.sample_id, g.repeat): g for _, g in store.generations()}

    def scores(self) -> dict[tuple[str, int, str, int], Score]:
        with RunStore.read(self.path) as store:
            return {(s.sample_id, s.repeat, s.scorer, s.judge_repeat): s for _, s in store.scores()}

    def rows(self, scorer: str = "judge") -> list[Row]:
        with RunStore.read(self.path) as store:
            return list(store.rows(scorer))


class Measure:
    """A batch scorer: 0.5 for every dimension, and the id of its process."""

    concurrency = 3

    def score_batch(self, items: list[tuple[Sample, GroundTruth, Generation]]) -> Iterator[Score]:
        for sample, _, generation in items:
            assert generation.image is not None
            with generation.image.open() as opened:
                yield score_of(sample, generation, details={"pid": os.getpid(), "size": list(opened.size)})


MEASURE = ComponentRef("scorers", "tests.helpers.engine:Measure")
PLAIN = ComponentRef("generators", "tests.helpers.engine:Plain")


@dataclass
class ReceivedCall:
    """A call that the judge server received."""

    name: str
    received: float
    answered: float | None = None


class ScoreServer(LoopbackServer):
    """A judge on the loopback interface that logs every call.

    Args:
        seconds: Time to answer a call, in seconds.
        answer: Function from the sample's id and the number of its call to the status code and JSON body.
    """

    def __init__(self, seconds: float = 0.0, answer: Callable[[str, int], tuple[int, dict[str, Any]]] | None = None):
        self.calls: list[ReceivedCall] = []
        self.lock = threading.Lock()
        self.open = self.most_open = 0
        self.seconds = seconds
        self._answer = answer or (lambda name, call: (200, {"value": 0.5}))
        super().__init__(self._reply)

    def _reply(self, body: bytes) -> Reply:
        call = ReceivedCall(json.loads(body)["sample"], time.monotonic())
        with self.lock:
            self.calls.append(call)
            number = sum(one.name == call.name for one in self.calls)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        time.sleep(self.seconds)
        status, data = self._answer(call.name, number)
        with self.lock:
            call.answered = time.monotonic()
            self.open -= 1
        return status, {}, json.dumps(data).encode()

    def answered(self) -> int:
        with self.lock:
            return sum(one.answered is not None for one in self.calls)


class LoopbackJudge:
    """A paid judge that calls a server on the loopback interface."""

    concurrency = 8

    def __init__(self, url: str, worst_case: float | None = 0.0, cost: float = 0.0) -> None:
        self.url, self.worst_case, self.cost = url, worst_case, cost
        self.client: httpx.AsyncClient | None = None

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        if self.client is None:
            self.client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)
        async with paid_call(self.worst_case, "loopback") as ticket:
            reply = await self.client.post(self.url, json={"sample": sample.id})
            if reply.status_code == 200:
                ticket.settle(self.cost)
        if reply.status_code in {429, 503}:
            retry_after = reply.headers.get("Retry-After")
            raise TransientError(
                f"the judge answered {reply.status_code}", retry_after=float(retry_after) if retry_after else None
            )
        reply.raise_for_status()
        return score_of(sample, generation, reply.json()["value"], usage=Usage(cost=self.cost))

    async def close(self) -> None:
        if self.client is not None:
            await self.client.aclose()


def loopback_handle(url: str, **args: Any) -> ScorerHandle:
    return scorer_handle(LoopbackJudge, build=lambda: LoopbackJudge(url, **args))
