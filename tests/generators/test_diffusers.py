"""The generator `diffusers:`, tested on CPU with tiny pipelines of the real classes, with and without references."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, DataError, MissingDependencyError, TransientError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.presets import known_traits, pipeline_traits
from tests.helpers import tiny_pipelines

PROMPTS = ["a lamp", "a much longer prompt about a tower by the sea with fourteen windows", "x", "two lamps", "a ship"]

TOLERANCE = 1
"""Maximum difference of pixel values (0-255) by float32 rounding between batches. Measured: 0 or 1."""

SMALL: dict[str, Any] = {"size": "32x32", "steps": 2}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return tiny_pipelines.builder(tmp_path_factory.mktemp("tiny"))


def requests(prompts: Sequence[str], references: Sequence[ImageRef] = (), seed: int = 0) -> list[GenerationRequest]:
    return [
        GenerationRequest(id=f"r{number}", prompt=prompt, seed=seed + number, references=tuple(references))
        for number, prompt in enumerate(prompts)
    ]


def reference(folder: Path, name: str, size: tuple[int, int] = (48, 32)) -> ImageRef:
    """Return an image of random tiles; a network that normalises cannot tell uniform images apart."""
    path = folder / f"{name}-{size[0]}x{size[1]}.png"
    tiles = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=size[0], height=size[1], format="PNG", path=path)


def load_generator(model: str, **args: Any) -> DiffusersGenerator:
    generator = DiffusersGenerator(model, **args)
    generator.setup("cpu")
    return generator


def generate(generator: DiffusersGenerator, batch: Sequence[GenerationRequest]) -> dict[str, GeneratedImage]:
    results = list(generator.generate_batch(batch))
    assert sorted(result.request_id for result in results) == sorted(request.id for request in batch)
    assert [result.reason for result in results if result.status is not GenerationStatus.OK] == []
    return {result.request_id: result for result in results}


def pixels(result: GeneratedImage) -> np.ndarray:
    assert isinstance(result.image, Image.Image)
    return np.asarray(result.image).astype(int)


def max_difference(first: GeneratedImage, second: GeneratedImage) -> int:
    return int(np.abs(pixels(first) - pixels(second)).max())


def settings_of(name: str) -> dict[str, Any]:
    return SMALL | ({"guidance": 4.0, "negative_prompt": " "} if name == "qwen_image" else {})


# --- images do not depend on the batch -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd3", "flux", "flux2_klein", "qwen_image"])
def test_an_image_does_not_depend_on_its_batch(tiny: Callable[[str], str], name: str) -> None:
    generator = load_generator(tiny(name), batch=4, **settings_of(name))
    batch = requests(PROMPTS * 2)
    singles = {request.id: generate(generator, [request])[request.id] for request in batch}
    batched = generate(generator, batch)
    assert max(result.settings["batch"] for result in batched.values()) == 4
    assert max(max_difference(singles[name], batched[name]) for name in singles) <= TOLERANCE
    assert len({pixels(result).tobytes() for result in batched.values()}) == len(batch)


def test_noise_depends_on_the_seed_of_each_request(tiny: Callable[[str], str]) -> None:
    """Compared with the library called for one prompt and one generator at a time."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    generator = load_generator(tiny("sd3"), batch=3, **SMALL)
    batched = generate(generator, requests(["a lamp"] * 3, seed=5))
    library = StableDiffusion3Pipeline.from_pretrained(tiny("sd3"), local_files_only=True)
    library.set_progress_bar_config(disable=True)
    for number in range(3):
        noise = torch.Generator("cpu").manual_seed(5 + number)
        image = library("a lamp", num_inference_steps=2, width=32, height=32, generator=noise).images[0]
        assert np.abs(np.asarray(image).astype(int) - pixels(batched[f"r{number}"])).max() <= TOLERANCE
    assert max_difference(batched["r0"], batched["r1"]) > 20
    assert [batched[f"r{number}"].settings["seed"] for number in range(3)] == [5, 6, 7]


