"""Plugins of others as this process knows them: handles, capabilities and tasks from what `plugin_main` answers."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from knowgen.core.arguments import ArgumentText
from knowgen.core.errors import ConfigError
from knowgen.core.records import Attempt, GroundTruth, ParsedScore, Sample
from knowgen.core.registry import SINGULAR, Kind, is_bundled
from knowgen.core.spec import AgentSpec, GeneratorSpec, ScorerSpec, is_plain
from knowgen.core.text import one_line
from knowgen.engine.components import AgentHandle, ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.engine.executors.invoke import build_from_ref
from knowgen.engine.executors.protocol import pack_truth, unpack_truth
from knowgen.generators.contract import GeneratorCapabilities
from knowgen.scorers.contract import ScorerCapabilities
from knowgen.tasks.contract import Task
from knowgen.tasks.load import find_task, load_task
from knowgen.workflows.plugin_process import PluginProcess, ask, is_foreign

if TYPE_CHECKING:
    from knowgen.scorers.vlm.cost_estimate import Estimate

T = TypeVar("T")

SAMPLES_PER_ANSWER = 500
"""Samples of a task in one answer."""

_BUNDLED = "knowgen."


class TaskSearch(NamedTuple):
    """The search backend of a task, which is all that a generator's description needs of it."""

    search: str
    search_version: str

    @classmethod
    def of(cls, task: Task | TaskSearch | None) -> TaskSearch | None:
        """Return the search backend of a task; None without a task."""
        return None if task is None else cls(task.search, task.search_version)


def pack_arguments(arguments: Mapping[str, Any]) -> list[list[Any]]:
    """Return arguments as plain data: name, value, and whether the value is a text that is still to be read."""
    return [[name, value, isinstance(value, ArgumentText)] for name, value in arguments.items()]


