"""Which guidance scales a pipeline applies, and how: by comparing two predictions, or as an input of its denoiser."""

from __future__ import annotations

from typing import Any, Literal

from knowgen.generators.diffusers.placement import denoiser_of
from knowgen.generators.diffusers.presets import PipelineTraits

REFERENCE_SCALES = ("image_guidance_scale", "img_guidance_scale")
"""Arguments of pipelines that set how closely reference images are followed."""

SCALES = ("guidance_scale", "true_cfg_scale", "distilled_guidance_scale", *REFERENCE_SCALES)
"""Arguments of pipelines that are guidance scales."""

SCHEDULE = "guidance_schedule"
"""Argument of pipelines that is a guidance scale for each step."""

Guidance = Literal["classifier_free", "distilled", ""]
"""How a scale is applied: between a prediction with the prompt and one without, or as an input of a denoiser that was
trained with one; empty where it is not applied."""


class _WithScale:
    """A pipeline with a guidance scale that it was not called with."""

    def __init__(self, pipe: Any, scale: float) -> None:
        self._pipe, self._guidance_scale = pipe, scale

    def __getattr__(self, name: str) -> Any:
        return self._guidance_scale if name == "guidance_scale" else getattr(self._pipe, name)


def guidance_of(
    pipe: Any,
    argument: str,
    scale: float | None,
    traits: PipelineTraits,
    *,
    negative_prompt: bool,
    both: bool,
    references: bool,
) -> Guidance:
    """Return how a pipeline applies a guidance scale.

    Args:
        pipe: The pipeline.
        argument: Name of the scale, one of `SCALES`.
        scale: Its value; None where it is not known.
        traits: What is special about its class.
        negative_prompt: Whether there is a negative prompt.
        both: Whether its class has `true_cfg_scale` too: `guidance_scale` is then that of a distilled model.
        references: Whether an image is generated from reference images.
    """
    if not traits.guidance or (argument in REFERENCE_SCALES and not references):
        return ""
    embedded = _is_input(pipe)
    if argument == "true_cfg_scale":
        return "classifier_free" if negative_prompt and (scale is None or scale > 1) else ""
    if argument == "distilled_guidance_scale" or both:
        return "distilled" if embedded and scale is not None else ""
    if embedded and argument == "guidance_scale":
        return "distilled"
    return "classifier_free" if scale is not None and (traits.always_guides or _compares(pipe, scale)) else ""


def _is_input(pipe: Any) -> bool:
    """Return whether a guidance scale is an input of the denoiser, which was distilled with one."""
    config = getattr(denoiser_of(pipe), "config", None)
    return bool(getattr(config, "guidance_embeds", False)) or getattr(config, "time_cond_proj_dim", None) is not None


def _compares(pipe: Any, scale: float) -> bool:
    """Return whether a class compares two predictions at a scale, by its own rule where it has one."""
    rule = getattr(type(pipe), "do_classifier_free_guidance", None)
    return bool(rule.fget(_WithScale(pipe, scale))) if isinstance(rule, property) and rule.fget else scale > 1


def own_guider(pipe: Any) -> dict[str, Any]:
    """Return the guider of a pipeline that has one as a component, and its scale; empty for other pipelines."""
    guider = getattr(pipe, "guider", None)
    if guider is None or _is_input(pipe):
        return {}
    return {"class": type(guider).__name__, "guidance_scale": getattr(guider, "guidance_scale", None)}
