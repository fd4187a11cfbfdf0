"""Compare runs sample by sample, combine scorers into panels, and measure agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen.core.errors import UsageError
from knowgen.core.records import Row
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Summary
from knowgen.workflows import artifacts
from knowgen.workflows.run import Run

if TYPE_CHECKING:
    from knowgen.stats.agreement.records import Agreement
    from knowgen.stats.compare.records import Comparison


def compare(
    first: Run,
    second: Run,
    *,
    protocol: str = "strict",
    scorer: str | None = None,
    panel: Sequence[str] = (),
    quorum: int | None = None,
    names: Sequence[str] = (),
) -> Comparison:
    """Compare two runs sample by sample.

    Args:
        first: The baseline.
        second: The other run; differences are second minus first.
        protocol: Name of a scoring protocol, such as strict or official.
        scorer: Name of the scorer; the first that both runs share when None.
        panel: Names of scorers whose scores are combined, instead of one scorer.
        quorum: Minimum number of them that must have scored an image; more than half when None.
        names: Names of the two in tables; by default those of their systems.

    Raises:
        UsageError: The runs have different task versions, or share no scorer.
    """
    from knowgen.stats.compare.systems import check_comparable
    from knowgen.stats.compare.systems import compare as paired

    if panel and scorer:
        raise UsageError("a scorer and a panel exclude each other", fix="name one of them")
    label = None if panel else scorer or _shared_scorer(first, second)
    a, b = (
        panel_summary(run, panel, quorum, protocol) if panel else run.summarise(protocol, label)
        for run in (first, second)
    )
    check_comparable(a, b)
    names = names or run_names((first, second))
    rows = [panel_rows(run, panel, quorum) if panel else run.rows(label) for run in (first, second)]
    compared = paired(
        rows[0],
        rows[1],
        protocol,
        dimensions=a.dimensions,
        a_name=names[0],
        b_name=names[1],
        task=a.task,
        task_version=a.task_version,
        scorer=a.scorer,
        scorer_note=a.scorer_note,
        selections=(a.selection, b.selection),
    )
    return compared.model_copy(update={"agent_a": first.agent_figures, "agent_b": second.agent_figures})


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run that no other of them has, where their directories are called differently."""
    return artifacts.distinct_names([(run.path, run.spec.system) for run in runs])


def panel_rows(run: Run, members: Sequence[str], quorum: int | None = None) -> list[Row]:
    """Return the rows of a panel of a run's scorers: `aggregate` reads them like those of one scorer.

    Args:
        run: The run.
        members: Names of its scorers.
        quorum: Minimum number of them that must have scored an image; more than half when None.

    Raises:
        UsageError: The run has no such scorer, or the members do not give values for the same dimensions.
    """
    from knowgen.stats.panel import panel_of
    from knowgen.stats.panel import panel_rows as combined

    panel = panel_of(members, quorum)
    rows = {member: run.rows(member) for member in panel.members}
    return combined(panel, rows, _panel_dimensions(run, panel.members))


def panel_summary(run: Run, members: Sequence[str], quorum: int | None = None, protocol: str | None = None) -> Summary:
    """Aggregate a run under a panel of its scorers; arguments as in `panel_rows`."""
    from knowgen.core.spec import fingerprint
    from knowgen.stats.panel import panel_of

    panel, known = panel_of(members, quorum), {each.name: each for each in run.spec.scorers}
    rows = panel_rows(run, members, quorum)
    versions = [known[member].version for member in panel.members]
    return aggregate(
        rows,
        protocol or run.protocol,
        dimensions=_panel_dimensions(run, panel.members),
        system=run.spec.system,
        task=run.spec.task,
        task_version=run.spec.task_version,
        scorer=panel.label,
        scorer_version=fingerprint(versions)[:12],
        scorer_note="lower median of the members",
        selection=run.spec.selection.label,
    )


def _panel_dimensions(run: Run, members: Sequence[str]) -> tuple[str, ...]:
    known = {each.name: tuple(each.dimensions) for each in run.spec.scorers}
    first = known[members[0]]
    for member in members:
        dimensions = known[member]
        if set(dimensions) != set(first):
            raise UsageError(
                f"{members[0]} gives {', '.join(first)}, {member} {', '.join(dimensions)}",
                where="panel",
                fix="name scorers of the same dimensions",
            )
    return first


def agree(
    runs: Sequence[Run],
    *,
    labels: Path | str | None = None,
    panel: Sequence[str] = (),
    quorum: int | None = None,
    protocol: str = "strict",
) -> Agreement:
    """Measure how far the scorers of one or more runs agree, with each other and with people.

    Args:
        runs: Runs of one task version. Scorers that all of them have are compared.
        labels: A CSV file of human ratings, as in `knowgen.stats.agreement.labels`.
        panel: Names of scorers that form a panel, which is one more rater.
        quorum: Minimum number of them that must have scored an image; more than half when None.
        protocol: Scoring protocol that scores are read and systems are ranked by.

    Raises:
        UsageError: The runs differ in task, or there are fewer than two raters.
        DataError: The labels are broken, or rate samples that the runs do not have.
    """
    from knowgen.stats.agreement.panel_agreement import RatedSystem, agreement
    from knowgen.stats.panel import panel_of

    if not runs:
        raise UsageError("no run to compare", fix="name one or more run directories")
    names = run_names(runs)
    shared = [each for each in runs[0].spec.scorers if all(_has(run, each.name) for run in runs)]
    dimensions = {each.name: tuple(each.dimensions) for each in shared}
    panel_label = panel_of(panel, quorum).label if panel else ""
    if panel:
        dimensions[panel_label] = _panel_dimensions(runs[0], [runs[0].label(member) for member in panel])
    systems = [
        RatedSystem(
            name,
            run.spec.task,
            run.spec.task_version,
            {each: panel_rows(run, panel, quorum) if each == panel_label else run.rows(each) for each in dimensions},
        )
        for name, run in zip(names, runs, strict=True)
    ]
    return agreement(systems, dimensions, labels=Path(labels) if labels else None, protocol=protocol)


def _has(run: Run, scorer: str) -> bool:
    return scorer in {each.name for each in run.spec.scorers}


def _shared_scorer(first: Run, second: Run) -> str:
    ours, theirs = ([scorer.name for scorer in run.spec.scorers] for run in (first, second))
    shared = next((name for name in ours if name in theirs), None)
    if shared is None:
        first_has, second_has = (", ".join(names) or "none" for names in (ours, theirs))
        raise UsageError(
            f"no scorer has scored both runs: the first has {first_has}, the second {second_has}",
            where=f"{first.path} and {second.path}",
            fix="score one of them again with `knowgen score RUN --scorer S`",
        )
    return shared
