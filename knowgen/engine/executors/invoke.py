"""Build a plugin and call its method on a batch. Used by threads and by worker processes alike."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError
from knowgen.core.metering import SpendingCount, judge_repeat, spending
from knowgen.core.records import AgentAnswer, Usage, UsagePart
from knowgen.core.text import error_summary
from knowgen.core.tracebacks import place_of
from knowgen.core.waiting import WaitReporter, current_reporter
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.concurrency import END, InvocationEvent
from knowgen.engine.snapshot import answer_snapshot, score_snapshot, snapshot
from knowgen.generators.contract import GeneratedImage
from knowgen.scorers.short_form import compute_item, has_batch_form, score_item

Emit = Callable[[InvocationEvent], None]


_ROUNDING = 1e-9
"""Rounding error in US dollars that sums of costs may have."""


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """The payload of a request that only checks whether the plugin's service would take calls."""

    id: str = "check"


async def check_service(plugin: Any) -> None:
    """Call `check_service` of a plugin, if it has one.

    Raises:
        BaseException: What the plugin raised.
    """
    if callable(check := getattr(plugin, "check_service", None)):
        await check()


def report_waiting(emit: Emit) -> WaitReporter:
    """Have the call that runs in this context report when it waits for its turn; return its reporter."""
    reporter = WaitReporter(lambda waits: emit(InvocationEvent("waiting", "", waits)))
    current_reporter.set(reporter)
    return reporter


def item_id(sample_id: str, repeat: int) -> str:
    """Return the id of an item of a batch scorer; its score carries the same sample and repeat."""
    return f"{repeat}\0{sample_id}"


def invoke(
    shape: str,
    plugin: Any,
    batch: Sequence[Any],
    emit: Emit,
    on_start: Callable[[WaitReporter], None] = lambda reporter: None,
) -> None:
    """Call a plugin on a batch and report each result as it arrives, then an error if there was one, then the end.

    A call that was dropped reports nothing more: whoever dropped it has reported that.

    Args:
        shape: Name of the method: `draw`, `generate`, `generate_batch` or `score_batch`.
        plugin: The generator or scorer.
        batch: Requests of a generator, or items of a scorer.
        emit: Takes the events.
        on_start: Takes the reporter of the call, by which it can be dropped while it waits.
    """
    reporter = report_waiting(emit)
    on_start(reporter)
    try:
        if isinstance(batch[0], ServiceCheck):
            asyncio.run(check_service(plugin))
            emit(InvocationEvent("result", batch[0].id, batch[0]))
        else:
            _METHODS[shape](plugin, batch, emit)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, sys.exit included
        if reporter.dropped:
            return
        emit(InvocationEvent("error", "", error))
    emit(END)


async def score(plugin: Any, inputs: Any) -> Any:
    """Call `score` of a scorer that waits.

    Args:
        plugin: The scorer.
        inputs: Sample, truth, generation and the number of the judge repeat.

    Raises:
        BaseException: What the scorer raised.
    """
    sample, truth, generation, repeat = inputs
    judge_repeat.set(repeat)  # in the context of this asyncio task only
    return score_snapshot(await score_item(plugin, (sample, truth, generation)))


async def generate(plugin: Any, request: Any) -> GeneratedImage:
    """Call `generate` of a plugin; its result is copied before the plugin's event loop goes on.

    Raises:
        BaseException: What the plugin raised.
    """
    return snapshot(await plugin.generate(request))


async def answer(plugin: Any, request: Any) -> AgentAnswer:
    """Call `answer` of an agent; its result is checked and copied before the agent's event loop goes on.

    Paid calls that the answer does not report are added to its usage.

    Raises:
        BaseException: What the agent raised.
    """
    with spending() as spent:
        given = answer_snapshot(await plugin.answer(request))
    return _with_all_calls(given, spent)


def _with_all_calls(given: AgentAnswer, spent: SpendingCount) -> AgentAnswer:
    """Return an answer whose usage has all paid calls that were made for it."""
    calls = spent.calls - sum(part.calls for part in given.usage)
    costs = [part.usage.cost for part in given.usage if part.usage.cost is not None]
    missing = None if spent.cost is None else spent.cost - sum(costs)
    if calls <= 0 or (missing is not None and missing <= _ROUNDING):
        return given
    other = UsagePart(part="other", calls=calls, usage=Usage(cost=missing))
    return given.model_copy(update={"usage": (*given.usage, other)})