def unpack_arguments(data: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return the arguments of `pack_arguments` data."""
    return {name: ArgumentText(value) if is_text else value for name, value, is_text in data}


def describes_apart(kind: Kind, plugin: object, arguments: Mapping[str, Any]) -> bool:
    """Return whether a plugin is described in a process of its own.

    That is so for code of others that is given by name. An object among its arguments exists in this process only, so
    that the plugin runs here, and is described here too.
    """
    return is_plain(dict(arguments)) and is_foreign(kind, plugin)


@dataclass(frozen=True)
class ChosenAgent:
    """An agent, and the image model that it names.

    Attributes:
        agent: The agent.
        painter: Its image model, as the user names it.
        painter_args: Arguments of the image model.
    """

    agent: AgentHandle
    painter: str | Callable[..., Any] | object
    painter_args: Mapping[str, Any]


def described_generator(name: str, arguments: Mapping[str, Any], task: TaskSearch | None) -> GeneratorHandle:
    """Return the handle of a generator of others.

    Raises:
        KnowgenError: It cannot be imported, an argument does not fit, or it is not a generator.
    """
    described = _described("generator", name, arguments, task)
    assert isinstance(described, GeneratorHandle)
    return described


def described_system(name: str, arguments: Mapping[str, Any], task: TaskSearch | None) -> GeneratorHandle | ChosenAgent:
    """Return the handle of a generator or agent of others; errors as for `described_generator`."""
    return _described("system", name, arguments, task)


def _described(
    question: str, name: str, arguments: Mapping[str, Any], task: TaskSearch | None
) -> GeneratorHandle | ChosenAgent:
    packed = None if task is None else task._asdict()
    answer = ask("generators", name, question, args=pack_arguments(arguments), task=packed)

    def handle() -> GeneratorHandle | ChosenAgent:
        ref = ComponentRef("generators", name, dict(answer["args"]))
        capabilities = TypeAdapter(GeneratorCapabilities).validate_python(answer["capabilities"])
        build = partial(build_from_ref, ref)
        if "painter" not in answer:
            spec = GeneratorSpec.model_validate(answer["spec"])
            return GeneratorHandle(spec, capabilities, build, ref, price_known=answer["price_known"])
        agent = AgentHandle(
            AgentSpec.model_validate(answer["spec"]),
            capabilities,
            build,
            ref,
            query_price=answer["query_price"],
            price_known=answer["price_known"],
        )
        return ChosenAgent(agent, str(answer["painter"]), unpack_arguments(answer["painter_args"]))

    return _made("generators", name, handle)


def described_scorer(name: str, arguments: Mapping[str, Any], judge_attempts: int) -> ScorerHandle:
    """Return the handle of a scorer of others; errors as for `described_generator`."""
    packed = pack_arguments(arguments)
    answer = ask("scorers", name, "scorer", args=packed, judge_attempts=judge_attempts)

    def handle() -> ScorerHandle:
        ref = ComponentRef("scorers", name, dict(answer["args"]))
        return ScorerHandle(
            spec=ScorerSpec.model_validate(answer["spec"]),
            capabilities=_capabilities(name, answer),
            build=partial(build_from_ref, ref),
            component_ref=ref,
            estimate=partial(_estimate, name, packed) if answer["estimates"] else None,
            price_known=answer["price_known"],
        )

    return _made("scorers", name, handle)


def described_capabilities(name: str) -> ScorerCapabilities:
    """Return what a scorer of others declares; errors as for `described_generator`."""
    answer = ask("scorers", name, "capabilities")
    return _made("scorers", name, lambda: _capabilities(name, answer))


def _made(kind: Kind, name: str, make: Callable[[], T]) -> T:
    """Return what is made from an answer.

    Raises:
        ConfigError: The answer is not valid, because the plugin has replaced what makes it.
    """
    try:
        return make()
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"{SINGULAR[kind]} {name!r}"
        raise ConfigError(f"its declarations cannot be used: {one_line(error, 300)}", where=where) from error


def _capabilities(name: str, answer: Mapping[str, Any]) -> ScorerCapabilities:
    reparse: Any = None
    if named := answer["reparse"]:
        reparse = _bundled_function(named) if named.startswith(_BUNDLED) else _Reparse(name)
    return TypeAdapter(ScorerCapabilities).validate_python({**answer["capabilities"], "reparse": reparse})


def reparse_name(function: Any) -> str:
    """Return `module:qualified.name` of a function of this package, which every process can call; else `own`."""
    module, name = str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))
    if inspect.isfunction(function) and module.startswith(_BUNDLED) and "<" not in name:
        return f"{module}:{name}"
    return "own"


def _bundled_function(named: str) -> Any:
    module, _, name = named.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Reparse:
    """Parses replies with the code of a scorer of others, in a process that stays for further replies."""

    def __init__(self, name: str) -> None:
        self._process = PluginProcess("scorers", name)

    def __call__(self, attempts: Sequence[Attempt], sample: Sample) -> tuple[ParsedScore, ParsedScore, str]:
        """Return the strict score, the lenient one, and the model's name."""
        answer = self._process.ask(
            "reparse",
            attempts=[attempt.model_dump(mode="json") for attempt in attempts],
            sample=sample.model_dump(mode="json"),
        )
        strict, lenient, returned = answer
        return ParsedScore.model_validate(strict), ParsedScore.model_validate(lenient), returned


def _estimate(name: str, args: list[list[Any]], items: Iterable[tuple[Sample, GroundTruth]]) -> Estimate | None:
    """Return the estimated cost of scoring some samples, as the scorer says."""
    from knowgen.scorers.vlm.cost_estimate import Estimate

    packed = [[sample.model_dump(mode="json"), pack_truth(truth)] for sample, truth in items]
    answer = ask("scorers", name, "estimate", args=args, items=packed)
    return None if answer is None else _made("scorers", name, lambda: Estimate(**answer))


def open_task(name: str, *, in_worker: bool) -> Task:
    """Return a task for a run. The code of a task of others runs in a process of its own.

    Args:
        name: As for `load_task`.
        in_worker: Whether code of others runs in processes of its own.

    Raises:
        KnowgenError: As for `load_task`.
    """
    code = find_task(name)
    if not in_worker or code is None or is_bundled(code.origin):
        return load_task(name)
    return _TaskOfOthers(name)


class _TaskFacts(NamedTuple):
    """What a task says of itself; see `knowgen.tasks.contract.Task`."""

    name: str
    version: str
    default_scorers: list[str]
    search: str
    search_version: str
    limit: str
    length: int


class _TaskOfOthers:
    """A task whose code runs in a process of its own.

    Args:
        name: Its name, as the user wrote it.
    """

    def __init__(self, name: str) -> None:
        self._process = PluginProcess("tasks", name)
        self._lock = threading.Lock()
        self._samples: list[Sample] | None = None
        answer = self._process.ask("task")
        facts = _made("tasks", name, lambda: _TaskFacts(**answer))
        self.name, self.version, self.limit = facts.name, facts.version, facts.limit
        self.search, self.search_version = facts.search, facts.search_version
        self.default_scorers = tuple(facts.default_scorers)
        self._count = facts.length

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        with self._lock:
            if self._samples is None:
                self._samples = list(self._read())
        yield from self._samples

    def _read(self) -> Iterator[Sample]:
        first = True
        while answer := self._process.ask("samples", first=first):
            yield from map(Sample.model_validate, answer)
            first = False

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample."""
        return unpack_truth(self._process.ask("truth", id=sample_id))
