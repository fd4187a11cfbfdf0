"""Prompts of `diffusers:`: each is encoded once, and those of like length share a batch where padding costs time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.placement import denoiser_of
from knowgen.generators.diffusers.presets import known_traits, pipeline_traits
from knowgen.generators.diffusers.prompt_encoding import JOINING, PromptEncoder, keep_prompts, text_length
from tests.generators.test_diffusers import SMALL, TOLERANCE, generate, load_generator, pixels, requests
from tests.generators.test_diffusers_batches import passes_of
from tests.generators.test_diffusers_classes import TEXT_CLASSES, drawn_at_once, largest, loaded

SAME_ENCODER = {
    "Flux2KleinKVPipeline": "Flux2KleinPipeline",
    "FluxKontextPipeline": "FluxPipeline",
    "QwenImageImg2ImgPipeline": "QwenImagePipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Pipeline",
}
"""Classes that encode prompts as another one does, and are not drawn with here."""

ENCODE_THEMSELVES = {
    "BriaFibo2Pipeline",
    "BriaPipeline",
    "CogView3PlusPipeline",
    "DreamLiteMobilePipeline",
    "DreamLitePipeline",
    "Ideogram4Pipeline",
    "OmniGenPipeline",
    "PRXPixelPipeline",
}
"""Classes whose prompts are not kept: how theirs would be joined is not known."""

NOT_COUNTED = {"BriaFibo2Pipeline"}
"""Classes at which the counter of operations of torch fails."""

FAST = {"CogView4Pipeline", "QwenImagePipeline", "StableDiffusion3Pipeline", "ZImagePipeline"}
"""Classes that every run of the tests draws with: each joins what it encodes in another way."""

GUIDED: dict[str, dict[str, Any]] = {
    name: {"negative_prompt": "fog"} for name in ("QwenImagePipeline", "StableDiffusion3Pipeline")
}
SHORT, LONG = "a lamp", "a longer prompt about a lamp that stands on a table by the sea, with a red boat in the fog"


def each_class(without: set[str]) -> list[Any]:
    names = [name for name in TEXT_CLASSES if name not in without]
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in names]


def pipe_of(generator: DiffusersGenerator) -> Any:
    return generator._runner._pipelines["text"].pipe  # type: ignore[union-attr]


# --- prompts that are kept -------------------------------------------------------------------------------------------


def test_every_class_that_draws_without_references_keeps_its_prompts() -> None:
    import diffusers

    assert set(JOINING) == {*TEXT_CLASSES, *SAME_ENCODER} - ENCODE_THEMSELVES
    for name, other in SAME_ENCODER.items():
        methods = [getattr(diffusers, each).encode_prompt.__code__ for each in (name, other)]
        assert methods[0].co_code == methods[1].co_code and JOINING[name] == JOINING[other]
    assert all(
        (JOINING[name] == "alone") == (pipeline_traits(name).batch != "text")
        for name in set(JOINING) & set(TEXT_CLASSES)
    )


@pytest.mark.parametrize("name", each_class(ENCODE_THEMSELVES))
def test_an_image_is_the_same_whether_its_prompt_was_kept_or_not(tiny_class: Callable[[str], str], name: str) -> None:
    """Images alone equal those of the library's own encoder in every bit, those of a batch up to rounding."""
    generator = loaded(tiny_class(name), name, **GUIDED.get(name, {}))
    prompts, seeds = [SHORT, LONG, SHORT], [3, 4, 5]
    batches = pipeline_traits(name).batch == "text"

    def alone() -> list[Any]:
        return [drawn_at_once(generator, [seed], [prompt])[0] for seed, prompt in zip(seeds, prompts, strict=True)]

    first, kept = alone(), alone()
    encoder = pipe_of(generator).encode_prompt
    assert isinstance(encoder, PromptEncoder)
    assert encoder.encoded in (2, 3), "each text was encoded once, a negative prompt apart or with its prompt"
    assert encoder.reused >= 4
    batch = drawn_at_once(generator, seeds, prompts) if batches else []
    del pipe_of(generator).encode_prompt
    itself = alone()
    for one, other, library in zip(first, kept, itself, strict=True):
        assert one.tobytes() == other.tobytes() == library.tobytes()
    assert largest(first[0], first[1]) > TOLERANCE < largest(first[0], first[2])
    if batches:
        assert max(map(largest, batch, drawn_at_once(generator, seeds, prompts))) <= TOLERANCE


