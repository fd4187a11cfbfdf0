"""Parts of `diffusers:MODEL`: presets, grouping of requests, failures of a GPU."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from knowgen.core.errors import MissingDependencyError, TransientError, UsageError
from knowgen.generators.contract import GPU_FAULT_CODE
from knowgen.generators.diffusers import device_health
from knowgen.generators.diffusers import generator as generator_module
from knowgen.generators.diffusers.device_health import GpuHealth
from knowgen.generators.diffusers.generation import grouped
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    Preset,
    edit_settings,
    known_traits,
    parse_size,
    pipeline_traits,
    preset,
    presets,
    with_changes,
)
from knowgen.local_models.devices import auto_dtype

PUBLISHED = Path(__file__).resolve().parents[2] / "leaderboards" / "knowgen-official" / "published.csv"


# --- presets ---------------------------------------------------------------------------------------------------------


def test_every_open_row_of_the_published_table_has_a_preset() -> None:
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = {row["system"] for row in csv.DictReader(file) if row["kind"] == "open"}
    assert {entry.row for entry in presets() if entry.row} == rows


@pytest.mark.parametrize(
    ("name", "size", "steps", "guidance"),
    [
        ("qwen-image", (1664, 928), 50, {"true_cfg_scale": 4.0}),
        ("z-image", (720, 1280), 50, {"guidance_scale": 4.0}),
        ("z-image-turbo", (1024, 1024), 9, {"guidance_scale": 0.0}),
        ("flux.1-dev", (1024, 1024), 50, {"guidance_scale": 3.5}),
        ("flux.1-krea", (1024, 1024), None, {"guidance_scale": 4.5}),
        ("flux.2-klein-4b", (1024, 1024), 4, {"guidance_scale": 1.0}),
        ("lumina-image-2.0", (1024, 1024), 50, {"guidance_scale": 4.0}),
        ("sd-3.5-medium", None, 40, {"guidance_scale": 4.5}),
        ("longcat-image", (1344, 768), 50, {"guidance_scale": 4.0}),
    ],
)
def test_presets_have_the_published_settings(
    name: str, size: tuple[int, int] | None, steps: int | None, guidance: dict[str, float]
) -> None:
    settings = preset(name)
    assert settings is not None
    assert (settings.width_height, settings.steps, settings.guidance) == (size, steps, guidance)


def test_qwen_image_generates_and_edits_as_published() -> None:
    text, edit = preset("Qwen-Image"), edit_settings("QwenImagePipeline")
    assert text is not None and edit is not None
    assert (text.negative_prompt, text.suffix) == (" ", ", Ultra HD, 4K, cinematic composition.")
    assert (edit.model, edit.steps) == ("Qwen/Qwen-Image-Edit-2509", 40)
    assert (edit.guidance, edit.negative_prompt) == ({"true_cfg_scale": 4.0, "guidance_scale": 1.0}, " ")
    krea, lumina = preset("flux.1-krea"), preset("lumina-image-2.0")
    assert krea is not None and krea.published_seed is None
    assert lumina is not None and lumina.arguments == {"cfg_trunc_ratio": 0.25}


def test_settings_of_presets_are_arguments_of_their_classes() -> None:
    """Compared with the installed library, so that no preset sets an argument that its pipeline does not take."""
    import inspect

    import diffusers

    for settings in [*presets(), *(edit_settings(entry.pipeline) for entry in presets())]:
        if settings is None or not settings.pipeline:
            continue
        pipeline_class = getattr(diffusers, settings.pipeline)
        parameters = set(inspect.signature(pipeline_class.__call__).parameters)
        names = {
            *settings.guidance,
            *settings.arguments,
            *(["height", "width"] if settings.size else []),
            "num_inference_steps",
        }
        names |= {"negative_prompt"} if settings.negative_prompt is not None else set()
        assert names <= parameters, settings.pipeline
        if pipeline_traits(settings.pipeline).needs_image:
            assert pipeline_traits(settings.pipeline).reference_argument in parameters


def test_the_listed_classes_exist_and_take_what_they_are_said_to_take() -> None:
    """Compared with the installed library."""
    import inspect

    import diffusers

    for name, traits in known_traits().items():
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        takes_images = traits.images == "all" or traits.needs_image or traits.batch == "all"
        assert traits.reference_argument in parameters or not takes_images, name
        assert "negative_prompt" in parameters or traits.negative_prompt is None, name
    assert not any(
        "image" in inspect.signature(getattr(diffusers, name).__call__).parameters
        for name in ("ZImagePipeline", "Lumina2Pipeline", "StableDiffusion3Pipeline")
    ), "the presets of these are text-only"


def test_the_number_of_references_is_that_of_the_class_unless_set() -> None:
    assert pipeline_traits("Flux2KleinPipeline").used_references(None) == 4
    assert pipeline_traits("QwenImageEditPlusPipeline").used_references(None) == 3
    assert pipeline_traits("QwenImageEditPlusPipeline").used_references(2) == 2
    assert pipeline_traits("ZImageOmniPipeline").used_references(None) is None
    assert pipeline_traits("FluxKontextPipeline").used_references(5) == 1
    assert pipeline_traits("MadeUpPipeline").used_references(5) == 1


def test_the_seed_is_recorded_as_published() -> None:
    seeds = {entry.name: entry.published_seed for entry in presets() if entry.row and not entry.unsupported}
    assert {name for name, seed in seeds.items() if seed is None} == {"flux.1-krea", "sd-3.5-medium", "sd-3.5-large"}
    assert set(seeds.values()) == {0, None}
    assert {entry.published_seed for entry in presets() if not entry.row} == {None}


def test_bfloat16_is_chosen_only_where_the_hardware_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda including_emulation: True)
    assert auto_dtype("cuda:0") == "float16"
    assert auto_dtype("cuda:0", "float32") == "float32"
    assert (auto_dtype("xpu:0"), auto_dtype("cpu")) == ("bfloat16", "float32")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: major <= 13)
    assert auto_dtype("mps") == "float16"


@pytest.mark.parametrize("name", ["hunyuanimage-3.0", "bagel"])
def test_the_error_of_an_unsupported_system_names_the_generator_that_runs_it(name: str) -> None:
    with pytest.raises(MissingDependencyError, match=f"generate with served:{name}"):
        DiffusersGenerator(name)


def test_a_preset_that_needs_a_newer_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    future = Preset(name="future", model="made-up/future", pipeline="FutureImagePipeline")
    monkeypatch.setattr(generator_module, "preset", lambda name: future if name == "future" else None)
    with pytest.raises(MissingDependencyError, match=r"has no FutureImagePipeline; pip install -U diffusers"):
        DiffusersGenerator("future")


def test_the_users_settings_override_the_presets() -> None:
    settings = PipelineSettings(
        model="m", guidance={"true_cfg_scale": 4.0, "guidance_scale": 1.0}, steps=40, suffix="!"
    )
    changed = with_changes(settings, {"steps": 8, "suffix": "", "size": None}, 2.0)
    assert (changed.steps, changed.suffix, changed.size) == (8, "", "")
    assert changed.guidance == {"true_cfg_scale": 2.0, "guidance_scale": 1.0}
    assert with_changes(settings, {}, {"guidance_scale": 3.0}).guidance == {
        "true_cfg_scale": 4.0,
        "guidance_scale": 3.0,
    }


@pytest.mark.parametrize(("text", "size"), [("1664x928", (1664, 928)), ("512", (512, 512)), ("8 × 16", (8, 16))])
def test_sizes_are_parsed(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0x8", "8x", "x", "0", "-1x2", "1e3", "8x8x8", "٣"])
def test_an_invalid_size_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


# --- requests that share a batch -------------------------------------------------------------------------------------


def test_requests_are_grouped_by_shape() -> None:
    assert list(grouped(["aa", "b", "cc", "d"], len)) == [(2, ["aa", "cc"]), (1, ["b", "d"])]


# --- failures of a GPU -----------------------------------------------------------------------------------------------


GPU_ERROR = RuntimeError("CUDA error: unspecified launch failure")


def test_only_a_worker_exits_at_the_third_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    exit_codes: list[int] = []
    health = GpuHealth(leave=exit_codes.append)
    monkeypatch.setenv("KNOWGEN_DEVICE", "cuda:0")
    for _ in range(2):
        assert isinstance(health.failed(GPU_ERROR), TransientError)
    assert exit_codes == []
    health.failed(GPU_ERROR)
    assert exit_codes == [GPU_FAULT_CODE]
    monkeypatch.delenv("KNOWGEN_DEVICE")
    health.failed(GPU_ERROR)
    assert exit_codes == [GPU_FAULT_CODE]


def test_a_worker_whose_gpu_is_unusable_exits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exit_codes: list[int] = []
    monkeypatch.setenv("KNOWGEN_DEVICE", "cuda:0")
    monkeypatch.setattr(device_health, "_context_is_dead", lambda: True)
    GpuHealth(leave=exit_codes.append).failed(GPU_ERROR)
    assert exit_codes == [GPU_FAULT_CODE]


def test_a_worker_that_cannot_load_its_pipeline_exits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exit_codes: list[int] = []
    monkeypatch.setenv("KNOWGEN_DEVICE", "cuda:0")
    GpuHealth(leave=exit_codes.append).failed(GPU_ERROR, fatal=True)
    assert exit_codes == [GPU_FAULT_CODE]
