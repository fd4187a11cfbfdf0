"""Runs beside each other: paired comparison, panels of judges, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from knowgen import outputs
from knowgen.core.errors import UsageError
from knowgen.core.records import Row
from knowgen.runs import Run
from knowgen.stats.aggregate import aggregate
from knowgen.stats.summary import Summary

if TYPE_CHECKING:
    from knowgen.stats.agreement.records import Agreement
    from knowgen.stats.compare.records import Comparison


def compare(
    first: Run,
    second: Run,
    *,
    policy: str = "strict",
    scorer: str | None = None,
    panel: Sequence[str] = (),
    quorum: int | None = None,
) -> Comparison:
    """Compares two runs sample by sample.

    Args:
        first: The baseline.
        second: The other; differences are second minus first.
        policy: Name of a policy, such as strict or official.
        scorer: Whose judgements; the first that both runs share when None.
        panel: Labels of scorers whose judgements are combined, instead of one scorer.
        quorum: Fewest of them that must have judged a drawing; more than half when None.

    Raises:
        UsageError: The runs answer different task versions, or were judged by different scorers.
    """
    from knowgen.stats.compare.systems import check_comparable
    from knowgen.stats.compare.systems import compare as paired

    if panel and scorer:
        raise UsageError("a scorer and a panel exclude each other", fix="name one of them")
    label = None if panel else scorer or _shared_scorer(first, second)
    a, b = (
        panel_summary(run, panel, quorum, policy) if panel else run.summarise(policy, label) for run in (first, second)
    )
    check_comparable(a, b)
    names = outputs.distinct_names([(run.path, run.spec.generator.name) for run in (first, second)])
    rows = [panel_rows(run, panel, quorum) if panel else run.rows(label) for run in (first, second)]
    return paired(
        rows[0],
        rows[1],
        policy,
        dimensions=a.dimensions,
        a_name=names[0],
        b_name=names[1],
        task=a.task,
        task_version=a.task_version,
        scorer=a.scorer,
        scorer_note=a.scorer_note,
    )


def panel_rows(run: Run, members: Sequence[str], quorum: int | None = None) -> list[Row]:
    """Returns the rows of a panel of a run's scorers: `aggregate` reads them like those of one scorer.

    Args:
        run: The run.
        members: Labels of its scorers.
        quorum: Fewest of them that must have judged a drawing; more than half when None.

    Raises:
        UsageError: The run has no such scorer, or the members do not give values for the same dimensions.
    """
    from knowgen.stats.panel import panel_of
    from knowgen.stats.panel import panel_rows as combined

    panel = panel_of(members, quorum)
    rows = {member: run.rows(member) for member in panel.members}
    return combined(panel, rows, _panel_dimensions(run, panel.members))


def panel_summary(run: Run, members: Sequence[str], quorum: int | None = None, policy: str | None = None) -> Summary:
    """Aggregates a run as a panel of its scorers judged it; arguments as in `panel_rows`."""
    from knowgen.core.spec import fingerprint
    from knowgen.stats.panel import panel_of

    panel, known = panel_of(members, quorum), {each.name: each for each in run.spec.scorers}
    rows = panel_rows(run, members, quorum)
    versions = [known[member].version for member in panel.members]
    return aggregate(
        rows,
        policy or run.policy,
        dimensions=_panel_dimensions(run, panel.members),
        system=run.spec.generator.name,
        task=run.spec.task,
        task_version=run.spec.task_version,
        scorer=panel.label,
        scorer_version=fingerprint(versions)[:12],
        scorer_note="lower median of the members",
        selection=run.spec.selection.label,
    )


def _panel_dimensions(run: Run, members: Sequence[str]) -> tuple[str, ...]:
    known = {each.name: tuple(each.dimensions) for each in run.spec.scorers}
    found = {member: known[member] for member in members}
    first = found[members[0]]
    for member, dimensions in found.items():
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
    policy: str = "strict",
) -> Agreement:
    """Says how far the scorers of one or more runs agree, with each other and with people.

    Args:
        runs: Of one task version; scorers that all of them have take part.
        labels: A CSV file of what people said, as in `knowgen.stats.agreement.labels`.
        panel: Labels of scorers whose panel takes part as one more rater.
        quorum: Of the panel.
        policy: Says which reading of a judgement counts, and how systems are ranked.

    Raises:
        UsageError: The runs differ in task, or there are fewer than two raters.
        DataError: The labels are broken, or rate what the runs do not have.
    """
    from knowgen.stats.agreement.panel_agreement import RatedSystem, agreement
    from knowgen.stats.panel import panel_of

    if not runs:
        raise UsageError("no run to look at", fix="name one or more run directories")
    names = outputs.distinct_names([(run.path, run.spec.generator.name) for run in runs])
    shared = [each for each in runs[0].spec.scorers if all(_has(run, each.name) for run in runs)]
    dimensions = {each.name: tuple(each.dimensions) for each in shared}
    sat = panel_of(panel, quorum).label if panel else ""
    if panel:
        dimensions[sat] = _panel_dimensions(runs[0], [runs[0].label(member) for member in panel])
    systems = [
        RatedSystem(
            name,
            run.spec.task,
            run.spec.task_version,
            {each: panel_rows(run, panel, quorum) if each == sat else run.rows(each) for each in dimensions},
        )
        for name, run in zip(names, runs, strict=True)
    ]
    return agreement(systems, dimensions, labels=Path(labels) if labels else None, protocol=policy)


def _has(run: Run, scorer: str) -> bool:
    return scorer in {each.name for each in run.spec.scorers}


def _shared_scorer(first: Run, second: Run) -> str:
    ours, theirs = ([scorer.name for scorer in run.spec.scorers] for run in (first, second))
    shared = next((name for name in ours if name in theirs), None)
    if shared is None:
        raise UsageError(
            f"no scorer has judged both runs: {', '.join(ours) or 'none'} there, {', '.join(theirs) or 'none'} here",
            where=f"{first.path} and {second.path}",
            fix="score one of them anew with `knowgen score RUN --scorer S`",
        )
    return shared
