"""Calling a plugin's own method on a batch, in a thread or in a worker process alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from knowgen.core.errors import ConfigError, KnowgenError, MissingDependencyError
from knowgen.core.text import error_summary
from knowgen.engine.components import ComponentRef
from knowgen.engine.executors.concurrency import END, InvocationEvent
from knowgen.engine.snapshot import snapshot
from knowgen.generators.contract import GeneratedImage
from knowgen.scorers.short_form import compute_item, has_batch_form

Emit = Callable[[InvocationEvent], None]


def item_id(sample_id: str, repeat: int) -> str:
    """Names an item of a batch scorer; its score carries the same sample and repeat."""
    return f"{repeat}\0{sample_id}"


def serve(shape: str, plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    """Calls a plugin and reports each result as it comes, a fault if there is one, and the end.

    Args:
        shape: draw, generate, generate_batch or score_batch.
        plugin: The generator or scorer.
        batch: Requests, or items of a scorer.
        emit: Takes the events.
    """
    try:
        _SERVERS[shape](plugin, batch, emit)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, sys.exit included: all become states
        emit(InvocationEvent("fault", "", error))
    emit(END)


def _serve_draw(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    for request in batch:
        references = [reference.open() for reference in request.references]
        emit(InvocationEvent("answer", request.id, snapshot(plugin.draw(request.prompt, references, request.seed))))


async def generate(plugin: Any, request: Any) -> GeneratedImage:
    """Call `generate` of a plugin; its result is copied before the plugin's event loop goes on.

    Raises:
        BaseException: Whatever the plugin raised.
    """
    return snapshot(await plugin.generate(request))


def _serve_generate(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    async def one(request: Any) -> None:
        try:
            emit(InvocationEvent("answer", request.id, await generate(plugin, request)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it belongs to this request alone
            emit(InvocationEvent("fault", request.id, error))

    async def all_of_them() -> None:
        await asyncio.gather(*(one(request) for request in batch))

    asyncio.run(all_of_them())


def _serve_generate_batch(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    for drawing in _iterate(plugin.generate_batch(batch), "generate_batch"):
        name = str(getattr(drawing, "request_id", "") or "")
        emit(InvocationEvent("answer", name or (batch[0].id if len(batch) == 1 else ""), snapshot(drawing)))


def _serve_score_batch(plugin: Any, batch: Sequence[Any], emit: Emit) -> None:
    if not has_batch_form(plugin):
        for item in batch:
            _serve_score(plugin, item, emit)
        return
    for score in _iterate(plugin.score_batch(batch), "score_batch"):
        name = item_id(getattr(score, "sample_id", ""), getattr(score, "repeat", 0))
        if len(batch) == 1:  # a wrong answer to a single item is told as such, not as a missing one
            name = item_id(batch[0][0].id, batch[0][2].repeat)
        emit(InvocationEvent("answer", name, score))


def _serve_score(plugin: Any, item: Any, emit: Emit) -> None:
    name = item_id(item[0].id, item[2].repeat)
    try:
        emit(InvocationEvent("answer", name, compute_item(plugin, item)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it belongs to this item alone
        emit(InvocationEvent("fault", name, error))


def _iterate(results: Any, method: str) -> Iterable[Any]:
    if not isinstance(results, Iterable):
        raise TypeError(f"{method} returned a {type(results).__name__}, which cannot be iterated")
    return results


_SERVERS: dict[str, Callable[[Any, Sequence[Any], Emit], None]] = {
    "draw": _serve_draw,
    "generate": _serve_generate,
    "generate_batch": _serve_generate_batch,
    "score_batch": _serve_score_batch,
}


def make(build: Callable[[], Any], device: Callable[[], str], where: str) -> Any:
    """Builds a plugin and sets it up.

    Args:
        build: Makes the object.
        device: Says where it should compute; asked only when the plugin has a `setup`.
        where: Names the plugin in errors.

    Raises:
        KnowgenError: What the plugin itself says is wrong.
        MissingDependencyError: A package that it imports is not installed.
        ConfigError: It broke in any other way, `sys.exit` included.
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
        raise ConfigError(f"broke while it was built: {error_summary(error, 300)}", where=where) from error
    return plugin


def rebuild(remake: ComponentRef) -> Any:
    """Makes an object from its registered name and arguments, as a worker process does.

    Raises:
        UsageError: The name or the arguments do not fit any more.
    """
    from knowgen.core import registry
    from knowgen.generators.contract import FunctionGenerator, is_plain_function
    from knowgen.scorers.short_form import function_scorer, is_scoring_function

    resolved = registry.resolve(remake.kind, remake.name)
    target = registry.load(resolved)
    if remake.kind == "generators" and is_plain_function(target):
        return FunctionGenerator(target)
    if remake.kind == "scorers" and is_scoring_function(target):
        return function_scorer(target)
    where = f"{registry.SINGULAR[remake.kind]} {remake.name!r}"
    return registry.build(target, remake.args, model=resolved.model, where=where)
