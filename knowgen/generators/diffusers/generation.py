"""Turn requests into images: load pipelines, form batches, and handle failures.

Passes of a pipeline run in a thread of their own. While one runs, the images of the one before are converted and handed
on, and the engine makes their files.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import takewhile
from typing import Any, Literal, TypeVar

from knowgen.core.errors import ConfigError, KnowgenError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.core.text import error_summary
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.diffusers.batch_sizes import MeasuredBatchSizes
from knowgen.generators.diffusers.decoding import BatchDecoder, watch_decoding
from knowgen.generators.diffusers.device_health import GpuHealth
from knowgen.generators.diffusers.pass_thread import PassThread
from knowgen.generators.diffusers.pipeline import LoadedPipeline, to_image
from knowgen.generators.diffusers.prompt_encoding import PromptEncoder, keep_prompts, text_length
from knowgen.local_models.device_memory import memory_of
from knowgen.local_models.devices import is_gpu_fault
from knowgen.local_models.memory import free_memory, is_out_of_memory, run_if_fits

Role = Literal["text", "edit"]
"""What a pipeline is used for: requests without reference images, or with them."""

Load = Callable[[Role, LoadedPipeline | None], LoadedPipeline]
Shape = Hashable
R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger("knowgen.generators")

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


@dataclass(frozen=True)
class _Pass:
    """What came of a pass.

    Attributes:
        batch: Its requests.
        made: For each request what makes its `GeneratedImage`; None when there are no images.
        error: Why there are none; None when memory ran out. It holds no frames, and with them no tensors.
    """

    batch: Sequence[GenerationRequest]
    made: list[Callable[[], GeneratedImage]] | None = None
    error: BaseException | None = None


class PipelineRunner:
    """Generate images with one pipeline, and with its edit pipeline from the first request with references on.

    Args:
        load: Loads the pipeline of a role; its second argument is the loaded text-to-image pipeline, if any.
        environment: Returns what is recorded besides a pipeline's settings; called once, for the first image.
        batch: Number of requests in a batch; None for the fastest number.
        device: Device of the pipelines.
        noise_device: Device whose random number generator makes the noise.
        uses_references: Returns whether requests with references are generated from them; takes the loaded
            text-to-image pipeline. Otherwise their references are left out.
        where: Names the generator in errors.
    """

    def __init__(
        self,
        load: Load,
        environment: Callable[[], dict[str, Any]],
        batch: int | None,
        device: str,
        noise_device: str,
        uses_references: Callable[[LoadedPipeline], bool],
        where: str,
    ) -> None:
        self._load, self._environment, self._where = load, cache(environment), where
        self._uses_references = uses_references
        self._ignores_references = False
        self._one_at_a_time = False
        self._batch, self._device, self._noise_device = batch, device, noise_device
        self._pipelines: dict[Role, LoadedPipeline] = {}
        self._encoders: dict[Role, PromptEncoder | None] = {}
        self._decoders: dict[Role, BatchDecoder | None] = {}
        self._sizes = MeasuredBatchSizes(batch)
        self._passes: PassThread[_Pass] = PassThread()
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
        self._one_at_a_time = text.traits.batch == "none"
        while not self._compiled(text):
            free_memory()

    def _compiled(self, text: LoadedPipeline) -> bool:
        """Compile the text-to-image pipeline for its first batches; return False where a smaller batch must be tried.

        Raises:
            ConfigError: The compiler fails, or memory runs out with a single image.
        """
        count = 1 if self._one_at_a_time else self._sizes.size("text", waiting=self._batch or 1)

        def fits() -> bool:
            text.warm_up(count, self._noise_device)
            return True

        if run_if_fits(fits):
            return True
        if count == 1:
            raise ConfigError(_OUT_OF_MEMORY, where=self._where)
        self._did_not_fit(count, "text")
        return False

    def close(self) -> None:
        """Free the memory of the pipelines."""
        self._passes.close()
        self._unload()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield a generated image for each request, those without references first."""
        from_text = [request for request in requests if self._ignores_references or not request.references]
        with_references = [request for request in requests if request.references and not self._ignores_references]
        if from_text:
            yield from self._batches("text", "text", from_text, alone=self._one_at_a_time)
        if with_references:
            pipeline = self._guarded(lambda: self._pipeline("edit"))
            for shape, group in grouped(with_references, lambda request: _shape(pipeline, request)):
                yield from self._batches("edit", shape, group, alone=pipeline.traits.batch != "all")

    # -- pipelines -------------------------------------------------------------------------------------------------

    def _pipeline(self, role: Role) -> LoadedPipeline:
        """Return the pipeline of a role, loaded at first use; the other one is unloaded where both do not fit."""
        if role in self._pipelines:
            return self._pipelines[role]
        loaded = run_if_fits(lambda: self._load(role, self._pipelines.get("text")))
        if loaded is None:
            self._unload()
            loaded = run_if_fits(lambda: self._load(role, self._pipelines.get("text")))
        if loaded is None:
            raise self._does_not_fit()
        self._pipelines[role] = loaded
        self._encoders[role] = keep_prompts(loaded.pipe)
        self._decoders[role] = watch_decoding(loaded.pipe, memory_of(self._device))
        return loaded

    def _unload(self, keep: Role | None = None) -> None:
        """Unload the pipelines, all but that of a role, and free their memory."""
        held: tuple[dict[Role, Any], ...] = (self._pipelines, self._encoders, self._decoders)
        for role in [role for role in self._pipelines if role != keep]:
            for each in held:
                each.pop(role, None)
        free_memory()

    def _does_not_fit(self) -> ConfigError:
        return ConfigError(
            "the weights do not fit into memory",
            where=self._where,
            fix="try -g offload=model or quantization=bitsandbytes_4bit",
        )

    # -- batches ---------------------------------------------------------------------------------------------------

    def _batches(
        self, role: Role, shape: Shape, requests: Sequence[GenerationRequest], *, alone: bool
    ) -> Iterator[GeneratedImage]:
        """Generate requests of one shape in batches that fit into memory.

        While the images of a batch are handed on, the next one runs; no further one starts until they have been taken.
        """
        waiting = deque(self._in_order(role, requests))

        def start() -> Callable[[], _Pass] | None:
            if not waiting:
                return None
            size = 1 if alone else self._sizes.size(shape, waiting=self._joining(role, waiting))
            return self._start(role, shape, [waiting.popleft() for _ in range(size)])

        running = start()
        while running is not None:
            done = self._finished(running)
            if done.made is None and done.error is None and len(done.batch) > 1:  # out of memory
                self._did_not_fit(len(done.batch), shape)
                waiting.extendleft(reversed(done.batch))
                running = start()
                continue
            made = deque(done.made if done.made is not None else self._after_failure(role, shape, done))
            running = start()
            done = _Pass(())  # what is kept here would keep its memory
            try:
                while made:
                    yield made.popleft()()
            except GeneratorExit:
                if running is not None:
                    running()  # nothing may be loaded while a pass runs
                raise

    def _did_not_fit(self, count: int, shape: Shape) -> None:
        """Halve the size of batches, and say so: in bfloat16 the size moves an image."""
        self._sizes.did_not_fit(count, shape)
        message = "%s: memory ran out with %d images at once; from now on at most %d"
        _log.warning(message, self._where, count, count // 2)

    def _start(self, role: Role, shape: Shape, batch: Sequence[GenerationRequest]) -> Callable[[], _Pass]:
        """Start a pass; return the function that waits for what comes of it. Pipelines are loaded in this thread."""
        pipeline = self._guarded(lambda: self._pipeline(role))
        return self._passes.start(lambda: self._pass(pipeline, role, shape, batch)).result

    def _in_order(self, role: Role, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """Return requests with those side by side that should share a batch: of like length, or of one prompt.

        The longest come first, so that later batches need no more memory. All are generated in this call, so none waits
        for requests that arrive later.
        """
        pipeline = self._pipelines.get(role)
        if pipeline is None or len(requests) < 2:
            return list(requests)
        if pipeline.traits.batch == "prompt":
            return [request for _, group in grouped(requests, lambda request: request.prompt) for request in group]
        pipe = pipeline.pipe
        return sorted(requests, key=lambda request: -text_length(pipe, request.prompt))

    def _joining(self, role: Role, waiting: Sequence[GenerationRequest]) -> int:
        """Return how many of the requests that wait, from the first on, may share a batch."""
        pipeline = self._pipelines.get(role)
        if pipeline is None or pipeline.traits.batch != "prompt":
            return len(waiting)
        return sum(1 for _ in takewhile(lambda request: request.prompt == waiting[0].prompt, waiting))

    def _finished(self, result: Callable[[], _Pass]) -> _Pass:
        """Return what came of a pass.

        Raises:
            TransientError: The GPU failed.
            KnowgenError: The edit pipeline cannot be loaded.
        """
        done = result()
        if done.made is None and done.error is None:
            free_memory()
        if isinstance(done.error, KnowgenError):
            raise done.error
        if done.error is not None and is_gpu_fault(done.error):
            raise self._health.failed(done.error) from done.error
        return done

    def _after_failure(self, role: Role, shape: Shape, done: _Pass) -> list[Callable[[], GeneratedImage]]:
        """Return what is made of a batch that failed: each request is run alone, as one of them may be the cause."""
        if len(done.batch) > 1:
            made: list[Callable[[], GeneratedImage]] = []
            for request in done.batch:
                made += self._alone(role, shape, request)
            return made
        request = done.batch[0]
        if done.error is None and len(self._pipelines) > 1:
            self._unload(keep=role)
            return self._alone(role, shape, request)
        reason = _OUT_OF_MEMORY if done.error is None else error_summary(done.error, 300)
        return [partial(_failed, request, reason)]

    def _alone(self, role: Role, shape: Shape, request: GenerationRequest) -> list[Callable[[], GeneratedImage]]:
        done = self._finished(self._start(role, shape, [request]))
        return done.made if done.made is not None else self._after_failure(role, shape, done)

    def _guarded(self, call: Callable[[], T], *, fatal: bool = False) -> T:
        """Return what a call returns; raise a failure of the GPU as a `TransientError`, so that the engine retries."""
        try:
            return call()
        except RuntimeError as error:
            if not is_gpu_fault(error):
                raise
            raise self._health.failed(error, fatal=fatal) from error

    # -- passes: in their own thread -------------------------------------------------------------------------------

    def _pass(self, pipeline: LoadedPipeline, role: Role, shape: Shape, batch: Sequence[GenerationRequest]) -> _Pass:
        """Generate a batch in one call of a pipeline."""
        try:
            return _Pass(batch, self._run(pipeline, role, shape, batch))
        except Exception as error:  # noqa: BLE001 - a pipeline may raise anything
            if is_out_of_memory(error):
                if (encoder := self._encoders.get(role)) is not None:
                    encoder.clear()
                return _Pass(batch)
            error.__context__ = error.__cause__ = None
            return _Pass(batch, error=error.with_traceback(None))

    def _run(
        self, pipeline: LoadedPipeline, role: Role, shape: Shape, batch: Sequence[GenerationRequest]
    ) -> list[Callable[[], GeneratedImage]]:
        if role == "text" and pipeline.traits.needs_image:
            raise ValueError(f"{pipeline.name} generates only from reference images, and the request has none")
        used = [_used_references(pipeline, request) if role == "edit" else () for request in batch]
        prompts = [pipeline.full_prompt(request.prompt, len(own)) for request, own in zip(batch, used, strict=True)]
        opened = [[reference.open() for reference in references] for references in used]
        pipeline.compile_for(prompts, opened, self._noise_device)
        started = time.perf_counter()
        images = pipeline.generate(prompts, [request.seed for request in batch], opened, self._noise_device)
        self._sizes.took(len(batch), time.perf_counter() - started, shape)
        settings = {**pipeline.recorded_settings(), **self._environment(), **self._batch_settings(role, shape, batch)}
        return [
            partial(_generated_image, request, image, prompt, references, settings)
            for request, image, prompt, references in zip(batch, images, prompts, used, strict=True)
        ]

    def _batch_settings(self, role: Role, shape: Shape, batch: Sequence[GenerationRequest]) -> dict[str, Any]:
        """Return what is recorded about the batch of an image: its size, and the measured times of sizes."""
        settings: dict[str, Any] = {"batch": len(batch)}
        if seconds := self._sizes.seconds(shape):
            settings["batch_seconds"] = {str(size): each for size, each in seconds.items()}
        if (decoder := self._decoders.get(role)) is not None and decoder.sliced:
            settings["slicing"] = "auto"
        return settings


def _generated_image(
    request: GenerationRequest, output: Any, prompt: str, references: Sequence[ImageRef], settings: dict[str, Any]
) -> GeneratedImage:
    image = to_image(output)
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
