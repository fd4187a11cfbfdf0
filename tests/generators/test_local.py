"""Tiny pipelines of the real classes go through the code that loads real ones, with and without references, on CPU."""

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
from tests.helpers import tiny_pipelines

PROMPTS = ["a lamp", "a much longer prompt about a tower by the sea with fourteen windows", "x", "two lamps", "a ship"]

TOLERANCE = 1
"""Of 255 levels: what rounding of float32 may move in a batch. Measured: 0 or 1."""

SMALL: dict[str, Any] = {"size": "32x32", "steps": 2}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    root = tmp_path_factory.mktemp("tiny")

    def folder(name: str) -> str:
        place = root / name
        if not place.exists():
            getattr(tiny_pipelines, name)(place)
        return str(place)

    return folder


def requests(prompts: Sequence[str], references: Sequence[ImageRef] = (), seed: int = 0) -> list[GenerationRequest]:
    return [
        GenerationRequest(id=f"r{number}", prompt=prompt, seed=seed + number, references=tuple(references))
        for number, prompt in enumerate(prompts)
    ]


def reference(folder: Path, name: str, size: tuple[int, int] = (48, 32)) -> ImageRef:
    """An image of random tiles; one colour would be nothing to a network that normalises."""
    path = folder / f"{name}-{size[0]}x{size[1]}.png"
    tiles = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=size[0], height=size[1], format="PNG", path=path)


def ready(model: str, **args: Any) -> DiffusersGenerator:
    made = DiffusersGenerator(model, **args)
    made.setup("cpu")
    return made


def drawn(generator: DiffusersGenerator, asked: Sequence[GenerationRequest]) -> dict[str, GeneratedImage]:
    drawings = list(generator.generate_batch(asked))
    assert sorted(drawing.request_id for drawing in drawings) == sorted(request.id for request in asked)
    assert [drawing.reason for drawing in drawings if drawing.status is not GenerationStatus.OK] == []
    return {drawing.request_id: drawing for drawing in drawings}


def pixels(drawing: GeneratedImage) -> np.ndarray:
    assert isinstance(drawing.image, Image.Image)
    return np.asarray(drawing.image).astype(int)


def apart(one: GeneratedImage, other: GeneratedImage) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def settings_of(name: str) -> dict[str, Any]:
    return SMALL | ({"guidance": 4.0, "negative_prompt": " "} if name == "qwen_image" else {})


# --- a batch is what its images are by themselves -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd3", "flux", "flux2_klein", "qwen_image"])
def test_an_image_does_not_depend_on_its_batch(tiny: Callable[[str], str], name: str) -> None:
    generator = ready(tiny(name), **settings_of(name))
    asked = requests(PROMPTS * 2)
    singles = {request.id: drawn(generator, [request])[request.id] for request in asked}
    batched = drawn(generator, asked)
    assert max(drawing.settings["batch"] for drawing in batched.values()) > 1
    assert max(apart(singles[name], batched[name]) for name in singles) <= TOLERANCE
    assert len({pixels(drawing).tobytes() for drawing in batched.values()}) == len(asked)


