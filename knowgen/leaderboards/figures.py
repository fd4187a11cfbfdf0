"""All figures of a board: a summary of each system, the paired differences, and the range of ranks of each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median

from knowgen.leaderboards.folder import Board, Submission
from knowgen.leaderboards.records import SubmissionResult, TieRule
from knowgen.leaderboards.rows import rows_of
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.holm import holm
from knowgen.stats.compare.systems import compare
from knowgen.stats.summary import Summary


@dataclass(frozen=True)
class RankRange:
    """The ranks that a system may have: from 1 + the number of systems that are better, down to the number of systems
    minus those that are worse. The benchmark does not distinguish systems whose ranges overlap.
    """

    best: int
    worst: int


@dataclass(frozen=True)
class PairDifference:
    """The paired difference b - a of the ranking figure of two systems.

    Attributes:
        value: Difference, in [-1, 1]; None without one.
        low: Lower end of its 95 % interval; None without an interval.
        high: Upper end of the interval.
        p: Two-sided p-value of the t-test that belongs to the interval; None without an interval.
        p_corrected: The same, corrected for all pairs of the board as its tie rule says.
        n: Number of samples that both have.
        note: Reason for a missing value or interval; empty otherwise.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    n: int = 0
    note: str = ""


@dataclass(frozen=True)
class BoardSystem:
    """A system of a board with its figures.

    Attributes:
        submission: Its current revision.
        summary: Figures of the whole and of every group, category and difficulty, recomputed from the samples.
        rank: Range of its ranks; None if it has no result.
        cost: US dollars for each image, agent and image model; None if unknown.
        seconds: Median seconds for each image; None if unknown.
    """

    submission: Submission
    summary: Summary
    rank: RankRange | None
    cost: float | None
    seconds: float | None


@dataclass(frozen=True)
class BoardFigures:
    """All figures of a board.

    Attributes:
        board: The board.
        systems: Systems with a result by the ranking figure, the best first; then those without one. Systems of the
            same figure are ordered by folder.
        pairs: Paired difference b - a of the ranking figure for each pair of systems (a, b), by `Submission.slug`,
            with a ranked before b.
    """

    board: Board
    systems: tuple[BoardSystem, ...]
    pairs: Mapping[tuple[str, str], PairDifference]


def current(submissions: Sequence[Submission], version: str | None = None) -> list[Submission]:
    """Return the current revision of each system: the latest one that is not withdrawn, by the creation of its run.

    Args:
        submissions: Submissions of a board.
        version: Version of the board's task; revisions of another one are not current. Any version if None.
    """
    latest: dict[str, tuple[str, str, Submission]] = {}
    for each in submissions:
        result = each.read_result() if each.withdrawal is None else None
        if result is not None and version in (None, result.spec.task_version):
            entry = (result.created, each.revision, each)
            latest[each.slug] = max(latest.get(each.slug, entry), entry, key=lambda one: one[:2])
    return [latest[slug][2] for slug in sorted(latest)]


def board_figures(board: Board) -> BoardFigures:
    """Compute all figures of a board from its files.

    Raises:
        DataError: A file of the board is missing or not valid.
    """
    file = board.file
    found: list[tuple[Submission, SubmissionResult, Summary]] = []
    for submission in current(list(board.submissions()), file.task.version):
        result = submission.read_result()
        summary = aggregate(
            rows_of(result, board.samples),
            file.protocol,
            dimensions=file.scorer.dimensions,
            system=submission.system.name,
            task=file.task.name,
            task_version=file.task.version or "",
            scorer=file.scorer.name,
            scorer_version=result.scorer.version,
            selection=result.spec.selection.label,
            cost=result.cost.total,
            seconds=result.seconds,
        )
        found.append((submission, result, summary))
    found.sort(key=lambda one: (-_ranking(one[2], file.ranking), one[0].slug))
    ranked = [one for one in found if _ranking(one[2], file.ranking) >= 0]
    pairs = _corrected(
        {(a[0].slug, b[0].slug): _difference(a[1], b[1], board) for a, b in combinations(ranked, 2)}, file.ties
    )
    return BoardFigures(
        board=board,
        systems=tuple(
            BoardSystem(
                submission=submission,
                summary=summary,
                rank=_rank(submission.slug, len(ranked), pairs, file.ties) if place < len(ranked) else None,
                cost=_cost(result),
                seconds=_seconds(result),
            )
            for place, (submission, result, summary) in enumerate(found)
        ),
        pairs=pairs,
    )


def _ranking(summary: Summary, name: str) -> float:
    value = summary.slice().figures[name].value
    return -1.0 if value is None else value


def _difference(a: SubmissionResult, b: SubmissionResult, board: Board) -> PairDifference:
    from scipy.special import ndtr

    comparison = compare(
        rows_of(a, board.samples),
        rows_of(b, board.samples),
        board.file.protocol,
        dimensions=board.file.scorer.dimensions,
        permutations=0,
    )
    figure = comparison.slices[0].figures[board.file.ranking]
    p = None
    if figure.value is not None and figure.standard_error:
        p = float(2 * ndtr(-abs(figure.value) / figure.standard_error))
    return PairDifference(figure.value, figure.low, figure.high, p, None, figure.n, figure.note)


def _corrected(pairs: Mapping[tuple[str, str], PairDifference], ties: TieRule) -> dict[tuple[str, str], PairDifference]:
    tested = [key for key, pair in pairs.items() if pair.p is not None]
    p_values = [pair.p for pair in pairs.values() if pair.p is not None]
    adjusted = dict(zip(tested, holm(p_values) if ties.correction == "holm" else p_values, strict=True))
    return {key: replace(pair, p_corrected=adjusted.get(key)) for key, pair in pairs.items()}


def _rank(slug: str, number: int, pairs: Mapping[tuple[str, str], PairDifference], ties: TieRule) -> RankRange:
    better = worse = 0
    for (a, b), pair in pairs.items():
        if slug in (a, b) and pair.p_corrected is not None and pair.p_corrected <= ties.level and pair.value:
            own = pair.value if slug == b else -pair.value
            worse += own > 0
            better += own < 0
    return RankRange(1 + better, number - worse)


def _cost(result: SubmissionResult) -> float | None:
    costs = [one.cost for sample in result.samples for one in sample.generations if one.image is not None]
    known = [cost for cost in costs if cost is not None]
    return sum(known) / len(known) if costs and len(known) == len(costs) else None


def _seconds(result: SubmissionResult) -> float | None:
    times = [one.seconds for sample in result.samples for one in sample.generations if one.image is not None]
    return median(times) if times else None
