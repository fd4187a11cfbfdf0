"""What the labels of some folders say: progress of each rater, and a board of systems from comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from knowgen.core.errors import DataError
from knowgen.core.records import Record
from knowgen.core.text import count
from knowgen.labelling.export import matched_labels
from knowgen.labelling.items import LabelPlan
from knowgen.labelling.label_files import current_labels, rater_key, read_folders
from knowgen.labelling.records import StoredLabel
from knowgen.report.agreement_tables import with_ends
from knowgen.report.text_table import NONE, TextTable
from knowgen.stats.agreement.measures import joint_alphas, pair_agreements
from knowgen.stats.agreement.records import PairAgreement
from knowgen.stats.bradley_terry import Judgement, Strengths, strengths
from knowgen.stats.summary import Figure

PREFERENCE = "preference"
"""Name of the one dimension in which comparisons agree or not: 1, 0.5 or 0 for the first system by name."""

_POINTS = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}


class RaterOverview(Record):
    """What one rater did.

    Attributes:
        rater: Name.
        ratings: Number of rated images.
        comparisons: Number of compared pairs.
        skipped: Number of images and pairs that were skipped.
        seconds: Median time for an answer; None without one.
    """

    rater: str
    ratings: int = 0
    comparisons: int = 0
    skipped: int = 0
    seconds: float | None = None


class LabelOverview(Record):
    """All labels of some folders.

    Attributes:
        task: Name of the task.
        task_version: Its version.
        raters: What each rater did.
        board: Strengths of the systems; None without comparisons.
        left: Share of decided comparisons in which the left image was preferred: without a bias of position, 0.5.
        ties: Number of ties, without those that are both bad.
        both_bad: Number of comparisons of which both images are bad; they count as ties.
        agreement: Agreement of each two raters on the pairs that both compared.
        together: Krippendorff's alpha of all raters; None for fewer than three.
        notes: What was left out, and caveats.
    """

    task: str
    task_version: str
    raters: tuple[RaterOverview, ...]
    board: Strengths | None = None
    left: Figure = Figure()
    ties: int = 0
    both_bad: int = 0
    agreement: tuple[PairAgreement, ...] = ()
    together: Figure | None = None
    notes: tuple[str, ...] = ()


def overview(folders: Sequence[Path], plans: Sequence[LabelPlan] = ()) -> LabelOverview:
    """Return what the labels of one or more folders say.

    Args:
        folders: Folders of labels.
        plans: What can be labelled in some runs: only labels of their images count, with the names that systems have
            there. All labels count, with the names that were stored, if there is none.

    Raises:
        DataError: A folder has no labels, a file is damaged, or the labels are of several task versions.
    """
    labels, notes = _labels(folders, plans)
    tasks = sorted({(one.task, one.task_version) for one in labels})
    where = ", ".join(str(each) for each in folders)
    if not tasks:
        what = "no label is of the images of the runs" if plans else "every label was withdrawn"
        raise DataError(what, where=where, fix="label something first")
    if len(tasks) > 1:
        names = " and ".join(f"{name} {version}" for name, version in tasks)
        raise DataError(f"labels of several tasks: {names}", where=where, fix="keep a folder for each task")
    compared = _one_question([one for one in labels if one.mode == "pairs" and not one.skipped], notes)
    found = LabelOverview(
        task=tasks[0][0],
        task_version=tasks[0][1],
        raters=tuple(_rater(key, labels) for key in sorted({rater_key(one.rater) for one in labels})),
        notes=tuple(notes),
    )
    return found.model_copy(update=_board(compared)) if compared else found


def _labels(folders: Sequence[Path], plans: Sequence[LabelPlan]) -> tuple[list[StoredLabel], list[str]]:
    """Return the labels that count, and notes on what was left out."""
    if not plans:
        read = read_folders(folders)
        return current_labels(read.labels), list(read.notes)
    labels: list[StoredLabel] = []
    notes: dict[str, None] = {}
    for plan in plans:
        matched = matched_labels(plan, folders)
        notes |= dict.fromkeys(matched.notes)
        for label, item in matched.labels:
            labels.append(label.model_copy(update={"systems": tuple(one.system for one in item.images)}))
    return labels, [*notes]


def _one_question(labels: Sequence[StoredLabel], notes: list[str]) -> list[StoredLabel]:
    """Return the answers to the question that was answered last; answers to another wording are not mixed with them.

    Of one image that was replaced, only the answers about the newest are kept.
    """
    if not labels:
        return []
    question = max(labels, key=lambda one: one.at).question
    newest: dict[tuple[str, int, str], tuple[str, str]] = {}
    for label in sorted(labels, key=lambda one: one.at):
        for system, image in zip(label.systems, label.images, strict=True):
            newest[label.sample, label.repeat, system] = (image, label.at)
    kept = [
        one
        for one in labels
        if one.question == question
        and all(
            newest[one.sample, one.repeat, name][0] == image
            for name, image in zip(one.systems, one.images, strict=True)
        )
    ]
    if len(kept) < len(labels):
        notes.append(
            f"{len(labels) - len(kept)} comparisons of images that were replaced, or with another question: left out"
        )
    return kept


def _rater(key: str, labels: Sequence[StoredLabel]) -> RaterOverview:
    mine = [one for one in labels if rater_key(one.rater) == key]
    answered = [one for one in mine if not one.skipped]
    return RaterOverview(
        rater=mine[0].rater,
        ratings=sum(one.mode == "rate" for one in answered),
        comparisons=sum(one.mode == "pairs" for one in answered),
        skipped=len(mine) - len(answered),
        seconds=median(one.seconds for one in answered) if answered else None,
    )


def _board(labels: Sequence[StoredLabel]) -> dict[str, object]:
    judgements = [
        Judgement(one.sample, rater_key(one.rater), one.systems[0], one.systems[1], _POINTS[one.choice])
        for one in labels
    ]
    ratings: dict[str, dict[tuple[str, str, int], dict[str, float]]] = {}
    for one in labels:
        first, second = one.systems
        points = _POINTS[one.choice]
        pair = (f"{first} and {second}" if first < second else f"{second} and {first}", one.sample, one.repeat)
        ratings.setdefault(one.rater, {})[pair] = {PREFERENCE: points if first < second else 1 - points}
    ratings = dict(sorted(ratings.items()))
    rated = dict.fromkeys(ratings, (PREFERENCE,))
    return {
        "board": strengths(judgements),
        "left": _share_of_left(labels),
        "ties": sum(one.choice == "tie" for one in labels),
        "both_bad": sum(one.choice == "both_bad" for one in labels),
        "agreement": tuple(pair_agreements(ratings, rated)),
        "together": joint_alphas(ratings, rated).get(PREFERENCE),
    }


def _share_of_left(labels: Sequence[StoredLabel]) -> Figure:
    """Return the share of decided comparisons won by the left image, with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    decided = [one.choice == "left" for one in labels if one.choice in ("left", "right")]
    if not decided:
        return Figure(note="no decided comparison")
    ends = binomtest(sum(decided), len(decided)).proportion_ci(0.95, method="wilson")
    share = sum(decided) / len(decided)
    return Figure(value=share, low=float(ends.low), high=float(ends.high), n=len(decided))


