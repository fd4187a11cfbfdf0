"""Samples pass through a run independently: no barriers, bounded memory, and every plugin within its concurrency."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.setting import NumberedTask, noise_image
from knowgen.core.errors import ConfigError, DataError
from knowgen.core.records import (
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
    Usage,
    request_id,
)
from knowgen.engine import run
from knowgen.generators.contract import GeneratedImage
from knowgen.store.run import RunStore
from tests.helpers.engine import (
    MEASURE,
    PLAIN,
    Bench,
    Half,
    Measure,
    Plain,
    generator_handle,
    png,
    quick,
    score_of,
    scorer_handle,
    spec_for,
)


class Log:
    """Records the order of events, from any thread."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lock = threading.Lock()

    def add(self, event: str) -> None:
        with self.lock:
            self.events.append(event)


class Gate:
    """Counts how many calls are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


def test_an_image_is_scored_while_others_are_still_being_generated(tmp_path: Path) -> None:
    scored = threading.Event()

    class Waits:
        """Returns its second image only after the first has been scored; with a barrier that would never happen."""

        batch_size = 2

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            for number, request in enumerate(requests):
                if number == 1:
                    assert scored.wait(20), "nothing was scored while the batch was under way"
                yield GeneratedImage(image=noise_image(request.prompt), request_id=request.id)

    class Tells:
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            scored.set()
            return score_of(sample, generation)

    outcome = Bench(tmp_path / "run").run(2, Waits(), [scorer_handle(Tells())])
    assert (outcome.generated, outcome.scored) == (2, 2)


def test_a_slow_score_delays_no_other(tmp_path: Path) -> None:
    others = threading.Event()
    log = Log()

    class SlowOnFirst:
        concurrency = 4

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            while sample.id == "s0" and not others.is_set():
                await asyncio.sleep(0.005)
            log.add(sample.id)
            if len(log.events) == 39:
                others.set()
            return score_of(sample, generation)

    assert Bench(tmp_path / "run").run(40, Plain(), [scorer_handle(SlowOnFirst())]).scored == 40
    assert log.events[-1] == "s0"


def test_draw_is_serial_unless_it_declares_concurrency(tmp_path: Path) -> None:
    def generator(width: int | None) -> tuple[object, Gate]:
        gate = Gate()

        class Synchronous:
            def draw(self, prompt: str, references: object, seed: int) -> object:
                with gate:
                    time.sleep(0.005)
                    return noise_image(prompt)

        target = Synchronous()
        if width is not None:
            Synchronous.concurrency = width  # type: ignore[attr-defined]
        return target, gate

    for width, most in ((None, 1), (3, 3)):
        target, gate = generator(width)
        Bench(tmp_path / str(width)).run(30, target, options=quick(concurrency=8))
        assert gate.most == most


def test_concurrency_bounds_async_generators_and_scorers(tmp_path: Path) -> None:
    generating, scoring = Gate(), Gate()

    class Service:
        concurrency = 50

        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            with generating:
                await asyncio.sleep(0.01)
                return GeneratedImage(image=png(request.prompt))

    class Judge:
        concurrency = 50

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            with scoring:
                await asyncio.sleep(0.01)
                return score_of(sample, generation)

    Bench(tmp_path / "run").run(60, Service(), [scorer_handle(Judge())], quick(concurrency=5))
    assert (generating.most, scoring.most) == (5, 5)


def test_images_do_not_pile_up_behind_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Gate()
    unsaved: list[int] = []
    put = RunStore.put_image

    def slow(self: RunStore, data: bytes, **size: object) -> object:
        time.sleep(0.01)
        waiting.__exit__()
        return put(self, data, **size)  # type: ignore[arg-type]

    class Fast:
        def draw(self, prompt: str, references: object, seed: int) -> object:
            waiting.__enter__()
            unsaved.append(waiting.inside)
            return noise_image(prompt)

    monkeypatch.setattr(RunStore, "put_image", slow)
    Bench(tmp_path / "run").run(100, Fast())
    assert max(unsaved) <= 6


def test_batches_are_full_and_never_larger(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Batches:
        batch_size = 8

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            sizes.append(len(requests))
            for request in requests:
                yield GeneratedImage(image=noise_image(request.prompt), request_id=request.id)

    Bench(tmp_path / "run").run(40, Batches())
    assert sum(sizes) == 40
    assert max(sizes) == 8
    assert len(sizes) <= 8, "mostly full"


def test_a_request_contains_prompt_and_seed_and_neither_truth_nor_category(tmp_path: Path) -> None:
    requests: list[GenerationRequest] = []

    class Curious:
        privileged = False

        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            requests.append(request)
            return GeneratedImage(image=noise_image(f"{request.seed}"), used_prompt="mine", settings={"steps": 4})

    bench = Bench(tmp_path / "run")
    bench.run(3, Curious(), repeats=2, seed=70)
    assert {request.id for request in requests} == {request_id(f"s{n}", r) for n in range(3) for r in range(2)}
    assert {(request.repeat, request.seed) for request in requests} == {(0, 70), (1, 71)}
    assert all(request.truth is None for request in requests)
    assert all("astronomy" not in request.model_dump_json() for request in requests)
    stored = bench.generations()["s1", 1]
    assert (stored.seed, stored.used_prompt, stored.settings) == (71, "mine", {"steps": 4})


def test_the_truth_goes_only_to_a_generator_that_declares_itself_privileged(tmp_path: Path) -> None:
    seen: list[GroundTruth | None] = []

    class Oracle:
        privileged = True

        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            seen.append(request.truth)
            return GeneratedImage(image=noise_image(request.prompt))

    Bench(tmp_path / "run").run(2, Oracle())
    assert {truth.required_text for truth in seen if truth} == {("s0",), ("s1",)}


def test_files_in_a_known_format_are_stored_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "given.png"
    file.write_bytes(png("a file"))

    class Gives:
        def draw(self, prompt: str, references: object, seed: int) -> object:
            return file if "number 0" in prompt else png("bytes")

    bench = Bench(tmp_path / "run")
    bench.run(2, Gives())
    for sample, expected in (("s0", file.read_bytes()), ("s1", png("bytes"))):
        image = bench.generations()[sample, 0].image
        assert image is not None and image.path is not None
        assert image.path.read_bytes() == expected
        assert (image.width, image.height, image.format) == (48, 32, "PNG")


def test_each_scorer_and_judge_repeat_scores_each_image(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    scorers = [scorer_handle(Half(), name="one"), scorer_handle(Measure(), name="two")]
    outcome = bench.run(4, Plain(), scorers, repeats=2, judge_repeats=3)
    assert outcome.scored == 4 * 2 * 3 * 2
    scores = bench.scores()
    assert scores.keys() == {
        (f"s{n}", r, name, j) for n in range(4) for r in range(2) for name in ("one", "two") for j in range(3)
    }
    images = {(sample, repeat): g.image.sha256 for (sample, repeat), g in bench.generations().items() if g.image}
    assert all(score.image == images[sample, repeat] for (sample, repeat, _, _), score in scores.items())
    assert all(score.tries == 1 and score.seconds > 0 for score in scores.values())


def test_a_sample_that_lacks_what_a_scorer_needs_is_not_applicable(tmp_path: Path) -> None:
    class Needy:
        needs = frozenset({"image", "references", "truth_image"})

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            raise AssertionError("it must not be called")

    bench = Bench(tmp_path / "run")
    assert bench.run(3, Plain(), [scorer_handle(Needy())]).not_applicable == 3
    (score,) = {row.strict.status for row in bench.rows()}
    assert score is ScoreStatus.NOT_APPLICABLE
    assert "references, truth_image" in bench.scores()["s0", 0, "judge", 0].strict.reason
    assert bench.run(3, Plain(), [scorer_handle(Needy())]).not_applicable == 3


def test_a_phased_run_generates_all_then_closes_then_scores(tmp_path: Path) -> None:
    log = Log()

    class Synchronous:
        def setup(self, device: str) -> None:
            log.add(f"setup {device}")

        def draw(self, prompt: str, references: object, seed: int) -> object:
            log.add("draw")
            return noise_image(prompt)

        def close(self) -> None:
            log.add("close generator")

    class Judges:
        def __init__(self) -> None:
            log.add("build judge")

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            log.add("score")
            return score_of(sample, generation)

        async def close(self) -> None:
            log.add("close judge")

    bench = Bench(tmp_path / "run")
    scorer = scorer_handle(Judges, build=Judges)
    outcome = bench.run(3, Synchronous(), [scorer], quick(schedule="phased"))
    assert log.events[0].startswith("setup c")
    assert log.events[1:] == [
        "draw", "draw", "draw", "close generator", "build judge", "score", "score", "score", "close judge"
    ]  # fmt: skip
    assert (outcome.generated, outcome.scored, outcome.generation_cached) == (3, 3, 0)


@pytest.mark.parametrize("broken", ["store_samples", "generator_dispatcher", "scorer_dispatcher"])
def test_no_thread_is_left_behind_when_a_run_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*args: object) -> None:
        raise ConfigError("cannot begin")

    before = set(threading.enumerate())
    monkeypatch.setattr(sys.modules["knowgen.engine.run"], broken, fail)
    with pytest.raises(ConfigError, match="cannot begin"):
        Bench(tmp_path / "run").run(3, Plain(), [scorer_handle(Half())])
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("knowgen")]
    for thread in left:
        thread.join(10)
    assert not [thread.name for thread in left if thread.is_alive()]


def test_worker_processes_generate_what_this_process_would(tmp_path: Path) -> None:
    here, there = Bench(tmp_path / "here"), Bench(tmp_path / "there")
    here.run(8, Plain(), [scorer_handle(Half())])
    there.run(8, generator_handle(Plain(), component_ref=PLAIN), [scorer_handle(Half())], quick(workers=2))

    def digests(bench: Bench) -> dict[tuple[str, int], str]:
        return {name: g.image.sha256 for name, g in bench.generations().items() if g.image}

    assert digests(here) == digests(there)
    assert len(digests(here)) == 8
    assert not (there.path / "scratch").exists()


def test_batch_scorers_run_in_other_processes(tmp_path: Path) -> None:
    import os

    bench = Bench(tmp_path / "run")
    bench.run(12, Plain(), [scorer_handle(Measure(), component_ref=MEASURE)], judge_repeats=2)
    scores = bench.scores()
    assert len(scores) == 24
    assert os.getpid() not in {score.details["pid"] for score in scores.values()}
    assert {tuple(score.details["size"]) for score in scores.values()} == {(48, 32)}


class ImageSource:
    """Existing images of all samples but s1."""

    name = "folder"
    revision = ""

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        if sample_id == "s1":
            return GeneratedImage(status=GenerationStatus.FAILED, reason="s1.png is missing")
        return GeneratedImage(image=png(sample_id), usage=Usage(cost=0.25))


def test_existing_images_are_scored_without_a_generator(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    for _ in range(2):
        outcome = bench.run(3, ImageSource(), [scorer_handle(Half())])
        assert outcome.generation_failed == 1
        assert outcome.cost == 0, "existing images cost nothing"
    assert (outcome.generation_cached, outcome.score_cached, outcome.generated) == (2, 2, 0)
    assert bench.generations()["s1", 0].reason == "s1.png is missing"


def test_a_task_that_yields_other_samples_than_selected_is_rejected(tmp_path: Path) -> None:
    task, generator = NumberedTask(4), generator_handle(Plain())
    spec = spec_for(task, generator, [])
    wrong = spec.model_copy(update={"selection": spec.selection.model_copy(update={"kind": "limit", "hash": "0" * 12})})
    with RunStore.open(tmp_path / "run", wrong) as store, pytest.raises(ConfigError, match="yields other samples"):
        run(wrong, task, generator, [], store, quick())


def test_a_missing_key_ends_the_run_with_one_line(tmp_path: Path) -> None:
    class NeedsKey:
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            raise ConfigError("no key", where="judge", fix="set JUDGE_KEY")

    bench = Bench(tmp_path / "run")
    with pytest.raises(ConfigError, match="judge: no key; set JUDGE_KEY"):
        bench.run(5, Plain(), [scorer_handle(NeedsKey())])
    assert bench.generations(), "earlier generations stay"
    assert bench.scores() == {}


def test_a_missing_ground_truth_ends_the_run_with_one_line(tmp_path: Path) -> None:
    class Loses(NumberedTask):
        lost = False

        def truth(self, sample_id: str) -> GroundTruth:
            if self.lost and sample_id == "s70":
                raise DataError("has no ground truth", where=sample_id)
            self.lost = self.lost or sample_id == "s99"
            return super().truth(sample_id)

    task, generator = Loses(100), generator_handle(Plain())
    spec = spec_for(task, generator, [])
    with RunStore.open(tmp_path / "run", spec) as store, pytest.raises(DataError, match="s70: has no ground truth"):
        run(spec, task, generator, [], store, quick())
    assert Bench(tmp_path / "run").generations(), "earlier generations stay"


def test_other_calls_in_a_blocked_loop_are_retried(tmp_path: Path) -> None:
    class Blocks:
        concurrency = 32

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            if sample.id == "s30":
                time.sleep(3600)
            await asyncio.sleep(0.2)
            return score_of(sample, generation)

    outcome = Bench(tmp_path / "run").run(60, Plain(), [scorer_handle(Blocks, build=Blocks)], quick(score_timeout=1.0))
    assert (outcome.scored, outcome.score_failed) == (59, 1)


def test_a_run_works_outside_the_main_thread_and_inside_a_running_loop(tmp_path: Path) -> None:
    results: list[Any] = []

    def in_thread() -> None:
        results.append(Bench(tmp_path / "thread").run(3, Plain(), [scorer_handle(Half())]))

    async def in_loop() -> None:
        results.append(Bench(tmp_path / "loop").run(3, Plain(), [scorer_handle(Half())]))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    asyncio.run(in_loop())
    assert [outcome.scored for outcome in results] == [3, 3]


def test_a_configuration_error_of_a_plugin_ends_the_run(tmp_path: Path) -> None:
    def build() -> Any:
        raise ConfigError("no such weights", where="mine", fix="fetch them")

    with pytest.raises(ConfigError, match="mine: no such weights; fetch them"):
        Bench(tmp_path / "run").run(3, Plain(), [scorer_handle(Half(), build=build)], quick())


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    Bench(tmp_path / "run").run(1, Plain())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
