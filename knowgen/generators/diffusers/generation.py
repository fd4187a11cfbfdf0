"""From requests to drawings: which pipelines are held, which requests share a pass, what becomes of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.core.text import error_summary
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.batching import Shape, grouped
from knowgen.generators.diffusers.device_health import GpuHealth
from knowgen.generators.diffusers.pipeline import LoadedPipeline
from knowgen.local_models.devices import is_gpu_fault
from knowgen.local_models.memory import BatchSizes, free_memory, in_batches, is_out_of_memory, run_if_fits

Role = Literal["text", "edit"]
Load = Callable[[Role, LoadedPipeline | None], LoadedPipeline]
T = TypeVar("T")

_SMALLER = "try -g offload=model, slicing=true or a smaller size"


class PipelineRunner:
    """Draws with one pipeline, and with its editing partner from the first request that brings references.

    Args:
        load: Loads the pipeline of a role; takes the one that draws from words, where that is held.
        surroundings: Says what is recorded beside a pipeline's settings; asked once, when there is a picture.
        largest: Most requests in a pass.
        noise: Device whose random numbers are drawn.
        where: Names the generator in errors.
    """

    def __init__(
        self, load: Load, surroundings: Callable[[], dict[str, Any]], largest: int, noise: str, where: str
    ) -> None:
        self._load, self._surroundings, self._noise, self._where = load, cache(surroundings), noise, where
        self._held: dict[Role, LoadedPipeline] = {}
        self._sizes = BatchSizes(largest, first=1)
        self._health = GpuHealth()

    def prepare(self) -> None:
        """Loads the pipeline that draws from words.

        Raises:
            KnowgenError: It cannot be loaded, or does not fit.
        """
        try:
            self._guarded(lambda: self._get("text"), fatal=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._no_room() from error

    def close(self) -> None:
        """Gives back the memory."""
        self._held.clear()
        free_memory()

    def paint(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields a drawing for each request, those without references first."""
        plain = [request for request in requests if not request.references]
        guided = [request for request in requests if request.references]
        if plain:
            yield from self._passes("text", "text", plain)
        if guided:
            pipeline = self._guarded(lambda: self._get("edit"))
            for shape, group in grouped(guided, lambda request: _shape(pipeline, request)):
                yield from self._passes("edit", shape, group, None if pipeline.facts.together else 1)

    def _get(self, role: Role) -> LoadedPipeline:
        """Returns a pipeline, loaded when it is first wanted; the other one makes room where both do not fit."""
        if role in self._held:
            return self._held[role]
        made = run_if_fits(lambda: self._load(role, self._held.get("text")))
        if made is None:
            self._held.clear()
            free_memory()
            made = run_if_fits(lambda: self._load(role, self._held.get("text")))
        if made is None:
            raise self._no_room()
        self._held[role] = made
        return made

    def _no_room(self) -> ConfigError:
        return ConfigError(
            "the weights do not fit into memory",
            where=self._where,
            fix="try -g offload=model or quantization=bitsandbytes_4bit",
        )

    def _passes(
        self, role: Role, shape: Shape, requests: Sequence[GenerationRequest], most: int | None = None
    ) -> Iterator[GeneratedImage]:
        def draw(batch: list[GenerationRequest]) -> list[GeneratedImage] | None:
            drawn = self._pass(role, batch)
            return self._alone(role, batch[0]) if drawn is None and len(batch) == 1 else drawn

        for batch, drawn in in_batches(requests, draw, self._sizes, shape=shape, most=most):
            yield from drawn or [_failed(batch[0], f"memory ran out with a single picture; {_SMALLER}")]

    def _alone(self, role: Role, request: GenerationRequest) -> list[GeneratedImage] | None:
        """Draws again what did not fit by itself, once the other pipeline has made room."""
        if len(self._held) < 2:
            return None
        self._held = {role: self._held[role]}
        free_memory()
        return self._pass(role, [request])

    def _pass(self, role: Role, batch: Sequence[GenerationRequest]) -> list[GeneratedImage] | None:
        """Draws a batch in one pass; returns None when memory ran out.

        Any other fault of a larger batch may be the doing of one request, so that each is then drawn alone.
        """
        fault = ""
        try:
            return self._guarded(lambda: self._drawn(role, batch))
        except KnowgenError:
            raise
        except Exception as error:  # noqa: BLE001 - a pipeline may raise anything
            if not is_out_of_memory(error):
                fault = error_summary(error, 300)
        if not fault:  # here the exception is gone, and with it the tensors it held
            free_memory()
            return None
        if len(batch) == 1:
            return [_failed(batch[0], fault)]
        return [
            drawing
            for request in batch
            for drawing in self._pass(role, [request])
            or [_failed(request, f"memory ran out with a single picture; {_SMALLER}")]
        ]

    def _guarded(self, call: Callable[[], T], *, fatal: bool = False) -> T:
        """Calls, and turns a fault of the GPU into one that the engine answers by drawing again."""
        try:
            return call()
        except RuntimeError as error:
            if not is_gpu_fault(error):
                raise
            raise self._health.failed(error, fatal=fatal) from error

    def _drawn(self, role: Role, batch: Sequence[GenerationRequest]) -> list[GeneratedImage]:
        pipeline = self._get(role)
        if role == "text" and pipeline.facts.needs_image:
            raise ValueError(f"{pipeline.name} draws only from reference images, and the request brings none")
        used = [_used(pipeline, request) for request in batch]
        prompts = [request.prompt + pipeline.way.suffix for request in batch]
        pictures = [[reference.open().convert("RGB") for reference in each] for each in used]
        images = pipeline.draw(prompts, [request.seed for request in batch], pictures, self._noise)
        settings = {**pipeline.settings(), **self._surroundings(), "batch": len(batch)}
        return [
            _drawing(request, image, prompt, references, settings)
            for request, image, prompt, references in zip(batch, images, prompts, used, strict=True)
        ]


def _drawing(
    request: GenerationRequest, image: Any, prompt: str, references: Sequence[ImageRef], settings: dict[str, Any]
) -> GeneratedImage:
    if isinstance(image, ValueError):
        return _failed(request, str(image), settings)
    own = {"seed": request.seed, "size": f"{image.width}x{image.height}"}
    if len(references) < len(request.references):
        own["references_left_out"] = len(request.references) - len(references)
    return GeneratedImage(
        image=image,
        request_id=request.id,
        used_prompt=prompt if prompt != request.prompt else "",
        references=tuple({"sha256": reference.sha256} for reference in references),
        settings={**settings, **own},
    )


def _failed(request: GenerationRequest, reason: str, settings: dict[str, Any] | None = None) -> GeneratedImage:
    return GeneratedImage(
        request_id=request.id, status=GenerationStatus.FAILED, reason=reason, settings=dict(settings or {})
    )


def _used(pipeline: LoadedPipeline, request: GenerationRequest) -> tuple[ImageRef, ...]:
    """Returns the reference images of a request that its pipeline uses."""
    return request.references[: 1 if pipeline.facts.images == "one" else pipeline.way.most_references]


def _shape(pipeline: LoadedPipeline, request: GenerationRequest) -> Shape:
    """Returns what requests must share for one pass: a pipeline brings all references to the first one's size."""
    if not pipeline.facts.together:
        return "edit"
    return ("edit", *((reference.width, reference.height) for reference in _used(pipeline, request)))
