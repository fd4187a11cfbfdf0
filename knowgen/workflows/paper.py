"""Figures and tables of runs for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

from knowgen.core.errors import UsageError
from knowgen.core.records import GenerationStatus
from knowgen.core.steps import step
from knowgen.report.paper import charts, style, tables
from knowgen.report.view import marks
from knowgen.stats.compare.records import Comparison
from knowgen.stats.compare.systems import check_comparable
from knowgen.store.manifest import read_manifest
from knowgen.store.rows import answer_cost
from knowgen.store.run import RunStore
from knowgen.workflows.compare import agree, compare, run_names
from knowgen.workflows.run import Run

FIGURES = ("ladder", "group", "category", "difficulty", "cost", "time", "search", "agreement")
"""Kinds of figures."""

TABLES = ("systems", "group", "category", "difficulty")
"""Kinds of tables."""


def draw(
    kind: str,
    runs: Sequence[Run],
    out: Path,
    *,
    protocol: str = "strict",
    scorer: str | None = None,
    names: Sequence[str] = (),
    labels: Path | None = None,
    layout: style.Layout | None = None,
) -> str:
    """Write a figure of runs and return a caption for it, which names task, protocol, scorer and number of samples.

    Args:
        kind: One of `FIGURES`.
        runs: The runs; for `search` the one without search and the one with it.
        out: File to write; its ending is the format: .svg, .png or .pdf.
        protocol: Scoring protocol.
        scorer: Name of the scorer; the first of the first run when None.
        names: Names of the systems; by default those of the runs.
        labels: File of human ratings, for `agreement`.
        layout: Layout of the figure.

    Raises:
        UsageError: The runs cannot be compared, the kind does not suit them, or the format is unknown.
        MissingDependencyError: matplotlib is not installed.
    """
    style.check_format(out)
    layout = layout or style.Layout()
    if kind == "agreement":
        result = agree(runs, labels=labels, protocol=protocol)
        with style.drawing(), step("drawing the figure"):
            style.save(charts.agreement(result, layout), out)
        return f"Agreement of {', '.join(result.raters)} on task {result.task} ({result.task_version})."
    systems = paper_systems(runs, protocol, scorer, names)
    with style.drawing(), step("drawing the figure"):
        if kind == "ladder":
            chart = charts.ladder(systems, layout)
        elif kind in ("cost", "time"):
            chart = charts.against(kind, systems, layout)
        elif kind == "search":
            _check_search(runs)
            comparison = compare(runs[0], runs[1], protocol=protocol, scorer=scorer)
            chart = charts.search(comparison, _sample_differences(runs, protocol, scorer), layout)
        else:
            chart = charts.parts(systems, kind, layout)
        style.save(chart, out)
    differences = f"Differences: {systems[1].label} minus {systems[0].label}. " if kind == "search" else ""
    return differences + tables.caption([one.summary for one in systems])


def _check_search(runs: Sequence[Run]) -> None:
    """Check that two runs are named, and not the one with search first."""
    fix = "name the run without search, then the one with it"
    if len(runs) != 2:
        raise UsageError("needs two runs", where="search", fix=fix)
    first, second = (run.spec.agent is not None or bool(run.spec.generator.search) for run in runs)
    if first and not second:
        raise UsageError(f"{runs[0].path} searches and {runs[1].path} does not", where="search", fix=fix)


def make_table(
    kind: str,
    runs: Sequence[Run],
    form: tables.Form,
    *,
    protocol: str = "strict",
    scorer: str | None = None,
    names: Sequence[str] = (),
    layout: tables.TableLayout | None = None,
) -> str:
    """Return a table of runs with the statistically tied best of each column in bold.

    Args:
        kind: One of `TABLES`.
        runs: The runs.
        form: latex or markdown.
        protocol: Scoring protocol.
        scorer: Name of the scorer; the first of the first run when None.
        names: Names of the systems; by default those of the runs.
        layout: Layout of the table.

    Raises:
        UsageError: The runs cannot be compared.
    """
    systems = paper_systems(runs, protocol, scorer, names)
    ranked = [place for place, one in enumerate(systems) if not one.privileged and not one.summary.no_result]
    pairs: dict[tuple[int, int], Comparison] = {
        (a, b): compare(runs[a], runs[b], protocol=protocol, scorer=scorer) for a, b in combinations(ranked, 2)
    }
    return tables.paper_table(kind, systems, pairs, form, layout or tables.TableLayout())


def paper_systems(
    runs: Sequence[Run], protocol: str, scorer: str | None, names: Sequence[str] = ()
) -> list[charts.PaperSystem]:
    """Return the systems of runs that can be compared.

    Raises:
        UsageError: `runs` is empty, the number of names differs, or the runs cannot be compared.
    """
    if not runs:
        raise UsageError("no run", fix="name one or more run directories")
    paths = [run.path.resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise UsageError("named twice", where=str(run.path), fix="name each run once")
    if names and len(names) != len(runs):
        raise UsageError(f"{len(names)} names for {len(runs)} runs", where="--names", fix="name each run")
    label = scorer or runs[0].label()
    summaries = [run.summarise(protocol, label) for run in runs]
    for other in summaries[1:]:
        check_comparable(summaries[0], other)
    selections = list(dict.fromkeys(one.selection for one in summaries))
    if len(selections) > 1:
        raise UsageError(
            f"different selections of samples: {' and '.join(selections[:2])}; the runs cannot stand in one table",
            fix="run all on the same samples",
        )
    shown = list(names) or run_names(runs)
    manifests = [read_manifest(run.path) for run in runs]
    markers = marks([run.spec.system for run in runs], [one.started if one is not None else "" for one in manifests])
    return [
        charts.PaperSystem(name, mark, summary, run.spec.privileged, *_spent(run))
        for name, mark, summary, run in zip(shown, markers, summaries, runs, strict=True)
    ]


def _spent(run: Run) -> tuple[float | None, float | None]:
    """Return US dollars and median seconds of an image, those of the agent included; None where not known."""
    total: float | None = 0.0
    images, times, answered = 0, [], {}
    with RunStore.read(run.path) as store:
        for _, answer in store.answers():
            answered[answer.sample_id, answer.repeat] = answer.seconds
            total = _sum(total, answer_cost(answer))
        for _, generation in store.generations(paths=False):
            usage = generation.usage
            free = usage.cost is None and not usage.input_tokens + usage.output_tokens
            total = _sum(total, 0.0 if free else usage.cost)
            if generation.status == GenerationStatus.OK:
                images += 1
                times.append(generation.seconds + answered.get((generation.sample_id, generation.repeat), 0.0))
    if not total and run.cost is None:
        total = None  # a service that says neither price nor tokens
    return (None if total is None or not images else total / images), (median(times) if times else None)


def _sum(total: float | None, cost: float | None) -> float | None:
    return None if total is None or cost is None else total + cost


def _sample_differences(runs: Sequence[Run], protocol: str, scorer: str | None) -> list[float]:
    """Return the difference of the overall of each paired sample that counts for the whole, second minus first."""
    from knowgen.stats.combine import sample_overalls
    from knowgen.stats.compare.pairing import PairedValues
    from knowgen.stats.protocol import get_protocol
    from knowgen.stats.subsets import sample_subsets
    from knowgen.stats.values import read_values

    rule = get_protocol(protocol)
    label = scorer or runs[0].label()
    dimensions = tuple(runs[0].summarise(protocol, label).dimensions)
    first, second = (read_values(run.rows(label), rule, dimensions) for run in runs)
    pair = PairedValues(first, second, rule, dimensions)
    counted = sample_subsets(pair.units, rule)[0].counted
    levels = [sample_overalls(table[:, counted, :], dimensions, rule) for table in pair.tables]
    return [float(value) for value in levels[1] - levels[0]]
