"""Options that cannot work are refused before gigabytes are loaded, and each is part of the identity or is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.core.spec import GeneratorSpec
from knowgen.generators.diffusers.checks import check_before_loading
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.options import LoadingOptions
from knowgen.generators.diffusers.weights import PipelineFiles
from knowgen.workflows.resolve import resolve_generator
from tests.helpers import tiny_pipelines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return tiny_pipelines.builder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where a pipeline or a model is loaded."""
    import diffusers
    from diffusers.models.modeling_utils import ModelMixin

    def loads(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", loads)
    monkeypatch.setattr(diffusers.AutoPipelineForText2Image, "from_pretrained", loads)
    monkeypatch.setattr(ModelMixin, "from_pretrained", loads)


GGUF = "<gguf>"
BNB, INT8 = "bitsandbytes_4bit", "torchao_int8wo"


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    ("model", "args", "error", "message"),
    [
        ("flux", {"attention": "fast"}, UsageError, "attention='fast' is unknown; give one of flash"),
        ("flux", {"attention": "sage"}, ConfigError, "attention=sage needs an accelerator"),
        ("sd3", {"attention": "native"}, ConfigError, "SD3Transformer2DModel computes its attention itself"),
        ("sd3", {"cache": "first_block"}, ConfigError, "SD3Transformer2DModel cannot be cached between steps"),
        ("kontext", {"cache": "first_block"}, ConfigError, "FluxKontextPipeline does not name its passes"),
        (
            "flux",
            {"cache": {"kind": "first_block", "limit": 1}},
            UsageError,
            "has no limit; its settings are threshold",
        ),
        (
            "flux",
            {"cache": {"kind": "taylorseer", "cache_interval": "x"}},
            UsageError,
            "interval must be a number, got 'x'",
        ),
        ("sd3", {"compile": "regional"}, ConfigError, "names no repeated blocks.*give compile=true"),
        ("flux", {"offload": "model"}, ConfigError, "offload needs an accelerator"),
        ("flux", {"offload": "model", "device_map": "cpu"}, ConfigError, "offload and device_map do not go together"),
        ("flux", {"offload": "sequential", "compile": True}, ConfigError, "offload=sequential and compile do not go"),
        ("flux", {"device_map": "both"}, ConfigError, "device_map='both' is unknown here; give one of balanced"),
        ("flux", {"gpus_per_worker": 2}, ConfigError, "gpus_per_worker=2, and this process has 0 GPUs"),
        ("flux", {"gguf": GGUF, "quantization": INT8}, ConfigError, "gguf and quantization do not go together: the tr"),
        ("flux", {"gguf": GGUF, "gpus_per_worker": 2}, ConfigError, "gguf and gpus_per_worker do not go together"),
        ("flux", {"gguf": GGUF, "offload": "sequential"}, ConfigError, "gguf and offload=sequential do not go"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_are_loaded(
    tiny: Callable[[str], str],
    tmp_path: Path,
    model: str,
    args: dict[str, Any],
    error: type[KnowgenError],
    message: str,
) -> None:
    (tmp_path / "any.gguf").touch()
    file = str(tmp_path / "any.gguf")
    given: dict[str, Any] = {name: file if value == GGUF else value for name, value in args.items()}
    with pytest.raises(error, match=message):
        DiffusersGenerator(tiny(model), **given).setup("cpu")


def test_an_unknown_attention_is_refused_when_a_generator_is_made_as_a_dry_run_does() -> None:
    with pytest.raises(UsageError, match="attention='fast' is unknown; give one of flash"):
        DiffusersGenerator("flux.1-dev", attention="fast")


def test_a_class_that_takes_no_adapter_is_named() -> None:
    import diffusers

    from knowgen.generators.diffusers.lora import LowRankAdapter

    files = PipelineFiles(Path("folder"), "", "OvisImagePipeline", ("transformer",))
    options = LoadingOptions("cpu", adapters=(LowRankAdapter(Path("ink.safetensors"), 1.0),))
    with pytest.raises(ConfigError, match="generator: OvisImagePipeline takes no LoRA; leave out lora"):
        check_before_loading(diffusers.OvisImagePipeline, files, options, "generator")


# --- identity --------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "pipeline": "FluxPipeline", "size": "64x32", "steps": 3, "guidance": 2.0, "negative_prompt": "fog",
    "suffix": " in oil", "arguments": {"max_sequence_length": 64}, "edit_pipeline": "FluxKontextPipeline",
    "edit_size": "64x32", "edit_steps": 3, "edit_guidance": 2.0, "edit_arguments": {"max_sequence_length": 64},
    "reference_images": "ignore", "most_references": 1, "dtype": "bfloat16", "variant": "fp16", "noise": "device",
    "batch": 4, "compile": "regional", "tiling": True, "attention": "native", "cache": "first_block",
    "quantization": INT8, "model_revision": "v2", "edit_revision": "v2",
}  # fmt: skip
"""Options that change images, with a value other than the default."""

COMPONENTS = ("components", "edit_components")
"""Options that name the files of a component."""

FILES = ("weights", "edit", "gguf", "edit_gguf", "lora", "edit_lora")
"""Options that name files, whose content counts."""

KEEPS: dict[str, Any] = {
    "download": True, "device_map": "balanced", "gpus_per_worker": 2, "offload": "model", "slicing": True,
}  # fmt: skip
"""Options that only decide where something is computed."""


def spec_of(model: str, **args: Any) -> GeneratorSpec:
    return resolve_generator(f"diffusers:{model}", args, None).spec


def test_every_option_is_in_the_key_or_known_not_to_change_images(tiny: Callable[[str], str], tmp_path: Path) -> None:
    names = {field.name for field in dataclasses.fields(DiffusersGenerator)}
    assert names == {"model", *CHANGES, *FILES, *COMPONENTS, *KEEPS}
    model = tiny("flux")
    plain = spec_of(model)
    for name, value in CHANGES.items():
        assert spec_of(model, **{name: value}) != plain, name
    for name, value in KEEPS.items():
        assert spec_of(model, **{name: value}) == plain, name
    for name in FILES:
        assert spec_of(model, **{name: "ORG/NAME"}) != plain, name
    for name in COMPONENTS:
        assert spec_of(model, **{name: {"text_encoder": "ORG/NAME"}}) != plain, name


def test_a_default_that_is_written_out_is_the_default(tiny: Callable[[str], str]) -> None:
    for field in dataclasses.fields(DiffusersGenerator):
        if field.name in CHANGES and field.default is not dataclasses.MISSING and field.default is not None:
            assert spec_of(tiny("flux"), **{field.name: field.default}) == spec_of(tiny("flux")), field.name


def test_compiling_is_part_of_the_identity_except_in_float32(tiny: Callable[[str], str]) -> None:
    """A compiled denoiser rounds elsewhere: by 3 to 5 levels of 255 in bfloat16 in tiny models, by 1 in float32."""
    model = tiny("flux")
    assert spec_of(model, dtype="float32", compile=True) == spec_of(model, dtype="float32")
    assert spec_of(model, dtype="bfloat16", compile=True) != spec_of(model, dtype="bfloat16")
    cached = {"dtype": "float32", "cache": "first_block"}
    assert spec_of(model, compile=True, **cached) != spec_of(model, **cached)
