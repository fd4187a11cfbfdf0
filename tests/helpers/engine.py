"""A task in memory, images that differ, and small generators and scorers for the engine's tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

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
from knowgen.core.spec import GeneratorSpec, RunSpec, ScorerSpec, select
from knowgen.engine import AgentHandle, ComponentRef, EngineOptions, GeneratorHandle, RunOutcome, ScorerHandle, run
from knowgen.generators.contract import GenerationSource, KeyedAnswers, capabilities_of
from knowgen.scorers.contract import scorer_capabilities
from knowgen.store.run import RunStore


class MemoryTask:
    """A task of `count` samples named s0, s1, …"""

    name = "memory"
    version = "1-feedbeef0123"
    default_scorers: tuple[str, ...] = ()
    search = ""
    search_version = ""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def samples(self) -> Iterator[Sample]:
        for number in range(self.count):
            yield Sample(id=f"s{number}", prompt=f"Draw number {number}.", category="astronomy")

    def truth(self, sample_id: str) -> GroundTruth:
        return GroundTruth(sample_id=sample_id, required_text=(sample_id,))


def noise_image(words: str, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Return an image that depends on the words only."""
    dice = random.Random(words)
    return Image.frombytes("RGB", size, dice.randbytes(size[0] * size[1] * 3))


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
    task: MemoryTask, generator: GeneratorHandle | GenerationSource, scorers: list[ScorerHandle], **fields: Any
) -> RunSpec:
    generator_spec = generator.spec if isinstance(generator, GeneratorHandle) else GeneratorSpec(name=generator.name)
    return RunSpec(
        task=task.name,
        task_version=task.version,
        selection=select([sample.id for sample in task.samples()], "all"),
        generator=generator_spec,
        scorers=tuple(handle.spec for handle in scorers),
        **fields,
    )


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
        scorers = scorers or []
        task = MemoryTask(count)
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


class ScoreServer:
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
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["sample"]
                call = ReceivedCall(name, time.monotonic())
                with judge.lock:
                    judge.calls.append(call)
                    number = sum(one.name == name for one in judge.calls)
                    judge.open += 1
                    judge.most_open = max(judge.most_open, judge.open)
                time.sleep(judge.seconds)
                status, body = judge._answer(name, number)
                data = json.dumps(body).encode()
                with judge.lock:
                    call.answered = time.monotonic()
                    judge.open -= 1
                with contextlib.suppress(OSError):  # the asker may have been killed
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Log nothing to stderr."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore connections that a killed run leaves behind."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/judge"

    def __enter__(self) -> ScoreServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

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
