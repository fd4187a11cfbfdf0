"""Are enough scores there for a result? The rule of a protocol, and its words.

A score is missing where scoring failed or has not run. A failed or refused generation is the system's own result, and
is not missing: `strict` counts it 0. What does not apply to a sample is not expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from knowgen.core.text import count
from knowgen.stats.protocol import ScoringProtocol
from knowgen.stats.summary import Coverage, Figure

NO_RESULT = "No result"
HOW_TO_GO_ON = "run the same command again to add the missing scores"


@dataclass(frozen=True)
class ScoreCoverage:
    """Scores that a result needs, and those that are missing.

    Attributes:
        expected: Samples x repeats x judge repeats that ought to carry a score.
        failed: Scores that failed.
        not_run: Scores that have not run, for want of an image or of the scorer's time.
    """

    expected: int
    failed: int
    not_run: int

    @property
    def covered(self) -> int:
        """Expected scores that are there, and failed generations."""
        return self.expected - self.failed - self.not_run

    def reaches(self, minimum: float) -> bool:
        """Return whether the covered share is at least `minimum`, exactly; True where nothing is expected."""
        return reaches(self.covered, self.expected, minimum)


def reaches(part: int, whole: int, minimum: float) -> bool:
    """Return whether a share is at least `minimum`, in exact arithmetic: 19 of 20 is 0.95."""
    return part >= Fraction(str(minimum)) * whole


def score_coverage(states: Coverage) -> ScoreCoverage:
    """Count the scores that are expected and those that are missing."""
    return ScoreCoverage(
        expected=states.expected - states.not_applicable,
        failed=states.judgement_failed,
        not_run=states.generation_not_run + states.judgement_not_run,
    )


def reason_for_no_result(states: Coverage, protocol: ScoringProtocol) -> str:
    """Return why there is no result, such as `43 of 48 scores failed`; empty where the coverage is sufficient."""
    found = score_coverage(states)
    if found.reaches(protocol.min_coverage):
        return ""
    total = f"of {count(found.expected, 'score')}"
    if found.failed and found.not_run:
        both = found.failed + found.not_run
        return f"{both} {total} missing ({found.failed} failed, {found.not_run} not run yet)"
    return f"{found.failed} {total} failed" if found.failed else f"{found.not_run} {total} not run yet"


def no_result(reason: str) -> str:
    """Write a reason as users read it: `No result: 43 of 48 scores failed`."""
    return f"{NO_RESULT}: {reason}"


def share_words(minimum: float) -> str:
    """Write a share as a percentage, such as `95 %`."""
    return f"{100 * minimum:g} %"


def withheld(figure: Figure, note: str) -> Figure:
    """Move the value of a figure to `partial`, so that nobody takes it for a result."""
    return Figure(partial=figure.value, n=figure.n, note=note)
