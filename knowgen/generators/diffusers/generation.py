"""Turn requests into images: load pipelines, form batches, and handle failures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.core.text import error_summary
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.device_health import GpuHealth
from knowgen.generators.diffusers.pipeline import LoadedPipeline
from knowgen.local_models.devices import is_gpu_fault
from knowgen.local_models.memory import BatchSizes, free_memory, in_batches, is_out_of_memory, run_if_fits

Role = Literal["text", "edit"]
"""What a pipeline is used for: requests without reference images, or with them."""

Load = Callable[[Role, LoadedPipeline | None], LoadedPipeline]
Shape = Hashable
R = TypeVar("R")
T = TypeVar("T")

_OUT_OF_MEMORY = "out of memory with a single image; try -g offload=model, slicing=true or a smaller size"


def grouped(requests: Sequence[R], shape: Callable[[R], Shape]) -> Iterator[tuple[Shape, list[R]]]:
    """Yield each shape with its requests, in the order in which shapes first occur.

    Example:
        >>> list(grouped(["aa", "b", "cc"], len))
        [(2, ['aa', 'cc']), (1, ['b'])]
    """
    groups: dict[Shape, list[R]] = {}
    for request in requests:
        groups.setdefault(shape(request), []).append(request)
    yield from groups.items()


class PipelineRunner:
    """Generate images with one pipeline, and with its edit pipeline from the first request with references on.

    Args:
        load: Loads the pipeline of a role; its second argument is the loaded text-to-image pipeline, if any.
        environment: Returns what is recorded besides a pipeline's settings; called once, for the first image.
        max_batch: Maximum number of requests in a batch.
        noise_device: Device whose random number generator makes the noise.
        uses_references: Returns whether requests with references are generated from them; takes the loaded
            text-to-image pipeline. Otherwise their references are left out.
        where: Names the generator in errors.
    """

    def __init__(
        self,
        load: Load,
        environment: Callable[[], dict[str, Any]],
        max_batch: int,
        noise_device: str,
        uses_references: Callable[[LoadedPipeline], bool],
        where: str,
    ) -> None:
        self._load, self._environment, self._where = load, cache(environment), where
        self._uses_references = uses_references
        self._ignores_references = False
        self._max_text_batch: int | None = None
        self._noise_device = noise_device
        self._pipelines: dict[Role, LoadedPipeline] = {}
        self._sizes = BatchSizes(max_batch, first=1)
        self._health = GpuHealth()

    def prepare(self) -> None:
        """Load the text-to-image pipeline.

        Raises:
            KnowgenError: It cannot be loaded, or does not fit into memory.
        """
        try:
            text = self._guarded(lambda: self._pipeline("text"), fatal=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._does_not_fit() from error
        self._ignores_references = not self._uses_references(text)
        self._max_text_batch = 1 if text.traits.batch == "none" else None

    def close(self) -> None:
        """Free the memory of the pipelines."""
        self._pipelines.clear()
        free_memory()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield a generated image for each request, those without references first."""
        from_text = [request for request in requests if self._ignores_references or not request.references]
        with_references = [request for request in requests if request.references and not self._ignores_references]
        if from_text:
            yield from self._batches("text", "text", from_text, self._max_text_batch)
        if with_references:
            pipeline = self._guarded(lambda: self._pipeline("edit"))
            max_batch = None if pipeline.traits.batch == "all" else 1
            for shape, group in grouped(with_references, lambda request: _shape(pipeline, request)):
                yield from self._batches("edit", shape, group, max_batch)

    def _pipeline(self, role: Role) -> LoadedPipeline:
        """Return the pipeline of a role, loaded at first use; the other one is unloaded where both do not fit."""
        if role in self._pipelines:
            return self._pipelines[role]
        loaded = run_if_fits(lambda: self._load(role, self._pipelines.get("text")))
        if loaded is None:
            self._pipelines.clear()
            free_memory()
            loaded = run_if_fits(lambda: self._load(role, self._pipelines.get("text")))
        if loaded is None:
            raise self._does_not_fit()
        self._pipelines[role] = loaded
        return loaded

    def _does_not_fit(self) -> ConfigError:
        return ConfigError(
            "the weights do not fit into memory",
            where=self._where,
            fix="try -g offload=model or quantization=bitsandbytes_4bit",
        )

    def _batches(
        self, role: Role, shape: Shape, requests: Sequence[GenerationRequest], max_batch: int | None = None
    ) -> Iterator[GeneratedImage]:
        """Generate requests of one shape in batches that fit into memory."""

        def run(batch: list[GenerationRequest]) -> list[GeneratedImage] | None:
            images = self._batch(role, batch)
            return self._retry_alone(role, batch[0]) if images is None and len(batch) == 1 else images

        for batch, images in in_batches(requests, run, self._sizes, shape=shape, max_size=max_batch):
            yield from images or [_failed(batch[0], _OUT_OF_MEMORY)]

    def _retry_alone(self, role: Role, request: GenerationRequest) -> list[GeneratedImage] | None:
        """Run a request that did not fit by itself again, after unloading the other pipeline."""
        if len(self._pipelines) < 2:
            return None
        self._pipelines = {role: self._pipelines[role]}
        free_memory()
        return self._batch(role, [request])

    def _batch(self, role: Role, batch: Sequence[GenerationRequest]) -> list[GeneratedImage] | None:
        """Generate a batch in one call; return None when memory ran out.

        Any other error of a batch may be caused by a single request, so each request is then run alone.
        """
        reason = ""
        try:
            return self._guarded(lambda: self._run(role, batch))
        except KnowgenError:
            raise
        except Exception as error:  # noqa: BLE001 - a pipeline may raise anything
            if not is_out_of_memory(error):
                reason = error_summary(error, 300)
        if not reason:  # out of memory; here the exception is gone, and with it the tensors that it kept alive
            free_memory()
            return None
        if len(batch) == 1:
            return [_failed(batch[0], reason)]
        return [
            image for request in batch for image in self._batch(role, [request]) or [_failed(request, _OUT_OF_MEMORY)]
        ]

    def _guarded(self, call: Callable[[], T], *, fatal: bool = False) -> T:
        """Return what a call returns; raise a failure of the GPU as a `TransientError`, so that the engine retries."""
        try:
            return call()
        except RuntimeError as error:
            if not is_gpu_fault(error):
                raise
            raise self._health.failed(error, fatal=fatal) from error

    def _run(self, role: Role, batch: Sequence[GenerationRequest]) -> list[GeneratedImage]:
        pipeline = self._pipeline(role)
        if role == "text" and pipeline.traits.needs_image:
            raise ValueError(f"{pipeline.name} generates only from reference images, and the request has none")
        used = [_used_references(pipeline, request) if role == "edit" else () for request in batch]
        prompts = [request.prompt + pipeline.settings.suffix for request in batch]
        opened = [[reference.open() for reference in references] for references in used]
        images = pipeline.generate(prompts, [request.seed for request in batch], opened, self._noise_device)
        settings = {**pipeline.recorded_settings(), **self._environment(), "batch": len(batch)}
        return [
            _generated_image(request, image, prompt, references, settings)
            for request, image, prompt, references in zip(batch, images, prompts, used, strict=True)
        ]