def _draw(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    for request in batch:
        references = [reference.open() for reference in request.references]
        emit(InvocationEvent("result", request.id, snapshot(plugin.draw(request.prompt, references, request.seed))))


def _generate(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    async def one(request: Any) -> None:
        try:
            emit(InvocationEvent("result", request.id, await generate(plugin, request)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - concerns this request only
            emit(InvocationEvent("error", request.id, error))

    async def whole_batch() -> None:
        await asyncio.gather(*(one(request) for request in batch))

    asyncio.run(whole_batch())


def _generate_batch(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    for result in _iterate(plugin.generate_batch(batch), "generate_batch"):
        id = str(getattr(result, "request_id", "") or "")
        emit(InvocationEvent("result", id or (batch[0].id if len(batch) == 1 else ""), snapshot(result)))


def _score_batch(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    if not has_batch_form(plugin):
        for item in batch:
            _score(plugin, item, emit)
        return
    for score in _iterate(plugin.score_batch(batch), "score_batch"):
        id = item_id(getattr(score, "sample_id", ""), getattr(score, "repeat", 0))
        if len(batch) == 1:  # a score of a wrong sample is then reported as such, not as a missing one
            id = item_id(batch[0][0].id, batch[0][2].repeat)
        emit(InvocationEvent("result", id, score_snapshot(score)))


def _score(plugin: Any, item: Any, emit: Emit) -> None:
    id = item_id(item[0].id, item[2].repeat)
    try:
        emit(InvocationEvent("result", id, score_snapshot(compute_item(plugin, item))))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - concerns this item only
        emit(InvocationEvent("error", id, error))


def _iterate(results: Any, method: str) -> Iterable[Any]:
    if not isinstance(results, Iterable):
        raise TypeError(f"{method} returned {type(results).__name__}, which cannot be iterated")
    return results


_METHODS: dict[str, Callable[[Any, Sequence[Any], Emit], None]] = {
    "draw": _draw,
    "generate": _generate,
    "generate_batch": _generate_batch,
    "score_batch": _score_batch,
}


COROUTINES: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {"answer": answer, "generate": generate, "score": score}
"""How a coroutine of a plugin is called with one payload, by the shape of the plugin."""


def build_plugin(build: Callable[[], Any], device: Callable[[], str], where: str) -> Any:
    """Build a plugin and set it up.

    Args:
        build: Builds the object.
        device: Returns the device for `setup`; called only if the plugin has one.
        where: Name of the plugin, for messages.

    Raises:
        KnowgenError: An error that the plugin raised on purpose.
        MissingDependencyError: A package that it imports is not installed.
        ConfigError: It failed in any other way, `sys.exit` included.
    """
    try:
        plugin = build()
        if callable(setup := getattr(plugin, "setup", None)):
            setup(device())
    except KnowgenError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        raise MissingDependencyError(
            f"needs the package {package!r}, which is not installed", where=where, fix=f"pip install {package}"
        ) from error
    except BaseException as error:
        place = place_of(error)
        what = f"broke while it was built: {error_summary(error, 300)}" + (f" ({place})" if place else "")
        raise ConfigError(what, where=where) from error
    return plugin


def build_from_ref(component_ref: ComponentRef) -> Any:
    """Build an object from its registered name and arguments, as a worker process does.

    Raises:
        UsageError: The name is unknown or the arguments do not fit.
    """
    from knowgen.core import registry
    from knowgen.generators.contract import FunctionGenerator, is_plain_function
    from knowgen.scorers.short_form import function_scorer, is_scoring_function
    from knowgen.search.load import with_search

    resolved = registry.resolve(component_ref.kind, component_ref.name)
    target = registry.load(resolved)
    if component_ref.kind == "generators" and is_plain_function(target):
        return FunctionGenerator(target)
    if component_ref.kind == "scorers" and is_scoring_function(target):
        return function_scorer(target)
    if not inspect.isclass(target) and not inspect.isfunction(target):
        return target  # an object that its module made
    where = f"{registry.SINGULAR[component_ref.kind]} {component_ref.name!r}"
    args = with_search(target, component_ref.args) if component_ref.kind == "generators" else component_ref.args
    return registry.build(target, args, model=resolved.model, where=where)
