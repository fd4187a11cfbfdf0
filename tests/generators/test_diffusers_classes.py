"""Presets and facts about classes, held against the real classes: tiny pipelines with random weights draw with each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowgen.core.errors import MissingDependencyError
from knowgen.core.records import GenerationRequest
from knowgen.generators.diffusers import presets as presets_module
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.pipeline import to_image
from knowgen.generators.diffusers.presets import (
    Preset,
    edit_settings,
    known_traits,
    pipeline_traits,
    preset,
    presets,
)
from tests.generators.test_diffusers import generate, max_difference, reference, requests
from tests.generators.test_diffusers_batches import passes_of
from tests.helpers import tiny_classes

TOLERANCE = 1
"""Maximum difference of pixel values (0-255) by float32 rounding between batches. Measured: 0 or 1."""

VISIBLE = 3
"""Minimum difference of pixel values by which a tiny pipeline's image must follow its prompt and its reference."""

SIDES = (96, 64)
"""Size of reference images; FLUX.2 refuses those with a side under 64 pixels."""

PROMPTS = ['a lamp "on"', "a much longer prompt about a tower by the sea with fourteen windows", "x"]

EXACT_SIZE: dict[str, Any] = {"arguments": {"use_resolution_binning": False}}
"""Otherwise the class draws at a size that its model was trained on, and resizes."""

SETTINGS: dict[str, dict[str, Any]] = {
    "Ideogram4Pipeline": {"guidance": 7.0, "arguments": {"max_sequence_length": 128}},
    "LongCatImageEditPipeline": {"size": "", "arguments": {}},
    "LongCatImagePipeline": {"arguments": {"enable_prompt_rewrite": False}},
    "PRXPipeline": EXACT_SIZE,
    "PRXPixelPipeline": EXACT_SIZE,
    "PixArtSigmaPipeline": EXACT_SIZE,
    "SanaPipeline": EXACT_SIZE,
    "SanaSprintPipeline": EXACT_SIZE,
}

FAST = ["CogView4Pipeline", "Flux2KleinPipeline", "ZImageOmniPipeline"]
"""Classes that every run of the tests draws with: one that depends on its batch, one that does not, both kinds of
references."""

REFERENCES = [
    "BriaFibo2Pipeline",
    "DreamLiteMobilePipeline",
    "DreamLitePipeline",
    "Flux2KleinKVPipeline",
    "JoyImageEditPipeline",
    "JoyImageEditPlusPipeline",
    "Kandinsky5I2IPipeline",
    "OmniGenPipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "FluxKontextPipeline",
    "GlmImagePipeline",
    "QwenImage21Pipeline",
    "ZImageOmniPipeline",
]


DEPENDENT = ["GlmImagePipeline", "OmniGenPipeline"]
"""Classes of which an image depends on the others of its batch."""


ONLY_EDITING = ["LongCatImageEditPipeline", "QwenImageEditPipeline", "QwenImageEditPlusPipeline"]


def each_class(names: Sequence[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in names]


def drawable_presets() -> list[Preset]:
    return [entry for entry in presets() if not entry.unsupported]


TEXT_CLASSES = sorted(
    name
    for name in {*tiny_classes.BUILDERS, *tiny_classes.OLDER_BUILDERS} - {"FluxKontextPipeline"}
    if not pipeline_traits(name).needs_image
)


def loaded(folder: str, name: str, **args: Any) -> DiffusersGenerator:
    generator = DiffusersGenerator(folder, **{"size": "32x32", "steps": 2, **SETTINGS.get(name, {}), **args})
    generator.setup("cpu")
    tiny_classes.lower_sizes(generator._runner._pipelines["text"].pipe)  # type: ignore[union-attr]
    return generator


def drawn_at_once(generator: DiffusersGenerator, seeds: Sequence[int], prompts: Sequence[str]) -> list[np.ndarray]:
    """Return the images of one call of the pipeline, whatever the facts about its class say."""
    pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
    images = pipeline.generate(prompts, seeds, [()] * len(prompts), "cpu")
    return [np.asarray(to_image(image)).astype(int) for image in images]


def largest(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first - second).max())


# --- presets ---------------------------------------------------------------------------------------------------------


