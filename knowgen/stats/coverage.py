"""Check whether a run has enough scores for a result, and describe the shortfall.

A score is missing if scoring failed or has not run. A failed or refused generation is a result of the system and not
missing: `strict` counts it 0. Scores that are not applicable are not expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from knowgen.core.text import count
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import Coverage, Figure

NO_RESULT = "No result"
HOW_TO_CONTINUE = "run the same command again to add the missing scores"


@dataclass(frozen=True)
class ScoreCoverage:
    """Number of expected scores and of missing ones.

    Attributes:
        expected: Expected scores: samples x repeats x judge repeats without those that are not applicable.
        failed: Scores that failed.
        not_run: Scores that have not run, because the image or the score is still to come.
    """

    expected: int
    failed: int
    not_run: int

    @property
    def covered(self) -> int:
        """Number of expected scores that are not missing; failed generations are included."""
        return self.expected - self.failed - self.not_run

    def reaches(self, minimum: float) -> bool:
        """Return whether the covered share is at least `minimum`, in exact arithmetic; True if none is expected."""
        return reaches(self.covered, self.expected, minimum)


def reaches(part: int, whole: int, minimum: float) -> bool:
    """Return whether a share is at least `minimum`, in exact arithmetic: 19 of 20 is 0.95."""
    return part >= Fraction(str(minimum)) * whole


def score_coverage(states: Coverage) -> ScoreCoverage:
    """Return the number of expected and of missing scores."""
    return ScoreCoverage(
        expected=states.expected - states.not_applicable,
        failed=states.score_failed,
        not_run=states.generation_not_run + states.score_not_run,
    )


def reason_for_no_result(states: Coverage, protocol: ScoringProtocol) -> str:
    """Return why there is no result, such as `43 of 48 scores failed`; empty if the coverage is sufficient."""
    coverage = score_coverage(states)
    if coverage.reaches(protocol.min_coverage):
        return ""
    total = f"of {count(coverage.expected, 'score')}"
    if coverage.failed and coverage.not_run:
        both = coverage.failed + coverage.not_run
        return f"{both} {total} missing ({coverage.failed} failed, {coverage.not_run} not run yet)"
    return f"{coverage.failed} {total} failed" if coverage.failed else f"{coverage.not_run} {total} not run yet"


def no_result(reason: str) -> str:
    """Return a reason with its prefix: `No result: 43 of 48 scores failed`."""
    return f"{NO_RESULT}: {reason}"


def share_words(minimum: float) -> str:
    """Format a share as a percentage, such as `95 %`."""
    return f"{100 * minimum:g} %"


def withheld(figure: Figure, note: str) -> Figure:
    """Return a figure whose value is moved to `partial`, so that it is not read as a result."""
    return Figure(partial=figure.value, n=figure.n, note=note)
