"""A loaded diffusers pipeline: generate several images in one call, describe its settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import UsageError
from knowgen.generators.diffusers.compilation import Compilation
from knowgen.generators.diffusers.glm_image import fitting_reference
from knowgen.generators.diffusers.guidance import SCALES, SCHEDULE, Guidance, guidance_of, own_guider
from knowgen.generators.diffusers.presets import (
    PipelineSettings,
    PipelineTraits,
    pipeline_traits,
)
from knowgen.generators.diffusers.step_cache import StepCache
from knowgen.generators.diffusers.weights import PipelineFiles

if TYPE_CHECKING:
    from PIL.Image import Image

_WARM_UP_STEPS = 2
_WARM_UP_PROMPTS = ("A", "A lighthouse", "A lighthouse on a cliff", "A lighthouse on a cliff, with a sign")
"""Prompts of several lengths: torch compiles for any length once it has seen two or three."""


class LoadedPipeline:
    """A loaded pipeline and its settings.

    Args:
        pipe: The pipeline object of diffusers.
        settings: The model and how it generates images.
        files: What it was loaded from.
        dtype: Number format in which it computes.
        where: Names the generator in errors.

    Attributes:
        cache: The cache between steps, if any.
        compilation: How the denoiser is compiled, if it is.
        options: What is recorded about how it was loaded, beside its settings.

    Raises:
        UsageError: A setting is not an argument of its class.
    """

    def __init__(self, pipe: Any, settings: PipelineSettings, files: PipelineFiles, dtype: str, where: str) -> None:
        self.pipe, self.settings, self.files, self.dtype = pipe, settings, files, dtype
        self.name = type(pipe).__name__
        self.traits: PipelineTraits = pipeline_traits(self.name)
        self.parameters = inspect.signature(type(pipe).__call__).parameters
        self._arguments = self._fixed_arguments(where)
        self.digest = files.digest()
        self.cache: StepCache | None = None
        self.compilation: Compilation | None = None
        self.options: dict[str, Any] = {}
        self._from_references = False

    @property
    def takes_references(self) -> bool:
        """Whether it can generate from reference images."""
        return self.traits.reference_argument in self.parameters

    @property
    def negative_prompt(self) -> str | None:
        """The negative prompt of every call: that of the settings, else the model's own; None for none."""
        settings = self.settings.negative_prompt
        return self.traits.negative_prompt if settings is None else settings

    def full_prompt(self, prompt: str, references: int) -> str:
        """Return the prompt of a call: with the suffix, and with what stands for each reference image in its text."""
        tag = self.traits.reference_tag
        tags = [tag.format(number=number) for number in range(1, references + 1)] if tag else []
        return " ".join([*(each for each in tags if each not in prompt), prompt]) + self.settings.suffix

    def _fixed_arguments(self, where: str) -> dict[str, Any]:
        """Return the arguments that are the same in every call."""
        settings = self.settings
        scales = {name or self.traits.guidance or "guidance_scale": scale for name, scale in settings.guidance.items()}
        arguments: dict[str, Any] = {**scales, **settings.arguments}
        if settings.width_height:
            arguments["width"], arguments["height"] = settings.width_height
        if settings.steps is not None:
            arguments["num_inference_steps"] = settings.steps
        if SCHEDULE in self.parameters and "guidance_scale" in arguments:
            arguments.setdefault(SCHEDULE, None)  # the class takes one of the two
        names = [*arguments, *([] if settings.negative_prompt is None else ["negative_prompt"])]
        if unknown := [name for name in names if name not in self.parameters]:
            raise UsageError(f"{self.name} takes no {unknown[0]}", where=where, fix="leave that setting out")
        return arguments

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], references: Sequence[Sequence[Image]], noise_device: str
    ) -> list[Any]:
        """Generate one image for each prompt, in one batch.

        Args:
            prompts: Prompts with the suffix.
            seeds: A seed for each prompt; the noise of an image depends on its seed alone.
            references: Reference images of each prompt, the same number for all; empty sequences for none.
            noise_device: Device whose random number generator makes the noise.

        Returns:
            For each prompt what the pipeline returned, which `to_image` reads.
        """
        count, shape = len(prompts), self._shape(references)
        padded = count if self.compilation is None else self.compilation.batch_for(shape, count)
        rows = [min(number, count - 1) for number in range(padded)]
        call = self._call(
            [prompts[row] for row in rows],
            [seeds[row] for row in rows],
            [references[row] for row in rows],
            noise_device,
        )
        self._from_references = bool(references[0])
        images = call() if self.compilation is None else self.compilation.run(shape, padded, call)
        return images[:count]

    def _shape(self, references: Sequence[Sequence[Image]]) -> tuple[Any, ...]:
        """Return what the batches of a compiled shape share beside their size."""
        return tuple(image.size for image in references[0])

    def _call(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: Sequence[Sequence[Image]],
        noise_device: str,
        steps: int | None = None,
    ) -> Callable[[], list[Any]]:
        """Return a function that generates a batch; arguments as for `generate`, `steps` instead of the settings'."""
        negative = self.negative_prompt
        several = len(prompts) > 1
        arguments: dict[str, Any] = {**self._arguments, "prompt": list(prompts) if several else prompts[0]}
        if negative is not None:
            arguments["negative_prompt"] = [negative] * len(prompts) if several else negative
        if references[0]:
            name = self.traits.reference_argument
            if self.traits.images == "all":
                arguments[name] = [fitting_reference(self.pipe, image) for image in references[0]]
            else:
                arguments[name] = [images[0] for images in references] if several else references[0][0]
        if "output_type" in self.parameters:
            arguments["output_type"] = "np"
        if steps is not None and not {"sigmas", "timesteps"} & set(arguments):
            arguments["num_inference_steps"] = steps

        def call() -> list[Any]:
            import torch

            generators = [torch.Generator(noise_device).manual_seed(seed) for seed in seeds]
            arguments["generator"] = generators if several else generators[0]
            if self.cache is not None:
                self.cache.start(self.pipe)
            with _seeded(seeds[0]) if self.traits.global_random else nullcontext():
                output = self.pipe(**arguments)
            images = list(output.images if hasattr(output, "images") else output.image)  # Kandinsky 5 names it `image`
            if len(images) != len(prompts):
                raise RuntimeError(f"{self.name} returned {len(images)} images for {len(prompts)} prompts")
            return images

        return call

    def warm_up(self, count: int, noise_device: str) -> None:
        """Compile a compiled pipeline for batches without references, before the first image.

        Args:
            count: Number of images of a batch.
            noise_device: As for `generate`.

        Raises:
            ConfigError: The compiler fails.
        """
        compilation = self.compilation
        if compilation is None or self.traits.needs_image:
            return
        short, *longer = _WARM_UP_PROMPTS
        alike = [[text] * count for text in (short, longer[0])]
        mixed = [[short, *[text] * (count - 1)] for text in longer] if count > 1 else []  # these need a mask

        def calls() -> None:
            for prompts in [*alike, *mixed]:
                call = self._call(prompts, [0] * count, [()] * count, noise_device, _WARM_UP_STEPS)
                compilation.run((), count, call)

        compilation.warm_up(calls, count)

    def compile_for(self, prompts: Sequence[str], references: Sequence[Sequence[Image]], noise_device: str) -> None:
        """Compile a compiled pipeline for a batch of a shape or size that it has not had; arguments as for `generate`.

        It takes place apart from the batch, so that the time of its images is not that of the compiler.

        Raises:
            ConfigError: The compiler fails.
        """
        compilation, count, shape = self.compilation, len(prompts), self._shape(references)
        if compilation is None or compilation.knows(shape, count):
            return
        call = self._call(prompts, [0] * count, references, noise_device, _WARM_UP_STEPS)
        compilation.warm_up(lambda: compilation.run(shape, count, call), count)

    @property
    def passes(self) -> int:
        """Passes of the denoiser at each step: 2 where its guidance compares two."""
        return (
            2
            if own_guider(self.pipe) or self._guidance_schedule() or "classifier_free" in self._guided_by().values()
            else 1
        )

    @property
    def steps(self) -> int | None:
        """Denoising steps of an image as they were set; None where the class does not say.

        A schedule takes the place of their number: one that was given, or the one that a model was distilled for.
        """
        own = getattr(self.pipe.config, "sample_sigmas", None)
        for schedule in (self._arguments.get("sigmas"), self._arguments.get("timesteps"), own):
            if schedule is not None:
                return len(schedule)
        steps = self._value("num_inference_steps")
        return int(steps) if steps is not None else None

    @property
    def steps_done(self) -> int | None:
        """Denoising steps of the last image, which may be fewer where it began with a reference; else `steps`."""
        timesteps = getattr(self.pipe, "_num_timesteps", None)
        if not isinstance(timesteps, int):
            return self.steps
        return -(-timesteps // getattr(getattr(self.pipe, "scheduler", None), "order", 1))

    def recorded_settings(self) -> dict[str, Any]:
        """Return what decides its images besides prompt, references and seed, defaults of the class included.

        A guidance scale that the model does not apply is None, whatever it was set to; `guided_by` says how the others
        are applied.
        """
        guided_by = self._guided_by()
        scales: dict[str, Any] = {name: self._value(name) if how else None for name, how in guided_by.items()}
        if schedule := self._guidance_schedule():
            scales[SCHEDULE], guided_by[SCHEDULE] = schedule, "classifier_free"
        guider = own_guider(self.pipe)
        return {
            "pipeline": self.name,
            "model": self.settings.model,
            "revision": self.files.revision,
            "weights": self.digest,
            "steps": self.steps_done,
            "guidance": scales,
            "guided_by": {name: how for name, how in guided_by.items() if how},
            **({"guider": guider} if guider else {}),
            "negative_prompt": self.negative_prompt,
            "suffix": self.settings.suffix,
            "arguments": dict(self.settings.arguments),
            "scheduler": type(self.pipe.scheduler).__name__ if getattr(self.pipe, "scheduler", None) else "",
            "dtype": self.dtype,
            **self.options,
            **({} if self.cache is None else {"cache": self.cache.settings}),
            **({} if self.compilation is None else self.compilation.recorded()),
        }

    def _guidance_schedule(self) -> list[float]:
        """Return the guidance scale of each step where the class takes one for each; empty for other classes."""
        if SCHEDULE not in self.parameters:
            return []
        schedule = self._arguments.get(SCHEDULE, self.parameters[SCHEDULE].default)
        return [] if schedule is None else [float(scale) for scale in schedule]

    def _guided_by(self) -> dict[str, Guidance]:
        """Return how each guidance scale of the class is applied."""
        both = "true_cfg_scale" in self.parameters
        negative = self.negative_prompt is not None
        return {
            name: guidance_of(
                self.pipe,
                name,
                self._value(name),
                self.traits,
                negative_prompt=negative,
                both=both,
                references=self._from_references,
            )
            for name in SCALES
            if name in self.parameters
        }

    def _value(self, name: str) -> Any:
        """Return the value of an argument, else its default where that is plain data."""
        if name in self._arguments:
            return self._arguments[name]
        default = self.parameters[name].default if name in self.parameters else None
        return default if isinstance(default, int | float | str) else None

    def for_editing(self, settings: PipelineSettings, where: str) -> LoadedPipeline:
        """Return a pipeline of the same components that takes reference images.

        Raises:
            UsageError: diffusers has none for this class.
            ConfigError: It cannot be cached between steps as this one is.
        """
        from diffusers import AutoPipelineForImage2Image

        if self.takes_references:
            return self._with(self.pipe, settings, where)
        try:
            pipe = AutoPipelineForImage2Image.from_pipe(self.pipe)
        except ValueError as error:
            raise UsageError(
                f"{self.name} cannot generate from reference images", where=where, fix="give -g edit=MODEL"
            ) from error
        pipe.set_progress_bar_config(disable=True)
        return self._with(pipe, settings, where)

    def _with(self, pipe: Any, settings: PipelineSettings, where: str) -> LoadedPipeline:
        """Return a pipeline of the same components with other settings."""
        loaded = LoadedPipeline(pipe, settings, self.files, self.dtype, where)
        if self.cache is not None:
            self.cache.check(pipe, loaded.passes)
        loaded.cache, loaded.compilation, loaded.options = self.cache, self.compilation, self.options
        return loaded


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set torch's global random state from a seed inside the block, and restore it afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def to_image(output: Any) -> Image | ValueError:
    """Return an image of a pipeline as a PIL image, or a `ValueError` that says what is wrong with it.

    Args:
        output: Numbers in [0, 1] of shape (height, width, 3), or a PIL image.
    """
    import numpy as np
    from PIL import Image

    if isinstance(output, Image.Image):
        return output
    values = np.asarray(output, dtype=np.float32)
    if not np.isfinite(values).all():
        return ValueError("the model returned NaN or infinite values instead of an image; try -g dtype=float32")
    return Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8))
