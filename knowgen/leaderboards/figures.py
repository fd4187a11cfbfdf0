"""All figures of a board: a summary of each system, the paired differences, and the range of ranks of each system.

Everything is computed again from the scores of single samples. Figures depend on the files of the board alone: not on
the order in which they are listed, nor on the number of processes. They are rounded to 10 decimals where the last digit
may depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from statistics import median

from knowgen.core.errors import DataError
from knowgen.core.steps import counted
from knowgen.leaderboards.folder import BOARD_FILE, RESULT_FILE, Board, Submission
from knowgen.leaderboards.records import SubmissionResult, TieRule
from knowgen.leaderboards.rows import rows_of
from knowgen.stats.aggregate import aggregate
from knowgen.stats.compare.all_pairs import PairedFigure, PairedSubset, all_pairs
from knowgen.stats.compare.holm import holm
from knowgen.stats.intervals import DECIMALS
from knowgen.stats.protocol import ScoringProtocol, get_protocol
from knowgen.stats.summary import OVERALL, Summary
from knowgen.stats.values import Values, plain_mean, read_values

WHOLE = ("all", "")
"""Kind and name of the whole among the parts of a board."""


@dataclass(frozen=True)
class RankRange:
    """The ranks that a system may have: from 1 + the number of systems that are better, down to the number of systems
    minus those that are worse. Systems that do not differ share ranks; so may systems that do, which `pairs` shows.
    """

    best: int
    worst: int


@dataclass(frozen=True)
class PairDifference:
    """The paired difference b - a of a figure of two systems, over the samples for which both have a score.

    Attributes:
        value: Difference, in [-1, 1]; None without one.
        low: Lower end of its 95 % interval; None without an interval.
        high: Upper end of the interval.
        p: Two-sided p-value of the t-test that belongs to the interval, or of the sign test where the differences vary
            too little for an interval; None without a test. Rounded to 10 decimals.
        p_corrected: The same, corrected for all pairs as the board's tie rule says.
        n: Number of samples that both have.
        note: Reason for a missing value or interval; empty otherwise.
        test: `t`, `sign`, or empty without a test.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    n: int = 0
    note: str = ""
    test: str = ""

    def differs(self, ties: TieRule) -> bool:
        """Return whether the two systems count as different under the board's tie rule."""
        return bool(self.value) and self.p_corrected is not None and self.p_corrected <= ties.level


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
class BoardPart:
    """Ranks and differences by the ranking figure on a part of the samples.

    Attributes:
        order: Systems with a value, the best first, by `Submission.slug`.
        ranks: Range of the ranks of each of them.
        pairs: Difference b - a for each pair (a, b) of them, with a before b on the whole board. Their p-values are
            corrected for the pairs of this part.
    """

    order: tuple[str, ...]
    ranks: Mapping[str, RankRange]
    pairs: Mapping[tuple[str, str], PairDifference]


@dataclass(frozen=True)
class BoardFigures:
    """All figures of a board.

    Attributes:
        board: The board.
        systems: Systems with a result by the ranking figure, the best first; then those without one. Systems of the
            same figure are ordered by folder.
        pairs: Paired difference b - a of the ranking figure for each pair of systems (a, b), by `Submission.slug`,
            with a ranked before b.
        parts: Ranks and differences by the ranking figure on each part, by kind and name: the whole (`WHOLE`), then
            groups, categories and difficulties.
        by_figure: Like `pairs` for each dimension and `overall`. The p-values of each are corrected for its own pairs.
    """

    board: Board
    systems: tuple[BoardSystem, ...]
    pairs: Mapping[tuple[str, str], PairDifference]
    parts: Mapping[tuple[str, str], BoardPart]
    by_figure: Mapping[str, Mapping[tuple[str, str], PairDifference]]


def board_protocol(board: Board) -> ScoringProtocol:
    """Return the scoring protocol of a board, with the board's minimum coverage.

    Raises:
        DataError: The board names another version of its arithmetic than this one.
    """
    file, protocol = board.file, get_protocol(board.file.protocol)
    if file.protocol_version != protocol.version:
        raise DataError(
            f"protocol_version: the board has {file.protocol_version!r}, but this version of knowgen computes "
            f"{protocol.version!r} of {file.protocol}",
            where=str(board.path / BOARD_FILE),
            fix="use the version of knowgen that the board was made with, or state this one and check all submissions",
        )
    return protocol.model_copy(update={"min_coverage": file.min_coverage})


