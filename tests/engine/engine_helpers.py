"""A task in memory, pictures that differ, and small generators and scorers for the engine's tests."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from knowgen.engine import GeneratorHandle, Options, Outcome, Remake, ScorerHandle, run
from knowgen.generators.contract import DrawingSource, traits_of
from knowgen.records import (
    DIMENSIONS,
    Generation,
    GroundTruth,
    Reading,
    Row,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.scorers.contract import scorer_traits
from knowgen.spec import GeneratorSpec, RunSpec, ScorerSpec, select
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


def picture(words: str, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Makes a picture that depends on the words alone."""
    dice = random.Random(words)
    return Image.frombytes("RGB", size, dice.randbytes(size[0] * size[1] * 3))


def png(words: str, size: tuple[int, int] = (48, 32)) -> bytes:
    buffer = io.BytesIO()
    picture(words, size).save(buffer, "PNG")
    return buffer.getvalue()


def score_of(sample: Sample, generation: Generation, value: float = 0.5, **fields: Any) -> Score:
    return Score(
        sample_id=sample.id,
        repeat=generation.repeat,
        scorer="whatever it calls itself",
        status=ScoreStatus.OK,
        strict=Reading(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value)),
        **fields,
    )


class Plain:
    """The simplest generator."""

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        return picture(f"{prompt} {seed}")


class Half:
    """The simplest scorer: half a point for everybody."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
        return score_of(sample, generation)


def generator_handle(
    target: Any, *, name: str = "mine", build: Callable[[], Any] | None = None, remake: Remake | None = None
) -> GeneratorHandle:
    traits = traits_of(target)
    spec = GeneratorSpec(name=name, privileged=traits.privileged)
    return GeneratorHandle(spec, traits, build or (lambda: target), remake)


def scorer_handle(
    target: Any, *, name: str = "judge", build: Callable[[], Any] | None = None, remake: Remake | None = None
) -> ScorerHandle:
    return ScorerHandle(ScorerSpec(name=name), scorer_traits(target), build or (lambda: target), remake)


def spec_for(
    task: MemoryTask, generator: GeneratorHandle | DrawingSource, scorers: list[ScorerHandle], **fields: Any
) -> RunSpec:
    drawn_by = generator.spec if isinstance(generator, GeneratorHandle) else GeneratorSpec(name=generator.name)
    return RunSpec(
        task=task.name,
        task_version=task.version,
        selection=select([sample.id for sample in task.samples()], "all"),
        generator=drawn_by,
        scorers=tuple(handle.spec for handle in scorers),
        **fields,
    )


def quick(**fields: Any) -> Options:
    """Options for a test: no progress."""
    return Options(**{"progress": False, **fields})


class Bench:
    """Runs the engine in a folder, as often as a test likes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(
        self,
        count: int,
        generator: GeneratorHandle | DrawingSource | Any,
        scorers: list[ScorerHandle] | None = None,
        options: Options | None = None,
        **fields: Any,
    ) -> Outcome:
        if not isinstance(generator, GeneratorHandle) and not hasattr(generator, "drawing"):
            generator = generator_handle(generator)
        scorers = scorers or []
        task = MemoryTask(count)
        spec = spec_for(task, generator, scorers, **fields)
        with RunStore.open(self.path, spec) as store:
            return run(spec, task, generator, scorers, store, options or quick())

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
    """A batch scorer: half a point for everybody, and the process it ran in."""

    concurrency = 3

    def score_batch(self, items: list[tuple[Sample, GroundTruth, Generation]]) -> Iterator[Score]:
        for sample, _, generation in items:
            with generation.image.open() as opened:
                yield score_of(sample, generation, details={"pid": os.getpid(), "size": list(opened.size)})


MEASURE = Remake("scorers", "engine_helpers:Measure")
PLAIN = Remake("generators", "engine_helpers:Plain")
