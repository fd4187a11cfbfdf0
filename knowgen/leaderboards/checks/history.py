"""A submission beside the others of its board: another judge or version, and what changed since its last revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from knowgen.core.records import ScoreStatus
from knowgen.core.text import count, one_line
from knowgen.leaderboards.checks.content import created_at, named
from knowgen.leaderboards.checks.findings import BoardFinding, error, warning
from knowgen.leaderboards.checks.hashes import ImageHashes, hashes_of
from knowgen.leaderboards.folder import RESULT_FILE, SYSTEM_FILE, Board, Submission
from knowgen.leaderboards.records import SubmissionResult, SystemFile
from knowgen.leaderboards.rows import rows_of
from knowgen.leaderboards.template import look_of, slug_of
from knowgen.stats.compare.systems import compare
from knowgen.stats.protocol import get_protocol


@dataclass(frozen=True)
class Facts:
    """What is kept of a submission to compare others with.

    Attributes:
        submission: The submission.
        system: Its `system.yaml`; None if that is not valid.
        created: When its run was created, as its file says.
        knowgen: Version of knowgen that wrote its file.
        scorer: Version of its scorer.
        rubric: Hash of its judge's rubric; empty without one.
        judges: Model names that its judge returned.
        images: Hashes of its images.
    """

    submission: Submission
    system: SystemFile | None
    created: str
    knowgen: str
    scorer: str
    rubric: str
    judges: tuple[str, ...]
    images: ImageHashes


def facts_of(submission: Submission, system: SystemFile | None, result: SubmissionResult) -> Facts:
    """Return what is kept of a submission."""
    return Facts(
        submission=submission,
        system=system,
        created=result.created,
        knowgen=result.knowgen,
        scorer=result.scorer.version,
        rubric=result.rubric,
        judges=tuple(sorted(result.judges)),
        images=hashes_of(result),
    )


def check_drift(own: Facts, others: Sequence[Facts]) -> Iterator[BoardFinding]:
    """Yield versions in which a submission differs from most others of the board, all of which the board accepts."""
    fix = "compare with care, or score the others again"
    for what, mine, theirs in (
        ("the scorer's version", own.scorer, [each.scorer for each in others]),
        ("the rubric", own.rubric[:12], [each.rubric[:12] for each in others]),
        ("the judge", ", ".join(own.judges), [", ".join(each.judges) for each in others]),
        ("the version of knowgen", own.knowgen, [each.knowgen for each in others]),
    ):
        usual, number = Counter(theirs).most_common(1)[0] if theirs else (mine, 0)
        if mine != usual:
            text = f"{what} is {one_line(mine, 80) or 'none'}, that of {number} of {count(len(theirs), 'other')} is "
            yield warning("drift", RESULT_FILE, text + (one_line(usual, 80) or "none"), fix)


def check_owner(own: Facts, others: Sequence[Facts]) -> Iterator[BoardFinding]:
    """Yield where a name is that of another system.

    A revision with another name than those beside it would replace them on the board. Names that differ only in letter
    case, spaces, or characters that are not visible look the same to a reader.
    """
    if own.system is None:
        return
    beside = [each.system for each in others if each.submission.slug == own.submission.slug and each.system]
    if names := {each.name for each in beside} - {own.system.name}:
        what = f"name is {one_line(own.system.name, 80)!r}, other revisions of the folder are of {min(names)!r}"
        yield error("owner", SYSTEM_FILE, what, "submit another system in a folder of its own")
        return
    yield from _check_name(own.system.name, own.submission.slug, others)
    if beside and own.system.contact not in {each.contact for each in beside}:
        what = f"contact is {one_line(own.system.contact, 80)!r}, that of no other revision of the system"
        yield warning("owner", SYSTEM_FILE, what, "make sure that it comes from the authors: it replaces theirs")


def _check_name(name: str, slug: str, others: Sequence[Facts]) -> Iterator[BoardFinding]:
    shown = one_line(name, 80)
    if slug_of(name) != slug:
        what = f"name is {shown!r}, whose folder would be {slug_of(name)!r} and not {slug!r}"
        yield error("owner", SYSTEM_FILE, what, "make the submission with `knowgen board add`")
    named = ((each.submission.slug, each.system.name) for each in others if each.system is not None)
    if same := [other for other, theirs in named if other != slug and look_of(theirs) == look_of(name)]:
        what = f"name {shown!r} is that of another system of the board, {same[0]}"
        yield error("owner", SYSTEM_FILE, what, "choose another name")


def earlier_revision(own: Facts, others: Sequence[Facts]) -> Facts | None:
    """Return the revision of the same system that came before; None if it is the first."""
    before = [each for each in others if each.submission.slug == own.submission.slug and _order(each) < _order(own)]
    return max(before, key=_order, default=None)


def _order(facts: Facts) -> tuple[datetime, str]:
    return created_at(facts.created) or datetime.min.replace(tzinfo=UTC), facts.submission.revision


def check_history(
    result: SubmissionResult, earlier: SubmissionResult, revision: str, board: Board
) -> Iterator[BoardFinding]:
    """Yield what a revision lost against the one before, and a score that changed by more than chance.

    Args:
        result: Result of the submission.
        earlier: Result of the revision before.
        revision: Name of that revision.
        board: Their board.
    """
    if lost := sorted(_scored(earlier) - _scored(result)):
        what = f"{count(len(lost), 'sample')} scored in revision {revision} without a score now: {named(lost)}"
        yield warning("history", RESULT_FILE, what, "say why in the notes of system.yaml")
    comparison = compare(
        rows_of(earlier, board.samples),
        rows_of(result, board.samples),
        get_protocol(board.file.protocol),
        dimensions=board.file.scorer.dimensions,
    )
    figure = comparison.slices[0].figures[board.file.ranking]
    if figure.value is not None and figure.p is not None and figure.p <= board.file.ties.level:
        what = f"{board.file.ranking} is {figure.value:+.3f} from revision {revision} (p = {figure.p:.2g})"
        yield warning("history", RESULT_FILE, what, "say in the notes of system.yaml what changed")


def _scored(result: SubmissionResult) -> set[str]:
    return {
        sample.id
        for sample in result.samples
        for generation in sample.generations
        for score in generation.scores
        if score.strict.status is ScoreStatus.OK or (score.lenient and score.lenient.status is ScoreStatus.OK)
    }
