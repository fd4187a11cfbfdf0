"""What is known of models that can be drawn with: settings of the published systems, and their editing partners."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from knowgen.core.errors import UsageError
from knowgen.core.records import Record

MAIN_SCALE = ""
"""Stands for `main_scale` in a way's guidance, where the class is not known yet."""

_SIZE = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})\Z")


class PipelineSettings(Record):
    """How pictures are drawn by one model.

    Attributes:
        model: A folder, or ORG/NAME on the hub.
        revision: Branch, tag or commit on the hub.
        pipeline: Class of diffusers; empty to take what the model itself names.
        size: `WIDTHxHEIGHT` in pixels; empty for the pipeline's own.
        steps: Denoising steps; None for the pipeline's own.
        guidance: Scales by the name of the pipeline's argument, or `MAIN_SCALE`.
        negative_prompt: What should not be there; None to give none.
        suffix: Put after every prompt.
        arguments: Further arguments of the pipeline's call.
        dtype: On an accelerator.
        most_references: Reference images that are used.
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
    most_references: int = Field(default=1, ge=1)

    @property
    def width_height(self) -> tuple[int, int] | None:
        """The size in pixels, None for the pipeline's own."""
        return parse_size(self.size) if self.size else None


class Preset(PipelineSettings):
    """The settings of a published system.

    Attributes:
        name: As in `diffusers:NAME`.
        row: Its row in the published table, empty when it has none.
        published_seed: Seed of the published pictures; None where they had no fixed one.
        note: What a reader of the settings should know.
        elsewhere: Why diffusers cannot draw it and what does; empty where it can.
    """

    name: str = ""
    row: str = ""
    published_seed: int | None = 0
    note: str = ""
    elsewhere: str = ""

    @property
    def lacking(self) -> str:
        """Returns what would have to be installed to draw with it, empty where nothing is lacking."""
        if self.elsewhere:
            return f"diffusers has no pipeline for it; {self.elsewhere}"
        if lack := diffusers_lacks():
            return lack
        import diffusers

        return "" if hasattr(diffusers, self.pipeline) else lacks_class(self.pipeline)


class ClassFacts(Record):
    """How a pipeline class takes reference images; see the data file."""

    images: Literal["one", "all"] = "one"
    together: bool = True
    needs_image: bool = False


class _Known(Record):
    presets: dict[str, Preset]
    partners: dict[str, PipelineSettings]
    classes: dict[str, ClassFacts]


@cache
def _known() -> _Known:
    import yaml

    text = files("knowgen.generators.diffusers").joinpath("presets.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    for name, preset in data["presets"].items():
        preset["name"] = name
        if preset.get("published_seed") == "none":
            preset["published_seed"] = None
    return _Known.model_validate(data)


def presets() -> list[Preset]:
    """Returns every preset, in the order of the data file."""
    return list(_known().presets.values())


def preset(name: str) -> Preset | None:
    """Returns the preset of a name, None when there is none; upper and lower case are one."""
    return _known().presets.get(name.strip().lower())


def partner(pipeline: str) -> PipelineSettings | None:
    """Returns the editing partner of a pipeline class, None when it has none of its own."""
    return _known().partners.get(pipeline)


def facts(pipeline: str) -> ClassFacts:
    """Returns how a class takes reference images; one that is not known takes one for each prompt."""
    return _known().classes.get(pipeline, ClassFacts())


def parse_size(text: str) -> tuple[int, int]:
    """Returns width and height of `1664x928`, or of `512` for a square.

    Raises:
        UsageError: It is neither.
    """
    found = _SIZE.match(text.strip())
    if found:
        width, height = int(found[1]), int(found[2])
    elif text.strip().isascii() and text.strip().isdigit():
        width = height = int(text)
    else:
        width = height = 0
    if width < 1 or height < 1:
        raise UsageError(
            f"{text!r} is no size", where="generator diffusers", fix="write WIDTHxHEIGHT, such as 1024x768"
        )
    return width, height


def with_changes(
    way: PipelineSettings, changes: Mapping[str, Any], guidance: float | Mapping[str, float] | None
) -> PipelineSettings:
    """Returns a way with a user's own settings; what is None stays.

    Args:
        way: The way.
        changes: Fields by name.
        guidance: A scale, for the first argument that the way names, or scales by argument.
    """
    update = {name: value for name, value in changes.items() if value is not None}
    if isinstance(guidance, Mapping):
        update["guidance"] = {**way.guidance, **guidance}
    elif guidance is not None:
        update["guidance"] = {**way.guidance, next(iter(way.guidance), MAIN_SCALE): float(guidance)}
    return way.model_copy(update=update)


def main_scale(pipeline: str) -> str:
    """Returns which argument of a class steers how closely the prompt is followed."""
    return "true_cfg_scale" if pipeline.startswith("QwenImage") else "guidance_scale"


def diffusers_lacks() -> str:
    """Returns which of the packages for drawing is not installed, empty when all are."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
    return f"needs {', '.join(missing)}, which is not installed; pip install 'knowgen[models]'" if missing else ""


def lacks_class(pipeline: str) -> str:
    """Says that the installed diffusers is too old for a class, and what to install."""
    from importlib.metadata import version

    return f"diffusers {version('diffusers')} has no {pipeline}; pip install -U diffusers"
