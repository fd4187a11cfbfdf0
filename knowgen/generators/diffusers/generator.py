"""`diffusers:MODEL`: any text-to-image pipeline of diffusers, drawn in batches, with its editing partner.

MODEL is a preset (`diffusers:qwen-image`), a folder, or ORG/NAME on the hub. Nothing is downloaded unasked.
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
from knowgen.generators.diffusers.pipeline import DTYPES, OFFLOADS, LoadedPipeline, LoadingOptions, load
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    Preset,
    diffusers_lacks,
    parse_size,
    partner,
    preset,
    presets,
    with_changes,
)
from knowgen.generators.local_weights import Weights, find
from knowgen.local_models.devices import device_name


@dataclass(eq=False)
class DiffusersGenerator:
    """Draws with a pipeline of diffusers, and with its editing partner where a request brings reference images.

    Args:
        model: A preset, a folder, or ORG/NAME on the hub.
        weights: Folder or ORG/NAME to take instead of a preset's own.
        model_revision: Branch, tag or commit on the hub.
        pipeline: Class of diffusers, when it is not to be found out.
        size: `WIDTHxHEIGHT` in pixels.
        steps: Denoising steps.
        guidance: A scale, or scales by the name of the pipeline's argument.
        negative_prompt: What should not be there.
        suffix: Put after every prompt.
        arguments: Further arguments of the pipeline's call.
        edit: Folder or ORG/NAME of the editing partner.
        edit_revision: As `model_revision`, for the partner; so are the following.
        edit_pipeline: See `pipeline`.
        edit_size: See `size`.
        edit_steps: See `steps`.
        edit_guidance: See `guidance`.
        edit_arguments: See `arguments`.
        most_references: Reference images that are used; those beyond are left out, which is recorded.
        dtype: auto (a preset's on a GPU, float32 on a CPU), bfloat16, float16 or float32.
        variant: Form of the weights, such as fp16.
        noise: cpu (the same on every machine) or device: where random numbers are drawn.
        batch: Most pictures in one pass; a run hands over at most `batch_size` requests at a time.
        download: May weights be fetched from the hub?
        device_map: As diffusers takes it.
        offload: model or sequential: parts wait in the machine's memory until they are needed.
        slicing: Decode pictures one by one, to save memory.
        tiling: Decode pictures in tiles, to save memory; it shows.
        compile: Compile the denoiser.
        quantization: bitsandbytes_4bit, bitsandbytes_8bit, or {backend, kwargs, parts}.

    Raises:
        UsageError: An argument has no such value.
        MissingDependencyError: diffusers cannot draw this preset, or is not installed.
    """

    batch_size: ClassVar[int] = 8
    concurrency: ClassVar[int] = 1
    references: ClassVar[bool] = True
    revision: ClassVar[str] = "1"
    identity_excludes: ClassVar[frozenset[str]] = frozenset(
        {"download", "device_map", "offload", "slicing", "compile", "batch"}
    )
    """Where parts lie, and in how many passes: these move a picture by rounding alone, and are recorded with it."""

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
        """Checks the arguments; nothing is loaded."""
        self._where = f"generator diffusers:{self.model}"
        for name, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("offload", self.offload, OFFLOADS),
            ("noise", self.noise, ("cpu", "device")),
        ):
            if value not in known:
                raise UsageError(
                    f"{name}={value!r} is unknown", where=self._where, fix=f"one of {', '.join(filter(None, known))}"
                )
        counts = {"batch": self.batch, "steps": self.steps, "edit_steps": self.edit_steps}
        counts["most_references"] = self.most_references
        for name, number in counts.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be 1 or more", where=self._where)
        for size in (self.size, self.edit_size):
            if size:
                parse_size(str(size))
        self._preset: Preset | None = preset(self.model)
        if self._preset is not None and (lacking := self._preset.lacking):
            what, _, fix = lacking.partition("; ")
            raise MissingDependencyError(what, where=self._where, fix=fix)
        self._device = "cpu"
        self._painter: PipelineRunner | None = None

    @cached_property
    def _text_way(self) -> PipelineSettings:
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

    def _edit_way(self, text_class: str) -> PipelineSettings:
        """Returns how to draw from reference images; its model is empty when the text pipeline's parts do that."""
        base = partner(text_class)
        if self.edit:
            named = PipelineSettings(model=self.edit, revision=self.edit_revision or "main")
            own = self.edit_pipeline or self._find(named).pipeline
            base = base if base is not None and base.pipeline == own else named
        elif base is None:
            base = self._text_way.model_copy(update={"model": "", "pipeline": ""})
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
        """Tells apart weights that come to lie under the same name; those asked to be downloaded are fetched here.

        Returns:
            The hash of the pipeline's weights, and that of its editing partner's where it has one of its own and that
            is on this machine; empty where nothing is there, which `setup` tells of.
        """
        made = cls(model, **args)
        if diffusers_lacks():
            return ""
        found: list[str] = []
        try:
            text = made._find(made._text_way)
            found.append(text.digest())
            made.download = False  # a partner may never be wanted
            edit = made._edit_way(made.pipeline or text.pipeline)
            if edit.model:
                found.append(made._find(edit).digest())
        except MissingDependencyError:
            return "+".join(found)
        return "+".join(found)

    def _find(self, way: PipelineSettings) -> Weights:
        return find(way.model, way.revision, download=self.download, where=self._where, variant=self.variant)

    def _load(self, role: Role, text: LoadedPipeline | None) -> LoadedPipeline:
        """Loads a pipeline; the editing one may be made of the parts of the other."""
        way = self._text_way
        if role == "edit":
            name = text.name if text is not None else self.pipeline or self._find(way).pipeline
            edit = self._edit_way(name)
            if not edit.model:
                text = text if text is not None else self._load("text", None)
                return text.partner(edit.model_copy(update={"model": way.model}), self._where)
            way = edit
        loading = LoadingOptions(
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
        made = load(way, self._find(way), loading, self._where)
        return made.partner(way, self._where) if role == "edit" and not made.edits else made

    def setup(self, device: str) -> None:
        """Loads the pipeline onto a device, such as `cuda:0` or `cpu`.

        Raises:
            MissingDependencyError: A package, a class or the weights are not there.
            DataError: The folder holds no pipeline that can be loaded.
            UsageError: A setting is none of the pipeline's.
            ConfigError: It cannot be put where it was asked to be, or does not fit.
            TransientError: The GPU failed.
        """
        if lack := diffusers_lacks():
            what, _, fix = lack.partition("; ")
            raise MissingDependencyError(what, where=self._where, fix=fix)
        self._device = device
        noise = "cpu" if self.noise == "cpu" else device
        self._painter = PipelineRunner(self._load, self._surroundings, self.batch, noise, self._where)
        self._painter.prepare()

    def close(self) -> None:
        """Gives back the memory."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one drawing a request: requests of one shape in common passes, those without references first.

        Raises:
            TransientError: The GPU failed; what was not yielded yet is to be drawn again, elsewhere if possible.
            KnowgenError: The editing partner cannot be loaded.
        """
        if self._painter is None:
            self.setup(self._device)
        assert self._painter is not None
        yield from self._painter.paint(requests)

    def _surroundings(self) -> dict[str, Any]:
        """Returns what is recorded of this machine and of how memory is saved."""
        from importlib.metadata import version

        names = ("variant", "device_map", "offload", "slicing", "tiling", "compile", "quantization")
        return {
            "device": self._device,
            "device_name": device_name(self._device),
            "noise": self.noise,
            "versions": {name: version(name) for name in ("diffusers", "torch", "transformers")},
            **{name: value for name in names if (value := getattr(self, name))},
        }


__all__ = ["DiffusersGenerator", "presets"]
