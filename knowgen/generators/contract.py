"""What a generator is: an object with one of three methods.

    draw(prompt, references, seed) -> PIL.Image                     one image at a time, in a thread
    async generate(request) -> GeneratedImage                       many requests at once, for services
    generate_batch(requests) -> Iterator[GeneratedImage]            a batch at a time, yielding each image when done

A generator may also have `setup(device)` and `close()`, and class attributes that `capabilities_of` reads. A plain
function `draw(prompt)`, `draw(prompt, seed)` or `draw(prompt, references, seed)` is a generator too.

An agent has another method, and generates nothing itself:

    async answer(request) -> AgentAnswer                            what to generate: a prompt and reference images

It names the generator that does, its image model, as its argument `painter`. Both are stages of a run of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from knowgen.core.errors import UsageError
from knowgen.core.records import AgentAnswer, GenerationRequest, GenerationStatus, Usage

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.store.run import RunStore

Shape = Literal["draw", "generate", "generate_batch", "answer"]

GPU_FAULT_CODE = 70
"""Exit code of a worker process whose GPU failed. A GPU that fails repeatedly is disabled."""


@dataclass
class GeneratedImage:
    """What a generator returns for one request. The engine stores it as a `Generation`.

    Attributes:
        image: A PIL image, the bytes of an image file, or the path of one; None if the status is not ok. An array or
            tensor (uint8, or floats in [0, 1]), a list with one image and the output of a pipeline are taken too.
        request_id: Id of the request; needed from `generate_batch`, filled in by the engine otherwise.
        status: ok, failed or refused.
        reason: Reason of a status other than ok.
        used_prompt: The prompt that was used, if it is not the request's.
        references: Reference images that were used: title, url, note.
        evidence: Text that was gathered: title, url, text.
        trajectory: Steps of an agent.
        settings: What decides the image besides prompt and seed: steps, size, library versions, device.
        usage: Tokens and cost in US dollars.

    Example:
        >>> refused = GeneratedImage(status=GenerationStatus.REFUSED, reason="the prompt names a living person")
        >>> refused.image is None, refused.status.value
        (True, 'refused')
    """

    image: Any = None
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
    """The simplest shape: one image for one prompt, called in a thread."""

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Return an image of the prompt. The same seed must give the same image."""
        ...


class AsyncGenerator(Protocol):
    """The shape for services: many requests in flight at once."""

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate one image.

        Raises:
            TransientError: An error that may not happen again; the engine retries with backoff.
            RefusalError: The generator refuses this prompt.
        """
        ...


class BatchGenerator(Protocol):
    """The shape for local models: takes a batch and yields each image as soon as it is done, in any order."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yield one result per request, each with its `request_id`."""
        ...


class Agent(Protocol):
    """The shape of an agent: it searches, and says what an image model is to generate.

    Its constructor takes `painter`, the name of the image model, which the run builds apart. Arguments of the image
    model, `painter.KEY`, do not reach it.
    """

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        """Return what to generate for a prompt.

        Images of the answer are files of this machine, in PNG, JPEG or WebP, named by their `path`. They must stay
        unchanged until the next call has been made. Without an answer, the status is `none` and `ending` says why.

        Raises:
            TransientError: An error that may not happen again; the engine retries with backoff.
            ServiceUnavailableError: A service that it needs cannot answer now.
            AccountError: A service that it needs rejects the account.
        """
        ...


@dataclass(frozen=True)
class GeneratorCapabilities:
    """What a generator or an agent declares about itself.

    Attributes:
        shape: Which of the methods it has.
        batch_size: Requests per call of `generate_batch`. A class may declare it by `batch_limit(**arguments)` where it
            depends on arguments.
        concurrency: Concurrent calls: threads of `draw` and `generate_batch`, tasks of `generate` and `answer`.
        references: Whether it uses reference images.
        most_references: Maximum number of reference images that it uses; None for no maximum. A class declares it as
            `references = 3`, or by `reference_limit(**arguments)` where it depends on arguments.
        privileged: Whether requests carry the ground truth. Leaderboards reject such a generator.
        revision: Version of the model or code; part of every key.
        wants_search: Whether its constructor takes `search`, a search backend.
        deadline: Time limit per image or answer in seconds, for a plugin that limits its calls itself; 0 to use the
            run's limit. Neither counts the time that an image waits for its turn.
        wants_device: Whether it has `setup(device)`. If there are several GPUs, it then gets a worker process per GPU.
        checks_service: Whether it has `check_service()`, which is awaited once before anything is generated.
        gpus_per_worker: GPUs that a worker process of it sees. A class declares it by `gpu_limit(**arguments)` where it
            depends on arguments.
        groups_by_length: Whether a call of `generate_batch` is given prompts of like length, because a batch takes as
            long as its longest prompt. A call always has the request that has waited for longest.
    """

    shape: Shape
    batch_size: int = 1
    concurrency: int = 1
    references: bool = False
    most_references: int | None = None
    privileged: bool = False
    revision: str = ""
    wants_search: bool = False
    deadline: float = 0.0
    wants_device: bool = False
    checks_service: bool = False
    gpus_per_worker: int = 1
    groups_by_length: bool = False


