"""Headline of the page: which system leads, by how much, and with which interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.core.records import DIMENSIONS
from knowgen.report.numbers import number
from knowgen.report.tables import refusal_words
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.compare.systems import compare
from knowgen.stats.coverage import HOW_TO_CONTINUE, no_result, share_words
from knowgen.stats.protocol import get_protocol
from knowgen.stats.summary import OVERALL, Figure, Summary, is_part

SURE = "95\N{NO-BREAK SPACE}%"
LONGEST_NAME = 48
TURNING = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200f"
OPENING = "\u2066\u2067\u2068"
"""Characters that open an isolate."""

ISOLATE, END_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"


@dataclass(frozen=True)
class Headline:
    """First sentences of the page.

    Attributes:
        sentence: The result in one sentence.
        support: Further sentences that explain it.
    """

    sentence: str
    support: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeadDifference:
    """A paired difference between the first and the second system, first minus second.

    Attributes:
        value: Difference of the headline figures.
        low: Lower end of its 95 % interval.
        high: Upper end of the interval.
        n: Number of samples that both have.
        worse_on: Ids of the samples on which the first system is below the second, the largest difference first.
    """

    value: float
    low: float
    high: float
    n: int
    worse_on: tuple[str, ...] = ()


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def score_words(dimensions: Sequence[str]) -> str:
    """Return `K-Score` for the four KnowGen dimensions and `overall score` for any others."""
    return "K-Score" if tuple(dimensions) == DIMENSIONS else "overall score"


def ranked(systems: Sequence[ReportSystem], view: ReportView) -> list[ReportSystem]:
    """Return the systems that may be ranked, best first: those with a result that do not see the ground truth."""
    eligible = [system for system in systems if not system.privileged and _figure(system, view).value is not None]
    return sorted(eligible, key=lambda system: -(_figure(system, view).value or 0.0))


def _figure(system: ReportSystem, view: ReportView) -> Figure:
    summary = view.summaries[system.index]
    return summary.headline if summary is not None and not summary.no_result else Figure()


def differences(summaries: Sequence[Summary]) -> list[str]:
    """Return the properties in which summaries differ, so that they cannot be ranked."""
    names = {
        "task": "task",
        "task_version": "task version",
        "selection": "selection of samples",
        "scorer_version": "version of the scorer",
        "protocol_version": "version of the protocol",
        "dimensions": "dimensions",
    }
    return [words for name, words in names.items() if len({str(getattr(one, name)) for one in summaries}) > 1]


def answer(systems: Sequence[ReportSystem], view: ReportView, lead: LeadDifference | None) -> Headline:
    """Return the headline of a view.

    Args:
        systems: All systems of the page.
        view: Scorer and protocol.
        lead: Paired difference of the two best systems; None if there is none, and their intervals are compared.
    """
    order, name = ranked(systems, view), score_words(view.dimensions)
    support = (*_without_result(systems, view), *_refused(systems, view), *_parts(systems, view))
    support = (*support, *_privileged(systems, view))
    missing = _without_scores(systems, view)
    if not order and missing:
        reasons = "; ".join(why if len(systems) == 1 else f"{_name(one)}: {why}" for one, why in missing)
        return Headline(
            f"{no_result(reasons)}.",
            (_how_to_continue(view), *_published(view), *_refused(systems, view), *_privileged(systems, view)),
        )
    if not order:
        return Headline(f"No system has {_article(name)} {name} yet.", support)
    if len(order) == 1:
        figure = _figure(order[0], view)
        return Headline(
            f"{_name(order[0])} reaches {_article(name)} {name} of {number(figure.value)}.",
            (_interval_sentence(figure), *support),
        )
    clash = differences([summary for system in order if (summary := view.summaries[system.index]) is not None])
    if clash:
        reason = f"They differ in {_join(clash)}, so a higher figure does not mean a better system."
        return Headline("These runs cannot be ranked.", (reason, *support))
    sentence, how = _two(order[0], order[1], view, lead, name)
    return Headline(sentence, (how, *support))


def _two(
    first: ReportSystem, second: ReportSystem, view: ReportView, lead: LeadDifference | None, name: str
) -> tuple[str, str]:
    a, b = _figure(first, view), _figure(second, view)
    scores = f"{number(a.value)} against {number(b.value)}"
    if lead is not None:
        clear, how = lead.low > 0, _paired(lead)
    else:
        clear = a.low is not None and b.high is not None and a.low > b.high
        how = f"their {SURE} intervals do not overlap" if clear else f"their {SURE} intervals overlap or are not known"
    support = f"{scores}; {how}."
    if clear:
        gap = number((a.value or 0.0) - (b.value or 0.0))
        return f"{_name(first)} leads {_name(second)} by {gap} in {name}.", support
    return f"No clear leader in {name} between {_name(first)} and {_name(second)}.", support


def _paired(lead: LeadDifference) -> str:
    low, high = number(lead.low, signed=True), number(lead.high, signed=True)
    return (
        f"on the {lead.n} samples for which both have a figure, the paired difference is "
        f"{number(lead.value, signed=True)} with a {SURE} interval from {low} to {high}"
    )


def _without_scores(systems: Sequence[ReportSystem], view: ReportView) -> list[tuple[ReportSystem, str]]:
    """Return the systems with too few scores for a result, each with the reason."""
    summaries = [(system, view.summaries[system.index]) for system in systems]
    return [(system, summary.no_result) for system, summary in summaries if summary is not None and summary.no_result]


def _how_to_continue(view: ReportView) -> str:
    needed = share_words(get_protocol(view.protocol).min_coverage)
    return f"A result needs at least {needed} of the scores: {HOW_TO_CONTINUE}."


def _without_result(systems: Sequence[ReportSystem], view: ReportView) -> tuple[str, ...]:
    sentences = [f"{_name(one)} has no result: {why}." for one, why in _without_scores(systems, view)]
    return (*sentences, _how_to_continue(view)) if sentences else ()


def _published(view: ReportView) -> tuple[str, ...]:
    """Return a sentence if partial figures of the published arithmetic are shown."""
    shown = [one for one in view.summaries if one is not None and one.no_result and one.headline.value is not None]
    return ("The figures below are partial: the published arithmetic over the existing scores.",) if shown else ()


def _refused(systems: Sequence[ReportSystem], view: ReportView) -> tuple[str, ...]:
    """Return a sentence for each system with scores that the judge refused: how far they could move its figure."""
    summaries = [(one, view.summaries[one.index]) for one in systems]
    return tuple(
        f"{_name(one)}: {refusal_words(summary.refused)}."
        for one, summary in summaries
        if summary is not None and summary.refused is not None
    )


def _parts(systems: Sequence[ReportSystem], view: ReportView) -> tuple[str, ...]:
    """Return a sentence for each system that ran on only a part of the task."""
    summaries = [(one, view.summaries[one.index]) for one in systems]
    return tuple(
        f"{_name(one)} ran on only a part of the task ({summary.selection})."
        for one, summary in summaries
        if summary is not None and is_part(summary.selection)
    )


def _privileged(systems: Sequence[ReportSystem], view: ReportView) -> tuple[str, ...]:
    seeing = [_name(one) for one in systems if one.privileged and view.summaries[one.index] is not None]
    if not seeing:
        return ()
    sees = "sees the ground truth and is" if len(seeing) == 1 else "see the ground truth and are"
    return (f"{_join(seeing)} {sees} not ranked.",)


def name_in_sentence(label: str) -> str:
    """Return a label for use in a sentence: shortened, and isolated if it has characters that change text direction."""
    short = label if len(label) <= LONGEST_NAME else f"{label[:LONGEST_NAME]}…"
    return _isolated(short) if any(letter in TURNING for letter in short) else short


def _isolated(text: str) -> str:
    """Isolate a text; ends without a beginning are left out, and isolates that it leaves open are ended."""
    kept, depth = [], 0
    for letter in text:
        if letter == END_ISOLATE and not depth:
            continue
        depth += (letter in OPENING) - (letter == END_ISOLATE)
        kept.append(letter)
    return f"{ISOLATE}{''.join(kept)}{END_ISOLATE * (depth + 1)}"


def _name(system: ReportSystem) -> str:
    return name_in_sentence(system.label)


def _interval_sentence(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"From {figure.n} samples; no interval{f': {figure.note}' if figure.note else ''}."
    return f"{SURE} interval {number(figure.low)} to {number(figure.high)}, from {figure.n} samples."


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def lead_of(systems: Sequence[ReportSystem], view: ReportView) -> LeadDifference | None:
    """Compare the two best systems of a view over their common samples.

    Returns:
        The difference, best minus second; None without a second system, the runs cannot be compared, or there are
        too few samples for an interval.
    """
    order = ranked(systems, view)[:2]
    if len(order) < 2 or differences(_summaries(order, view)):
        return None
    best, second = order
    comparison = compare(
        second.run.store.rows(view.scorer),
        best.run.store.rows(view.scorer),
        view.protocol,
        dimensions=view.dimensions,
        permutations=0,  # only the interval is shown
        a_name=second.label,
        b_name=best.label,
    )
    figure = comparison.slices[0].figures[OVERALL]
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return LeadDifference(figure.value, figure.low, figure.high, figure.n, comparison.worse_on)


def _summaries(order: Sequence[ReportSystem], view: ReportView) -> list[Summary]:
    return [summary for system in order if (summary := view.summaries[system.index]) is not None]
