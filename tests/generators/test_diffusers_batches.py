"""Batches of `diffusers:` that pay: the fastest size, images handed on during the next pass, prompts encoded once."""

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
from knowgen.generators.diffusers.prompt_encoding import JOINING, PromptEncoder, keep_prompts
from knowgen.local_models.device_memory import DeviceMemory
from knowgen.workflows.resolve import resolve_generator
from tests.generators.test_diffusers import PROMPTS, SMALL, TOLERANCE, generate, load_generator, pixels, requests
from tests.helpers import tiny_pipelines

WAIT_SECONDS = 60.0
"""Time after which something that waits for an event has failed."""


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_pipelines.sd3(tmp_path_factory.mktemp("tiny") / "sd3"))


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


# --- prompts ---------------------------------------------------------------------------------------------------------

FOLDERS = {
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "Flux2KleinPipeline": "flux2_klein",
    "QwenImagePipeline": "qwen_image",
}
SAME_ENCODER = {"StableDiffusion3Img2ImgPipeline": "StableDiffusion3Pipeline", "FluxKontextPipeline": "FluxPipeline"}
"""Classes that encode prompts as another one does, and take the text of a batch with references."""


def test_every_class_whose_prompts_are_kept_is_tested() -> None:
    import diffusers

    assert set(JOINING) == {*FOLDERS, *SAME_ENCODER}
    for name, other in SAME_ENCODER.items():
        methods = [getattr(diffusers, each).encode_prompt.__code__ for each in (name, other)]
        assert methods[0].co_code == methods[1].co_code and JOINING[name] == JOINING[other]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return tiny_pipelines.builder(tmp_path_factory.mktemp("kept"))


def without_kept_prompts(generator: DiffusersGenerator, *, encodes_itself: bool = False) -> DiffusersGenerator:
    """Return a generator that keeps no prompts, or whose pipeline encodes its batches as it does by itself."""
    pipe = generator._runner._pipelines["text"].pipe  # type: ignore[union-attr]
    del pipe.encode_prompt
    if not encodes_itself:
        assert keep_prompts(pipe, most_bytes=0) is not None
    return generator


@pytest.mark.parametrize("name", FOLDERS)
def test_an_image_is_the_same_whether_its_prompt_was_kept_or_not(folders: Callable[[str], str], name: str) -> None:
    """Images alone equal those of the library's own encoder in every bit, batches those without kept prompts."""
    settings = (
        {**SMALL, "negative_prompt": "fog"} if name in {"StableDiffusion3Pipeline", "QwenImagePipeline"} else SMALL
    )
    made = {batch: load_generator(folders(FOLDERS[name]), batch=batch, **settings) for batch in (1, 4)}
    repeated = [
        request.model_copy(update={"id": f"{request.id}-{seed}", "seed": seed})
        for request in requests(["a lamp", "a longer prompt about a lamp", "a lamp"])
        for seed in (3, 4)
    ]
    kept = {batch: generate(generator, repeated) for batch, generator in made.items()}
    encoder = made[1]._runner._pipelines["text"].pipe.encode_prompt  # type: ignore[union-attr]
    assert isinstance(encoder, PromptEncoder) and encoder.reused >= 4
    distinct = encoder.encoded
    assert distinct == 2 + (name == "QwenImagePipeline"), "each text was encoded once, the negative prompt included"
    alone = generate(without_kept_prompts(made[1], encodes_itself=True), repeated)
    unkept = generate(without_kept_prompts(made[4]), repeated)
    itself = generate(without_kept_prompts(made[4], encodes_itself=True), repeated)
    for id in alone:
        assert pixels(alone[id]).tobytes() == pixels(kept[1][id]).tobytes()
        assert pixels(unkept[id]).tobytes() == pixels(kept[4][id]).tobytes()
        assert abs(pixels(itself[id]) - pixels(kept[4][id])).max() <= TOLERANCE
    assert pixels(alone["r0-3"]).tobytes() != pixels(alone["r0-4"]).tobytes()


def test_kept_prompts_are_bounded() -> None:
    import torch

    def encode(prompt: str, length: int = 4) -> tuple[Any, ...]:
        calls.append(prompt)
        return torch.zeros((1, length, 2)), torch.zeros((length, 3)), None

    calls: list[str] = []
    encoder = PromptEncoder(encode, "rows", most_bytes=3 * 4 * (8 + 12))
    for prompts in (["a", "b", "a"], ["a", "c"], ["d"], ["a"], ["b"]):
        embeddings, positions, nothing = encoder(prompts)
        assert (embeddings.shape, positions.shape, nothing) == ((len(prompts), 4, 2), (4, 3), None)
    assert calls == ["a", "b", "c", "d", "b"], "the prompt that was not used for longest made room"
    encoder.clear()
    encoder(["a"])
    assert calls[-1] == "a"


def test_what_is_not_plain_text_is_encoded_by_the_pipeline_itself() -> None:
    import torch

    seen: list[Any] = []

    def encode(prompt: Any, prompt_embeds: Any = None) -> tuple[Any, ...]:
        seen.append(prompt)
        return (torch.zeros((len(prompt), len(prompt[0]), 2)),)

    encoder = PromptEncoder(encode, "rows")
    assert encoder(["ab", "cd"], prompt_embeds=torch.zeros(1))[0].shape == (2, 2, 2)
    assert seen == [["ab", "cd"]]
    seen.clear()
    assert encoder(["ab", "abc"])[0].shape == (2, 2, 2), "prompts of different lengths cannot be rows of one tensor"
    assert seen == ["ab", "abc", ["ab", "abc"]]


def test_prompts_of_like_length_share_a_batch_where_padding_costs(folders: Callable[[str], str], sd3: str) -> None:
    long, short = "a long prompt about a tower by the sea ", "a lamp "
    prompts = [words + str(number) for number in range(3) for words in (long, short)]
    padded = load_generator(folders("qwen_image"), batch=3, **SMALL)
    made = passes_of(padded)
    results = generate(padded, requests(prompts))
    assert [sorted(each) for each in made] == [[long + str(n) for n in range(3)], [short + str(n) for n in range(3)]]
    in_order = without_kept_prompts(load_generator(folders("qwen_image"), batch=1, **SMALL))
    for request in requests(prompts):
        alone = generate(in_order, [request])[request.id]
        assert abs(pixels(alone) - pixels(results[request.id])).max() <= TOLERANCE, "the order changes no image"
    fixed = load_generator(sd3, batch=3, **SMALL)
    made = passes_of(fixed)
    generate(fixed, requests(prompts))
    assert made == [prompts[:3], prompts[3:]], "where all prompts have one length the order is kept"


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
