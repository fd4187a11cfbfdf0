"""A panel of judges: the rows of several scorers over the same drawings become the rows of one.

A dimension's value is the lower median of the members' values (Python's `statistics.median_low`): one judge that is
far off cannot move it, as it would a mean; with judges that keep to a grid it is a value of the grid, which a contract
may require; and of two values that split an even panel the lower one counts, as the rubric has it that what cannot be
verified scores lower. A dimension is not applicable where more than half of the members say so.

A judgement stands when at least a quorum of members has one. Both readings are combined, each for itself, so that every
protocol finds its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import TEXT, GenerationStatus, ParsedScore, Row, ScoreStatus

Key = tuple[str, int, int]
"""Sample, repeat, judge repeat."""


@dataclass(frozen=True)
class JudgePanel:
    """Which scorers sit on a panel, and how many must have judged.

    Attributes:
        members: Labels of the scorers.
        quorum: Fewest members whose reading is ok.
    """

    members: tuple[str, ...]
    quorum: int

    @property
    def label(self) -> str:
        """How tables name it."""
        return f"panel({', '.join(self.members)}; quorum {self.quorum})"


def panel_of(members: Sequence[str], quorum: int | None = None) -> JudgePanel:
    """Makes a panel.

    Args:
        members: Labels of at least two scorers, each once.
        quorum: Fewest members whose reading is ok; more than half of them when None.

    Raises:
        UsageError: There are fewer than two members, one comes twice, or the quorum cannot be met.
    """
    names = tuple(members)
    if len(names) < 2:
        raise UsageError("a panel needs two judges or more", where="panel", fix="name them, parted by commas")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice!r} sits on the panel twice", where="panel", fix="name each judge once")
    wanted = len(names) // 2 + 1 if quorum is None else quorum
    if not 1 <= wanted <= len(names):
        raise UsageError(f"{wanted} of {len(names)} members", where="quorum", fix=f"1 to {len(names)}")
    return JudgePanel(names, wanted)


def panel_rows(panel: JudgePanel, rows: Mapping[str, Sequence[Row]], dimensions: Sequence[str]) -> list[Row]:
    """Makes the rows of a panel.

    A judge repeat counts when at least a quorum of members has judged so often: a scorer that measures judges once,
    however often the others are asked.

    Args:
        panel: Who sits on it.
        rows: The rows of each member, all of one run.
        dimensions: What every member gives values for.

    Returns:
        One row a drawing and judge repeat, in the order in which they came first.

    Raises:
        DataError: The members' rows disagree on a sample or its drawing.
    """
    held: dict[Key, dict[str, Row]] = {}
    for member in panel.members:
        for row in rows[member]:
            held.setdefault((row.sample_id, row.repeat, row.judge_repeat), {})[member] = row
    repeats = {
        judge: len({member for key, found in held.items() if key[2] == judge for member in found})
        for judge in {key[2] for key in held}
    }
    names = {member: {row.judge_returned for row in rows[member]} - {""} for member in panel.members}
    return [
        _row(panel, found, names, tuple(dimensions))
        for key, found in held.items()
        if key[2] == 0 or repeats[key[2]] >= panel.quorum
    ]


def _row(
    panel: JudgePanel, found: Mapping[str, Row], names: Mapping[str, set[str]], dimensions: tuple[str, ...]
) -> Row:
    first = next(iter(found.values()))
    for row in found.values():
        if _facts(row) != _facts(first):
            raise DataError(
                "the members' rows disagree on it or its drawing",
                where=f"sample {first.sample_id!r}, repeat {first.repeat}",
                fix="make a panel of scorers of one run",
            )
    if first.generation is not GenerationStatus.OK:
        return first.model_copy(update={"judge_returned": ""})
    strict = {member: row.strict for member, row in found.items()}
    lenient = {member: row.lenient or row.strict for member, row in found.items()}
    parsed = any(row.lenient is not None for row in found.values())
    judges = [_judge(member, found, names[member]) for member in panel.members]
    return first.model_copy(
        update={
            "strict": _combined(panel, strict, dimensions),
            "lenient": _combined(panel, lenient, dimensions) if parsed else None,
            "judge_returned": " + ".join(judge for judge in judges if judge),
        }
    )


def _facts(row: Row) -> tuple[object, ...]:
    return (row.category, row.group, row.difficulty, row.text_required, row.generation)


def _judge(member: str, found: Mapping[str, Row], names: set[str]) -> str:
    """Returns the model that judged for a member, or would have: a member that is missing once makes no other panel."""
    row = found.get(member)
    if row is not None and row.judge_returned:
        return row.judge_returned
    return next(iter(names)) if len(names) == 1 else ""


def _combined(panel: JudgePanel, readings: Mapping[str, ParsedScore], dimensions: tuple[str, ...]) -> ParsedScore:
    held = {member: readings.get(member, ParsedScore(status=ScoreStatus.NOT_RUN)) for member in panel.members}
    lacks = {member: reason for member, one in held.items() if (reason := _lack(one, dimensions))}
    sitting = [one for member, one in held.items() if member not in lacks]
    if len(sitting) < panel.quorum:
        return ParsedScore(status=_missing(panel, held, len(sitting)), reason=_reason(panel, len(sitting), lacks))
    values: dict[str, float] = {}
    na = []
    for name in dimensions:
        given = [one.values[name] for one in sitting if name in one.values and name not in one.na]
        if 2 * (len(sitting) - len(given)) > len(sitting):
            na.append(name)
        else:
            values[name] = median_low(given)
    words = [f"{member}: {one.rationale}" for member, one in held.items() if one in sitting and one.rationale]
    return ParsedScore(status=ScoreStatus.OK, values=values, na=tuple(na), rationale="\n".join(words))


def _lack(one: ParsedScore, dimensions: tuple[str, ...]) -> str:
    """Says why a reading cannot take part; empty when it can."""
    if one.status is not ScoreStatus.OK:
        return one.status.value.replace("_", " ") + (f": {one.reason}" if one.reason else "")
    without = [name for name in dimensions if name not in one.values and name not in one.na and name != TEXT]
    return f"has no {', '.join(without)}" if without else ""


def _missing(panel: JudgePanel, held: Mapping[str, ParsedScore], sitting: int) -> ScoreStatus:
    """Returns the status of a judgement without a quorum: one that can still be reached is not run yet."""
    states = [one.status for one in held.values()]
    if all(state is ScoreStatus.NOT_APPLICABLE for state in states):
        return ScoreStatus.NOT_APPLICABLE
    waiting = states.count(ScoreStatus.NOT_RUN)
    return ScoreStatus.NOT_RUN if waiting and sitting + waiting >= panel.quorum else ScoreStatus.FAILED


def _reason(panel: JudgePanel, sitting: int, lacks: Mapping[str, str]) -> str:
    told = "; ".join(f"{member} {reason}" for member, reason in lacks.items())
    return f"{sitting} of {len(panel.members)} members judged, {panel.quorum} needed: {told}"