# -- tables ------------------------------------------------------------------------------------------------------------


def overview_tables(found: LabelOverview) -> list[TextTable]:
    """Return the tables of an overview: board, agreement and raters."""
    tables = []
    if found.board is not None:
        tables.append(_board_table(found, found.board))
        if found.agreement:
            tables.append(_agreement_table(found))
    tables.append(_rater_table(found))
    return tables


def _board_table(found: LabelOverview, board: Strengths) -> TextTable:
    rows = [
        [
            one.system,
            NONE if one.best_rank is None else _ranks(one.best_rank, one.worst_rank or one.best_rank),
            NONE if one.strength is None else f"{one.strength:+.2f}",
            NONE if one.low is None or one.high is None else f"[{one.low:+.2f}, {one.high:+.2f}]",
            f"{100 * (one.wins + one.ties / 2) / one.comparisons:.0f} %",
            *(str(each) for each in (one.wins, one.ties, one.comparisons - one.wins - one.ties)),
            str(one.comparisons),
            str(one.samples),
            one.note,
        ]
        for one in board.systems
    ]
    head = ["system", "rank", "strength", "95 %", "points", "won", "tied", "lost", "n", "samples", "note"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [
        f"{board.comparisons} comparisons of {board.samples} samples by {len(found.raters)} "
        f"rater{'s' if len(found.raters) != 1 else ''}; {count(found.ties, 'tie')}, "
        f"{found.both_bad} both bad (counted as ties)",
        "strength: Bradley-Terry, natural log scale, mean 0, a tie is half a win; "
        f"intervals over {board.basis}; ranks by differences at 5 % after Holm",
        _position(found.left),
    ]
    if board.reason:
        lines.insert(0, f"no strengths: {board.reason}; compare more pairs")
    return TextTable(f"{found.task} {found.task_version}", head, rows, frozenset({0, 10}), lines)


def _ranks(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best}-{worst}"


def _position(left: Figure) -> str:
    if left.value is None or left.low is None or left.high is None:
        return f"left image preferred: {NONE} ({left.note})"
    biased = "" if left.low <= 0.5 <= left.high else ": a bias of position"
    ends = f"[{100 * left.low:.0f}, {100 * left.high:.0f}]"
    return f"left image preferred: {100 * left.value:.0f} % {ends} of {left.n} decided{biased}"


def _agreement_table(found: LabelOverview) -> TextTable:
    rows = []
    for pair in found.agreement:
        one = pair.dimensions[PREFERENCE]
        share = NONE if one.exact.value is None else f"{100 * one.exact.value:.0f} %"
        notes = dict.fromkeys(figure.note for figure in (one.exact, one.kappa, one.alpha) if figure.note)
        both = f"{pair.first} and {pair.second}"
        rows.append([both, share, with_ends(one.kappa), with_ends(one.alpha), str(one.exact.n), "; ".join(notes)])
    lines = ["kappa: Cohen's, quadratic weights; alpha: Krippendorff's, interval metric; [95 % interval by sample]"]
    if found.together is not None:
        lines.insert(0, f"all raters together: alpha {with_ends(found.together)}, n = {found.together.n}")
    head = ["raters", "same choice", "kappa", "alpha", "n", "note"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return TextTable("Agreement on pairs", head, rows, frozenset({0, 5}), lines)


def _rater_table(found: LabelOverview) -> TextTable:
    rows = [
        [
            one.rater,
            str(one.ratings),
            str(one.comparisons),
            str(one.skipped),
            NONE if one.seconds is None else f"{one.seconds:.1f} s",
        ]
        for one in found.raters
    ]
    head = ["rater", "images rated", "pairs compared", "skipped", "median time"]
    title = "Raters" if found.board is not None else f"Raters of {found.task} {found.task_version}"
    return TextTable(title, head, rows, lines=[f"note: {note}" for note in found.notes])
