"""What a generator is: an object with one of three methods.

    draw(prompt, references, seed) -> PIL.Image                     one at a time, in a thread
    async generate(request) -> Drawing                              many at once, for services
    generate_batch(requests) -> Iterator[Drawing]                   a batch at a time, yielding each as it is done

It may also have `setup(device)` and `close()`, and class attributes that `capabilities_of` reads. A plain function
`draw(prompt)`, `draw(prompt, seed)` or `draw(prompt, references, seed)` is a generator too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from knowgen.core.errors import UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef, Usage

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = Literal["draw", "generate", "generate_batch"]

GPU_FAULT_CODE = 70
"""Exit code of a worker process that ended because its GPU failed; a GPU that does so again and again is retired."""


@dataclass
class GeneratedImage:
    """What a generator gives back for one request; the engine stores it as a `Generation`.

    Attributes:
        image: A PIL image, the bytes of a PNG, JPEG or WebP file, or the path of one; None when the status is not ok.
        request_id: The request it answers; needed from `generate_batch`, filled in by the engine otherwise.
        status: ok, failed or refused.
        reason: Why, when the status is not ok.
        used_prompt: The prompt that was drawn, when it is not the request's.
        references: Reference images that were used: title, url, note.
        evidence: Text that was gathered: title, url, text.
        trajectory: Steps of an agent.
        settings: What decides the picture besides prompt and seed: steps, size, library versions, device.
        usage: Tokens and cost.
    """

    image: Image | bytes | Path | None = None
    request_id: str = ""
    status: GenerationStatus = GenerationStatus.OK
    reason: str = ""
    used_prompt: str = ""
    references: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    trajectory: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


class SimpleGenerator(Protocol):
    """The simplest shape: one picture for one prompt, called in a thread."""

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Draws one picture; the same seed gives the same picture."""
        ...


class AsyncGenerator(Protocol):
    """The shape for services: many requests wait at once."""

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draws one picture; raises `TransientError` for a fault that may pass, `RefusalError` for a refusal."""
        ...


class BatchGenerator(Protocol):
    """The shape for local models: a batch goes in, each drawing comes out as soon as it is done, in any order."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one drawing a request, each with its `request_id`."""
        ...


@dataclass(frozen=True)
class GeneratorCapabilities:
    """What a generator declares about itself.

    Attributes:
        shape: Which of the three methods it has.
        batch_size: Requests a call of `generate_batch` takes.
        concurrency: Calls that may run at once (draw, generate_batch: threads; generate: tasks).
        references: Does it take reference images?
        privileged: Does it ask for the ground truth? Boards refuse it.
        revision: Version of the model or code; part of every key.
        wants_search: Does its factory take `search`, the name of a search backend?
        deadline: Seconds one drawing may take at most, where the generator bounds its calls itself and may have to
            wait for its turn; the run's own bound when 0.
        wants_device: Has it a `setup(device)`? Then it gets a worker process for each GPU where there are several.
    """

    shape: Shape
    batch_size: int = 1
    concurrency: int = 1
    references: bool = False
    privileged: bool = False
    revision: str = ""
    wants_search: bool = False
    deadline: float = 0.0
    wants_device: bool = False


def shape_of(target: Any) -> Shape:
    """Returns the shape of a generator object or class.

    Raises:
        UsageError: It has none of the three methods, or `generate` is not a coroutine function.
    """
    if callable(getattr(target, "generate_batch", None)):
        return "generate_batch"
    generate = getattr(target, "generate", None)
    if callable(generate):
        if not inspect.iscoroutinefunction(generate):
            raise UsageError("`generate` must be `async def`", where=_name(target), fix="or call it `draw`")
        return "generate"
    if callable(getattr(target, "draw", None)):
        return "draw"
    raise UsageError(
        "is no generator",
        where=_name(target),
        fix="give it draw(prompt, references, seed), generate or generate_batch (a function takes `prompt` first)",
    )


def capabilities_of(target: Any) -> GeneratorCapabilities:
    """Reads what a generator object or class declares, with defaults where it says nothing."""
    shape = shape_of(target)
    return GeneratorCapabilities(
        shape=shape,
        batch_size=int(getattr(target, "batch_size", 1)),
        concurrency=int(getattr(target, "concurrency", 16 if shape == "generate" else 1)),
        references=bool(getattr(target, "references", False)),
        privileged=bool(getattr(target, "privileged", False)),
        revision=str(getattr(target, "revision", "")),
        wants_search=bool(getattr(target, "wants_search", False)),
        deadline=float(getattr(target, "deadline", 0.0)),
        wants_device=callable(getattr(target, "setup", None)),
    )


class FunctionGenerator:
    """A plain function as a generator.

    Args:
        function: Takes `prompt` first, and `references` and `seed` by name where it has them; returns a PIL image.
    """

    def __init__(self, function: Callable[..., Image]) -> None:
        self.function = function
        parameters = inspect.signature(function).parameters
        self.references = "references" in parameters
        self._seed = "seed" in parameters
        self.revision = str(getattr(function, "revision", ""))

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Calls the function with the arguments it takes."""
        arguments: dict[str, Any] = {}
        if self.references:
            arguments["references"] = references
        if self._seed:
            arguments["seed"] = seed
        return self.function(prompt, **arguments)


def is_plain_function(target: Any) -> bool:
    """Tells a drawing function (first parameter `prompt`) from a class or factory."""
    if not inspect.isfunction(target):
        return False
    return next(iter(inspect.signature(target).parameters), "") == "prompt"


def _name(target: Any) -> str:
    return target.__name__ if inspect.isclass(target) or inspect.isfunction(target) else type(target).__name__


@dataclass(frozen=True)
class AgentAnswer:
    """What is to be drawn for a sample in place of its prompt: the answer of an agent that searched.

    Attributes:
        prompt: The prompt to draw; empty to draw the sample's own.
        references: Reference images, in order, with their paths.
        reference_notes: What the agent noted of each reference: title, url, note.
        evidence: Text it gathered.
        trajectory: Its steps.
        reason: Why there is nothing to draw from; the sample's own prompt is then drawn, without references.
    """

    prompt: str = ""
    references: tuple[ImageRef, ...] = ()
    reference_notes: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    trajectory: tuple[dict[str, Any], ...] = ()
    reason: str = ""


THE_PROMPT = AgentAnswer()
"""The sample's own prompt."""


class AnswerSource(Protocol):
    """Where requests come from when one search is drawn by many painters."""

    @property
    def identity(self) -> str:
        """Tells this source's content from any other's."""
        ...

    def answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        """Returns what is to be drawn for a sample and repeat."""
        ...


class GenerationSource(Protocol):
    """Drawings made elsewhere (a folder, a results file): the engine takes them instead of running a generator."""

    name: str
    revision: str

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        """Returns the drawing of a sample; a missing or unreadable one is a failed drawing with its reason.

        One that was never asked for has the status not_run, and the run leaves it so.
        """
        ...


__all__ = [
    "GPU_FAULT_CODE",
    "THE_PROMPT",
    "AgentAnswer",
    "AnswerSource",
    "AsyncGenerator",
    "BatchGenerator",
    "FunctionGenerator",
    "GeneratedImage",
    "GenerationSource",
    "GeneratorCapabilities",
    "Shape",
    "SimpleGenerator",
    "capabilities_of",
    "is_plain_function",
    "shape_of",
]
