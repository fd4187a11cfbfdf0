"""Check whether a run has enough scores for a result, and describe the shortfall.

A score is missing if scoring failed, was refused or has not run, or if the generation failed for reasons outside the
system. A generation that failed by itself or was refused is a result of the system and not missing: `strict` counts it
0. Scores that are not applicable are not expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from knowgen.core.text import count, one_line
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import Coverage, Figure

NO_RESULT = "No result"
LONGEST_REASON = 100
"""Maximum length of a stored reason within the reason for having no result, in characters."""

HOW_TO_CONTINUE = "run the same command again to add the missing scores"


@dataclass(frozen=True)
class ScoreCoverage:
    """Number of expected scores and of missing ones.

    Attributes:
        expected: Expected scores: samples x repeats x judge repeats without those that are not applicable.
        failed: Scores that failed.
        refused: Scores that the judge refused.
        unavailable: Scores without an image because the generation failed for reasons outside the system.
        not_run: Scores that have not run, because the image or the score is still to come.
    """

    expected: int
    failed: int
    refused: int
    unavailable: int
    not_run: int

    @property
    def missing(self) -> int:
        """Number of missing scores."""
        return self.failed + self.refused + self.unavailable + self.not_run

    @property
    def covered(self) -> int:
        """Number of expected scores that are not missing; the system's own failures are included."""
        return self.expected - self.missing

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
        refused=states.score_refused,
        unavailable=states.generation_unavailable,
        not_run=states.generation_not_run + states.score_not_run,
    )


def reason_for_no_result(states: Coverage, protocol: ScoringProtocol, outside: str = "") -> str:
    """Return the reason for having no result, such as `43 of 48 scores failed`; empty if the coverage is sufficient.

    Args:
        states: Coverage of the samples that count.
        protocol: Scoring protocol.
        outside: Reason of the generations that failed for reasons outside the system.
    """
    coverage = score_coverage(states)
    if coverage.reaches(protocol.min_coverage):
        return ""
    cause = f" ({one_line(outside, LONGEST_REASON)})" if outside else ""
    kinds = [
        (coverage.unavailable, f"generations failed for reasons outside the system{cause}"),
        (coverage.refused, "refused by the judge"),
        (coverage.failed, "failed"),
        (coverage.not_run, "not run yet"),
    ]
    present = [(number, words) for number, words in kinds if number]
    if len(present) == 1 and coverage.unavailable:
        return f"{coverage.unavailable} of {coverage.expected} {present[0][1]}"
    total = f"of {count(coverage.expected, 'score')}"
    if len(present) == 1:
        return f"{present[0][0]} {total} {present[0][1]}"
    return f"{coverage.missing} {total} missing ({', '.join(f'{number} {words}' for number, words in present)})"


def no_result(reason: str) -> str:
    """Return a reason with its prefix: `No result: 43 of 48 scores failed`."""
    return f"{NO_RESULT}: {reason}"


def share_words(minimum: float) -> str:
    """Format a share as a percentage, such as `95 %`."""
    return f"{100 * minimum:g} %"


def withheld(figure: Figure, note: str) -> Figure:
    """Return a figure whose value is moved to `partial`, so that it is not read as a result."""
    return Figure(partial=figure.value, n=figure.n, note=note)
