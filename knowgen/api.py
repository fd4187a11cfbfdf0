"""The Python interface: evaluate a generator, score images, load and compare runs.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> noise = evaluate("knowgen_mini", "noise", "pixels", limit=2, out=folder / "noise")
    >>> oracle = evaluate("knowgen_mini", "oracle", "pixels", limit=2, out=folder / "oracle")
    >>> comparison = compare(noise, oracle)
    >>> comparison.paired, comparison.better
    (2, 2)
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
from knowgen.workflows.forecast import forecast, price_warnings
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
    """Return a decorator that gives `evaluate` the keywords of a config class, for editors and type checkers."""
    return lambda function: cast("_Evaluate[Fields]", _with_keywords(function, config, "run"))


def _score_with(config: Callable[Fields, RunConfig]) -> Callable[[Callable[..., Run]], _Score[Fields]]:
    """Return a decorator that gives `score` the keywords of a config class, for editors and type checkers."""
    return lambda function: cast("_Score[Fields]", _with_keywords(function, config, "score"))


def _with_keywords(function: Callable[..., Run], config: Callable[..., RunConfig], command: str) -> Callable[..., Run]:
    """Replace `**fields` in a function's signature and docstring by the options that the function has."""
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
        The run; `run.summary.headline` is the K-Score with its interval. A sample that fails raises no error; it is a
        row with a status and a reason.

    Raises:
        KnowgenError: An argument, the task's data or the run directory is wrong, or a dependency is missing. The
            message says what is wrong, where, and how to fix it.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> def grey(prompt, seed):
        ...     return Image.new("RGB", (64, 64), (seed % 256,) * 3)
        >>> grey.revision = "1"
        >>> run = evaluate("knowgen_mini", grey, "pixels", limit=2, out=tempfile.mkdtemp() + "/run")
        >>> run.summary.task, len(run.rows())
        ('knowgen_mini', 2)
    """
    config = RunConfig(**fields)
    ready = plan(task, generator, _names(scorers), config)
    return execute(ready, config.out or default_out(ready.spec))


@_score_with(RunConfig)
def score(
    source: Path | str,
    scorers: Sequence[str | Callable[..., Any] | object] | str = (),
    task: str | Task | None = None,
    duplicates: Literal["error", "last"] = "error",
    **fields: Any,
) -> Run:
    """Score existing images. No generator is loaded.

    Args:
        source: A run directory, an official results file, or a folder of images named by sample id (with `task`).
        scorers: As in `evaluate`; when empty the scorers of the run, else the task's default scorers.
        task: The task of a folder of images.
        duplicates: What to do when rows of a results file share an id: raise an error, or use the last.
        fields: Options of `RunConfig`, such as limit=8, judge_repeats=3, budget=5.0.

    Returns:
        The run. Without `out`, a source that is a run is scored in its own directory.

    Raises:
        KnowgenError: An argument, the source or the run directory is wrong, or a dependency is missing. The message
            says what is wrong, where, and how to fix it.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "images").mkdir()
        >>> sample = next(load_task("knowgen_mini").samples())
        >>> Image.new("RGB", (64, 64), "red").save(folder / "images" / f"{sample.id}.png")
        >>> run = score(folder / "images", "pixels", task="knowgen_mini", ids=[sample.id], out=folder / "run")
        >>> run.rows()[0].strict.status.value
        'ok'
    """
    config = RunConfig(**fields)
    ready = plan_scoring(source, _names(scorers), task, duplicates, config)
    return execute(ready, config.out or ready.source or default_out(ready.spec))


def _names(scorers: Sequence[str | Callable[..., Any] | object] | str) -> Sequence[str | Callable[..., Any] | object]:
    return (scorers,) if isinstance(scorers, str) else tuple(scorers)


def export(run: Run, form: str, out: Path, *, scorer: str | None = None) -> int:
    """Export a run for other tools.

    Args:
        run: The run.
        form: Format: official, jsonl, parquet or csv.
        out: File to write.
        scorer: Name of the scorer whose scores are exported; the first scorer when None.

    Returns:
        The number of rows written.

    Raises:
        UsageError: The format or scorer is unknown, or `out` is a folder.
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
    "price_warnings",
    "score",
    "write_report",
]
