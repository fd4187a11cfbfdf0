"""Count what became of the answers of an agent, apart from the images that were generated from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from knowgen.core.records import AnswerStatus, FailureCause, Row
from knowgen.core.text import count
from knowgen.stats.summary import AgentCounts


def agent_counts(rows: Sequence[Row]) -> AgentCounts | None:
    """Count the answers of an agent, one for each sample and repeat; None for rows of a run without an agent."""
    each = {(row.sample_id, row.repeat): row for row in rows if row.answer is not None}
    if not each:
        return None
    states = Counter(_state(row) for row in each.values())
    endings = Counter(row.ending for row in each.values() if row.ending)
    return AgentCounts(
        expected=len(each),
        endings=dict(sorted(endings.items())),
        fallbacks=sum(bool(row.fallback) for row in each.values()),
        **states,
    )


def _state(row: Row) -> str:
    if row.answer is AnswerStatus.FAILED:
        return "unavailable" if row.answer_cause is FailureCause.INFRASTRUCTURE else "failed"
    names = {AnswerStatus.OK: "answered", AnswerStatus.NONE: "none"}
    return names.get(row.answer, "not_run") if row.answer is not None else "not_run"


def agent_note(counts: AgentCounts) -> str:
    """Return a line on the answers of an agent.

    Example:
        >>> counts = AgentCounts(
        ...     expected=8, answered=5, none=1, unavailable=2, endings={"answer": 5, "no_answer": 1}, fallbacks=1
        ... )
        >>> agent_note(counts)
        'answers of the agent: 6 of 8 (5 answer, 1 no_answer; 2 failed for reasons outside the system); 1 fallback'
    """
    endings = ", ".join(f"{number} {name}" for name, number in counts.endings.items())
    lacking = ((counts.failed, "failed"), (counts.unavailable, "failed for reasons outside the system"))
    rest = ", ".join(f"{number} {words}" for number, words in (*lacking, (counts.not_run, "not run yet")) if number)
    details = "; ".join(filter(None, (endings, rest)))
    fallbacks = f"; {count(counts.fallbacks, 'fallback')}" if counts.fallbacks else ""
    total = f"answers of the agent: {counts.answered + counts.none} of {counts.expected}"
    return f"{total} ({details}){fallbacks}" if details else f"{total}{fallbacks}"
