"""`diffusers:MODEL`: any text-to-image pipeline of diffusers, run in batches, with its edit pipeline for references.

MODEL is a preset (`diffusers:qwen-image`), a folder, or ORG/NAME on the hub. Nothing is downloaded without `download`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from knowgen.core.errors import MissingDependencyError, UsageError
from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.attention import check_attention
from knowgen.generators.diffusers.batch_sizes import AUTO, LARGEST, parse_batch
from knowgen.generators.diffusers.compilation import parse_compile
from knowgen.generators.diffusers.components import parse_components
from knowgen.generators.diffusers.generation import PipelineRunner, Role
from knowgen.generators.diffusers.loading import load_pipeline
from knowgen.generators.diffusers.lora import LowRankAdapter
from knowgen.generators.diffusers.options import DTYPES, LoadingOptions
from knowgen.generators.diffusers.pipeline import LoadedPipeline
from knowgen.generators.diffusers.placement import OFFLOADS
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    Preset,
    edit_settings,
    missing_packages,
    parse_size,
    preset,
    with_changes,
)
from knowgen.generators.diffusers.quantization import parse_quantization
from knowgen.generators.diffusers.step_cache import parse_cache
from knowgen.generators.diffusers.weight_files import GGUF, digest_of, parse_weight_file, parse_weight_files
from knowgen.generators.diffusers.weights import PipelineFiles, find_files
from knowgen.local_models.devices import device_name, platform_name
from knowgen.local_models.weights import SAFETENSORS


@dataclass(eq=False)
class DiffusersGenerator:
    """Generate with a diffusers pipeline, and with its edit pipeline for requests with reference images.

    Args:
        model: A preset, a folder, or ORG/NAME on the hub.
        weights: Folder or ORG/NAME to use instead of a preset's own model.
        model_revision: Branch, tag or commit on the hub.
        pipeline: Class of diffusers, where it should not be detected.
        size: `WIDTHxHEIGHT` in pixels.
        steps: Denoising steps.
        guidance: A guidance scale, or scales by the name of the pipeline's argument.
        negative_prompt: What the image should not show.
        suffix: Text appended to every prompt.
        arguments: Further arguments of the pipeline's call.
        edit: Folder or ORG/NAME of the edit pipeline.
        edit_revision: `model_revision` of the edit pipeline.
        edit_pipeline: `pipeline` of the edit pipeline.
        edit_size: `size` of the edit pipeline.
        edit_steps: `steps` of the edit pipeline.
        edit_guidance: `guidance` of the edit pipeline.
        edit_arguments: `arguments` of the edit pipeline.
        reference_images: use, ignore, or auto: a text-only model ignores them, as in the published results, and others
            use them. With `use` a text-only model starts from the first one (image-to-image). What is left out is
            recorded.
        most_references: Maximum number of reference images that are used; further ones are left out, which is recorded.
        dtype: auto (the preset's on a GPU, float32 on a CPU), bfloat16, float16 or float32.
        variant: Variant of the weights, such as fp16.
        noise: Where random numbers are generated: cpu (the same on every machine) or device.
        batch: Number of images in a batch, or auto for the fastest of 1, 2, 4, 8 and 16, which is measured during the
            run. Halved when memory runs out. Only with 1 does an image not depend on what else is generated.
        download: Whether weights may be downloaded from the hub.
        device_map: Argument of diffusers of the same name.
        offload: model or sequential: components stay in main memory until they are needed.
        slicing: Decode images one by one, to save memory.
        tiling: Decode images in tiles, to save memory; seams become visible.
        gpus_per_worker: Number of GPUs over which one model is spread, layer by layer, where it does not fit on one.
        attention: Attention backend of diffusers, such as flash_hub or sage; empty for that of torch.
        compile: Compile the denoiser: true (the whole), regional (its repeated blocks, which takes less time), or
            {scope, backend, mode, dynamic}.
        cache: Reuse results of earlier steps, which is faster and gives other images: first_block, taylorseer, mag,
            pyramid, faster, or {kind, settings}.
        quantization: bitsandbytes_4bit, bitsandbytes_8bit, torchao_int8wo, torchao_int4wo, torchao_int8dq,
            torchao_fp8wo, torchao_fp8dq, or {backend, kwargs, parts}, where parts may name text encoders.
        gguf: GGUF file with the denoiser's weights: PATH or ORG/NAME:FILE.
        edit_gguf: `gguf` of an edit pipeline with weights of its own.
        lora: Low-rank adapters: PATH or ORG/NAME, each with `:FILE` and `@SCALE` where needed; one or a list.
        edit_lora: `lora` of an edit pipeline with weights of its own.
        components: Models from which components of the pipeline come, such as {text_encoder_4: ORG/NAME}: one that its
            repository lacks, or one to use instead. A text encoder brings its tokenizer along where that is missing.
        edit_components: `components` of an edit pipeline with weights of its own.

    Raises:
        UsageError: The value of an argument is not valid.
        MissingDependencyError: diffusers cannot run this preset, or is not installed.

    Example:
        >>> generator = DiffusersGenerator("ORG/NAME", size="1024x768", steps=20)
        >>> generator.batch_size
        16
        >>> DiffusersGenerator("ORG/NAME", size="large")
        Traceback (most recent call last):
        ...
        knowgen.core.errors.UsageError: generator diffusers: 'large' is not a size; write WIDTHxHEIGHT, such as 1024x768
    """

    batch_size: ClassVar[int] = LARGEST
    groups_by_length: ClassVar[bool] = True
    concurrency: ClassVar[int] = 1
    references: ClassVar[bool] = True
    revision: ClassVar[str] = "2"
    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        {"download", "device_map", "gpus_per_worker", "offload", "slicing"}
    )
    """Arguments on placement: the same is computed elsewhere. They are recorded with each image."""

    model: str
    weights: str = ""
    model_revision: str = ""
    pipeline: str = ""
    size: str | int = ""
    steps: int | None = None
    guidance: float | dict[str, float] | None = None
    negative_prompt: str | None = None
    suffix: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    edit: str = ""
    edit_revision: str = ""
    edit_pipeline: str = ""
    edit_size: str | int = ""
    edit_steps: int | None = None
    edit_guidance: float | dict[str, float] | None = None
    edit_arguments: dict[str, Any] = field(default_factory=dict)
    reference_images: str = "auto"
    most_references: int | None = None
    dtype: str = "auto"
    variant: str = ""
    noise: str = "cpu"
    batch: int | str = AUTO
    download: bool = False
    device_map: str = ""
    offload: str = ""
    slicing: bool = False
    tiling: bool = False
    gpus_per_worker: int = 1
    attention: str = ""
    compile: bool | str | dict[str, Any] = False
    cache: str | dict[str, Any] = ""
    quantization: str | dict[str, Any] = ""
    gguf: str = ""
    edit_gguf: str = ""
    lora: str | list[str] = ""
    edit_lora: str | list[str] = ""
    components: dict[str, str] = field(default_factory=dict)
    edit_components: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the arguments; nothing is loaded."""
        self._where = f"generator diffusers:{self.model}"
        for name, value, choices in (
            ("dtype", self.dtype, DTYPES),
            ("offload", self.offload, OFFLOADS),
            ("noise", self.noise, ("cpu", "device")),
            ("reference_images", self.reference_images, ("auto", "use", "ignore")),
        ):
            if value not in choices:
                raise UsageError(
                    f"{name}={value!r} is unknown", where=self._where, fix=f"give {', '.join(filter(None, choices))}"
                )
        self._batch = parse_batch(self.batch, self._where)
        counts = {"steps": self.steps, "edit_steps": self.edit_steps, "gpus_per_worker": self.gpus_per_worker}
        counts["most_references"] = self.most_references
        for name, number in counts.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be 1 or more, got {number}", where=self._where)
        for size in (self.size, self.edit_size):
            if size:
                parse_size(str(size))
        self._parse_loading()
        self._preset: Preset | None = preset(self.model)
        if self._preset is not None and (missing := self._preset.missing):
            raise self._missing_dependency(missing)
        if self.attention and not missing_packages():
            check_attention(self.attention, self._where)
        self._device = "cpu"
        self._runner: PipelineRunner | None = None

    def _parse_loading(self) -> None:
        """Check the arguments on how models are loaded."""
        self._compilation = parse_compile(self.compile, self._where)
        self._cache = parse_cache(self.cache, self._where)
        self._quantization = parse_quantization(self.quantization, self._where)
        self._lora: dict[Role, Any] = {
            "text": parse_weight_files(self.lora, "lora", self._where),
            "edit": parse_weight_files(self.edit_lora, "edit_lora", self._where),
        }
        self._gguf: dict[Role, Any] = {
            "text": parse_weight_file(self.gguf, "gguf", self._where) if self.gguf else None,
            "edit": parse_weight_file(self.edit_gguf, "edit_gguf", self._where) if self.edit_gguf else None,
        }

        self._components: dict[Role, Any] = {
            "text": parse_components(self.components, "components", self._where),
            "edit": parse_components(self.edit_components, "edit_components", self._where),
        }

    def _missing_dependency(self, missing: str) -> MissingDependencyError:
        problem, _, fix = missing.partition("; ")
        return MissingDependencyError(problem, where=self._where, fix=fix)

    @cached_property
    def _text_settings(self) -> PipelineSettings:
        """The settings for requests without reference images."""
        base = self._preset or PipelineSettings(model=self.model)
        changes = {
            "model": self.weights or None,
            "revision": self.model_revision or None,
            "pipeline": self.pipeline or None,
            "size": str(self.size) or None,
            "steps": self.steps,
            "negative_prompt": self.negative_prompt,
            "suffix": self.suffix,
            "arguments": {**base.arguments, **self.arguments},
            "most_references": self.most_references,
        }
        return with_changes(base, changes, self.guidance)

    def _edit_settings(self, text_class: str) -> PipelineSettings:
        """Return the settings for requests with reference images.

        Args:
            text_class: Class of the text-to-image pipeline.

        Returns:
            Settings with an empty model where the text-to-image pipeline's components are used.
        """
        base = self._preset.edit if self._preset is not None else None
        base = base or edit_settings(text_class)
        if self.edit:
            named = PipelineSettings(model=self.edit, revision=self.edit_revision or "main")
            edit_class = self.edit_pipeline or self._find(named, "edit").pipeline
            base = base if base is not None and base.pipeline == edit_class else named
        elif base is None:
            base = self._text_settings.model_copy(update={"model": "", "pipeline": ""})
        changes = {
            "model": self.edit or None,
            "revision": self.edit_revision or None,
            "pipeline": self.edit_pipeline or None,
            "size": str(self.edit_size) or None,
            "steps": self.edit_steps,
            "negative_prompt": self.negative_prompt,
            "arguments": {**base.arguments, **self.edit_arguments},
            "most_references": self.most_references,
        }
        return with_changes(base, changes, self.edit_guidance)

    @classmethod
    def weights_identity(cls, model: str, **args: Any) -> str:
        """Return the hash of the weights, so that other weights under the same name have another identity.

        Weights are downloaded here when `download` is set.

        Returns:
            Hash of the pipeline's weights and those of further files (`lora`, `gguf`), followed by those of the edit
            pipeline where it has its own weights and they are on this machine. Empty when no weights are there, which
            `setup` reports.
        """
        generator = cls(model, **args)
        if missing_packages():
            return ""
        digests: list[str] = []
        try:
            text = generator._find(generator._text_settings)
            digests += [text.digest(), *generator._file_digests("text")]
            generator.download = False  # the edit pipeline may never be used
            edit = generator._edit_settings(generator.pipeline or text.pipeline)
            if edit.model:
                digests += [generator._find(edit, "edit").digest(), *generator._file_digests("edit")]
        except MissingDependencyError:
            return "+".join(digests)
        return "+".join(digests)

    @classmethod
    def excluded_from_identity(
        cls, batch: int | str = AUTO, dtype: str = "auto", cache: object = "", quantization: object = "", **args: Any
    ) -> frozenset[str]:
        """Return further arguments that do not decide an image, such as those that have their default.

        In float32 a batch and a compiled denoiser change an image by rounding alone. In other formats, and where the
        device chooses the format, they change it by more, as they do with a step cache or with quantized weights, which
        may be scaled for a whole batch; a `batch` that is set and `compile` are then part of the identity. The actual
        size of a batch is recorded with each image.

        Example:
            >>> excluded = DiffusersGenerator.excluded_from_identity
            >>> [{"batch", "compile"} <= excluded(batch=4, dtype=dtype) for dtype in ("float32", "bfloat16")]
            [True, False]
            >>> [name in excluded(attention="", steps=20) for name in ("attention", "steps")]
            [True, False]
        """
        given = {"dtype": dtype, "cache": cache, "quantization": quantization, **args}
        defaults = {each.name: each.default for each in fields(cls)}
        excluded = {name for name, value in given.items() if value == defaults.get(name, MISSING)}
        if dtype == "float32" and not cache and not quantization:
            excluded |= {"batch", "compile"}
        elif str(batch).strip().lower() == AUTO:
            excluded.add("batch")
        return frozenset(excluded)

    @classmethod
    def batch_limit(cls, batch: int | str = AUTO, **_: Any) -> int:
        """Return the maximum number of requests in one call: a fixed batch, and never less than `batch_size`."""
        return max(cls.batch_size, parse_batch(batch, "generator diffusers") or 0)

    @staticmethod
    def gpu_limit(gpus_per_worker: int = 1, **_: Any) -> int:
        """Return the number of GPUs that a worker process sees."""
        return gpus_per_worker

    @staticmethod
    def reference_limit(most_references: int | None = None, **_: Any) -> int | None:
        """Return the maximum number of reference images that the arguments set; None for that of the pipeline."""
        return most_references

    def _uses_references(self, text: LoadedPipeline) -> bool:
        """Return whether requests with reference images are generated from them."""
        if self.reference_images != "auto":
            return self.reference_images == "use"
        return bool(self.edit) or text.takes_references or edit_settings(text.name) is not None

    def _find(self, settings: PipelineSettings, role: Role = "text") -> PipelineFiles:
        return find_files(
            settings.model,
            settings.revision,
            download=self.download,
            where=self._where,
            variant=self.variant,
            own_denoiser=self._gguf[role] is None,
            components=self._components[role],
            lacking=parse_components(settings.components, "components", self._where),
        )

    def _adapters(self, role: Role) -> tuple[LowRankAdapter, ...]:
        """Return the low-rank adapters of a pipeline on this machine."""
        option = "lora" if role == "text" else "edit_lora"
        return tuple(
            LowRankAdapter(file.find(SAFETENSORS, option, download=self.download, where=self._where), file.scale)
            for file in self._lora[role]
        )

    def _gguf_path(self, role: Role) -> Path | None:
        """Return the file with the weights of a pipeline's denoiser on this machine, if one was given."""
        file, option = self._gguf[role], "gguf" if role == "text" else "edit_gguf"
        return None if file is None else file.find(GGUF, option, download=self.download, where=self._where)

    def _file_digests(self, role: Role) -> list[str]:
        """Return the hashes of the further files of a pipeline."""
        path = self._gguf_path(role)
        files = [] if path is None else [path]
        return [digest_of(file) for file in [*files, *(adapter.path for adapter in self._adapters(role))]]

    def _load(self, role: Role, text: LoadedPipeline | None) -> LoadedPipeline:
        """Load the pipeline of a role; an edit pipeline may use the components of the text-to-image pipeline.

        Args:
            role: What the pipeline is used for.
            text: The loaded text-to-image pipeline, if any.
        """
        settings = self._text_settings
        if role == "edit":
            text_class = text.name if text is not None else self.pipeline or self._find(settings).pipeline
            edit = self._edit_settings(text_class)
            if not edit.model:
                text = text if text is not None else self._load("text", None)
                return text.for_editing(edit.model_copy(update={"model": settings.model}), self._where)
            settings = edit
        options = self._options(role)
        files = self._find(settings, role)
        loaded = load_pipeline(settings, files, options, self._where)
        return loaded.for_editing(settings, self._where) if role == "edit" and not loaded.takes_references else loaded

    def _options(self, role: Role) -> LoadingOptions:
        """Return how the pipeline of a role is loaded."""
        return LoadingOptions(
            device=self._device,
            dtype=self.dtype,
            variant=self.variant,
            device_map=self.device_map,
            gpus=self.gpus_per_worker,
            offload=self.offload,
            slicing=self.slicing,
            tiling=self.tiling,
            attention=self.attention,
            compilation=self._compilation,
            cache=self._cache,
            quantization=self._quantization,
            adapters=self._adapters(role),
            gguf=self._gguf_path(role),
        )

    def setup(self, device: str) -> None:
        """Load the text-to-image pipeline onto a device.

        Args:
            device: Device such as `cuda:0` or `cpu`.

        Raises:
            MissingDependencyError: A package, a class or the weights are missing.
            DataError: The folder is not a pipeline that can be loaded.
            UsageError: A setting is not an argument of the pipeline.
            ConfigError: An option does not fit the device, or the weights do not fit into memory.
            TransientError: The GPU failed.
        """
        if missing := missing_packages():
            raise self._missing_dependency(missing)
        self._device = device
        noise_device = "cpu" if self.noise == "cpu" else device
        self._runner = PipelineRunner(
            self._load,
            self._environment,
            self._batch,
            device,
            noise_device,
            self._uses_references,
            self._where,
        )
        self._runner.prepare()

    def close(self) -> None:
        """Free the memory."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield a generated image for each request, in batches of one shape, those without references first.

        Raises:
            TransientError: The GPU failed; requests without a result yet should be retried, on another GPU if possible.
            KnowgenError: The edit pipeline cannot be loaded.
        """
        if self._runner is None:
            self.setup(self._device)
        assert self._runner is not None
        yield from self._runner.generate(requests)

    def _environment(self) -> dict[str, Any]:
        """Return the recorded facts about this machine and about options that save memory or time."""
        from importlib.metadata import version

        names = ("variant", "device_map", "offload", "slicing", "tiling", "attention", "quantization")
        spread = {"gpus_per_worker": self.gpus_per_worker} if self.gpus_per_worker > 1 else {}
        return {
            "device": self._device,
            "device_name": device_name(self._device),
            **({"platform": platform} if (platform := platform_name(self._device)) else {}),
            **spread,
            "noise": self.noise,
            "versions": {name: version(name) for name in ("diffusers", "torch", "transformers")},
            **{name: value for name in names if (value := getattr(self, name))},
        }
