"""`diffusers:MODEL`: any text-to-image pipeline of diffusers, run in batches, with its edit pipeline for references.

MODEL is a preset (`diffusers:qwen-image`), a folder, or ORG/NAME on the hub. Nothing is downloaded without `download`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from knowgen.core.errors import MissingDependencyError, UsageError
from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.generation import PipelineRunner, Role
from knowgen.generators.diffusers.pipeline import DTYPES, OFFLOADS, LoadedPipeline, LoadingOptions, load_pipeline
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    Preset,
    edit_settings,
    missing_packages,
    parse_size,
    preset,
    with_changes,
)
from knowgen.generators.diffusers.weights import PipelineFiles, find_files
from knowgen.local_models.devices import device_name


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
        batch: Maximum number of images in a batch; a run gives at most `batch_size` requests at a time.
        download: Whether weights may be downloaded from the hub.
        device_map: Argument of diffusers of the same name.
        offload: model or sequential: components stay in main memory until they are needed.
        slicing: Decode images one by one, to save memory.
        tiling: Decode images in tiles, to save memory; seams become visible.
        compile: Compile the denoiser.
        quantization: bitsandbytes_4bit, bitsandbytes_8bit, or {backend, kwargs, parts}.

    Raises:
        UsageError: The value of an argument is not valid.
        MissingDependencyError: diffusers cannot run this preset, or is not installed.

    Example:
        >>> generator = DiffusersGenerator("ORG/NAME", size="1024x768", steps=20)
        >>> generator.batch_size
        8
        >>> DiffusersGenerator("ORG/NAME", size="large")
        Traceback (most recent call last):
        ...
        knowgen.core.errors.UsageError: generator diffusers: 'large' is not a size; write WIDTHxHEIGHT, such as 1024x768
    """

    batch_size: ClassVar[int] = 8
    concurrency: ClassVar[int] = 1
    references: ClassVar[bool] = True
    revision: ClassVar[str] = "2"
    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        {"download", "device_map", "offload", "slicing", "compile", "batch"}
    )
    """Arguments on placement and batching: they change images only by rounding, and are recorded with each image."""

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
    batch: int = 8
    download: bool = False
    device_map: str = ""
    offload: str = ""
    slicing: bool = False
    tiling: bool = False
    compile: bool = False
    quantization: str | dict[str, Any] = ""

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
        counts = {"batch": self.batch, "steps": self.steps, "edit_steps": self.edit_steps}
        counts["most_references"] = self.most_references
        for name, number in counts.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be 1 or more, got {number}", where=self._where)
        for size in (self.size, self.edit_size):
            if size:
                parse_size(str(size))
        self._preset: Preset | None = preset(self.model)
        if self._preset is not None and (missing := self._preset.missing):
            raise self._missing_dependency(missing)
        self._device = "cpu"
        self._runner: PipelineRunner | None = None

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
            edit_class = self.edit_pipeline or self._find(named).pipeline
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
            Hash of the pipeline's weights, followed by that of the edit pipeline where it has its own weights and they
            are on this machine. Empty when no weights are there, which `setup` reports.
        """
        generator = cls(model, **args)
        if missing_packages():
            return ""
        digests: list[str] = []
        try:
            text = generator._find(generator._text_settings)
            digests.append(text.digest())
            generator.download = False  # the edit pipeline may never be used
            edit = generator._edit_settings(generator.pipeline or text.pipeline)
            if edit.model:
                digests.append(generator._find(edit).digest())
        except MissingDependencyError:
            return "+".join(digests)
        return "+".join(digests)

    @staticmethod
    def reference_limit(most_references: int | None = None, **_: Any) -> int | None:
        """Return the maximum number of reference images that the arguments set; None for that of the pipeline."""
        return most_references

    def _uses_references(self, text: LoadedPipeline) -> bool:
        """Return whether requests with reference images are generated from them."""
        if self.reference_images != "auto":
            return self.reference_images == "use"
        return bool(self.edit) or text.takes_references or edit_settings(text.name) is not None

    def _find(self, settings: PipelineSettings) -> PipelineFiles:
        return find_files(
            settings.model, settings.revision, download=self.download, where=self._where, variant=self.variant
        )

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
        options = LoadingOptions(
            device=self._device,
            dtype=self.dtype,
            variant=self.variant,
            device_map=self.device_map,
            offload=self.offload,
            slicing=self.slicing,
            tiling=self.tiling,
            compile=self.compile,
            quantization=self.quantization,
        )
        loaded = load_pipeline(settings, self._find(settings), options, self._where)
        return loaded.for_editing(settings, self._where) if role == "edit" and not loaded.takes_references else loaded

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
            self._load, self._environment, self.batch, noise_device, self._uses_references, self._where
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

        names = ("variant", "device_map", "offload", "slicing", "tiling", "compile", "quantization")
        return {
            "device": self._device,
            "device_name": device_name(self._device),
            "noise": self.noise,
            "versions": {name: version(name) for name in ("diffusers", "torch", "transformers")},
            **{name: value for name in names if (value := getattr(self, name))},
        }
