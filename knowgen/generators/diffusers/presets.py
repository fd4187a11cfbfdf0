"""Known models: settings of the published systems, pipelines that edit for them, how classes take references.

The data is in `presets.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from knowgen.core.errors import UsageError
from knowgen.core.records import Record

DEFAULT_SCALE = ""
"""Name of a guidance scale whose argument is that of the pipeline class, which is not known yet."""

_SIZE = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})\Z")


class PipelineSettings(Record):
    """A model and how it generates images.

    Attributes:
        model: A folder, or ORG/NAME on the hub.
        revision: Branch, tag or commit on the hub.
        pipeline: Class of diffusers; empty for the one that the model names.
        size: `WIDTHxHEIGHT` in pixels; empty for the pipeline's default.
        steps: Denoising steps; None for the pipeline's default.
        guidance: Guidance scales by the name of the pipeline's argument, or `DEFAULT_SCALE`.
        negative_prompt: What the image should not show; None to give none.
        suffix: Text appended to every prompt.
        arguments: Further arguments of the pipeline's call.
        dtype: Number format on an accelerator.
        most_references: Maximum number of reference images that are used; None for that of the class.
        components: Models from which components come that its repository lacks, by component.
    """

    model: str
    revision: str = "main"
    pipeline: str = ""
    size: str = ""
    steps: int | None = Field(default=None, ge=1)
    guidance: dict[str, float] = Field(default_factory=dict)
    negative_prompt: str | None = None
    suffix: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    dtype: str = "bfloat16"
    most_references: int | None = Field(default=None, ge=1)
    components: dict[str, str] = Field(default_factory=dict)

    @property
    def width_height(self) -> tuple[int, int] | None:
        """The size in pixels, None for the pipeline's default."""
        return parse_size(self.size) if self.size else None


class Preset(PipelineSettings):
    """The settings of a published system.

    Attributes:
        name: Name, as in `diffusers:NAME`.
        row: Its row in the published table, empty when it has none.
        published_seed: Seed of the published images; None where it was not fixed, and without published images.
        edit: Settings for requests with reference images; None for those of its class, see `edit_settings`.
        billions: Published parameters in billions, of `denoiser` and `text` encoders.
        license: License of the weights; empty where it is not confirmed.
        gated: Whether weights are downloaded with an account that accepted the license.
        source: Where the settings come from.
        note: A remark for readers of the settings.
        unsupported: What can run it where diffusers cannot; empty where diffusers can.
    """

    name: str = ""
    row: str = ""
    published_seed: int | None = 0
    edit: PipelineSettings | None = None
    billions: dict[Literal["denoiser", "text"], float] = Field(default_factory=dict)
    license: str = ""
    gated: bool = False
    source: str = ""
    note: str = ""
    unsupported: str = ""

    @property
    def weights_gb(self) -> float | None:
        """The size of denoiser and text encoders in memory in GB, in `dtype`; None where it is not published.

        An image takes more: activations, the VAE, and the edit pipeline where there is one.
        """
        if len(self.billions) < 2:
            return None
        return sum(self.billions.values()) * (4 if self.dtype == "float32" else 2)

    @property
    def references(self) -> str:
        """How it takes reference images: `none`, `up to N`, `any number`, or `only` and one of the last two."""
        settings = self.edit or edit_settings(self.pipeline)
        edit_class = settings.pipeline if settings else self.pipeline
        traits = pipeline_traits(edit_class)
        if not settings and not traits.takes_images:
            return "none"
        most = traits.used_references(settings.most_references if settings else self.most_references)
        number = "any number" if most is None else f"up to {most}"
        return f"only {number}" if pipeline_traits(self.pipeline).needs_image else number

    @property
    def missing(self) -> str:
        """What must be installed to run it, empty when nothing is missing."""
        if self.unsupported:
            return f"diffusers has no pipeline for it; {self.unsupported}"
        if missing := missing_packages():
            return missing
        return missing_class(self.pipeline) if _installed_class(self.pipeline) is None else ""


