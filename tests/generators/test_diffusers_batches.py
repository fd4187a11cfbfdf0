"""Batches of `diffusers:` that pay: the fastest size, images handed on during the next pass, decoding in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers import generation
from knowgen.generators.diffusers.decoding import BatchDecoder, watch_decoding
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.local_models.device_memory import DeviceMemory
from knowgen.workflows.resolve import resolve_generator
from tests.generators.test_diffusers import PROMPTS, SMALL, TOLERANCE, generate, load_generator, pixels, requests
from tests.helpers import tiny_pipelines

WAIT_SECONDS = 60.0
"""Time after which something that waits for an event has failed."""


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_pipelines.sd3(tmp_path_factory.mktemp("tiny") / "sd3"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return tiny_pipelines.builder(tmp_path_factory.mktemp("more"))


def passes_of(generator: DiffusersGenerator) -> list[list[str]]:
    """Return a list to which the prompts of each pass of the text-to-image pipeline are appended."""
    pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
    made, original = list[list[str]](), pipeline.generate

    def watched(prompts: Sequence[str], *rest: Any) -> Any:
        made.append(list(prompts))
        return original(prompts, *rest)

    pipeline.generate = watched  # type: ignore[method-assign]
    return made


# --- the size of a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "sizes"), [({1: 1.0, 2: 3.0}, [1, 1, 2, 2, 1, 1]), ({}, [1, 1, 2, 4])])
def test_the_fastest_batches_are_kept_and_recorded(
    sd3: str, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], sizes: list[int]
) -> None:
    generator = load_generator(sd3, **SMALL)
    made = passes_of(generator)

    def now() -> float:
        return sum(seconds.get(len(prompts), 1.0) for prompts in made)

    monkeypatch.setattr(generation, "time", SimpleNamespace(perf_counter=now))
    batch = requests([f"prompt {number}" for number in range(8)])
    results = generate(generator, batch)
    assert [len(prompts) for prompts in made] == sizes
    recorded = results["r7"].settings
    assert recorded["batch"] == sizes[-1]
    assert recorded["batch_seconds"] == ({"1": 1.0, "2": 1.5} if seconds else {"1": 1.0, "2": 0.5, "4": 0.25})


# --- images are handed on beside the next pass -----------------------------------------------------------------------


def test_images_are_handed_on_while_the_next_pass_runs(sd3: str) -> None:
    """The second pass ends only when the images of the first have been taken: in one thread it would wait for ever."""
    generator = load_generator(sd3, batch=2, **SMALL)
    pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
    started = [threading.Event() for _ in range(4)]
    taken = threading.Event()
    original, passes = pipeline.generate, iter(started)

    def slow(prompts: Sequence[str], *rest: Any) -> Any:
        number = started.index(event := next(passes))
        event.set()
        assert number != 1 or taken.wait(WAIT_SECONDS)
        return original(prompts, *rest)

    pipeline.generate = slow  # type: ignore[method-assign]

    def take() -> Iterator[GeneratedImage]:
        results = generator.generate_batch(requests([f"prompt {number}" for number in range(8)]))
        first = [next(results), next(results)]
        assert started[1].wait(WAIT_SECONDS) and not started[2].is_set()
        taken.set()
        yield from first
        third = next(results)
        assert started[2].wait(WAIT_SECONDS)
        assert not started[3].is_set(), "no third pass starts while images of the second are waiting"
        yield third
        yield from results

    with ThreadPoolExecutor(1) as pool:  # so that a generator that waits for itself fails the test
        results = pool.submit(lambda: list(take())).result(2 * WAIT_SECONDS)
    assert sorted(result.request_id for result in results) == [f"r{number}" for number in range(8)]


def test_a_generator_can_be_closed_and_used_again(sd3: str) -> None:
    generator = load_generator(sd3, batch=2, **SMALL)
    results = generator.generate_batch(requests(PROMPTS))
    next(results)
    results.close()  # type: ignore[attr-defined]
    generator.close()
    generator.close()
    assert len(generate(generator, requests(PROMPTS))) == len(PROMPTS)


# --- decoding --------------------------------------------------------------------------------------------------------


class CardLibrary:
    """Stands for `torch.cuda` with a card of 1000 bytes, of which a decoded image takes 100."""

    def __init__(self, used: int) -> None:
        self.used, self.highest = used, used

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 1000 - self.used, 1000

    def memory_reserved(self, device: str) -> int:
        return self.used

    memory_allocated = memory_reserved

    def max_memory_allocated(self, device: str) -> int:
        return self.highest

    def reset_peak_memory_stats(self, device: str) -> None:
        self.highest = self.used


class CardVae:
    """A VAE on that card; `decoded` are the numbers of images that it decoded at once."""

    def __init__(self, card: CardLibrary) -> None:
        self.card, self.use_slicing, self.decoded = card, False, list[int]()

    def enable_slicing(self) -> None:
        self.use_slicing = True

    def disable_slicing(self) -> None:
        self.use_slicing = False

    def decode(self, latents: Any, return_dict: bool = True) -> str:
        import torch

        at_once = 1 if self.use_slicing else latents.shape[0]
        if self.card.used + 100 * at_once > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.decoded.append(at_once)
        self.card.highest = max(self.card.highest, self.card.used + 100 * at_once)
        return "images"


def decoder_on(card: CardLibrary, vae: CardVae, *, known: bool = True) -> BatchDecoder:
    decoder = watch_decoding(SimpleNamespace(vae=vae), DeviceMemory("cuda:7", card) if known else None)
    assert isinstance(decoder, BatchDecoder) and watch_decoding(SimpleNamespace(vae=vae), None) is decoder
    return decoder


def latents(count: int, side: int = 2) -> Any:
    import torch

    return torch.zeros((count, 4, side, side))


def test_a_batch_is_decoded_one_by_one_where_it_takes_more_than_is_free() -> None:
    card = CardLibrary(used=500)
    vae = CardVae(card)
    decoder = decoder_on(card, vae)
    for count, sliced, at_once in ((1, False, 1), (4, False, 4), (6, True, 1), (5, False, 5)):
        assert vae.decode(latents(count)) == "images"
        assert (decoder.sliced, vae.decoded[-1], vae.use_slicing) == (sliced, at_once, False)
    card.used = 700
    vae.decode(latents(4), return_dict=False)
    assert decoder.sliced and vae.decoded[-1] == 1
    memory = DeviceMemory("cuda:7", card)
    assert memory.peak == 1000, "measuring a decoder does not lower the peak of the process"


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_whose_decoding_runs_out_of_memory_is_decoded_again_one_by_one(known: bool) -> None:
    card = CardLibrary(used=850)
    vae = CardVae(card)
    decoder = decoder_on(card, vae, known=known)
    assert vae.decode(latents(8)) == "images"
    assert decoder.sliced and vae.decoded == [1]
    card.used = 950
    with pytest.raises(RuntimeError, match="out of memory"):
        vae.decode(latents(8))
    assert not vae.use_slicing


def test_a_sliced_batch_is_recorded_and_its_images_are_those_of_a_whole_one(sd3: str) -> None:
    import torch

    whole, sliced = (load_generator(sd3, batch=4, **SMALL) for _ in range(2))
    vae = sliced._runner._pipelines["text"].pipe.vae  # type: ignore[union-attr]
    decoder = vae.decode
    original = decoder._decode

    def full(latents: Any, *args: Any, **kwargs: Any) -> Any:
        if latents.shape[0] > 1 and not vae.use_slicing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return original(latents, *args, **kwargs)

    decoder._decode = full
    first, second = (generate(each, requests(PROMPTS[:4])) for each in (whole, sliced))
    assert [result.settings.get("slicing") for result in second.values()] == ["auto"] * 4
    assert {result.settings["batch"] for result in second.values()} == {4}
    assert all("slicing" not in result.settings for result in first.values())
    assert all(abs(pixels(first[id]) - pixels(second[id])).max() <= TOLERANCE for id in first)


# --- identity --------------------------------------------------------------------------------------------------------


def spec_of(model: str, **arguments: Any) -> Any:
    from knowgen.tasks.load import load_task

    handle = resolve_generator(f"diffusers:{model}", arguments, load_task("knowgen_mini"))
    return handle.spec, handle.capabilities.batch_size


def test_the_batch_is_part_of_the_identity_except_in_float32(sd3: str) -> None:
    """What a batch changes in float32 is rounding; the format that a device chooses is not known before a run."""
    default = spec_of(sd3)[0]
    assert spec_of(sd3, batch="auto")[0] == default
    assert spec_of(sd3, batch=1)[0] != default
    assert spec_of(sd3, batch=1, dtype="bfloat16")[0] != spec_of(sd3, batch=8, dtype="bfloat16")[0]
    assert spec_of(sd3, batch=1, dtype="float32")[0] == spec_of(sd3, dtype="float32")[0]


def test_a_call_has_room_for_a_batch(sd3: str) -> None:
    assert [spec_of(sd3, **given)[1] for given in ({}, {"batch": 4}, {"batch": 24})] == [16, 16, 24]


def test_in_bfloat16_a_batch_changes_an_image_by_more_than_rounding(folders: Callable[[str], str]) -> None:
    """Which is why a batch that is set is part of the identity there: with `batch=1` an image is repeated exactly."""
    folder, settings = folders("flux2_klein"), {"size": "64x64", "steps": 4, "dtype": "bfloat16"}
    alone, four = (load_generator(folder, batch=batch, **settings) for batch in (1, 4))
    batch: list[GenerationRequest] = requests(PROMPTS[:4])
    images, again, batched = generate(alone, batch), generate(alone, batch[::-1]), generate(four, batch)
    assert {result.settings["batch"] for result in batched.values()} == {4}
    assert all(pixels(images[id]).tobytes() == pixels(again[id]).tobytes() for id in images)
    assert max(abs(pixels(images[id]) - pixels(batched[id])).max() for id in images) > TOLERANCE
