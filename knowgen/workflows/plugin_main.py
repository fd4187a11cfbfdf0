"""The program that imports a plugin of others and answers questions about it, for `plugin_process`.

A question is an object with the field `do` (a key of `_ANSWERS`), `kind` and `name` of the plugin, and what the
question needs. The answer is one object: `answer`, or `error` in the form of `pack_error`.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.core.guarded_import import NOTICE_SECONDS
from knowgen.core.records import Attempt, Sample
from knowgen.engine.executors.protocol import pack_error, pack_truth, unpack_truth
from knowgen.engine.executors.worker_main import RunConnection, end_process, prepare_streams
from knowgen.generators.contract import is_agent
from knowgen.scorers.contract import ScorerCapabilities, scorer_capabilities
from knowgen.tasks.load import load_task
from knowgen.workflows.agents import resolve_agent
from knowgen.workflows.described import SAMPLES_PER_ANSWER, TaskSearch, pack_arguments, reparse_name, unpack_arguments
from knowgen.workflows.located import locate
from knowgen.workflows.resolve import argument_texts, named_search, resolve_generator, resolve_scorer

Question = Mapping[str, Any]


def _generator(question: Question) -> dict[str, Any]:
    task = TaskSearch(**question["task"]) if question["task"] is not None else None
    handle = resolve_generator(question["name"], unpack_arguments(question["args"]), task)
    return {
        "spec": handle.spec.model_dump(mode="json"),
        "capabilities": dataclasses.asdict(handle.capabilities),
        "args": handle.component_ref.args if handle.component_ref is not None else {},
        "price_known": handle.price_known,
    }


def _system(question: Question) -> dict[str, Any]:
    """Describe a generator, or an agent with the image model that it names."""
    if not is_agent(locate("generators", question["name"]).target):
        return _generator(question)
    task = TaskSearch(**question["task"]) if question["task"] is not None else None
    chosen = resolve_agent(question["name"], unpack_arguments(question["args"]), task)
    if not isinstance(chosen.painter, str):
        raise UsageError(
            "its image model is an object", where=question["name"], fix="name it with -g painter=GENERATOR"
        )
    return {
        "spec": chosen.agent.spec.model_dump(mode="json"),
        "capabilities": dataclasses.asdict(chosen.agent.capabilities),
        "args": chosen.agent.component_ref.args if chosen.agent.component_ref is not None else {},
        "query_price": chosen.agent.query_price,
        "price_known": chosen.agent.price_known,
        "painter": chosen.painter,
        "painter_args": pack_arguments(chosen.painter_args),
    }


def _scorer(question: Question) -> dict[str, Any]:
    handle = resolve_scorer(question["name"], unpack_arguments(question["args"]), question["judge_attempts"])
    return {
        "spec": handle.spec.model_dump(mode="json"),
        **_capabilities_data(handle.capabilities),
        "args": handle.component_ref.args if handle.component_ref is not None else {},
        "estimates": handle.estimate is not None,
        "price_known": handle.price_known,
    }


def _capabilities(question: Question) -> dict[str, Any]:
    return _capabilities_data(scorer_capabilities(locate("scorers", question["name"]).target))


def _capabilities_data(capabilities: ScorerCapabilities) -> dict[str, Any]:
    """Return capabilities as plain data, with the function of a bundled judge that parses replies by its name."""
    plain = {field.name: getattr(capabilities, field.name) for field in dataclasses.fields(capabilities)}
    reparse = plain.pop("reparse")
    plain["needs"] = sorted(capabilities.needs)
    return {"capabilities": plain, "reparse": "" if reparse is None else reparse_name(reparse)}


def _estimate(question: Question) -> dict[str, Any] | None:
    handle = resolve_scorer(question["name"], unpack_arguments(question["args"]))
    items = [(Sample.model_validate(sample), unpack_truth(truth)) for sample, truth in question["items"]]
    estimate = handle.estimate(items) if handle.estimate is not None else None
    return None if estimate is None else dataclasses.asdict(estimate)


def _reparse(question: Question) -> list[Any] | None:
    reparse = scorer_capabilities(locate("scorers", question["name"]).target).reparse
    if reparse is None:
        return None
    attempts = [Attempt.model_validate(attempt) for attempt in question["attempts"]]
    strict, lenient, returned = reparse(attempts, Sample.model_validate(question["sample"]))
    return [strict.model_dump(mode="json"), lenient.model_dump(mode="json"), str(returned)]


_load_once = cache(load_task)
_sending: list[Iterator[Sample]] = []
"""The samples that have not been sent yet."""


def _task(question: Question) -> dict[str, Any]:
    task = _load_once(question["name"])
    return {
        "name": str(task.name),
        "version": str(task.version),
        "default_scorers": [str(name) for name in task.default_scorers],
        "search": str(task.search),
        "search_version": str(task.search_version),
        "limit": str(getattr(task, "limit", "stratified")),
        "length": len(task),
    }


def _samples(question: Question) -> list[dict[str, Any]]:
    if question["first"]:
        _sending[:] = [iter(_load_once(question["name"]).samples())]
    return [sample.model_dump(mode="json") for sample in islice(_sending[0], SAMPLES_PER_ANSWER)]


def _truth(question: Question) -> dict[str, Any]:
    return pack_truth(_load_once(question["name"]).truth(question["id"]))


_ANSWERS: Mapping[str, Callable[[Question], Any]] = {
    "generator": _generator,
    "system": _system,
    "scorer": _scorer,
    "capabilities": _capabilities,
    "estimate": _estimate,
    "reparse": _reparse,
    "argument_texts": lambda question: argument_texts(question["name"], question["args"]),
    "search": lambda question: named_search(question["name"], question["args"]).identity,
    "task": _task,
    "samples": _samples,
    "truth": _truth,
}


def main() -> None:
    """Answer questions until the process that asks them closes the connection, which ends this one."""
    prepare_streams()
    connection = RunConnection(int(sys.argv.pop()))
    question = connection.first()
    while question["do"] != "close":
        faulthandler.dump_traceback_later(NOTICE_SECONDS)  # works while the interpreter's lock is held, too
        try:
            message: dict[str, Any] = {"answer": _ANSWERS[question["do"]](question)}
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            message = {"error": pack_error(error)}
        try:
            connection.send(message)
        except (TypeError, ValueError) as error:  # a declaration that is not plain data
            connection.send({"error": pack_error(error)})
        faulthandler.cancel_dump_traceback_later()
        question = connection.commands.get()
    end_process()


if __name__ == "__main__":
    main()
