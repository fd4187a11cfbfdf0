"""Options of `diffusers:` that make a model faster or smaller, on tiny pipelines of the real classes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowgen.core.errors import ConfigError, DataError, MissingDependencyError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.generator import DiffusersGenerator
from knowgen.generators.diffusers.weight_files import WeightFile, parse_weight_file
from tests.helpers import tiny_pipelines
from tests.helpers.hub_server import HubServer

SMALL: dict[str, Any] = {"size": "32x32", "steps": 4, "batch": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return tiny_pipelines.builder(tmp_path_factory.mktemp("tiny"))


def loaded(model: str, **args: Any) -> DiffusersGenerator:
    generator = DiffusersGenerator(model, **{**SMALL, **args})
    generator.setup("cpu")
    return generator


def images(generator: DiffusersGenerator, prompts: Sequence[str] = ("a lamp", "a ship")) -> list[GeneratedImage]:
    requests = [GenerationRequest(id=str(number), prompt=prompt, seed=3) for number, prompt in enumerate(prompts)]
    results = sorted(generator.generate_batch(requests), key=lambda result: int(result.request_id))
    assert [result.reason for result in results if result.status is not GenerationStatus.OK] == []
    json.dumps([result.settings for result in results], allow_nan=False)
    return results


def difference(first: Sequence[GeneratedImage], second: Sequence[GeneratedImage]) -> int:
    """Return the largest difference of pixel values (0-255)."""
    pairs = [(np.asarray(a.image).astype(int), np.asarray(b.image)) for a, b in zip(first, second, strict=True)]
    return max(int(np.abs(a - b).max()) for a, b in pairs)


# --- attention -------------------------------------------------------------------------------------------------------


def test_the_attention_of_one_pipeline_is_chosen_and_of_no_other(tiny: Callable[[str], str]) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry.get_active_backend()
    plain = images(loaded(tiny("flux")))
    other = images(loaded(tiny("flux"), attention="_native_math"))
    assert difference(plain, other) <= 1
    assert other[0].settings["attention"] == "_native_math" and "attention" not in plain[0].settings
    assert _AttentionBackendRegistry.get_active_backend() == before


@pytest.mark.parametrize(
    ("model", "backend", "error", "message"),
    [
        ("flux", "fast", UsageError, "attention='fast' is unknown"),
        ("flux", "sage", ConfigError, "attention=sage needs an accelerator"),
        ("sd3", "native", ConfigError, "SD3Transformer2DModel computes its attention itself"),
    ],
)
def test_attention_that_has_no_effect_is_an_error(
    tiny: Callable[[str], str], model: str, backend: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loaded(tiny(model), attention=backend)


@pytest.mark.parametrize(
    ("backend", "package"),
    [("flash", "flash-attn"), ("flash_hub", "kernels"), ("sage", "sageattention"), ("xformers", "xformers")],
)
def test_missing_kernels_are_named_with_their_package(backend: str, package: str) -> None:
    from diffusers import FluxTransformer2DModel

    from knowgen.generators.diffusers.attention import set_attention

    denoiser = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    with pytest.raises(MissingDependencyError, match=f"{backend} cannot be used.*pip install -U {package}"):
        set_attention(object(), denoiser, backend, "cuda:0", "generator")


# --- caches ----------------------------------------------------------------------------------------------------------

CACHES: list[Any] = [
    {"kind": "first_block", "threshold": 10.0},
    {"kind": "taylorseer", "cache_interval": 3, "disable_cache_before_step": 2},
    {"kind": "mag", "threshold": 10.0, "retention_ratio": 0.1},
    {"kind": "pyramid", "spatial_attention_timestep_skip_range": [0, 1000]},
    {"kind": "faster", "spatial_attention_timestep_skip_range": [0, 1000]},
]


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache["kind"])
def test_a_cache_gives_other_images_which_do_not_depend_on_earlier_ones(
    tiny: Callable[[str], str], cache: dict[str, Any]
) -> None:
    plain = images(loaded(tiny("flux"), steps=6))
    generator = loaded(tiny("flux"), steps=6, cache=cache)
    cached = images(generator)
    assert difference(plain, cached) > 0
    assert difference(cached, images(generator)) == 0  # nothing is left of the images before
    assert difference(cached[1:], images(generator, ["a lamp", "a ship"])[1:]) == 0
    assert difference(cached[1:], images(loaded(tiny("flux"), steps=6, cache=cache), ["a ship"])) == 0
    recorded = cached[0].settings["cache"]
    assert {name: recorded[name] for name in cache} == cache


def test_a_cache_that_decides_for_a_batch_generates_one_image_at_a_time(tiny: Callable[[str], str]) -> None:
    results = images(loaded(tiny("flux"), cache="first_block", batch=4), ["a lamp", "a ship", "x", "y"])
    assert {result.settings["batch"] for result in results} == {1}
    results = images(loaded(tiny("flux"), cache="taylorseer", batch=4), ["a lamp", "a ship", "x", "y"])
    assert {result.settings["batch"] for result in results} == {4}


@pytest.mark.parametrize(
    ("model", "cache", "error", "message"),
    [
        ("flux", "fast", UsageError, "cache='fast' is unknown; give first_block"),
        ("flux", {"kind": "first_block", "limit": 1}, UsageError, "has no limit; its settings are threshold"),
        ("sd3", "first_block", ConfigError, "cannot be cached between steps"),
        ("kontext", "first_block", ConfigError, "FluxKontextPipeline does not name its passes"),
        ("flux2_klein", "mag", UsageError, "diffusers has none for Flux2KleinPipeline"),
    ],
)
def test_a_cache_that_does_not_fit_is_an_error(
    tiny: Callable[[str], str], model: str, cache: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loaded(tiny(model), cache=cache)


def test_a_cache_that_counts_calls_is_refused_where_each_step_has_two_passes(tiny: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match="would mix the two passes"):
        loaded(tiny("qwen_image"), cache="pyramid", guidance=4.0, negative_prompt=" ")


# --- adapters --------------------------------------------------------------------------------------------------------


def flux_adapter(path: Path, strength: float = 1.0, extra: str = "") -> Path:
    """Save an adapter of the tiny FLUX.1."""
    import torch
    from safetensors.torch import save_file

    noise = torch.Generator().manual_seed(0)
    tensors: dict[str, Any] = {}
    for name in ("to_q", "to_k", "to_v"):
        layer = f"transformer.transformer_blocks.0.attn.{name}"
        tensors[f"{layer}.lora_A.weight"] = torch.randn((2, 32), generator=noise)
        tensors[f"{layer}.lora_B.weight"] = strength * torch.randn((32, 2), generator=noise)
    if extra:
        tensors[f"{extra}.lora_A.weight"] = torch.zeros((2, 32))
        tensors[f"{extra}.lora_B.weight"] = torch.zeros((32, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def test_adapters_change_images_by_their_scale(tiny: Callable[[str], str], tmp_path: Path) -> None:
    path = flux_adapter(tmp_path / "ink" / "ink.safetensors")
    plain = images(loaded(tiny("flux")))
    full = images(loaded(tiny("flux"), lora=str(path)))
    half = images(loaded(tiny("flux"), lora=[f"{path.parent}@0.5"]))
    twice = images(loaded(tiny("flux"), lora=[f"{path.parent}:ink.safetensors@0.5", f"{path}@0.5"]))
    assert difference(plain, full) > 0 and difference(full, half) > 0
    assert difference(full, twice) <= 1
    assert difference(plain, images(loaded(tiny("flux"), lora=f"{path}@0"))) == 0
    recorded = half[0].settings["lora"][0]
    assert (recorded["file"], recorded["scale"], len(recorded["sha256"])) == ("ink.safetensors", 0.5, 12)


def test_the_content_of_an_adapter_is_part_of_the_identity(tiny: Callable[[str], str], tmp_path: Path) -> None:
    path = flux_adapter(tmp_path / "a" / "ink.safetensors")
    first = DiffusersGenerator.weights_identity(tiny("flux"), lora=str(path))
    assert first.startswith(DiffusersGenerator.weights_identity(tiny("flux")) + "+")
    other = flux_adapter(tmp_path / "b" / "ink.safetensors", strength=2.0)
    assert DiffusersGenerator.weights_identity(tiny("flux"), lora=str(other)) != first
    assert "lora" not in DiffusersGenerator.identity_excludes


@pytest.mark.parametrize("extra", ["transformer.transformer_blocks.7.attn.to_q", "transformer.made.up"])
def test_an_adapter_of_another_model_is_refused(tiny: Callable[[str], str], tmp_path: Path, extra: str) -> None:
    path = flux_adapter(tmp_path / "other.safetensors", extra=extra)
    with pytest.raises(DataError, match="lora: .*other.safetensors.*; give an adapter of this model"):
        loaded(tiny("flux"), lora=str(path))


def test_an_adapter_that_matches_nothing_is_refused(tiny: Callable[[str], str], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    layer = "unet.mid_block.attentions.0.to_q"
    path = tmp_path / "sdxl.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)}, path)
    for model in ("sd3", "flux"):
        with pytest.raises(DataError, match="lora: .*sdxl.safetensors"):
            loaded(tiny(model), lora=str(path))


def test_adapters_that_cannot_be_found_are_errors(tiny: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="ink.safetensors does not exist"):
        loaded(tiny("flux"), lora=str(tmp_path / "ink.safetensors"))
    with pytest.raises(DataError, match="has no .safetensors file"):
        loaded(tiny("flux"), lora=str(tmp_path))
    flux_adapter(tmp_path / "a.safetensors"), flux_adapter(tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"has 2 .safetensors files \(a.safetensors, b.safetensors\)"):
        loaded(tiny("flux"), lora=str(tmp_path))
    (tmp_path / "c.pt").write_bytes(b"")
    with pytest.raises(DataError, match="pickle"):
        loaded(tiny("flux"), lora=str(tmp_path / "c.pt"))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("ORG/NAME", WeightFile("ORG/NAME")),
        ("ORG/NAME@0.5", WeightFile("ORG/NAME", "", 0.5)),
        ("ORG/NAME:sub/style.safetensors@1.2", WeightFile("ORG/NAME", "sub/style.safetensors", 1.2)),
        (r"C:\styles\ink.safetensors", WeightFile(r"C:\styles\ink.safetensors")),
        ("me@home/ink.safetensors", WeightFile("me@home/ink.safetensors")),
    ],
)
def test_files_of_weights_are_named_by_path_or_on_the_hub(text: str, parsed: WeightFile) -> None:
    assert parse_weight_file(text, "lora", "generator") == parsed


# --- quantization ----------------------------------------------------------------------------------------------------


def test_torchao_quantizes_the_denoiser_and_on_request_text_encoders(tiny: Callable[[str], str]) -> None:
    pytest.importorskip("torchao")
    plain = images(loaded(tiny("flux")))
    denoiser = images(loaded(tiny("flux"), quantization="torchao_int8wo"))
    requested = {"backend": "torchao_int8wo", "parts": ["transformer", "text_encoder_2"]}
    both = loaded(tiny("flux"), quantization=requested)
    quantized = images(both)
    assert difference(plain, denoiser) > 0 and difference(denoiser, quantized) > 0
    assert quantized[0].settings["quantization"] == requested
    pipe = both._runner._pipelines["text"].pipe  # type: ignore[union-attr]
    names = {name for name in ("transformer", "text_encoder", "text_encoder_2") if _is_int8(getattr(pipe, name))}
    assert names == {"transformer", "text_encoder_2"}


def _is_int8(model: Any) -> bool:
    return any("Int8" in type(parameter).__name__ for parameter in model.parameters())


def test_quantization_that_does_not_fit_is_an_error(tiny: Callable[[str], str]) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("torchao")
    with pytest.raises(ConfigError, match="bitsandbytes_8bit needs an accelerator"):
        loaded(tiny("flux"), quantization="bitsandbytes_8bit")
    with pytest.raises(UsageError, match="the pipeline has no text_encoder_3; its parts are"):
        loaded(tiny("flux"), quantization={"backend": "torchao_int8wo", "parts": ["text_encoder_3"]})
    with pytest.raises(UsageError, match="quantization: .*made_up"):
        loaded(tiny("flux"), quantization={"backend": "torchao_int8wo", "kwargs": {"made_up": 1}})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_four_bits_compute_in_the_format_of_the_pipeline(dtype: str) -> None:
    pytest.importorskip("bitsandbytes")
    import torch

    from knowgen.generators.diffusers.quantization import Quantization, quantization_config

    libraries = {"transformer": "diffusers", "text_encoder": "transformers"}
    requested = Quantization("bitsandbytes_4bit", parts=("transformer", "text_encoder"))
    mapping = quantization_config(requested, libraries, dtype, "cuda:0", "generator").quant_mapping
    assert {part: type(config).__module__.partition(".")[0] for part, config in mapping.items()} == libraries
    assert {config.bnb_4bit_compute_dtype for config in mapping.values()} == {getattr(torch, dtype)}
    assert {config.bnb_4bit_quant_type for config in mapping.values()} == {"nf4"}


def gguf_of(folder: str, path: Path) -> Path:
    """Save the denoiser of a pipeline as GGUF with 8 bits for each large matrix."""
    import gguf
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(path, "flux")
    for file in sorted((Path(folder) / "transformer").glob("*.safetensors")):
        for name, values in load_file(file).items():
            if values.ndim == 2 and values.shape[1] % 32 == 0:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_denoiser_is_loaded_from_a_gguf_file(tiny: Callable[[str], str], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = gguf_of(tiny("flux"), tmp_path / "flux.gguf")
    folder = tmp_path / "without_denoiser"
    shutil.copytree(tiny("flux"), folder)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    plain, quantized = images(loaded(tiny("flux"))), images(loaded(str(folder), gguf=str(path)))
    assert 0 < difference(plain, quantized) < 128
    assert quantized[0].settings["gguf"]["file"] == "flux.gguf"
    whole = DiffusersGenerator.weights_identity(tiny("flux"), gguf=str(path))
    assert whole == DiffusersGenerator.weights_identity(str(folder), gguf=str(path))
    assert whole != DiffusersGenerator.weights_identity(tiny("flux"))
    with pytest.raises(MissingDependencyError, match="transformer has no safetensors file"):
        loaded(str(folder))


DOWNLOAD = """
import sys
from knowgen.generators.diffusers.generator import DiffusersGenerator