def test_lists_that_are_no_prompts_are_the_same_for_each() -> None:
    """SANA is given instructions as a list, which may be as long as the batch."""
    import torch

    seen: list[Any] = []

    def encode(prompt: Any, complex_human_instruction: Any = None, batch_size: int = 1) -> tuple[Any, ...]:
        seen.append((prompt, complex_human_instruction, batch_size))
        return (torch.full((1, 2, 2), float(len(prompt))), None)

    encoder = PromptEncoder(encode, "rows")
    joined, nothing = encoder(["ab", "cde"], complex_human_instruction=["one", "two"], batch_size=2)
    assert seen == [("ab", ["one", "two"], 1), ("cde", ["one", "two"], 1)]
    assert joined[:, 0, 0].tolist() == [2.0, 3.0] and nothing is None
    encoder(["ab"], complex_human_instruction=["other"], batch_size=1)
    assert len(seen) == 3, "other instructions give other embeddings"


def test_what_is_kept_is_not_what_a_pipeline_may_change() -> None:
    import torch

    encoder = PromptEncoder(lambda prompt: ([torch.zeros(2)], torch.zeros((1, 2)), None), "padded")
    for _ in range(2):
        listed, row, _ = encoder(["a"])
        assert not listed[0].any() and not row.any()
        listed[0] += 1
        row += 1
    assert encoder.encoded == 1


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


# --- prompts of like length ------------------------------------------------------------------------------------------


def operations(generator: DiffusersGenerator, prompts: Sequence[str]) -> int:
    """Return how many floating point operations the denoiser needs for a batch."""
    from torch.utils.flop_counter import FlopCounterMode

    denoiser = denoiser_of(pipe_of(generator))
    original, total = denoiser.forward, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            result = original(*args, **kwargs)
        total += counter.get_total_flops()
        return result

    denoiser.forward = counted
    try:
        drawn_at_once(generator, range(len(prompts)), prompts)
    finally:
        denoiser.forward = original
    return total


@pytest.mark.parametrize(
    "name", [each for each in each_class(NOT_COUNTED) if pipeline_traits(each.values[0]).batch == "text"]
)
def test_a_batch_takes_as_long_as_its_longest_prompt_only_where_the_facts_say_so(
    tiny_class: Callable[[str], str], name: str
) -> None:
    generator = loaded(tiny_class(name), name)
    short, mixed, long = (operations(generator, prompts) for prompts in ([SHORT] * 2, [SHORT, LONG], [LONG] * 2))
    lengths = [text_length(pipe_of(generator), prompt) for prompt in (SHORT, LONG)]
    if pipeline_traits(name).padded:
        assert short < mixed and mixed == pytest.approx(long, rel=0.01)
        assert 0 < lengths[0] < lengths[1]
    else:
        assert short == mixed == long > 0
        assert lengths == [0, 0]


def test_every_class_of_which_this_is_said_is_measured() -> None:
    assert {name for name, traits in known_traits().items() if traits.padded} <= set(TEXT_CLASSES)


def test_prompts_of_like_length_share_a_batch_where_padding_costs(tiny_class: Callable[[str], str]) -> None:
    long, short = "a long prompt about a tower by the sea ", "a lamp "
    prompts = [words + str(number) for number in range(3) for words in (long, short)]
    padded = load_generator(tiny_class("QwenImagePipeline"), batch=3, **SMALL)
    made = passes_of(padded)
    results = generate(padded, requests(prompts))
    assert [sorted(each) for each in made] == [[long + str(n) for n in range(3)], [short + str(n) for n in range(3)]]
    in_order = load_generator(tiny_class("QwenImagePipeline"), batch=1, **SMALL)
    del pipe_of(in_order).encode_prompt
    assert keep_prompts(pipe_of(in_order), most_bytes=0) is not None
    for request in requests(prompts):
        alone = generate(in_order, [request])[request.id]
        assert abs(pixels(alone) - pixels(results[request.id])).max() <= TOLERANCE, "the order changes no image"
    fixed = load_generator(tiny_class("StableDiffusion3Pipeline"), batch=3, **SMALL)
    made = passes_of(fixed)
    generate(fixed, requests(prompts))
    assert made == [prompts[:3], prompts[3:]], "where all prompts have one length the order is kept"
