"""Every sample ends with a status and a helpful reason, however a generator misbehaves."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation, GenerationRequest, GenerationStatus
from knowgen.engine import ComponentRef, GeneratorHandle, RunOutcome, attempts
from knowgen.generators.contract import GeneratedImage
from tests.helpers.engine import Bench, Half, generator_handle, quick, scorer_handle

COUNT = 6


def handle(name: str) -> GeneratorHandle:
    kind = getattr(importlib.import_module("knowgen_hostile.generators"), name)
    component_ref = ComponentRef("generators", f"knowgen_hostile.generators:{name}")
    return generator_handle(kind, name=name, build=kind, component_ref=component_ref)


def generate(path: Path, name: str, **options: object) -> tuple[RunOutcome, dict[str, Generation]]:
    bench = Bench(path / "run")
    outcome = bench.run(
        COUNT, handle(name), [scorer_handle(Half())], quick(**{"timeout": 5.0, "workers": 0, **options})
    )
    generations = bench.generations()
    assert len(generations) == COUNT, "every sample ends in a state"
    assert all(row.strict.status == ("ok" if row.generation == "ok" else "not_run") for row in bench.rows())
    return outcome, {sample: generation for (sample, _), generation in generations.items()}


WRONG_ON_TWO = {
    "DropsOne": "returned no image for this request",
    "UnknownId": "unknown request 'not requested'",
    "YieldsJunk": "returned no image for this request",
    "BreaksBatch": "ValueError: out of memory, says the model",
    "GivesNone": "None",
    "GivesText": "cannot be read",
    "GivesDot": "1x1",
    "GivesGarbage": "unknown image format",
    "GivesMissingFile": "cannot be read",
    "GivesBomb": "3600000000 pixels",
    "Raises": "KeyError: 'no such layer'",
    "Exits": "sys.exit",
    "Interrupts": "KeyboardInterrupt",
    "Stops": "StopIteration: over",
    "NotesJunk": "not plain data",
    "ExitsInCoroutine": "sys.exit",
}


@pytest.mark.parametrize("name", WRONG_ON_TWO)
def test_an_error_on_one_sample_affects_no_other(hostile: Path, tmp_path: Path, name: str) -> None:
    outcome, generations = generate(tmp_path, name)
    assert generations["s2"].status is GenerationStatus.FAILED
    assert WRONG_ON_TWO[name] in generations["s2"].reason
    assert "\n" not in generations["s2"].reason
    assert all(generations[f"s{number}"].status is GenerationStatus.OK for number in (0, 1, 3, 4, 5))
    assert (outcome.generated, outcome.generation_failed, outcome.scored, outcome.stopped) == (5, 1, 5, "")


@pytest.mark.parametrize("name", ["DropsOne", "BreaksBatch", "GivesNone", "GivesDot", "Raises", "Exits", "NotesJunk"])
def test_the_result_is_the_same_in_a_worker_process(hostile: Path, tmp_path: Path, name: str) -> None:
    outcome, generations = generate(tmp_path, name, workers=1)
    assert generations["s2"].status is GenerationStatus.FAILED
    assert WRONG_ON_TWO[name] in generations["s2"].reason
    assert outcome.generated == COUNT - 1


def test_results_may_arrive_in_any_order(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "OutOfOrder")
    assert outcome.generated == COUNT
    assert len({generation.image.sha256 for generation in generations.values() if generation.image}) == COUNT


@pytest.mark.parametrize("workers", [0, 1])
def test_of_two_images_for_one_request_the_first_is_stored_with_a_note(
    hostile: Path, tmp_path: Path, workers: int
) -> None:
    _, generations = generate(tmp_path, "Twice", workers=workers)
    _, plain = generate(tmp_path / "plain", "OutOfOrder")
    assert "more than once" in generations["s2"].settings["note"]
    assert [name for name, generation in generations.items() if generation.settings] == ["s2"]
    assert generations["s2"].image is not None and plain["s2"].image is not None
    assert generations["s2"].image.sha256 == plain["s2"].image.sha256


def test_a_batch_method_that_returns_none_fails_every_request(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "ReturnsNothing")
    assert outcome.generation_failed == COUNT
    assert "NoneType" in generations["s0"].reason


def test_transparency_becomes_white(hostile: Path, tmp_path: Path) -> None:
    _, generations = generate(tmp_path, "Transparent")
    image = generations["s0"].image
    assert image is not None
    opened = image.open()
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


def test_a_refusal_is_stored_with_its_reason_and_not_retried(hostile: Path, tmp_path: Path) -> None:
    _, generations = generate(tmp_path, "Refuses")
    assert generations["s2"].status is GenerationStatus.REFUSED
    assert generations["s2"].reason == "I would rather not draw this"
    outcome, again = generate(tmp_path, "Refuses")
    assert (outcome.generated, outcome.generation_failed) == (0, 1)
    assert again["s2"].attempts == 1


def test_a_transient_error_is_retried(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT_SECONDS", 0.01)
    _, generations = generate(tmp_path, "Flaky")
    assert {name: generation.attempts for name, generation in generations.items()} == {
        "s0": 1, "s1": 1, "s2": 3, "s3": 1, "s4": 1, "s5": 1
    }  # fmt: skip
    assert generations["s2"].status is GenerationStatus.OK


def test_a_thread_that_hangs_is_left_behind_and_the_rest_is_generated(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "Hangs", timeout=0.5)
    assert generations["s2"].reason == "no image within 0.5 s"
    assert outcome.generated == COUNT - 1


def test_a_hang_in_a_batch_fails_only_the_requests_without_a_result(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "HangsInBatch", timeout=0.25)
    assert generations["s2"].reason == "no image within 0.25 s after the last one, with 2 missing in its batch"
    assert generations["s0"].status is generations["s1"].status is generations["s5"].status is GenerationStatus.OK
    assert outcome.generated == COUNT - 2


def test_a_coroutine_that_blocks_its_loop_fails_only_its_own_request(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "BlocksLoop", timeout=0.5)
    assert generations["s2"].reason == "no image within 0.5 s"
    assert outcome.generated == COUNT - 1


def test_after_three_hangs_a_generator_is_not_called_again(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "HangsAlways", timeout=0.2)
    reasons = [generation.reason for generation in generations.values()]
    assert reasons.count("no image within 0.2 s") == 3
    assert sum("hung 3 times" in reason for reason in reasons) == COUNT - 3
    assert outcome.generation_failed == COUNT


def test_a_worker_that_hangs_is_killed_and_another_continues(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "Hangs", timeout=1.0, workers=1)
    assert generations["s2"].reason == "no image within 1 s"
    assert outcome.generated == COUNT - 1


def test_a_worker_that_dies_is_replaced_and_its_request_tried_three_times(hostile: Path, tmp_path: Path) -> None:
    outcome, generations = generate(tmp_path, "Dies", workers=2)
    assert "was killed by SIGKILL" in generations["s2"].reason
    assert generations["s2"].attempts == 3
    assert outcome.generated == COUNT - 1


def test_the_output_of_a_worker_goes_to_its_log(
    hostile: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome, _ = generate(tmp_path, "Prints", workers=1)
    assert outcome.generated == COUNT
    assert capfd.readouterr() == ("", "")
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert log.read_text().count("raw noise") == COUNT


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_that_cannot_be_built_ends_the_run_with_one_line(
    hostile: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        Bench(tmp_path / "run").run(COUNT, handle("ExitsWhenBuilt"), [], quick(workers=workers))
    line = "generator 'ExitsWhenBuilt': broke while it was built: SystemExit: no licence (generators.py:"
    assert str(caught.value).startswith(line)
    assert workers or not (tmp_path / "run").exists(), "nothing was made and nothing logged"


def test_any_mode_of_pillow_is_stored_as_rgb(tmp_path: Path) -> None:
    class Modes:
        modes = ("1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "I;16", "F", "RGBX", "LAB")

        def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
            return Image.new(self.modes[int(prompt.rsplit(maxsplit=1)[-1].strip("."))], (20, 20))

    bench = Bench(tmp_path / "run")
    assert bench.run(len(Modes.modes), Modes()).generated == len(Modes.modes)
    for generation in bench.generations().values():
        assert generation.image is not None and generation.image.open().mode == "RGB"


class StrangeNotes:
    """Returns metadata of types that a generation cannot store."""

    batch_size = 2

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            yield GeneratedImage(image=noise_image(request.id), request_id=request.id, references=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_metadata_of_a_wrong_type_fails_its_own_generation(tmp_path: Path, workers: int) -> None:
    component_ref = ComponentRef("generators", "tests.engine.test_hostile_generators:StrangeNotes")
    bench = Bench(tmp_path / "run")
    bench.run(
        2, generator_handle(StrangeNotes(), component_ref=component_ref), options=quick(workers=workers, timeout=30)
    )
    for generation in bench.generations().values():
        assert generation.status == "failed" and "references" in generation.reason


@pytest.mark.parametrize("name", [5, ["x"], None])
def test_a_request_id_that_is_not_text_is_reported_as_unknown(tmp_path: Path, name: object) -> None:
    class Misnames:
        batch_size = 2

        def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
            yield GeneratedImage(image=noise_image("x"), request_id=name)  # type: ignore[arg-type]

    bench = Bench(tmp_path / "run")
    bench.run(2, Misnames())
    for generation in bench.generations().values():
        assert generation.status == "failed" and "returned no image for this request" in generation.reason