def is_agent(target: Any) -> bool:
    """Return whether an object or class is an agent: it has `answer`, and none of the methods of a generator."""
    generates = any(callable(getattr(target, name, None)) for name in ("generate_batch", "generate", "draw"))
    return not generates and callable(getattr(target, "answer", None))


def shape_of(target: Any) -> Shape:
    """Return the shape of a generator or agent, an object or class.

    Raises:
        UsageError: It has none of the methods, or `generate` or `answer` is not a coroutine function.

    Example:
        >>> class Model:
        ...     def draw(self, prompt, references, seed): ...
        >>> shape_of(Model)
        'draw'
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
    if is_agent(target):
        if not inspect.iscoroutinefunction(target.answer):
            raise UsageError("`answer` must be `async def`", where=_name(target), fix="write `async def answer`")
        return "answer"
    raise UsageError(
        "not a generator",
        where=_name(target),
        fix="give it draw(prompt, references, seed), generate or generate_batch (a function takes `prompt` first)",
    )


def capabilities_of(target: Any) -> GeneratorCapabilities:
    """Return what an object or class of a generator or agent declares, with defaults for what it does not.

    Raises:
        UsageError: It is not a generator.

    Example:
        >>> class Model:
        ...     batch_size = 4
        ...     def generate_batch(self, requests): ...
        >>> capabilities = capabilities_of(Model)
        >>> capabilities.shape, capabilities.batch_size, capabilities.references
        ('generate_batch', 4, False)
    """
    shape = shape_of(target)
    references = getattr(target, "references", False)
    return GeneratorCapabilities(
        shape=shape,
        batch_size=int(getattr(target, "batch_size", 1)),
        concurrency=int(getattr(target, "concurrency", 16 if shape in {"generate", "answer"} else 1)),
        references=bool(references),
        most_references=references if isinstance(references, int) and not isinstance(references, bool) else None,
        privileged=bool(getattr(target, "privileged", False)),
        revision=str(getattr(target, "revision", "")),
        wants_search=bool(getattr(target, "wants_search", False)),
        deadline=float(getattr(target, "deadline", 0.0)),
        wants_device=callable(getattr(target, "setup", None)),
        checks_service=callable(getattr(target, "check_service", None)),
        gpus_per_worker=int(getattr(target, "gpus_per_worker", 1)),
        groups_by_length=bool(getattr(target, "groups_by_length", False)),
    )


class FunctionGenerator:
    """A plain function as a generator.

    Args:
        function: Takes `prompt` first, and `references` and `seed` by name if it has such parameters; returns a PIL
            image.

    Example:
        >>> from PIL import Image
        >>> generator = FunctionGenerator(lambda prompt, seed: Image.new("RGB", (64, 48), (seed, 0, 0)))
        >>> generator.draw("a red square", [], seed=200).size
        (64, 48)
    """

    def __init__(self, function: Callable[..., Image]) -> None:
        self.function = function
        parameters = inspect.signature(function).parameters
        self.references = "references" in parameters
        self._seed = "seed" in parameters
        self.revision = str(getattr(function, "revision", ""))

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Call the function with the arguments it takes."""
        arguments: dict[str, Any] = {}
        if self.references:
            arguments["references"] = references
        if self._seed:
            arguments["seed"] = seed
        return self.function(prompt, **arguments)


def is_plain_function(target: Any) -> bool:
    """Return whether a target is a generating function (first parameter `prompt`), and not a class or factory."""
    if not inspect.isfunction(target):
        return False
    return next(iter(inspect.signature(target).parameters), "") == "prompt"


def _name(target: Any) -> str:
    return target.__name__ if inspect.isclass(target) or inspect.isfunction(target) else type(target).__name__


SAMPLE_PROMPT = AgentAnswer()
"""The answer that stands for the sample's own prompt."""


class AnswerSource(Protocol):
    """A source of agent answers, so that several image models can generate from one search."""

    @property
    def identity(self) -> str:
        """Return a text that identifies the content of this source."""
        ...

    @property
    def privileged(self) -> bool:
        """Return whether the agent that gave the answers received the ground truth."""
        ...

    def answer(self, sample_id: str, repeat: int) -> AgentAnswer:
        """Return the answer for a sample and repeat."""
        ...


class KeyedAnswers(Protocol):
    """Stored answers of another run, which are taken over by key, so that nothing is searched twice."""

    def take(self, key: str, store: RunStore) -> AgentAnswer | None:
        """Copy the answer of a key with its images into a run, and return it; None if none is usable."""
        ...


class GenerationSource(Protocol):
    """Generations that exist already (a folder of images, a results file), used instead of a generator."""

    name: str
    revision: str

    def generation(self, sample_id: str, repeat: int) -> GeneratedImage:
        """Return the image of a sample and repeat. A missing or unreadable one has the status failed and a reason.

        One that its source never attempted has the status not_run, and stays so in this run.
        """
        ...


__all__ = [
    "GPU_FAULT_CODE",
    "SAMPLE_PROMPT",
    "Agent",
    "AnswerSource",
    "AsyncGenerator",
    "BatchGenerator",
    "FunctionGenerator",
    "GeneratedImage",
    "GenerationSource",
    "GeneratorCapabilities",
    "KeyedAnswers",
    "Shape",
    "SimpleGenerator",
    "capabilities_of",
    "is_agent",
    "is_plain_function",
    "shape_of",
]
