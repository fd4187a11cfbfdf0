"""The Python interface: evaluate a generator, score images, load runs, compare them.

Example:
    >>> run = knowgen.evaluate("knowgen_mini", my_function, limit=8)
    >>> print(run.summary.headline.value)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, cast

from knowgen.core.run_config import RunConfig, run_fields
from knowgen.stats.aggregate import aggregate
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task
from knowgen.tasks.load import load_task
from knowgen.workflows import artifacts
from knowgen.workflows.compare import agree, compare, panel_rows, panel_summary
from knowgen.workflows.execute import default_out, execute
from knowgen.workflows.forecast import forecast
from knowgen.workflows.plan import Plan, plan, plan_scoring
from knowgen.workflows.resolve import ScorerRequest
from knowgen.workflows.run import PROTOCOLS, Run, load_run, write_report

Fields = ParamSpec("Fields")
"""The keywords of `RunConfig`."""


class _Evaluate(Protocol[Fields]):
    def __call__(
        self,
        task: str | Task,
        generator: str | Callable[..., Any] | object,
        scorers: Sequence[str | Callable[..., Any] | object] | str = (),
        *no_more: Fields.args,
        **fields: Fields.kwargs,
    ) -> Run: ...


class _Score(Protocol[Fields]):
    def __call__(
        self,
        source: Path | str,
        scorers: Sequence[str | Callable[..., Any] | object] | str = (),
        task: str | Task | None = None,
        duplicates: Literal["error", "last"] = "error",
        *no_more: Fields.args,
        **fields: Fields.kwargs,
    ) -> Run: ...


def _evaluate_with(config: Callable[Fields, RunConfig]) -> Callable[[Callable[..., Run]], _Evaluate[Fields]]:
    """Give `evaluate` the keywords of a config class, for type checkers, editors and `help`."""
    return lambda function: cast("_Evaluate[Fields]", _with_keywords(function, config, "run"))


def _score_with(config: Callable[Fields, RunConfig]) -> Callable[[Callable[..., Run]], _Score[Fields]]:
    """Give `score` the keywords of a config class, for type checkers, editors and `help`."""
    return lambda function: cast("_Score[Fields]", _with_keywords(function, config, "score"))


def _with_keywords(function: Callable[..., Run], config: Callable[..., RunConfig], command: str) -> Callable[..., Run]:
    """Replace `**fields` in a function's signature, and the line on them in its docstring, by the options it takes."""
    offered = {each.name: each for each in run_fields() if not each.option.commands or command in each.option.commands}
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [each for name, each in inspect.signature(config).parameters.items() if name in offered]
    described: Any = function
    described.__signature__ = signature.replace(parameters=[*own, *options])
    lines = [f"    {name}: {each.help()}" for name, each in offered.items()]
    text = inspect.cleandoc(function.__doc__ or "").splitlines()
    described.__doc__ = "\n".join(new for line in text for new in (lines if "fields: " in line else [line]))
    return function


@_evaluate_with(RunConfig)
def evaluate(
    task: str | Task,
    generator: str | Callable[..., Any] | object,
    scorers: Sequence[str | Callable[..., Any] | object] | str = (),
    **fields: Any,
) -> Run:
    """Generate an image for each prompt of a task, and score the images.

    Args:
        task: Name or folder of a task, or a task.
        generator: Name, class, object with one of the three methods, or a function `draw(prompt[, references, seed])`.
        scorers: A name, or a list of names, classes, objects, functions `score(prompt, image[, truth])` and
            `ScorerRequest`s; the task's default scorers when empty.
        fields: Options of `RunConfig`, such as limit=8, seed=1, repeats=3, budget=5.0.

    Returns:
        The run; `run.summary.headline` is the K-Score with its interval.

    Raises:
        KnowgenError: Something is wrong; the message says what, where and how to fix it.
    """
    config = RunConfig(**fields)
    ready = plan(task, generator, _names(scorers), config)
    return execute(ready, config.out or default_out(ready.spec.task, ready.spec.generator.name))


@_score_with(RunConfig)
def score(
    source: Path | str,
    scorers: Sequence[str | Callable[..., Any] | object] | str = (),
    task: str | Task | None = None,
    duplicates: Literal["error", "last"] = "error",
    **fields: Any,
) -> Run:
    """Score images that exist already; no generator is loaded.

    Args:
        source: A run directory, an official results file, or a folder of images named by sample id (with `task`).
        scorers: As in `evaluate`; the run's own, else the task's default scorers, when empty.
        task: The task of a folder of images.
        duplicates: Rows of a results file that share an id are an error, or the last one counts.
        fields: Options of `RunConfig`, such as limit=8, seed=1, repeats=3, budget=5.0.

    Returns:
        The run; without `out` it is the source itself when that is a run.

    Raises:
        KnowgenError: Something is wrong; the message says what, where and how to fix it.
    """
    config = RunConfig(**fields)
    ready = plan_scoring(source, _names(scorers), task, duplicates, config)
    return execute(ready, config.out or ready.source or default_out(ready.spec.task, ready.spec.generator.name))


def _names(scorers: Sequence[str | Callable[..., Any] | object] | str) -> Sequence[str | Callable[..., Any] | object]:
    return (scorers,) if isinstance(scorers, str) else tuple(scorers)


def export(run: Run, form: str, out: Path, *, scorer: str | None = None) -> int:
    """Write a run's results for other tools.

    Args:
        run: The run.
        form: official, jsonl, parquet or csv.
        out: The file.
        scorer: Name of the scorer whose scores are exported; the first scorer when None.

    Returns:
        The number of rows written.
    """
    name = run.label(scorer)
    with RunStore.read(run.path) as store:
        return artifacts.export(store, form, out, name)


__all__ = [
    "PROTOCOLS",
    "Plan",
    "Run",
    "RunConfig",
    "ScorerRequest",
    "aggregate",
    "agree",
    "compare",
    "default_out",
    "evaluate",
    "execute",
    "export",
    "forecast",
    "load_run",
    "load_task",
    "panel_rows",
    "panel_summary",
    "plan",
    "plan_scoring",
    "score",
    "write_report",
]