def _generated_image(
    request: GenerationRequest, image: Any, prompt: str, references: Sequence[ImageRef], settings: dict[str, Any]
) -> GeneratedImage:
    if isinstance(image, ValueError):
        return _failed(request, str(image), settings)
    own_settings = {"seed": request.seed, "size": f"{image.width}x{image.height}"}
    if len(references) < len(request.references):
        own_settings["references_left_out"] = len(request.references) - len(references)
    return GeneratedImage(
        image=image,
        request_id=request.id,
        used_prompt=prompt if prompt != request.prompt else "",
        references=tuple({"sha256": reference.sha256} for reference in references),
        settings={**settings, **own_settings},
    )


def _failed(request: GenerationRequest, reason: str, settings: dict[str, Any] | None = None) -> GeneratedImage:
    return GeneratedImage(
        request_id=request.id, status=GenerationStatus.FAILED, reason=reason, settings=dict(settings or {})
    )


def _used_references(pipeline: LoadedPipeline, request: GenerationRequest) -> tuple[ImageRef, ...]:
    """Return the reference images of a request that its pipeline uses."""
    return request.references[: pipeline.traits.used_references(pipeline.settings.most_references)]


def _shape(pipeline: LoadedPipeline, request: GenerationRequest) -> Shape:
    """Return what the requests of a batch must share: a pipeline resizes all references to the size of the first."""
    if pipeline.traits.batch != "all":
        return "edit"
    return ("edit", *((reference.width, reference.height) for reference in _used_references(pipeline, request)))