def test_every_preset_of_diffusers_has_a_class_that_is_drawn_with_here() -> None:
    drawn = {*tiny_classes.BUILDERS, *tiny_classes.OLDER_BUILDERS}
    assert {entry.pipeline for entry in drawable_presets()} <= drawn
    assert {entry.edit.pipeline for entry in drawable_presets() if entry.edit} <= drawn | set(known_traits())
    assert {entry.pipeline for entry in drawable_presets()} <= set(known_traits())


def test_a_preset_of_today_says_where_its_settings_come_from() -> None:
    for entry in drawable_presets():
        if not entry.row and entry.name != "longcat-image":
            assert entry.source.startswith("https://"), entry.name
            assert (entry.steps is not None and entry.guidance) or entry.note, f"{entry.name}: what is not confirmed?"
        assert not entry.gated or entry.license, entry.name


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in drawable_presets()])
def test_each_preset_draws_through_its_class(
    tiny_class: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    entry = preset(name)
    assert entry is not None
    _lower_sizes(monkeypatch, entry.pipeline)
    more = {**SETTINGS.get(entry.pipeline, {}), **REFERENCE_SETTINGS.get(entry.pipeline, {})}
    more["arguments"] = {**more.get("arguments", {}), **SETTINGS.get(entry.pipeline, {}).get("arguments", {})}
    size = {} if entry.pipeline == "LongCatImageEditPipeline" else {"size": more.get("size", "32x32")}
    settings = {**more, "steps": 2, **size}
    generator = loaded(name, "", weights=tiny_class(entry.pipeline), **settings)
    used = [reference(tmp_path, "red", SIDES)] if pipeline_traits(entry.pipeline).needs_image else []
    results = generate(generator, requests(PROMPTS[:2], used))
    for result in results.values():
        settings = result.settings
        assert (settings["pipeline"], settings["model"]) == (entry.pipeline, tiny_class(entry.pipeline))
        assert len(result.references) == len(used)
        for argument, scale in entry.guidance.items():
            assert settings["guidance"][argument] in (scale, None), argument
    assert max_difference(results["r0"], results["r1"]) > VISIBLE


# --- versions of the library -----------------------------------------------------------------------------------------


def test_the_error_of_an_older_library_names_the_release_that_has_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.36.0")
    monkeypatch.setattr(presets_module, "_installed_class", lambda name: None)
    with pytest.raises(
        MissingDependencyError,
        match=r"has no GlmImagePipeline, which is new in 0\.37\.0; pip install -U 'diffusers>=0\.37\.0'",
    ):
        DiffusersGenerator("glm-image")


def test_every_listed_class_names_its_release() -> None:
    assert [name for name, traits in known_traits().items() if not traits.since] == []


# --- facts about classes ---------------------------------------------------------------------------------------------


def test_the_listed_argument_that_guides_is_one_of_the_class() -> None:
    import diffusers

    for name, traits in known_traits().items():
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        scales = [parameter for parameter in parameters if "guidance_scale" in parameter or "cfg_scale" in parameter]
        assert traits.guidance in (*scales, "") or not scales, name


def test_a_class_that_is_not_listed_is_not_trusted_with_a_batch() -> None:
    unknown = pipeline_traits("MadeUpPipeline")
    assert (unknown.batch, unknown.used_references(5)) == ("none", 1)


@pytest.mark.parametrize("name", each_class(TEXT_CLASSES))
def test_a_batch_changes_an_image_only_where_the_facts_say_so(tiny_class: Callable[[str], str], name: str) -> None:
    generator = loaded(tiny_class(name), name)
    seeds = range(len(PROMPTS))
    alone = [drawn_at_once(generator, [seed], [prompt])[0] for seed, prompt in zip(seeds, PROMPTS, strict=True)]
    other = drawn_at_once(generator, [0], [PROMPTS[1]])[0]
    assert largest(alone[0], other) > VISIBLE, "the image does not follow its prompt, so that this test cannot fail"
    if pipeline_traits(name).batch == "text":
        at_once = drawn_at_once(generator, seeds, PROMPTS)
        assert max(map(largest, alone, at_once)) <= TOLERANCE
    batched = generate(generator, requests(PROMPTS))
    for number, image in enumerate(alone):
        assert largest(image, np.asarray(batched[f"r{number}"].image).astype(int)) <= TOLERANCE


@pytest.mark.parametrize("name", each_class(DEPENDENT))
def test_a_class_that_generates_one_at_a_time_has_to(tiny_class: Callable[[str], str], name: str) -> None:
    assert pipeline_traits(name).batch == "none"
    generator = loaded(tiny_class(name), name)
    alone = [drawn_at_once(generator, [seed], [PROMPTS[seed]])[0] for seed in (0, 1)]
    at_once = drawn_at_once(generator, [0, 1], PROMPTS[:2])
    assert max(map(largest, alone, at_once)) > VISIBLE


@pytest.mark.parametrize("name", each_class(["CogView4Pipeline", "Kandinsky5T2IPipeline", "QwenImage21Pipeline"]))
def test_a_class_whose_batches_have_one_prompt_needs_that(tiny_class: Callable[[str], str], name: str) -> None:
    """Requests of several prompts are drawn apart, those of one prompt together, as repeats of a sample are."""
    assert pipeline_traits(name).batch == "prompt"
    generator = loaded(tiny_class(name), name, batch=2, negative_prompt="fog")
    first, second = PROMPTS[:2]
    alone = drawn_at_once(generator, [0], [first])[0]
    assert largest(alone, drawn_at_once(generator, [0, 1], [first, second])[0]) > VISIBLE
    made = passes_of(generator)
    repeated = [
        request.model_copy(update={"id": f"{request.id}-{seed}", "seed": seed})
        for seed in range(3)
        for request in requests([first, second])
    ]
    images = {id: np.asarray(result.image).astype(int) for id, result in generate(generator, repeated).items()}
    assert made == [[first, first], [first], [second, second], [second]]
    for request in repeated:
        same = drawn_at_once(generator, [request.seed], [request.prompt])[0]
        assert largest(images[request.id], same) <= TOLERANCE


# --- what is recorded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", each_class(TEXT_CLASSES))
def test_steps_and_guidance_are_recorded_as_they_were(
    tiny_class: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    generator = loaded(tiny_class(name), name)
    pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
    step, steps = pipeline.pipe.scheduler.step, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*args, **kwargs)

    monkeypatch.setattr(pipeline.pipe.scheduler, "step", counted)

    def drawn() -> np.ndarray:
        return np.asarray(to_image(pipeline.generate(["a lamp"], [0], [()], "cpu")[0]))

    before = drawn()
    recorded = pipeline.recorded_settings()
    assert recorded["steps"] == steps
    for argument, scale in recorded["guidance"].items():
        higher = (scale or pipeline._value(argument) or 1.0) + 7.0
        monkeypatch.setitem(pipeline._arguments, argument, higher)
        after, settings = drawn(), pipeline.recorded_settings()
        assert settings["guidance"][argument] in (higher, None)
        assert (settings["guidance"][argument] is None) == (argument not in settings["guided_by"])
        assert np.array_equal(before, after) == (settings["guidance"][argument] is None), f"{argument} is misreported"
        monkeypatch.delitem(pipeline._arguments, argument)


def test_the_steps_of_a_model_that_brings_its_schedule_are_recorded(tiny_class: Callable[[str], str]) -> None:
    folder = tiny_class("QwenImage21Pipeline")
    generator = loaded(folder, "QwenImage21Pipeline", steps=5)
    pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
    pipeline.pipe.register_to_config(sample_sigmas=[1.0, 0.9, 0.6])
    assert pipeline.steps == 3
    assert generate(generator, requests(["a lamp"]))["r0"].settings["steps"] == 3


@pytest.mark.slow
def test_guidance_that_changes_with_the_steps_is_recorded(tiny_class: Callable[[str], str]) -> None:
    arguments = {"max_sequence_length": 128, "guidance_schedule": [7.0, 3.0]}
    generator = DiffusersGenerator(tiny_class("Ideogram4Pipeline"), size="32x32", steps=2, arguments=arguments)
    generator.setup("cpu")
    settings = generate(generator, requests(["a lamp"]))["r0"].settings
    assert settings["guidance"] == {"guidance_scale": None, "guidance_schedule": [7.0, 3.0]}
    assert settings["guided_by"] == {"guidance_schedule": "classifier_free"}


@pytest.mark.slow
def test_the_steps_of_an_image_that_begins_with_a_reference_are_those_that_were_done(
    tiny_class: Callable[[str], str], tmp_path: Path
) -> None:
    generator = loaded(
        tiny_class("StableDiffusion3Pipeline"), "StableDiffusion3Pipeline", reference_images="use", steps=10,
        edit_arguments={"strength": 0.3}, size="", edit_steps=10,
    )  # fmt: skip
    result = generate(generator, requests(["a lamp"], [reference(tmp_path, "red", (32, 32))]))["r0"]
    assert result.settings["pipeline"] == "StableDiffusion3Img2ImgPipeline"
    assert result.settings["steps"] == 3


# --- references ------------------------------------------------------------------------------------------------------


def _lower_sizes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lower the size to which a class scales references: a million pixels are slow on CPU."""
    if name == "QwenImageEditPlusPipeline":
        import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as module

        monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 64 * 64)
        monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 56 * 56)
    modules = {"QwenImageEditPipeline": "qwenimage.pipeline_qwenimage_edit",
               "LongCatImageEditPipeline": "longcat_image.pipeline_longcat_image_edit"}  # fmt: skip
    if name in modules:
        older = importlib.import_module(f"diffusers.pipelines.{modules[name]}")
        whole = older.calculate_dimensions
        monkeypatch.setattr(older, "calculate_dimensions", lambda area, ratio: whole(192 * 192, ratio))


REFERENCE_SETTINGS: dict[str, dict[str, Any]] = {
    "FluxKontextPipeline": {"arguments": {"max_area": 1024, "_auto_resize": False}},
    "QwenImage21Pipeline": {"arguments": {"output_resolution": 64}},
    "ZImageOmniPipeline": {"dtype": "bfloat16"},  # into which it converts references, whatever its own format
}


def check_references(folder: str, name: str, tmp_path: Path) -> None:
    """Draw a batch of two requests with different references, and compare each image with that drawn alone.

    Raises:
        AssertionError: An image of the batch is not that drawn alone, or does not follow its reference.
    """
    generator = loaded(folder, name, **REFERENCE_SETTINGS.get(name, {}))
    red, blue = reference(tmp_path, "red", SIDES), reference(tmp_path, "blue", SIDES)
    batch = [
        GenerationRequest(id="red", prompt="a lamp", seed=3, references=(red,)),
        GenerationRequest(id="blue", prompt="a lamp", seed=3, references=(blue,)),
    ]
    alone = {request.id: generate(generator, [request])[request.id] for request in batch}
    assert max_difference(alone["red"], alone["blue"]) > VISIBLE, "the image does not follow its reference"
    batched = generate(generator, batch)
    for request in batch:
        assert batched[request.id].references == ({"sha256": request.references[0].sha256},)
        assert max_difference(alone[request.id], batched[request.id]) <= TOLERANCE, "references of requests are mixed"


@pytest.mark.parametrize("name", each_class([*REFERENCES, *ONLY_EDITING]))
def test_an_image_is_drawn_from_its_own_reference(
    tiny_class: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _lower_sizes(monkeypatch, name)
    check_references(tiny_class(name), name, tmp_path)


@pytest.mark.parametrize("name", each_class([name for name in REFERENCES if pipeline_traits(name).images == "all"]))
def test_every_reference_of_a_request_is_seen(tiny_class: Callable[[str], str], tmp_path: Path, name: str) -> None:
    generator = loaded(tiny_class(name), name, **REFERENCE_SETTINGS.get(name, {}))
    red, blue = reference(tmp_path, "red", SIDES), reference(tmp_path, "blue", SIDES)
    both = generate(generator, requests(["a lamp"], [red, blue]))["r0"]
    assert [each["sha256"] for each in both.references] == [red.sha256, blue.sha256]
    for one in (red, blue):
        assert max_difference(both, generate(generator, requests(["a lamp"], [one]))["r0"]) > VISIBLE


@pytest.mark.slow
def test_references_stand_in_the_prompt_where_a_class_wants_them(
    tiny_class: Callable[[str], str], tmp_path: Path
) -> None:
    generator = loaded("omnigen-v1", "", weights=tiny_class("OmniGenPipeline"), edit_arguments={})
    used = [reference(tmp_path, name, SIDES) for name in ("red", "blue")]
    result = generate(generator, requests(["a lamp"], used))["r0"]
    assert result.used_prompt == "<img><|image_1|></img> <img><|image_2|></img> a lamp"
    assert result.settings["guided_by"] == {
        "guidance_scale": "classifier_free",
        "img_guidance_scale": "classifier_free",
    }
    assert result.settings["guidance"] == {"guidance_scale": 2.0, "img_guidance_scale": 1.6}
    assert result.image is not None and result.image.size == (96, 64)


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(100, 70), (20, 40), (300, 200)], ids=str)
def test_glm_image_reads_references_of_any_size(
    tiny_class: Callable[[str], str], tmp_path: Path, sides: tuple[int, int]
) -> None:
    generator = loaded(tiny_class("GlmImagePipeline"), "GlmImagePipeline")
    result = generate(generator, requests(["a lamp"], [reference(tmp_path, "red", sides)]))["r0"]
    assert result.image is not None, result.reason


@pytest.mark.slow
def test_references_of_glm_image_cannot_share_a_batch(tiny_class: Callable[[str], str], tmp_path: Path) -> None:
    import torch

    generator = loaded(tiny_class("GlmImagePipeline"), "GlmImagePipeline")
    pipe = generator._runner._pipelines["text"].pipe  # type: ignore[union-attr]
    images = [reference(tmp_path, name, SIDES).open() for name in ("red", "blue")]

    def drawn(prompt: Any, image: Any, count: int) -> Any:
        generators = [torch.Generator().manual_seed(0) for _ in range(count)]
        same: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "np"}
        return pipe(prompt, image=image, generator=generators if count > 1 else generators[0], **same).images[-1]

    alone = drawn("a lamp", images[1:], 1)
    assert np.abs(alone - drawn(["a lamp"] * 2, [[image] for image in images], 2)).max() * 255 > VISIBLE


@pytest.mark.parametrize("name", each_class(["Flux2KleinPipeline", "Flux2Pipeline"]))
def test_a_wrong_fact_by_which_references_are_mixed_is_noticed(
    tiny_class: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wrong = known_traits()[name].model_copy(update={"images": "one", "batch": "all"})
    facts = presets_module._preset_file()
    changed = facts.model_copy(update={"classes": {**facts.classes, name: wrong}})
    monkeypatch.setattr(presets_module, "_preset_file", lambda: changed)
    with pytest.raises(AssertionError, match="references of requests are mixed"):
        check_references(tiny_class(name), name, tmp_path)


def test_the_maximum_of_references_is_used_and_the_rest_left_out(
    tiny_class: Callable[[str], str], tmp_path: Path
) -> None:
    generator = loaded(tiny_class("Flux2KleinPipeline"), "Flux2KleinPipeline")
    used = [reference(tmp_path, name, SIDES) for name in ("red", "green", "blue", "white", "black")]
    result = generate(generator, requests(["a lamp"], used))["r0"]
    assert [each["sha256"] for each in result.references] == [each.sha256 for each in used[:4]]
    assert result.settings["references_left_out"] == 1


def test_a_preset_with_its_own_edit_pipeline_says_how_it_takes_references() -> None:
    def references(name: str) -> str:
        entry = preset(name)
        assert entry is not None
        return entry.references

    assert references("qwen-image-2512") == "up to 3"
    assert references("qwen-image-edit-2511") == "only up to 3"
    assert references("z-image") == "none"
    assert references("glm-image") == "any number"
    own = preset("qwen-image-2512")
    assert own is not None and own.edit is not None
    default = edit_settings("QwenImagePipeline")
    assert default is not None and (own.edit.model, default.model) == (
        "Qwen/Qwen-Image-Edit-2511",
        "Qwen/Qwen-Image-Edit-2509",
    )
    assert DiffusersGenerator("qwen-image-2512")._edit_settings("QwenImagePipeline").model == own.edit.model


def test_the_size_of_weights_is_computed_from_published_parameters() -> None:
    entry = Preset(model="m", billions={"denoiser": 20, "text": 7})
    assert entry.weights_gb == 54.0
    assert Preset(model="m", billions={"denoiser": 12}).weights_gb is None
