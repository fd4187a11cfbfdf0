"""A panel of judges: combine the rows of several scorers over the same generations into one row each.

The value of a dimension is the lower median of the members' values (`statistics.median_low`). Unlike a mean, it is not
moved by one outlier, and it is always a value of the grid that the members use. If two values split a panel of even
size, the lower one counts, because the rubric scores lower what cannot be verified. A dimension is not applicable if
more than half of the members report N/A.

A panel has a score if at least a quorum of its members has one. Strict and lenient parsed scores are combined
separately, because each protocol reads one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import TEXT, FailureCause, GenerationStatus, ParsedScore, Row, ScoreStatus

Key = tuple[str, int, int]
"""Sample, repeat, judge repeat."""


@dataclass(frozen=True)
class JudgePanel:
    """Members of a panel and its quorum.

    Attributes:
        members: Labels of the scorers.
        quorum: Minimum number of members with a score.
    """

    members: tuple[str, ...]
    quorum: int

    @property
    def label(self) -> str:
        """Label of the panel in tables."""
        return f"panel({', '.join(self.members)}; quorum {self.quorum})"


def panel_of(members: Sequence[str], quorum: int | None = None) -> JudgePanel:
    """Return a panel of scorers.

    Args:
        members: Labels of at least two scorers, each once.
        quorum: Minimum number of members with a score; more than half of the members by default.

    Raises:
        UsageError: There are fewer than two members, a member is repeated, or the quorum is out of range.

    Example:
        >>> panel_of(["vlm:a", "vlm:b", "vlm:c"]).quorum
        2
    """
    names = tuple(members)
    if len(names) < 2:
        raise UsageError("a panel needs at least two judges", where="panel", fix="name them, separated by commas")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"duplicate member {repeated!r}", where="panel", fix="name each judge once")
    minimum = len(names) // 2 + 1 if quorum is None else quorum
    if not 1 <= minimum <= len(names):
        raise UsageError(
            f"{minimum} of {len(names)} members", where="quorum", fix=f"give a number from 1 to {len(names)}"
        )
    return JudgePanel(names, minimum)


def panel_rows(panel: JudgePanel, rows: Mapping[str, Sequence[Row]], dimensions: Sequence[str]) -> list[Row]:
    """Return the rows of a panel.

    A judge repeat counts if at least a quorum of members has it. A scorer that measures has one judge repeat, however
    many the judges have.

    Args:
        panel: The panel.
        rows: Rows of each member, all of one run.
        dimensions: Dimensions that every member gives values for.

    Returns:
        One row per generation and judge repeat, in the order of the first member that has it.

    Raises:
        DataError: The rows of the members contradict each other on a sample or its generation.
    """
    rows_by_key: dict[Key, dict[str, Row]] = {}
    for member in panel.members:
        for row in rows[member]:
            rows_by_key.setdefault((row.sample_id, row.repeat, row.judge_repeat), {})[member] = row
    members_with_repeat = {
        judge: len({member for key, by_member in rows_by_key.items() if key[2] == judge for member in by_member})
        for judge in {key[2] for key in rows_by_key}
    }
    names = {member: {row.judge_returned for row in rows[member]} - {""} for member in panel.members}
    return [
        _row(panel, by_member, names, tuple(dimensions))
        for key, by_member in rows_by_key.items()
        if key[2] == 0 or members_with_repeat[key[2]] >= panel.quorum
    ]


def _row(
    panel: JudgePanel, by_member: Mapping[str, Row], names: Mapping[str, set[str]], dimensions: tuple[str, ...]
) -> Row:
    first = next(iter(by_member.values()))
    for row in by_member.values():
        if _facts(row) != _facts(first):
            raise DataError(
                "the rows of the panel's members contradict each other on the sample or its generation",
                where=f"sample {first.sample_id!r}, repeat {first.repeat}",
                fix="make a panel of scorers of one run",
            )
    if first.generation is not GenerationStatus.OK:
        return first.model_copy(update={"judge_returned": ""})
    strict = {member: row.strict for member, row in by_member.items()}
    lenient = {member: row.lenient or row.strict for member, row in by_member.items()}
    parsed = any(row.lenient is not None for row in by_member.values())
    judges = [_judge_model(member, by_member, names[member]) for member in panel.members]
    return first.model_copy(
        update={
            "strict": _combine(panel, strict, dimensions),
            "lenient": _combine(panel, lenient, dimensions) if parsed else None,
            "score_cause": _cause(by_member),
            "judge_returned": " + ".join(judge for judge in judges if judge),
        }
    )


def _cause(by_member: Mapping[str, Row]) -> FailureCause | None:
    """Return what caused a missing score of the panel: a refusal if a member refused, else the first known cause."""
    causes = [row.score_cause for row in by_member.values() if row.score_cause is not None]
    return FailureCause.REFUSAL if FailureCause.REFUSAL in causes else next(iter(causes), None)


def _facts(row: Row) -> tuple[object, ...]:
    return (row.category, row.group, row.difficulty, row.text_required, row.generation)


def _judge_model(member: str, by_member: Mapping[str, Row], names: set[str]) -> str:
    """Return the judge model of a member, also if its score is missing here, so that the panel keeps one name."""
    row = by_member.get(member)
    if row is not None and row.judge_returned:
        return row.judge_returned
    return next(iter(names)) if len(names) == 1 else ""


def _combine(panel: JudgePanel, parsed: Mapping[str, ParsedScore], dimensions: tuple[str, ...]) -> ParsedScore:
    scores = {member: parsed.get(member, ParsedScore(status=ScoreStatus.NOT_RUN)) for member in panel.members}
    problems = {member: reason for member, one in scores.items() if (reason := _problem(one, dimensions))}
    usable = [one for member, one in scores.items() if member not in problems]
    if len(usable) < panel.quorum:
        status = _status_without_quorum(panel, scores, len(usable))
        return ParsedScore(status=status, reason=_reason(panel, len(usable), problems))
    values: dict[str, float] = {}
    na = []
    for name in dimensions:
        member_values = [one.values[name] for one in usable if name in one.values and name not in one.na]
        if 2 * (len(usable) - len(member_values)) > len(usable):
            na.append(name)
        else:
            values[name] = median_low(member_values)
    rationales = [f"{member}: {one.rationale}" for member, one in scores.items() if one in usable and one.rationale]
    return ParsedScore(status=ScoreStatus.OK, values=values, na=tuple(na), rationale="\n".join(rationales))


def _problem(one: ParsedScore, dimensions: tuple[str, ...]) -> str:
    """Return why a parsed score cannot be used; empty if it can."""
    if one.status is not ScoreStatus.OK:
        return one.status.value.replace("_", " ") + (f": {one.reason}" if one.reason else "")
    without = [name for name in dimensions if name not in one.values and name not in one.na and name != TEXT]
    return f"has no {', '.join(without)}" if without else ""


def _status_without_quorum(panel: JudgePanel, scores: Mapping[str, ParsedScore], usable: int) -> ScoreStatus:
    """Return the status of a score without a quorum: not run if scores to come can still reach the quorum."""
    states = [one.status for one in scores.values()]
    if all(state is ScoreStatus.NOT_APPLICABLE for state in states):
        return ScoreStatus.NOT_APPLICABLE
    pending = states.count(ScoreStatus.NOT_RUN)
    return ScoreStatus.NOT_RUN if pending and usable + pending >= panel.quorum else ScoreStatus.FAILED


def _reason(panel: JudgePanel, usable: int, problems: Mapping[str, str]) -> str:
    details = "; ".join(f"{member} {reason}" for member, reason in problems.items())
    return f"{usable} of {len(panel.members)} members have a score, {panel.quorum} needed: {details}"