role, *more = sys.argv[1:]
arguments = dict(each.split("=") for each in more)
for download in (True, False):
    generator = DiffusersGenerator("owner/flux", download=download, **arguments)
    text = generator._text_settings
    files = generator._find(text if role == "text" else generator._edit_settings("FluxPipeline"), role)
    print(files.folder, DiffusersGenerator.weights_identity("owner/flux", download=download, **arguments))
"""


def downloaded(folder: str, cache: Path, role: str, **arguments: str) -> tuple[set[str], list[list[str]]]:
    """Download a pipeline from a local hub; return the files that were asked for, and what was printed.

    Args:
        folder: Its files, to which the hub adds some that are not needed.
        cache: Folder of the hub's cache.
        role: What the pipeline is used for, `text` or `edit`.
        arguments: Arguments of the generator.
    """
    source = Path(folder)
    contents = {file.relative_to(source).as_posix(): file.read_bytes() for file in source.rglob("*") if file.is_file()}
    contents |= {"README.md": b"# A model", "flux1.safetensors": b"the same weights in one file"}
    names = {"text": "owner/flux", "edit": "owner/flux-edit"}
    with HubServer() as hub:
        for name in names.values():
            hub.commit(name, contents)
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": ""}
        more = [f"{name}={value}" for name, value in arguments.items()]
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD, role, *more], env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr[-2000:]
    beginning = f"/{names[role]}/resolve/"
    paths = [path.removeprefix(beginning) for _, path in hub.requests if path.startswith(beginning)]
    return {path.partition("/")[2] for path in paths}, [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_what_was_downloaded_is_found_without_a_download(tiny: Callable[[str], str], tmp_path: Path) -> None:
    asked, (first, second) = downloaded(tiny("flux"), tmp_path / "hub", "text")
    assert "transformer/diffusion_pytorch_model.safetensors" in asked and "flux1.safetensors" not in asked
    assert first == second and first[1] == DiffusersGenerator.weights_identity(tiny("flux"))


@pytest.mark.slow
@pytest.mark.parametrize("edit", [False, True])
def test_the_weights_that_a_gguf_file_replaces_are_not_downloaded(
    tiny: Callable[[str], str], tmp_path: Path, edit: bool
) -> None:
    pytest.importorskip("gguf")
    path = gguf_of(tiny("flux"), tmp_path / "flux.gguf")
    given = {"edit": "owner/flux-edit", "edit_gguf": str(path)} if edit else {"gguf": str(path)}
    asked, (first, second) = downloaded(tiny("flux"), tmp_path / "hub", "edit" if edit else "text", **given)
    assert "transformer/config.json" in asked and "text_encoder/model.safetensors" in asked
    assert [name for name in asked if name.startswith("transformer/") and name.endswith(".safetensors")] == []
    assert first == second, "what was downloaded is found without a download"
    folder, digests = first
    whole = DiffusersGenerator.weights_identity(tiny("flux"), gguf=str(path))
    assert digests.endswith(whole), "a copy without the weights that are not used has the same identity"
    assert 0 < difference(images(loaded(tiny("flux"))), images(loaded(folder, gguf=str(path)))) < 128


def test_a_gguf_file_of_another_model_is_refused(tiny: Callable[[str], str], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = gguf_of(tiny("sd3"), tmp_path / "sd3.gguf")
    with pytest.raises(DataError, match="gguf: sd3.gguf does not fit FluxTransformer2DModel"):
        loaded(tiny("flux"), gguf=str(path))
    with pytest.raises(DataError, match="model_index.json is not a .gguf file"):
        loaded(tiny("flux"), gguf=f"{tiny('flux')}/model_index.json")