def test_noise_comes_from_the_seed_of_each_request(tiny: Callable[[str], str]) -> None:
    """Drawn here by the library itself, one prompt and one generator at a time."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    generator = ready(tiny("sd3"), **SMALL)
    drawn(generator, requests(PROMPTS, seed=90))  # so that the next ones share a pass
    batched = drawn(generator, requests(["a lamp"] * 3, seed=5))
    library = StableDiffusion3Pipeline.from_pretrained(tiny("sd3"), local_files_only=True)
    library.set_progress_bar_config(disable=True)
    for number in range(3):
        noise = torch.Generator("cpu").manual_seed(5 + number)
        image = library("a lamp", num_inference_steps=2, width=32, height=32, generator=noise).images[0]
        assert np.abs(np.asarray(image).astype(int) - pixels(batched[f"r{number}"])).max() <= TOLERANCE
    assert apart(batched["r0"], batched["r1"]) > 20
    assert [batched[f"r{number}"].settings["seed"] for number in range(3)] == [5, 6, 7]


def test_settings_say_what_decided_the_image(tiny: Callable[[str], str]) -> None:
    import diffusers
    import torch
    import transformers

    generator = ready(tiny("sd3"), size="48x32", steps=3, guidance=5.5, suffix=", at night", negative_prompt="fog")
    drawing = drawn(generator, requests(["a lamp"], seed=7))["r0"]
    assert drawing.used_prompt == "a lamp, at night"
    expected = {
        "pipeline": "StableDiffusion3Pipeline", "model": tiny("sd3"), "steps": 3, "size": "48x32", "seed": 7,
        "guidance": {"guidance_scale": 5.5}, "negative_prompt": "fog", "suffix": ", at night", "batch": 1,
        "scheduler": "FlowMatchEulerDiscreteScheduler", "dtype": "float32", "device": "cpu", "device_name": "",
        "noise": "cpu",
    }  # fmt: skip
    assert {name: drawing.settings[name] for name in expected} == expected
    assert drawing.settings["versions"] == {
        "diffusers": diffusers.__version__,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    json.dumps(drawing.settings, allow_nan=False)


def test_each_setting_reaches_the_pipeline(tiny: Callable[[str], str]) -> None:
    def with_(**args: Any) -> bytes:
        return pixels(drawn(ready(tiny("sd3"), **{**SMALL, **args}), requests(["a lamp"]))["r0"]).tobytes()

    usual = with_()
    for change in ({"steps": 3}, {"guidance": 2.0}, {"negative_prompt": "fog"}, {"suffix": "!"}, {"size": "48x32"}):
        assert with_(**change) != usual, change
    assert with_(arguments={"max_sequence_length": 4}) != usual
    assert with_(slicing=True) == usual


def test_defaults_of_the_class_are_recorded_where_nothing_was_set(tiny: Callable[[str], str]) -> None:
    drawing = drawn(ready(tiny("flux"), size="32x32"), requests(["a lamp"]))["r0"]
    assert drawing.settings["steps"] == 28  # the pipeline's own
    assert drawing.settings["guidance"]["guidance_scale"] == 3.5


def test_what_a_library_warns_of_at_every_pass_is_reported_once(tiny: Callable[[str], str]) -> None:
    import io
    import logging

    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        generator = ready(tiny("sd3"), **SMALL)
        long = " ".join(["a lighthouse"] * 60)
        for _ in range(3):
            drawn(generator, requests([long]))
        logger.warning("something new %s", "x" * 5000)
    finally:
        logger.removeHandler(handler)
    lines = told.getvalue().splitlines()
    assert len(lines) == len({line[:60] for line in lines})
    assert sum("CLIP can only handle" in line for line in lines) == 1
    assert lines[-1].startswith("something new xxx")
    assert max(map(len, lines)) <= 200


# --- reference images ------------------------------------------------------------------------------------------------


def test_stable_diffusion_edits_with_its_own_parts(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = ready(tiny("sd3"), **SMALL | {"steps": 6})
    red, blue = reference(tmp_path, "red"), reference(tmp_path, "blue")
    one = drawn(generator, requests(["a lamp"], [red]))["r0"]
    other = drawn(generator, requests(["a lamp"], [blue]))["r0"]
    assert one.settings["pipeline"] == "StableDiffusion3Img2ImgPipeline"
    assert one.references == ({"sha256": red.sha256},)
    assert apart(one, other) > 20


def test_flux_hands_references_to_kontext_which_is_loaded_only_then(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = ready(
        tiny("flux"), edit=tiny("kontext"), edit_steps=2, edit_arguments={"max_area": 1024, "_auto_resize": False},
        **SMALL,
    )  # fmt: skip
    assert list(generator._painter._held) == ["text"]  # type: ignore[union-attr]
    wide, tall = reference(tmp_path, "red"), reference(tmp_path, "blue", (32, 48))
    asked = [*requests(["plain"]), *requests(PROMPTS, [wide, tall])[1:], *requests([*PROMPTS, "tall"], [tall])[5:]]
    together = drawn(generator, asked)
    assert list(generator._painter._held) == ["text", "edit"]  # type: ignore[union-attr]
    assert [together[f"r{number}"].settings["pipeline"] for number in (0, 1)] == ["FluxPipeline", "FluxKontextPipeline"]
    assert together["r1"].references == ({"sha256": wide.sha256},)
    assert together["r1"].settings["references_left_out"] == 1
    for request in asked[1:]:
        assert apart(drawn(generator, [request])[request.id], together[request.id]) <= TOLERANCE


@pytest.fixture
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen-Image-Edit brings references to a million pixels, which takes a CPU a while even for a tiny model."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 56 * 56)


@pytest.mark.usefixtures("small_references")
def test_qwen_image_edits_from_at_most_three_references(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = ready(
        "qwen-image", weights=tiny("qwen_image"), edit=tiny("qwen_image_edit"), edit_size="32x32", edit_steps=2, **SMALL
    )
    given = [reference(tmp_path, colour) for colour in ("red", "green", "blue", "white")]
    drawing = drawn(generator, requests(["a lamp"], given))["r0"]
    assert drawing.settings["pipeline"] == "QwenImageEditPlusPipeline"
    assert drawing.settings["guidance"] == {"true_cfg_scale": 4.0, "guidance_scale": 1.0}
    assert drawing.settings["negative_prompt"] == " "
    assert [each["sha256"] for each in drawing.references] == [each.sha256 for each in given[:3]]
    assert drawing.settings["references_left_out"] == 1
    assert drawing.used_prompt == ""
    fewer = drawn(generator, requests(["a lamp"], given[:2]))["r0"]
    assert apart(drawing, fewer) > 0
    assert apart(drawing, drawn(generator, requests(["a lamp"], given[:3]))["r0"]) == 0
    mixed = drawn(generator, [*requests(["a lamp"], given), requests([*PROMPTS])[1], *requests(PROMPTS, given)[2:4]])
    assert apart(mixed["r0"], drawing) == 0
    assert {name: one.settings["batch"] for name, one in mixed.items()} == dict.fromkeys(mixed, 1)
    assert mixed["r1"].used_prompt.endswith("Ultra HD, 4K, cinematic composition.")


def test_flux2_takes_several_references_into_its_text_to_image_pipeline(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    generator = ready("flux.2-klein-4b", weights=tiny("flux2_klein"), **SMALL)
    given = [reference(tmp_path, name, (64, 80)) for name in ("red", "green", "blue")]
    one, all_three = (drawn(generator, requests(["a lamp"], given[:count]))["r0"] for count in (1, 3))
    assert [len(drawing.references) for drawing in (one, all_three)] == [1, 3]
    assert {one.settings["pipeline"], all_three.settings["pipeline"]} == {"Flux2KleinPipeline"}
    assert apart(one, all_three) > 0
    assert apart(all_three, drawn(generator, requests(["a lamp"]))["r0"]) > 0
    held: dict[str, Any] = vars(generator._painter)["_held"]
    assert held["text"].pipe is held["edit"].pipe


@pytest.mark.usefixtures("small_references")
def test_an_editing_model_by_itself_needs_a_reference(tiny: Callable[[str], str], tmp_path: Path) -> None:
    generator = ready(tiny("qwen_image_edit"), **SMALL)
    (drawing,) = generator.generate_batch(requests(["a lamp"]))
    assert (drawing.status, drawing.image) == (GenerationStatus.FAILED, None)
    assert "draws only from reference images" in drawing.reason
    assert drawn(generator, requests(["a lamp"], [reference(tmp_path, "red")]))["r0"].status is GenerationStatus.OK


# --- memory and faults -----------------------------------------------------------------------------------------------


class Limited:
    """Makes a pipeline run out of memory, or fail, as a GPU would."""

    def __init__(
        self, generator: DiffusersGenerator, fits: int = 99, fault: Callable[[list[str]], None] | None = None
    ) -> None:
        self.calls: list[int] = []
        pipeline = generator._painter._held["text"]  # type: ignore[union-attr]
        draw = pipeline.draw

        def limited(prompts: list[str], *rest: Any) -> Any:
            import torch

            self.calls.append(len(prompts))
            if fault is not None:
                fault(prompts)
            if len(prompts) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return draw(prompts, *rest)

        pipeline.draw = limited  # type: ignore[method-assign]


def test_passes_grow_and_are_halved_when_memory_runs_out_which_is_remembered(tiny: Callable[[str], str]) -> None:
    generator = ready(tiny("sd3"), **SMALL)
    limited = Limited(generator, fits=3)
    alone = ready(tiny("sd3"), batch=1, **SMALL)
    asked = requests((PROMPTS * 3)[:11])
    drawings = drawn(generator, asked)
    assert limited.calls == [1, 2, 4, 2, 2, 2, 2]
    assert max(apart(drawings[name], one) for name, one in drawn(alone, asked).items()) <= TOLERANCE
    limited.calls.clear()
    drawn(generator, requests(PROMPTS))
    assert limited.calls == [2, 2, 1]


def test_passes_grow_to_the_batch_asked_for(tiny: Callable[[str], str]) -> None:
    generator = ready(tiny("sd3"), batch=5, **SMALL)
    limited = Limited(generator)
    drawn(generator, requests(PROMPTS * 4))
    assert limited.calls == [1, 2, 4, 5, 5, 3]


def test_a_single_image_that_does_not_fit_is_a_failure_with_a_reason(tiny: Callable[[str], str]) -> None:
    generator = ready(tiny("sd3"), **SMALL)
    Limited(generator, fits=0)
    drawings = list(generator.generate_batch(requests(PROMPTS[:3])))
    assert [drawing.status for drawing in drawings] == [GenerationStatus.FAILED] * 3
    assert all("memory ran out" in drawing.reason and drawing.image is None for drawing in drawings)


def test_one_bad_prompt_does_not_cost_the_others_their_images(tiny: Callable[[str], str]) -> None:
    generator = ready(tiny("sd3"), **SMALL)
    drawn(generator, requests(PROMPTS))

    def fault(prompts: list[str]) -> None:
        if "x" in prompts:
            raise ValueError("this prompt\nis bad")

    Limited(generator, fault=fault)
    drawings = {drawing.request_id: drawing for drawing in generator.generate_batch(requests(PROMPTS))}
    assert drawings["r2"].reason == "ValueError: this prompt is bad"
    assert [name for name, one in drawings.items() if one.status is GenerationStatus.OK] == ["r0", "r1", "r3", "r4"]


def test_values_that_are_not_numbers_are_a_failure_and_not_a_black_image(tiny: Callable[[str], str]) -> None:
    import torch

    generator = ready(tiny("sd3"), **SMALL)
    vae = generator._painter._held["text"].pipe.vae  # type: ignore[union-attr]
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(float("nan"))
    (drawing,) = generator.generate_batch(requests(["a lamp"]))
    assert drawing.status is GenerationStatus.FAILED
    assert "NaN" in drawing.reason and "dtype=float32" in drawing.reason


def test_a_gpu_that_fails_is_a_fault_that_may_pass(tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNOWGEN_DEVICE", raising=False)
    generator = ready(tiny("sd3"), **SMALL)

    def fault(prompts: list[str]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    Limited(generator, fault=fault)
    for _ in range(4):  # no worker: the process goes on
        with pytest.raises(TransientError, match="the GPU failed: CUDA error: device-side assert"):
            list(generator.generate_batch(requests(PROMPTS)))


def test_a_pipeline_makes_room_for_its_partner(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import knowgen.generators.diffusers.generator as module
    from knowgen.generators.diffusers.pipeline import load as real

    generator = ready(
        tiny("flux"), edit=tiny("kontext"), edit_steps=2, edit_arguments={"max_area": 1024, "_auto_resize": False},
        **SMALL,
    )  # fmt: skip
    held: dict[str, Any] = vars(generator._painter)["_held"]

    def load(*args: Any) -> Any:
        if held:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return real(*args)

    monkeypatch.setattr(module, "load", load)
    drawing = drawn(generator, requests(["a lamp"], [reference(tmp_path, "red")]))["r0"]
    assert drawing.settings["pipeline"] == "FluxKontextPipeline"
    assert list(held) == ["edit"]
    assert drawn(generator, requests(["a lamp"]))["r0"].settings["pipeline"] == "FluxPipeline"

    def load_while_one_is_loaded(*args: Any) -> Any:
        held["text"] = None
        return load(*args)

    monkeypatch.setattr(module, "load", load_while_one_is_loaded)
    held.clear()
    with pytest.raises(ConfigError, match="do not fit into memory"):
        list(generator.generate_batch(requests(["a lamp"], [reference(tmp_path, "red")])))


# --- what cannot generate --------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_weights_that_are_not_here_are_not_fetched_unasked(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    with pytest.raises(MissingDependencyError, match=r"-g download=true, or `hf download Qwen/Qwen-Image`"):
        ready("qwen-image")
    assert DiffusersGenerator.weights_identity("qwen-image") == ""
    assert not any(hub_cache.iterdir())

    def download(name: str, **asked: Any) -> str:
        assert (name, asked) == ("Qwen/Qwen-Image", {"revision": "main", "use_safetensors": True})
        raise OSError("no\nroute")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(MissingDependencyError, match=r"Qwen/Qwen-Image could not be downloaded: no route"):
        ready("qwen-image", download=True)


def test_a_model_in_the_hub_cache_is_used_and_its_commit_recorded(tiny: Callable[[str], str], hub_cache: Path) -> None:
    """Laid out as the hub's client does: files lie under their digests, and snapshots are links."""
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
    drawing = drawn(ready("made-up/tiny", **SMALL), requests(["a lamp"]))["r0"]
    assert (drawing.settings["model"], drawing.settings["revision"]) == ("made-up/tiny", commit)
    assert drawing.settings["weights"] == DiffusersGenerator.weights_identity(tiny("sd3"))
    assert apart(drawing, drawn(ready(tiny("sd3"), **SMALL), requests(["a lamp"]))["r0"]) == 0
    with pytest.raises(MissingDependencyError, match="are not on this machine"):
        ready("made-up/tiny", model_revision="other", **SMALL)