class PipelineTraits(Record):
    """What is special about a pipeline class.

    Attributes:
        since: Release of diffusers that has it first; empty where it is not known.
        images: Reference images of its call: `one` per prompt, or `all` those of the only prompt.
        most_references: Maximum number of reference images; None for no maximum.
        takes_image: Whether it generates with and without a reference image, where nothing else here says so.
        batch: Requests that may share a batch: `all`, those with `text` only, those with text only and one `prompt`, or
            `none`.
        needs_image: Whether it cannot generate without a reference image.
        guidance: Argument that sets how closely the prompt is followed; empty when none does.
        always_guides: Whether a scale of 1 or less guides too.
        global_random: Whether it samples from torch's global random state.
        negative_prompt: The model's own negative prompt; None if it has none.
        reference_argument: Argument of its call that takes reference images.
        reference_tag: Text before the prompt for each reference image, with `{number}` from 1 on; empty for none.
        padded: Whether a batch takes as long as its longest prompt; otherwise all prompts have one length.
    """

    since: str = ""
    images: Literal["one", "all"] = "one"
    most_references: int | None = None
    takes_image: bool = False
    batch: Literal["all", "text", "prompt", "none"] = "text"
    needs_image: bool = False
    guidance: str = "guidance_scale"
    always_guides: bool = False
    global_random: bool = False
    negative_prompt: str | None = None
    reference_argument: str = "image"
    reference_tag: str = ""
    padded: bool = False

    @property
    def takes_images(self) -> bool:
        """Whether its listed facts say that it takes reference images."""
        return self.takes_image or self.images == "all" or self.needs_image or self.batch == "all"

    def used_references(self, most_references: int | None) -> int | None:
        """Return the maximum number of references of a request that are used; None for no maximum.

        Args:
            most_references: The maximum that the settings give; None for that of the class.

        Example:
            >>> PipelineTraits(images="all", most_references=4).used_references(None)
            4
        """
        if self.images == "one":
            return 1
        return self.most_references if most_references is None else most_references


class _PresetFile(Record):
    presets: dict[str, Preset]
    edit_pipelines: dict[str, PipelineSettings]
    classes: dict[str, PipelineTraits]


@cache
def _preset_file() -> _PresetFile:
    import yaml

    text = files("knowgen.generators.diffusers").joinpath("presets.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    for name, entry in data["presets"].items():
        entry["name"] = name
        if "row" not in entry or entry.get("published_seed") == "none":
            entry["published_seed"] = None
    return _PresetFile.model_validate(data)


def presets() -> list[Preset]:
    """Return all presets, in the order of the data file."""
    return list(_preset_file().presets.values())


def preset(name: str) -> Preset | None:
    """Return the preset of a name in any case, None when there is none.

    Example:
        >>> preset("Qwen-Image").model
        'Qwen/Qwen-Image'
    """
    return _preset_file().presets.get(name.strip().lower())


def edit_settings(pipeline: str) -> PipelineSettings | None:
    """Return the settings of the pipeline that edits for a class; None when it has none of its own."""
    return _preset_file().edit_pipelines.get(pipeline)


def known_traits() -> dict[str, PipelineTraits]:
    """Return what is special about each listed class."""
    return dict(_preset_file().classes)


def pipeline_traits(pipeline: str) -> PipelineTraits:
    """Return what is special about a class; an unknown one takes one reference, and generates one image at a time."""
    return _preset_file().classes.get(pipeline, PipelineTraits(batch="none"))


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels.

    Args:
        text: `WIDTHxHEIGHT`, or one number for a square.

    Raises:
        UsageError: It is neither, or a side is 0.

    Example:
        >>> parse_size("1664x928"), parse_size("512")
        ((1664, 928), (512, 512))
    """
    match = _SIZE.match(text.strip())
    if match:
        width, height = int(match[1]), int(match[2])
    elif text.strip().isascii() and text.strip().isdigit():
        width = height = int(text)
    else:
        width = height = 0
    if width < 1 or height < 1:
        raise UsageError(
            f"{text!r} is not a size", where="generator diffusers", fix="write WIDTHxHEIGHT, such as 1024x768"
        )
    return width, height


def with_changes(
    settings: PipelineSettings, changes: Mapping[str, Any], guidance: float | Mapping[str, float] | None
) -> PipelineSettings:
    """Return settings with a user's changes.

    Args:
        settings: The settings.
        changes: Values of fields by name; None keeps the value.
        guidance: A scale for the first argument in `settings.guidance`, or scales by argument.
    """
    update = {name: value for name, value in changes.items() if value is not None}
    if isinstance(guidance, Mapping):
        update["guidance"] = {**settings.guidance, **guidance}
    elif guidance is not None:
        update["guidance"] = {**settings.guidance, next(iter(settings.guidance), DEFAULT_SCALE): float(guidance)}
    return settings.model_copy(update=update)


def missing_packages() -> str:
    """Return which required packages are not installed and how to install them, empty when all are."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
    return f"needs {', '.join(missing)}, which is not installed; pip install 'knowgen[models]'" if missing else ""


def _installed_class(pipeline: str) -> Any:
    """Return a class of the installed diffusers, None when it has none of that name."""
    import diffusers

    return getattr(diffusers, pipeline, None)


def missing_class(pipeline: str) -> str:
    """Return the message that the installed diffusers is too old for a class, with the fix."""
    from importlib.metadata import version

    since = pipeline_traits(pipeline).since
    came = f", which is new in {since}" if since else ""
    wanted = f"'diffusers>={since}'" if since else "diffusers"
    return f"diffusers {version('diffusers')} has no {pipeline}{came}; pip install -U {wanted}"
