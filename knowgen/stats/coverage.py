"""Are enough scores there for a result? The rule of a protocol, and its words.

A score is missing where scoring failed or has not run, and where a failed generation is left out by the protocol. A
failed or refused generation that counts 0 is the system's own result and is not missing. What does not apply to a
sample is not expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from knowgen.stats.parts import Part
from knowgen.stats.policy import Policy
from knowgen.stats.summary import Coverage, Figure
from knowgen.stats.values import STATES, Values
from knowgen.stats.words import count

NO_RESULT = "No result"
HOW_TO_GO_ON = "run the same command again to add the missing scores"


@dataclass(frozen=True)
class ScoreCoverage:
    """Scores that a figure rests on, and those it lacks.

    Attributes:
        expected: Samples x repeats x judge repeats that ought to carry a score.
        covered: Those with a score, and failed generations that count 0.
        failed: Scores that failed.
        not_run: Scores that have not run, for want of an image or of the scorer's time.
        excluded: Failed or refused generations that the protocol leaves out.
    """

    expected: int
    covered: int
    failed: int
    not_run: int
    excluded: int

    @property
    def missing(self) -> int:
        """Expected scores that are not covered."""
        return self.failed + self.not_run + self.excluded

    def reaches(self, minimum: float) -> bool:
        """Return whether the covered share is at least `minimum`, in exact arithmetic; True where nothing is expected."""
        return self.covered >= Fraction(str(minimum)) * self.expected


def score_coverage(states: Coverage, policy: Policy) -> ScoreCoverage:
    """Count the scores that are covered under a protocol.

    Args:
        states: What became of every score.
        policy: Says whether a failed generation counts 0 or is left out.
    """
    own_failures = states.generation_failed + states.generation_refused
    counts_zero = policy.failed_generation == "zero"
    return ScoreCoverage(
        expected=states.expected - states.not_applicable,
        covered=states.scored + (own_failures if counts_zero else 0),
        failed=states.judgement_failed,
        not_run=states.generation_not_run + states.judgement_not_run,
        excluded=0 if counts_zero else own_failures,
    )


def states_of_counted(values: Values, part: Part) -> Coverage:
    """Return what became of the scores of those samples that count for the figures of a part."""
    counts = dict(zip(STATES, values.coverage[part.counted].sum(axis=0).tolist(), strict=False))
    return Coverage(expected=sum(counts.values()), **counts)


def reason_for_no_result(states: Coverage, policy: Policy) -> str:
    """Return why there is no result, such as `43 of 48 scores failed`; empty where the coverage is sufficient."""
    found = score_coverage(states, policy)
    if found.reaches(policy.min_coverage):
        return ""
    causes = {"failed": found.failed, "not run yet": found.not_run}
    present = [f"{number} {words}" for words, number in causes.items() if number]
    if found.excluded:
        present.append(f"{count(found.excluded, 'failed generation')} left out")
    total = f"of {count(found.expected, 'score')}"
    if len(present) > 1 or found.excluded:
        return f"{found.missing} {total} missing ({', '.join(present)})"
    number, words = present[0].split(" ", 1)
    return f"{number} {total} {words}"


def no_result(reason: str) -> str:
    """Write a reason as users read it: `No result: 43 of 48 scores failed`."""
    return f"{NO_RESULT}: {reason}"


def share_words(minimum: float) -> str:
    """Write a share as a percentage, such as `95 %`."""
    return f"{100 * minimum:g} %"


def withheld(figure: Figure, note: str) -> Figure:
    """Move the value of a figure to `partial`, so that nobody takes it for a result."""
    return Figure(partial=figure.value, n=figure.n, note=note)
