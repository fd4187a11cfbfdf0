"""A repeated run does only what is missing, and counts attempts over all runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.setting import noise_image
from knowgen.core.errors import DataError
from knowgen.core.records import (
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.generators.contract import GeneratedImage
from knowgen.store.run import RunStore
from tests.helpers.engine import (
    Bench,
    Half,
    Plain,
    ScoreServer,
    generator_handle,
    loopback_handle,
    quick,
    score_of,
    scorer_handle,
)


def never() -> Any:
    raise AssertionError("nothing is missing, so nothing may be built")


def test_a_finished_run_repeated_builds_no_plugin(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(5, Plain(), [scorer_handle(Half())])
    before = (bench.generations(), bench.scores())
    again = bench.run(5, generator_handle(Plain(), build=never), [scorer_handle(Half(), build=never)])
    assert again.all_cached
    assert (again.expected, again.generation_cached, again.score_cached) == (5, 5, 5)
    assert (bench.generations(), bench.scores()) == before


def test_more_samples_repeats_and_scorers_in_the_same_directory_add_only_what_is_missing(tmp_path: Path) -> None:
    generated: list[str] = []

    class Counts:
        def draw(self, prompt: str, references: object, seed: int) -> object:
            generated.append(f"{prompt} {seed}")
            return noise_image(f"{prompt} {seed}")

    bench = Bench(tmp_path / "run")
    bench.run(3, generator_handle(Counts()), [scorer_handle(Half())])
    bench.run(5, generator_handle(Counts()), [scorer_handle(Half())], repeats=2)
    assert len(generated) == len(set(generated)) == 10
    outcome = bench.run(
        5, generator_handle(Counts(), build=never), [scorer_handle(Half()), scorer_handle(Half(), name="b")], repeats=2
    )
    assert (outcome.generation_cached, outcome.score_cached, outcome.scored) == (10, 10, 10)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_image_behind_a_committed_row_is_generated_again(tmp_path: Path, damage: str) -> None:
    bench = Bench(tmp_path / "run")
    bench.run(4, Plain(), [scorer_handle(Half())])
    image = bench.generations()["s2", 0].image
    assert image is not None and image.path is not None
    whole = image.path.read_bytes()
    if damage == "truncate":
        image.path.write_bytes(whole[:100])
    else:
        image.path.unlink()
    outcome = bench.run(4, Plain(), [scorer_handle(Half(), build=never)])
    assert (outcome.generated, outcome.generation_cached) == (1, 3)
    assert (outcome.scored, outcome.score_cached) == (0, 4), "the same image was scored before"
    assert image.path.read_bytes() == whole


class Unsteady:
    """Raises on one sample until it is switched off."""

    broken = True

    def draw(self, prompt: str, references: object, seed: int) -> object:
        if self.broken and "number 1." in prompt:
            raise RuntimeError("out of memory")
        return noise_image(prompt)


def test_a_failed_generation_is_retried_by_later_runs_until_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    generator = Unsteady()
    for run in (1, 2, 3):
        assert bench.run(3, generator, options=quick(max_attempts=3)).generation_failed == 1
        assert bench.generations()["s1", 0].attempts == run
    outcome = bench.run(3, generator_handle(generator, build=never), options=quick(max_attempts=3))
    assert outcome.generation_failed == 1
    assert bench.generations()["s1", 0].reason.startswith("RuntimeError: out of memory (test_resume.py:")
    generator.broken = False
    assert bench.run(3, generator, options=quick(max_attempts=4)).generated == 1
    assert bench.generations()["s1", 0].attempts == 4


def test_a_failed_score_keeps_its_earlier_attempts_in_front(tmp_path: Path) -> None:
    with ScoreServer(answer=lambda name, call: (503 if name == "s1" and call < 4 else 200, {"value": 0.25})) as server:
        bench = Bench(tmp_path / "run")
        assert bench.run(2, Plain(), [loopback_handle(server.url)], quick(tries=2)).score_failed == 1
        failed = bench.scores()["s1", 0, "judge", 0]
        assert (failed.status, failed.tries) == (ScoreStatus.FAILED, 2)
        assert bench.run(2, Plain(), [loopback_handle(server.url)], quick(tries=2)).scored == 1
        score = bench.scores()["s1", 0, "judge", 0]
    assert (score.status, score.tries) == (ScoreStatus.OK, 4)
    assert [attempt.error for attempt in score.attempts] == ["the judge answered 503"] * 3
    assert score.strict.values["faithfulness"] == 0.25


def test_a_scoring_pass_does_not_retry_failed_generations(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    outcome = bench.run(3, Unsteady(), [scorer_handle(Half())], quick(schedule="phased"))
    assert (outcome.generated, outcome.generation_failed, outcome.scored) == (2, 1, 2)
    assert bench.generations()["s1", 0].attempts == 1
    assert bench.generations()["s1", 0].status is GenerationStatus.FAILED


def test_a_full_disk_stops_the_run_with_one_error_and_stored_results_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = RunStore.put_image
    count = 0

    def full(self: RunStore, data: bytes, **size: Any) -> object:
        nonlocal count
        count += 1
        if count > 5:
            raise DataError("the disk is full", where=str(tmp_path), fix="free some space")
        return put(self, data, **size)

    monkeypatch.setattr(RunStore, "put_image", full)
    bench = Bench(tmp_path / "run")
    with pytest.raises(DataError, match="the disk is full; free some space"):
        bench.run(50, Plain(), [scorer_handle(Half())])
    assert all(generation.status is GenerationStatus.OK for generation in bench.generations().values())
    monkeypatch.undo()
    outcome = bench.run(50, Plain(), [scorer_handle(Half())])
    assert outcome.generated + outcome.generation_cached == 50
    assert outcome.generation_cached >= 1


def test_a_changed_truth_is_scored_again_and_a_changed_prompt_generated_again(tmp_path: Path) -> None:
    from benchmarks.setting import NumberedTask
    from knowgen.engine import run
    from tests.helpers.engine import spec_for

    class Changed(NumberedTask):
        word = "old"
        prompt = "Draw"

        def truth(self, sample_id: str) -> GroundTruth:
            return GroundTruth(sample_id=sample_id, required_text=(self.word,))

        def samples(self) -> Any:
            yield Sample(id="s0", prompt=self.prompt, category="art")

    task, generator, scorer = Changed(1), generator_handle(Plain()), scorer_handle(Half())

    def outcome() -> tuple[int, int]:
        spec = spec_for(task, generator, [scorer])
        with RunStore.open(tmp_path / "run", spec) as store:
            result = run(spec, task, generator, [scorer], store, quick())
        return result.generated, result.scored

    assert outcome() == (1, 1)
    assert outcome() == (0, 0)
    task.word = "new"
    assert outcome() == (0, 1)
    task.prompt = "Draw better"
    assert outcome() == (1, 1)


def test_scores_of_one_run_are_scores_of_the_image_they_name(tmp_path: Path) -> None:
    class ByDigest:
        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            from tests.helpers.engine import score_of

            assert generation.image is not None and generation.image.path is not None
            assert generation.image.path.is_file()
            return score_of(sample, generation, int(generation.image.sha256[:4], 16) / 0xFFFF)

    bench = Bench(tmp_path / "run")
    bench.run(10, Plain(), [scorer_handle(ByDigest())], repeats=2)
    for score in bench.scores().values():
        assert score.strict.values["aesthetics"] == int(score.image[:4], 16) / 0xFFFF


def test_a_scorer_that_reads_evidence_scores_again_when_that_changes(tmp_path: Path) -> None:
    class Agent:
        text = "one"

        async def generate(self, request: GenerationRequest) -> GeneratedImage:
            return GeneratedImage(image=noise_image("the same"), evidence=({"text": Agent.text},))

    class Reads:
        needs = frozenset({"image", "evidence"})

        async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Score:
            return score_of(sample, generation, 1.0 if generation.evidence[0]["text"] == "one" else 0.0)

    bench = Bench(tmp_path / "run")
    for text, value in (("one", 1.0), ("two", 0.0)):
        Agent.text = text
        bench.run(1, Agent(), [scorer_handle(Reads())])
        assert bench.rows()[0].strict.values["faithfulness"] == value
        next((tmp_path / "run" / "images").rglob("*.png")).unlink()