def _break_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), DataError, "holds no model_index.json"),
        (lambda folder: shutil.rmtree(folder / "vae"), MissingDependencyError, "vae is missing"),
        (
            lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            MissingDependencyError,
            "vae has none",
        ),
        (
            lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(
                folder / "vae" / "diffusion_pytorch_model.bin"
            ),
            DataError,
            "pickles",
        ),
        (lambda folder: _break_index(folder, vae=["mine", "Vae"]), DataError, "cannot be loaded"),
        (lambda folder: (folder / "vae" / "diffusers.py").write_text("1"), DataError, "code of its own"),
        (lambda folder: _break_index(folder, _class_name=["mine", "Mine"]), DataError, "which is not run"),
        (lambda folder: _break_index(folder, _class_name="MadeUpPipeline"), MissingDependencyError, "MadeUpPipeline"),
        (
            lambda folder: (folder / "vae" / "m.safetensors.index.json").write_text('{"weight_map": {"a": "m-2"}}'),
            MissingDependencyError,
            "vae lacks m-2",
        ),
    ],
)
def test_a_folder_that_is_not_a_whole_pipeline_is_refused_with_the_reason(
    tiny: Callable[[str], str], tmp_path: Path, damage: Callable[[Path], object], error: type, words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("sd3"), folder)
    damage(folder)
    with pytest.raises(error, match=words) as raised:
        ready(str(folder))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"dtype": "int8"}, UsageError, "dtype='int8' is unknown"),
        ({"size": "large"}, UsageError, "is no size"),
        ({"steps": 0}, UsageError, "steps must be 1 or more"),
        ({"pipeline": "MadeUpPipeline"}, MissingDependencyError, "has no MadeUpPipeline; pip install -U diffusers"),
        ({"arguments": {"true_cfg_scale": 4.0}}, UsageError, "takes no true_cfg_scale"),
        ({"offload": "model"}, ConfigError, "offload needs an accelerator"),
        ({"quantization": "half"}, UsageError, "bitsandbytes_4bit"),
        ({"quantization": {"backend": "x"}}, UsageError, "backend, kwargs and parts"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_generated(
    tiny: Callable[[str], str], args: dict[str, Any], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        ready(tiny("sd3"), **args)


def test_quantization_needs_its_backend(tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes"):
        ready(tiny("sd3"), quantization="bitsandbytes_4bit")


def test_other_weights_in_the_same_folder_are_another_system(tiny: Callable[[str], str], tmp_path: Path) -> None:
    one, two, copy = tmp_path / "one", tmp_path / "two", tmp_path / "copy"
    tiny_pipelines.sd3(one)
    shutil.copytree(one, copy)
    tiny_pipelines.sd3(two, seed=1)
    first = DiffusersGenerator.weights_identity(str(one))
    assert len(first) == 12
    assert DiffusersGenerator.weights_identity(str(copy)) == first
    assert DiffusersGenerator.weights_identity(str(two)) != first
    shutil.rmtree(one)
    shutil.copytree(two, one)
    assert DiffusersGenerator.weights_identity(str(one)) == DiffusersGenerator.weights_identity(str(two))
    both = DiffusersGenerator.weights_identity(str(one), edit=tiny("kontext"))
    assert (
        both
        == f"{DiffusersGenerator.weights_identity(str(one))}+{DiffusersGenerator.weights_identity(tiny('kontext'))}"
    )
    assert drawn(ready(str(two), **SMALL), requests(["x"]))["r0"].settings[
        "weights"
    ] == DiffusersGenerator.weights_identity(str(two))


def test_the_class_says_how_the_engine_is_to_call_it() -> None:
    traits = capabilities_of(DiffusersGenerator)
    assert (traits.shape, traits.batch_size, traits.concurrency) == ("generate_batch", 8, 1)
    assert traits.references and not traits.privileged and traits.revision