def test_the_settings_of_an_image_are_recorded(tiny: Callable[[str], str]) -> None:
    import diffusers
    import torch
    import transformers

    generator = load_generator(
        tiny("sd3"), size="48x32", steps=3, guidance=5.5, suffix=", at night", negative_prompt="fog"
    )
    result = generate(generator, requests(["a lamp"], seed=7))["r0"]
    assert result.used_prompt == "a lamp, at night"
    expected = {
        "pipeline": "StableDiffusion3Pipeline", "model": tiny("sd3"), "steps": 3, "size": "48x32", "seed": 7,
        "guidance": {"guidance_scale": 5.5}, "negative_prompt": "fog", "suffix": ", at night", "batch": 1,
        "scheduler": "FlowMatchEulerDiscreteScheduler", "dtype": "float32", "device": "cpu", "device_name": "",
        "noise": "cpu",
    }  # fmt: skip
    assert {name: result.settings[name] for name in expected} == expected
    assert result.settings["versions"] == {
        "diffusers": diffusers.__version__,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    json.dumps(result.settings, allow_nan=False)


def test_each_setting_reaches_the_pipeline(tiny: Callable[[str], str]) -> None:
    def image_with(**args: Any) -> bytes:
        return pixels(generate(load_generator(tiny("sd3"), **{**SMALL, **args}), requests(["a lamp"]))["r0"]).tobytes()

    default = image_with()
    for change in ({"steps": 3}, {"guidance": 2.0}, {"negative_prompt": "fog"}, {"suffix": "!"}, {"size": "48x32"}):
        assert image_with(**change) != default, change
    assert image_with(arguments={"max_sequence_length": 4}) != default
    assert image_with(slicing=True) == default


def test_defaults_of_the_class_are_recorded_where_nothing_was_set(tiny: Callable[[str], str]) -> None:
    result = generate(load_generator(tiny("flux"), size="32x32"), requests(["a lamp"]))["r0"]
    assert result.settings["steps"] == 28  # the pipeline's default
    assert result.settings["guidance"]["guidance_scale"] == 3.5


def test_a_qwen_model_without_a_preset_applies_its_guidance(tiny: Callable[[str], str]) -> None:
    """Compared with the library, which compares with a negative prompt only where one is given."""
    import torch
    from diffusers import QwenImagePipeline

    default = generate(load_generator(tiny("qwen_image"), **SMALL), requests(["a lamp"], seed=3))["r0"]
    assert (default.settings["negative_prompt"], default.settings["guidance"]["true_cfg_scale"]) == (" ", 4.0)
    result = generate(load_generator(tiny("qwen_image"), guidance=60.0, **SMALL), requests(["a lamp"], seed=3))["r0"]
    library = QwenImagePipeline.from_pretrained(tiny("qwen_image"), local_files_only=True)
    library.set_progress_bar_config(disable=True)

    def image(**arguments: Any) -> np.ndarray:
        noise = torch.Generator("cpu").manual_seed(3)
        size = {"num_inference_steps": 2, "width": 32, "height": 32}
        return np.asarray(library("a lamp", generator=noise, **size, **arguments).images[0]).astype(int)

    guided = image(negative_prompt=" ", true_cfg_scale=60.0)
    assert np.abs(guided - pixels(result)).max() <= TOLERANCE
    assert np.abs(guided - image()).max() > TOLERANCE


def test_a_guidance_scale_without_effect_is_not_recorded(tiny: Callable[[str], str]) -> None:
    generator = load_generator(tiny("flux"), size="32x32", steps=1, guidance={"true_cfg_scale": 4.0})
    assert generate(generator, requests(["a lamp"]))["r0"].settings["guidance"]["true_cfg_scale"] is None
    generator = load_generator(
        tiny("flux"), size="32x32", steps=1, guidance={"true_cfg_scale": 4.0}, negative_prompt="fog"
    )
    assert generate(generator, requests(["a lamp"]))["r0"].settings["guidance"]["true_cfg_scale"] == 4.0


ONE_AT_A_TIME = [name for name, traits in known_traits().items() if traits.batch == "none" and not traits.needs_image]


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_a_class_whose_images_depend_on_the_batch_generates_one_at_a_time(
    tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The class is replaced by one whose images depend on the whole batch and on the global random state."""
    import diffusers
    import torch

    def call(self: Any, prompt: Any = None, generator: Any = None, **arguments: Any) -> Any:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        draw = float(torch.rand(())) if pipeline_traits(name).global_random else 0.0
        images = [np.full((4, 4, 3), (len(each) / 64 + len("".join(prompts)) / 512 + draw) % 1) for each in prompts]
        return type("Output", (), {"images": images})

    replaced = type(name, (diffusers.StableDiffusion3Pipeline,), {"__call__": call})
    monkeypatch.setattr(diffusers, name, replaced)
    generator = load_generator(tiny("sd3"), pipeline=name)
    before = torch.get_rng_state()
    batched = generate(generator, requests([*PROMPTS, *PROMPTS]))
    assert torch.equal(torch.get_rng_state(), before)
    assert {result.settings["batch"] for result in batched.values()} == {1}
    for request in requests([*PROMPTS, *PROMPTS]):
        assert max_difference(generate(generator, [request])[request.id], batched[request.id]) == 0


def test_a_warning_of_every_batch_is_reported_once(tiny: Callable[[str], str]) -> None:
    import io
    import logging

    output = io.StringIO()
    handler = logging.StreamHandler(output)
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        generator = load_generator(tiny("sd3"), **SMALL)
        long = " ".join(["a lighthouse"] * 60)
        for _ in range(3):
            generate(generator, requests([long]))
        logger.warning("something new %s", "x" * 5000)
    finally:
        logger.removeHandler(handler)
    lines = output.getvalue().splitlines()
    assert len(lines) == len({line[:60] for line in lines})
    assert sum("CLIP can only handle" in line for line in lines) == 1
    assert lines[-1].startswith("something new xxx")
    assert max(map(len, lines)) <= 200


# --- reference images ------------------------------------------------------------------------------------------------


def test_a_text_only_model_ignores_references_and_says_so(tiny: Callable[[str], str], tmp_path: Path) -> None:
    red, blue = reference(tmp_path, "red"), reference(tmp_path, "blue")
    batch = [*requests(["a lamp", "a boat"], [red, blue]), *requests(["a", "b", "a lamp"], seed=41)[2:]]
    results = generate(load_generator(tiny("sd3"), **SMALL), batch)
    plain = generate(load_generator(tiny("sd3"), **SMALL), requests(["a lamp", "a boat"]))
    assert {result.settings["pipeline"] for result in results.values()} == {"StableDiffusion3Pipeline"}
    for name in ("r0", "r1"):
        assert max_difference(results[name], plain[name]) <= TOLERANCE
        assert (results[name].references, results[name].settings["references_left_out"]) == ((), 2)
    assert "references_left_out" not in results["r2"].settings


def test_references_are_ignored_on_request(tiny: Callable[[str], str], tmp_path: Path) -> None:
    red = reference(tmp_path, "red", (64, 80))
    generator = load_generator(tiny("flux2_klein"), reference_images="ignore", **SMALL)
    ignored = generate(generator, requests(["a lamp"], [red]))["r0"]
    assert max_difference(ignored, generate(generator, requests(["a lamp"]))["r0"]) == 0
    assert ignored.settings["references_left_out"] == 1


def test_stable_diffusion_starts_from_a_reference_on_request(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = load_generator(tiny("sd3"), reference_images="use", **SMALL | {"steps": 6})
    red, blue = reference(tmp_path, "red"), reference(tmp_path, "blue")
    first = generate(generator, requests(["a lamp"], [red]))["r0"]
    second = generate(generator, requests(["a lamp"], [blue]))["r0"]
    assert first.settings["pipeline"] == "StableDiffusion3Img2ImgPipeline"
    assert first.references == ({"sha256": red.sha256},)
    assert max_difference(first, second) > 20


def test_flux_edits_with_kontext_which_is_loaded_at_first_use(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = load_generator(
        tiny("flux"), edit=tiny("kontext"), edit_steps=2, edit_arguments={"max_area": 1024, "_auto_resize": False},
        **SMALL,
    )  # fmt: skip
    assert list(generator._runner._pipelines) == ["text"]  # type: ignore[union-attr]
    wide, tall = reference(tmp_path, "red"), reference(tmp_path, "blue", (32, 48))
    batch = [*requests(["plain"]), *requests(PROMPTS, [wide, tall])[1:], *requests([*PROMPTS, "tall"], [tall])[5:]]
    batched = generate(generator, batch)
    assert list(generator._runner._pipelines) == ["text", "edit"]  # type: ignore[union-attr]
    assert [batched[f"r{number}"].settings["pipeline"] for number in (0, 1)] == ["FluxPipeline", "FluxKontextPipeline"]
    assert batched["r1"].references == ({"sha256": wide.sha256},)
    assert batched["r1"].settings["references_left_out"] == 1
    for request in batch[1:]:
        assert max_difference(generate(generator, [request])[request.id], batched[request.id]) <= TOLERANCE


@pytest.fixture
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the size to which Qwen-Image-Edit scales references: a million pixels are slow on CPU."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 56 * 56)


@pytest.mark.usefixtures("small_references")
def test_qwen_image_edits_from_at_most_three_references(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = load_generator(
        "qwen-image", weights=tiny("qwen_image"), edit=tiny("qwen_image_edit"), edit_size="32x32", edit_steps=2, **SMALL
    )
    references = [reference(tmp_path, colour) for colour in ("red", "green", "blue", "white")]
    result = generate(generator, requests(["a lamp"], references))["r0"]
    assert result.settings["pipeline"] == "QwenImageEditPlusPipeline"
    assert result.settings["guidance"] == {"true_cfg_scale": 4.0, "guidance_scale": None}  # not distilled: no effect
    assert result.settings["negative_prompt"] == " "
    assert [item["sha256"] for item in result.references] == [item.sha256 for item in references[:3]]
    assert result.settings["references_left_out"] == 1
    assert result.used_prompt == ""
    from_two = generate(generator, requests(["a lamp"], references[:2]))["r0"]
    assert max_difference(result, from_two) > 0
    assert max_difference(result, generate(generator, requests(["a lamp"], references[:3]))["r0"]) == 0
    mixed = generate(
        generator, [*requests(["a lamp"], references), requests([*PROMPTS])[1], *requests(PROMPTS, references)[2:4]]
    )
    assert max_difference(mixed["r0"], result) == 0
    assert {name: result.settings["batch"] for name, result in mixed.items()} == dict.fromkeys(mixed, 1)
    assert mixed["r1"].used_prompt.endswith("Ultra HD, 4K, cinematic composition.")


def test_flux2_takes_several_references_into_its_text_to_image_pipeline(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    generator = load_generator("flux.2-klein-4b", weights=tiny("flux2_klein"), **SMALL)
    references = [reference(tmp_path, name, (64, 80)) for name in ("red", "green", "blue")]
    first, from_three = (generate(generator, requests(["a lamp"], references[:count]))["r0"] for count in (1, 3))
    assert [len(result.references) for result in (first, from_three)] == [1, 3]
    assert {first.settings["pipeline"], from_three.settings["pipeline"]} == {"Flux2KleinPipeline"}
    assert max_difference(first, from_three) > 0
    assert max_difference(from_three, generate(generator, requests(["a lamp"]))["r0"]) > 0
    pipelines: dict[str, Any] = vars(generator._runner)["_pipelines"]
    assert pipelines["text"].pipe is pipelines["edit"].pipe


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("name", ["flux2_klein", "qwen_image_edit"])
def test_an_unlisted_class_never_mixes_the_references_of_its_requests(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A newer class may read a list of images as the references of one prompt, as these two do."""
    import diffusers

    known = getattr(
        diffusers, {"flux2_klein": "Flux2KleinPipeline", "qwen_image_edit": "QwenImageEditPlusPipeline"}[name]
    )
    newer = type("MadeUpImagePipeline", (known,), {})
    monkeypatch.setattr(diffusers, "MadeUpImagePipeline", newer, raising=False)
    generator = load_generator(tiny(name), pipeline="MadeUpImagePipeline", **settings_of(name))
    red, blue = reference(tmp_path, "red", (64, 80)), reference(tmp_path, "blue", (64, 80))
    batch = [*requests(["a lamp"] * 2, [red]), *requests(["a lamp"] * 4, [blue, red])[2:]]
    singles = {request.id: generate(generator, [request])[request.id] for request in batch}
    batched = generate(generator, batch)
    assert {result.settings["pipeline"] for result in batched.values()} == {"MadeUpImagePipeline"}
    assert all(max_difference(singles[id], batched[id]) == 0 for id in singles)
    assert [batched[id].references for id in ("r0", "r2")] == [({"sha256": red.sha256},), ({"sha256": blue.sha256},)]
    assert max_difference(batched["r0"], batched["r2"]) > 0


BATCHED_WITH_REFERENCES = {"FluxKontextPipeline": "kontext", "StableDiffusion3Img2ImgPipeline": "sd3"}


def test_every_class_that_batches_references_is_tested_below() -> None:
    assert {name for name, traits in known_traits().items() if traits.batch == "all"} == set(BATCHED_WITH_REFERENCES)


@pytest.mark.parametrize("pipeline", BATCHED_WITH_REFERENCES)
def test_a_batch_with_two_references_equals_each_alone(
    tiny: Callable[[str], str], tmp_path: Path, pipeline: str
) -> None:
    name = BATCHED_WITH_REFERENCES[pipeline]
    arguments = {"max_area": 1024, "_auto_resize": False} if name == "kontext" else {}
    settings = SMALL | {"steps": 4, "batch": 4}
    generator = load_generator(tiny(name), reference_images="use", arguments=arguments, **settings)
    red, blue = reference(tmp_path, "red"), reference(tmp_path, "blue")
    batch = [*requests(["a lamp"] * 2, [red]), *requests(["a lamp"] * 4, [blue])[2:]]
    singles = {request.id: generate(generator, [request])[request.id] for request in batch}
    batched = generate(generator, batch)
    assert {result.settings["pipeline"] for result in batched.values()} == {pipeline}
    assert max(result.settings["batch"] for result in batched.values()) > 1
    assert max(max_difference(singles[id], batched[id]) for id in singles) <= TOLERANCE
    assert max_difference(batched["r0"], batched["r2"]) > 0


@pytest.mark.usefixtures("small_references")
def test_an_edit_model_without_a_text_model_needs_a_reference(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = load_generator(tiny("qwen_image_edit"), **SMALL)
    (result,) = generator.generate_batch(requests(["a lamp"]))
    assert (result.status, result.image) == (GenerationStatus.FAILED, None)
    assert "generates only from reference images" in result.reason
    assert generate(generator, requests(["a lamp"], [reference(tmp_path, "red")]))["r0"].status is GenerationStatus.OK


# --- memory and failures ---------------------------------------------------------------------------------------------


class FailingPipeline:
    """Make a loaded pipeline run out of memory, or fail, as on a GPU; `calls` are its batch sizes."""

    def __init__(
        self, generator: DiffusersGenerator, fits: int = 99, fail: Callable[[list[str]], None] | None = None
    ) -> None:
        self.calls: list[int] = []
        pipeline = generator._runner._pipelines["text"]  # type: ignore[union-attr]
        generate_images = pipeline.generate

        def failing(prompts: list[str], *rest: Any) -> Any:
            import torch

            self.calls.append(len(prompts))
            if fail is not None:
                fail(prompts)
            if len(prompts) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return generate_images(prompts, *rest)

        pipeline.generate = failing  # type: ignore[method-assign]


def test_batches_are_halved_when_memory_runs_out(tiny: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    generator = load_generator(tiny("sd3"), batch=8, **SMALL)
    pipeline = FailingPipeline(generator, fits=3)
    unbatched = load_generator(tiny("sd3"), batch=1, **SMALL)
    batch = requests((PROMPTS * 3)[:11])
    results = generate(generator, batch)
    assert pipeline.calls == [8, 4, 2, 2, 2, 2, 2, 1]
    said = [record.getMessage().partition(": ")[2] for record in caplog.records if record.name == "knowgen.generators"]
    assert said == [
        "memory ran out with 8 images at once; from now on at most 4",
        "memory ran out with 4 images at once; from now on at most 2",
    ]
    assert (
        max(max_difference(results[name], result) for name, result in generate(unbatched, batch).items()) <= TOLERANCE
    )
    pipeline.calls.clear()
    generate(generator, requests(PROMPTS))
    assert pipeline.calls == [2, 2, 1]


def test_a_single_image_that_does_not_fit_is_a_failure_with_a_reason(tiny: Callable[[str], str]) -> None:
    generator = load_generator(tiny("sd3"), **SMALL)
    FailingPipeline(generator, fits=0)
    results = list(generator.generate_batch(requests(PROMPTS[:3])))
    assert [result.status for result in results] == [GenerationStatus.FAILED] * 3
    assert all("out of memory" in result.reason and result.image is None for result in results)


def test_a_prompt_that_fails_does_not_affect_the_rest_of_its_batch(tiny: Callable[[str], str]) -> None:
    generator = load_generator(tiny("sd3"), **SMALL)
    generate(generator, requests(PROMPTS))

    def fail(prompts: list[str]) -> None:
        if "x" in prompts:
            raise ValueError("this prompt\nis bad")

    FailingPipeline(generator, fail=fail)
    results = {result.request_id: result for result in generator.generate_batch(requests(PROMPTS))}
    assert results["r2"].reason == "ValueError: this prompt is bad"
    assert [name for name, result in results.items() if result.status is GenerationStatus.OK] == [
        "r0",
        "r1",
        "r3",
        "r4",
    ]


def test_nan_values_are_a_failure(tiny: Callable[[str], str]) -> None:
    import torch

    generator = load_generator(tiny("sd3"), **SMALL)
    vae = generator._runner._pipelines["text"].pipe.vae  # type: ignore[union-attr]
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(float("nan"))
    (result,) = generator.generate_batch(requests(["a lamp"]))
    assert result.status is GenerationStatus.FAILED
    assert "NaN" in result.reason and "dtype=float32" in result.reason


def test_a_failing_gpu_is_a_transient_error(tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNOWGEN_DEVICE", raising=False)
    generator = load_generator(tiny("sd3"), **SMALL)

    def fail(prompts: list[str]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    FailingPipeline(generator, fail=fail)
    for _ in range(4):  # the main process, unlike a worker, continues
        with pytest.raises(TransientError, match="the GPU failed: CUDA error: device-side assert"):
            list(generator.generate_batch(requests(PROMPTS)))


def test_the_text_pipeline_is_unloaded_when_the_edit_pipeline_does_not_fit(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import knowgen.generators.diffusers.generator as module
    from knowgen.generators.diffusers.loading import load_pipeline as original

    generator = load_generator(
        tiny("flux"), edit=tiny("kontext"), edit_steps=2, edit_arguments={"max_area": 1024, "_auto_resize": False},
        **SMALL,
    )  # fmt: skip
    pipelines: dict[str, Any] = vars(generator._runner)["_pipelines"]

    def load(*args: Any) -> Any:
        if pipelines:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return original(*args)

    monkeypatch.setattr(module, "load_pipeline", load)
    result = generate(generator, requests(["a lamp"], [reference(tmp_path, "red")]))["r0"]
    assert result.settings["pipeline"] == "FluxKontextPipeline"
    assert list(pipelines) == ["edit"]
    assert generate(generator, requests(["a lamp"]))["r0"].settings["pipeline"] == "FluxPipeline"

    def load_while_one_is_loaded(*args: Any) -> Any:
        pipelines["text"] = None
        return load(*args)

    monkeypatch.setattr(module, "load_pipeline", load_while_one_is_loaded)
    pipelines.clear()
    with pytest.raises(ConfigError, match="do not fit into memory"):
        list(generator.generate_batch(requests(["a lamp"], [reference(tmp_path, "red")])))


# --- errors before generation ----------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_missing_weights_are_not_downloaded_by_default(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    with pytest.raises(MissingDependencyError, match=r"-g download=true, or `hf download Qwen/Qwen-Image`"):
        load_generator("qwen-image")
    assert DiffusersGenerator.weights_identity("qwen-image") == ""
    assert not any(hub_cache.iterdir())

    def download(name: str, **options: Any) -> str:
        assert (name, options) == ("Qwen/Qwen-Image", {"revision": "main", "use_safetensors": True})
        raise OSError("no\nroute")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(MissingDependencyError, match=r"Qwen/Qwen-Image could not be downloaded: no route"):
        load_generator("qwen-image", download=True)


def test_a_model_in_the_hub_cache_is_used_and_its_commit_recorded(tiny: Callable[[str], str], hub_cache: Path) -> None:
    """The hub's client stores files under their digests, and snapshots as links to them."""
    store, commit = hub_cache / "models--made-up--tiny", "c0ffee" * 6 + "c0ff"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    (store / "blobs").mkdir()
    for file in Path(tiny("sd3")).rglob("*"):
        if file.is_file():
            blob = store / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, blob)
            link = store / "snapshots" / commit / file.relative_to(tiny("sd3"))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    result = generate(load_generator("made-up/tiny", **SMALL), requests(["a lamp"]))["r0"]
    assert (result.settings["model"], result.settings["revision"]) == ("made-up/tiny", commit)
    assert result.settings["weights"] == DiffusersGenerator.weights_identity(tiny("sd3"))
    assert max_difference(result, generate(load_generator(tiny("sd3"), **SMALL), requests(["a lamp"]))["r0"]) == 0
    with pytest.raises(MissingDependencyError, match="are not on this machine"):
        load_generator("made-up/tiny", model_revision="other", **SMALL)


def _break_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), DataError, "is not a diffusers pipeline"),
        (lambda folder: shutil.rmtree(folder / "vae"), MissingDependencyError, "vae is missing"),
        (
            lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            MissingDependencyError,
            "vae has no safetensors file",
        ),
        (
            lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(
                folder / "vae" / "diffusion_pytorch_model.bin"
            ),
            DataError,
            "pickles",
        ),
        (lambda folder: _break_index(folder, vae=["mine", "Vae"]), DataError, "cannot be loaded"),
        (
            lambda folder: (folder / "vae" / "diffusers.py").write_text("1"),
            DataError,
            "contains code, which is not run",
        ),
        (lambda folder: _break_index(folder, _class_name=["mine", "Mine"]), DataError, "which is not run"),
        (lambda folder: _break_index(folder, _class_name="MadeUpPipeline"), MissingDependencyError, "MadeUpPipeline"),
        (
            lambda folder: (folder / "vae" / "m.safetensors.index.json").write_text('{"weight_map": {"a": "m-2"}}'),
            MissingDependencyError,
            "m-2 of vae is missing",
        ),
    ],
)
def test_a_folder_that_is_not_a_complete_pipeline_is_an_error(
    tiny: Callable[[str], str], tmp_path: Path, damage: Callable[[Path], object], error: type, message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("sd3"), folder)
    damage(folder)
    with pytest.raises(error, match=message) as raised:
        load_generator(str(folder))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"dtype": "int8"}, UsageError, "dtype='int8' is unknown"),
        ({"size": "large"}, UsageError, "is not a size"),
        ({"steps": 0}, UsageError, "steps must be 1 or more"),
        ({"pipeline": "MadeUpPipeline"}, MissingDependencyError, "has no MadeUpPipeline; pip install -U diffusers"),
        ({"arguments": {"true_cfg_scale": 4.0}}, UsageError, "takes no true_cfg_scale"),
        ({"offload": "model"}, ConfigError, "offload needs an accelerator"),
        ({"quantization": "half"}, UsageError, "bitsandbytes_4bit"),
        ({"quantization": {"backend": "x"}}, UsageError, "backend, kwargs, parts"),
    ],
)
def test_invalid_arguments_are_errors_before_anything_is_generated(
    tiny: Callable[[str], str], args: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        load_generator(tiny("sd3"), **args)


def test_quantization_needs_its_backend(tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else original(name))
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes"):
        load_generator(tiny("sd3"), quantization="bitsandbytes_4bit")


def test_other_weights_in_the_same_folder_have_another_identity(tiny: Callable[[str], str], tmp_path: Path) -> None:
    folder, other, copy = tmp_path / "folder", tmp_path / "other", tmp_path / "copy"
    tiny_pipelines.sd3(folder)
    shutil.copytree(folder, copy)
    tiny_pipelines.sd3(other, seed=1)
    identity = DiffusersGenerator.weights_identity(str(folder))
    assert len(identity) == 12
    assert DiffusersGenerator.weights_identity(str(copy)) == identity
    assert DiffusersGenerator.weights_identity(str(other)) != identity
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    assert DiffusersGenerator.weights_identity(str(folder)) == DiffusersGenerator.weights_identity(str(other))
    edit_identity = DiffusersGenerator.weights_identity(tiny("kontext"))
    both = DiffusersGenerator.weights_identity(str(folder), edit=tiny("kontext"))
    assert both == f"{DiffusersGenerator.weights_identity(str(folder))}+{edit_identity}"
    result = generate(load_generator(str(other), **SMALL), requests(["x"]))["r0"]
    assert result.settings["weights"] == DiffusersGenerator.weights_identity(str(other))


def test_the_declared_capabilities() -> None:
    capabilities = capabilities_of(DiffusersGenerator)
    assert (capabilities.shape, capabilities.batch_size, capabilities.concurrency) == ("generate_batch", 16, 1)
    assert capabilities.references and not capabilities.privileged and capabilities.revision
