"""The answer of a board in words: who leads, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.text import count
from knowgen.leaderboards.figures import PairDifference
from knowgen.leaderboards.season import SeasonFile
from knowgen.leaderboards.site.view import SiteBoard, SiteSystem, reversed_pair
from knowgen.report.headline import Headline, name_in_sentence
from knowgen.report.numbers import number

MOST_NAMES = 4
"""Maximum number of systems that the answer names; of the others it gives the number."""


def leaders(board: SiteBoard) -> tuple[SiteSystem, ...]:
    """Return the systems that may be the first: those that no other system is shown to be better than."""
    return tuple(one for one in board.ranked if one.figures.rank is not None and one.figures.rank.best == 1)


def board_answer(board: SiteBoard) -> Headline:
    """Return the result of a board in a sentence, with sentences that explain it."""
    ranked, score = board.ranked, board.score
    if not ranked:
        return Headline(f"No system has a result in {score} yet.")
    first = ranked[0]
    figure = first.figure(board.ranking)
    if len(ranked) == 1:
        return Headline(
            f"{name_in_sentence(first.label)} is the only system with a result: {score} {number(figure.value)}."
        )
    second = ranked[1]
    pair = reversed_pair(board.pair(first, second))
    scores = f"{number(figure.value)} against {number(second.figure(board.ranking).value)}"
    support = (
        f"{name_in_sentence(first.label)} and {name_in_sentence(second.label)}: {scores}; {pair_words(board, pair)}."
    )
    if len(leaders(board)) <= 1 and board.differ(pair):
        gap = number(pair.value)
        return Headline(
            f"{name_in_sentence(first.label)} leads {name_in_sentence(second.label)} by {gap} in {score}.", (support,)
        )
    tied = leaders(board)
    between = "between" if len(tied) == 2 else "among"
    named = names([one.label for one in tied]) if len(tied) > 1 else names([first.label, second.label])
    return Headline(f"No clear leader in {score} {between} {named}.", (support,))


def pair_words(board: SiteBoard, pair: PairDifference) -> str:
    """Return a paired difference in words, with interval, test and number of samples."""
    if pair.value is None:
        return f"no paired difference{f': {pair.note}' if pair.note else ''}"
    words = f"paired difference {number(pair.value, signed=True)} on {count(pair.n, 'sample')}"
    if pair.low is None or pair.high is None:
        return f"{words}, without an interval{f': {pair.note}' if pair.note else ''}"
    words += (
        f", 95\N{NO-BREAK SPACE}% interval from {number(pair.low, signed=True)} to {number(pair.high, signed=True)}"
    )
    if pair.p_corrected is None:
        return words
    corrected = correction_words(board)
    return f"{words}, {p_words(pair.p_corrected)}{f' {corrected}' if corrected else ''}"


def verdict(board: SiteBoard, a: SiteSystem, b: SiteSystem) -> str:
    """Return in a few words how b compares with a: better, worse, without a clear difference, or not tested."""
    pair = board.pair(a, b)
    if pair.value is None:
        return "no comparison"
    if board.differ(pair):
        return "better" if pair.value > 0 else "worse"
    return "no clear difference" if pair.p_corrected is not None or pair.value == 0 else "not tested"


def untested(board: SiteBoard, kind: str, part: str) -> str:
    """Return why the ranks of a part say nothing: none of its pairs could be tested; empty if some could."""
    found = board.figures.parts.get((kind, part))
    pairs = list(found.pairs.values()) if found is not None else []
    if not pairs or any(pair.p is not None or pair.value == 0 for pair in pairs):
        return ""
    notes = ", ".join(dict.fromkeys(pair.note for pair in pairs if pair.note))
    return f"No two systems can be tested here{f' ({notes})' if notes else ''}: their order may be chance."


def without_figure(system: SiteSystem, ranking: str) -> str:
    """Return why a system has no ranking figure; empty if it has one."""
    if system.summary.no_result:
        return system.summary.no_result
    figure = system.figure(ranking)
    if figure.value is not None:
        return ""
    reasons = (note.partition(": ")[2] for note in system.summary.notes if note.startswith("no "))
    return next(filter(None, reasons), figure.note or "no value")


def season_words(season: SeasonFile) -> str:
    """Return the state of a private season with its days, and what it means for readers."""
    head = f"A private season of {count(season.samples, 'sample')}"
    if season.revealed is not None:
        return (
            f"{head}, closed on {season.closed} and revealed on {season.revealed.date}: anybody can build its world "
            "again and compare everything with knowgen board season verify."
        )
    hidden = "Images, prompts and rationales of the submissions are published when it is revealed."
    if season.closed is not None:
        return f"{head}, closed on {season.closed} and not yet revealed: it takes no more submissions. {hidden}"
    days = [f"{word} {day}" for word, day in (("from", season.opens), ("to", season.closes)) if day]
    announced = f", announced {' '.join(days)}" if days else ""
    return f"{head}, open{announced}: figures may change. {hidden}"


def p_words(p: float) -> str:
    """Return a p-value, such as `p = 0.032` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def correction_words(board: SiteBoard) -> str:
    """Return how p-values are corrected, such as `(corrected for 3 pairs)`; empty if they are not."""
    number_of = sum(pair.p is not None for pair in board.figures.pairs.values())
    return f"(corrected for {count(number_of, 'pair')})" if board.board.file.ties.correction == "holm" else ""


def tie_words(board: SiteBoard) -> str:
    """Return the tie rule of a board in words."""
    ties = board.board.file.ties
    how = ", corrected for all pairs of the board by Holm's method" if ties.correction == "holm" else ""
    return (
        f"Two systems count as different if the p-value of the paired test of their {board.score}{how}, is at most "
        f"{ties.level:g}. The rank of a system runs from 1 + the number of systems that are better to the number of "
        "systems minus those that are worse: ranges of systems that do not differ overlap."
    )


def names(labels: Sequence[str]) -> str:
    """Return labels in a sentence, of many only the first."""
    shown = [name_in_sentence(label) for label in labels]
    if len(shown) > MOST_NAMES:
        rest = len(shown) - MOST_NAMES + 1
        shown = [*shown[: MOST_NAMES - 1], f"{rest} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