def _check_ranking(board: Board) -> None:
    known = (OVERALL, *board.file.scorer.dimensions)
    if board.file.ranking not in known:
        raise DataError(
            f"ranking: {board.file.ranking!r} is not a figure of the board",
            where=str(board.path / BOARD_FILE),
            fix=f"choose one of {', '.join(known)}",
        )


def current(submissions: Sequence[Submission], version: str | None = None) -> list[Submission]:
    """Return the current revision of each system: the latest one that is not withdrawn, by the creation of its run.

    Args:
        submissions: Submissions of a board.
        version: Version of the board's task; revisions of another one are not current. Any version if None.

    Raises:
        DataError: A file is missing or not valid.
    """
    revisions: dict[str, list[Submission]] = {}
    for each in counted(submissions, "choosing revisions"):
        if each.withdrawal is None and version in (None, each.stated.task_version):
            revisions.setdefault(each.slug, []).append(each)
    return [own[0] if len(own) == 1 else max(own, key=_creation) for _, own in sorted(revisions.items())]


def _creation(submission: Submission) -> tuple[datetime, str]:
    created = submission.stated.created
    try:
        moment = datetime.fromisoformat(created)
    except ValueError as error:
        where = str(submission.path / RESULT_FILE)
        raise DataError(f"created: {created!r} is not a time", where=where, fix="write ISO 8601 in UTC") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), submission.revision


def board_figures(board: Board, *, processes: int = 1) -> BoardFigures:
    """Compute all figures of a board from its files.

    Args:
        board: The board.
        processes: Number of processes that read submissions; with 1 it is this process. They are started afresh
            (`spawn`), so that a script that asks for several needs `if __name__ == "__main__"`.

    Raises:
        DataError: A file of the board is missing or not valid.
    """
    file, protocol = board.file, board_protocol(board)
    _check_ranking(board)
    computed = _computed_systems(board, current(list(board.submissions()), file.task.version), processes)
    computed.sort(key=lambda one: (one.value is None, -(one.value or 0.0), one.submission.slug))
    ranked = [one for one in computed if one.value is not None]
    slugs = [one.submission.slug for one in ranked]
    values = [one.values for one in ranked]
    dimensions = file.scorer.dimensions
    parts = {
        (part.kind, part.name): _part_figures(part, slugs, ranked, board)
        for part in all_pairs(values, protocol, dimensions, file.ranking)
    }
    whole = parts.get(WHOLE, BoardPart((), {}, {}))
    others = (name for name in (*dimensions, OVERALL) if name != file.ranking)
    by_figure = {
        name: _differences(all_pairs(values, protocol, dimensions, name, parts=False)[0], slugs, file.ties)
        for name in others
    }
    return BoardFigures(
        board=board,
        systems=tuple(
            BoardSystem(one.submission, one.summary, whole.ranks.get(one.submission.slug), one.cost, one.seconds)
            for one in computed
        ),
        pairs=whole.pairs,
        parts=parts,
        by_figure={name: by_figure.get(name, whole.pairs) for name in (*dimensions, OVERALL)},
    )


@dataclass(frozen=True)
class _Computed:
    """What a process returns for a system.

    Attributes:
        value: The ranking figure; None without a result.
        values: Values of its samples.
    """

    submission: Submission
    summary: Summary
    value: float | None
    values: Values
    cost: float | None
    seconds: float | None


def _computed_systems(board: Board, submissions: Sequence[Submission], processes: int) -> list[_Computed]:
    if not submissions:
        return []
    board.samples  # noqa: B018 - read once and sent to all processes
    compute = partial(_compute, board)
    with _mapped(min(processes, len(submissions))) as pool:
        computed = pool.map(compute, submissions) if pool is not None else map(compute, submissions)
        return list(counted(computed, f"reading submissions of {board.name}", len(submissions)))


@contextmanager
def _mapped(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    if processes <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _compute(board: Board, submission: Submission) -> _Computed:
    """Read a submission, and compute its figures."""
    file, result, protocol = board.file, submission.read_result(), board_protocol(board)
    name = submission.system.name
    try:
        rows = list(rows_of(result, board.samples))
        values = read_values(rows, protocol, file.scorer.dimensions)
        summary = aggregate(
            rows,
            protocol,
            dimensions=file.scorer.dimensions,
            system=name,
            task=file.task.name,
            task_version=file.task.version or "",
            scorer=file.scorer.name,
            scorer_version=result.scorer.version,
            selection=result.spec.selection.label,
            cost=result.cost.total,
            seconds=result.seconds,
        )
    except DataError as error:
        where = ", ".join(filter(None, (str(submission.path / RESULT_FILE), error.where)))
        raise DataError(error.what, where=where, fix=error.fix) from error
    value = summary.slice().figures[file.ranking].value
    return _Computed(
        submission=submission,
        summary=summary,
        value=None if value is None or summary.no_result else round(value, DECIMALS),
        values=values,
        cost=_cost(result),
        seconds=_seconds(result),
    )


def _part_figures(part: PairedSubset, slugs: Sequence[str], ranked: Sequence[_Computed], board: Board) -> BoardPart:
    ties, figure = board.file.ties, board.file.ranking
    found: dict[str, float] = {}
    for one in ranked:
        value = one.summary.slice(part.kind, part.name).figures[figure].value
        if value is not None:
            found[one.submission.slug] = round(value, DECIMALS)
    pairs = {key: pair for key, pair in _differences(part, slugs, ties).items() if key[0] in found and key[1] in found}
    order = tuple(sorted(found, key=lambda slug: (-found[slug], slug)))
    return BoardPart(order, rank_ranges(order, pairs, ties), pairs)


def _differences(part: PairedSubset, slugs: Sequence[str], ties: TieRule) -> dict[tuple[str, str], PairDifference]:
    """Return the differences of a part by name, with p-values that are corrected for all of its tested pairs."""
    tested = [key for key, pair in part.pairs.items() if pair.p is not None]
    p_values = [pair.p for pair in part.pairs.values() if pair.p is not None]
    adjusted = holm(p_values) if ties.correction == "holm" else p_values
    corrected = dict(zip(tested, adjusted, strict=True))
    return {(slugs[a], slugs[b]): _difference(pair, corrected.get((a, b))) for (a, b), pair in part.pairs.items()}


def _difference(pair: PairedFigure, corrected: float | None) -> PairDifference:
    return PairDifference(
        value=None if pair.value is None else round(pair.value, DECIMALS),
        low=pair.low,
        high=pair.high,
        p=pair.p,
        p_corrected=None if corrected is None else round(corrected, DECIMALS),
        n=pair.n,
        note=pair.note,
        test=pair.test,
    )


def rank_ranges(
    systems: Sequence[str], pairs: Mapping[tuple[str, str], PairDifference], ties: TieRule
) -> dict[str, RankRange]:
    """Return the range of ranks of each system.

    Args:
        systems: All systems that are ranked.
        pairs: Difference b - a for each pair (a, b) of them.
        ties: When two systems count as different.

    Example:
        >>> apart = PairDifference(value=0.3, p_corrected=0.001)
        >>> rank_ranges(["old", "new"], {("old", "new"): apart}, TieRule())
        {'old': RankRange(best=2, worst=2), 'new': RankRange(best=1, worst=1)}
    """
    better, worse = dict.fromkeys(systems, 0), dict.fromkeys(systems, 0)
    for (a, b), pair in pairs.items():
        if pair.value is not None and pair.differs(ties):
            above, below = (b, a) if pair.value > 0 else (a, b)
            better[below] += 1
            worse[above] += 1
    return {name: RankRange(1 + better[name], len(systems) - worse[name]) for name in systems}


def _cost(result: SubmissionResult) -> float | None:
    costs = [one.cost for sample in result.samples for one in sample.generations if one.image is not None]
    known = [cost for cost in costs if cost is not None]
    return round(plain_mean(known), DECIMALS) if costs and len(known) == len(costs) else None


def _seconds(result: SubmissionResult) -> float | None:
    times = [one.seconds for sample in result.samples for one in sample.generations if one.image is not None]
    known = [time for time in times if time is not None]
    return round(median(known), DECIMALS) if times and len(known) == len(times) else None
