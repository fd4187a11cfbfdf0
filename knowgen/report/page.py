"""Render the page: compute everything that the templates show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from knowgen.core.spec import canonical
from knowgen.core.text import count
from knowgen.report import agent_tables, numbers
from knowgen.report.gallery import STATE_WORDS, Gallery, Spending
from knowgen.report.headline import Headline, LeadDifference, answer, ranked, score_words
from knowgen.report.image_files import ShownImage
from knowgen.report.method import citation, definitions, provenance
from knowgen.report.output import GENERATOR, LEFT_OUT, PageOutput
from knowgen.report.search_effect import SearchEffect
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.agent_figures import AgentFigures
from knowgen.stats.protocol import counting_words, counts_as, get_protocol
from knowgen.stats.summary import OVERALL, Coverage, Figure, Summary

PART_KINDS = {
    "group": "Groups", "difficulty": "Difficulty", "category": "Categories", "judge": "Judges", "answer": "Answers"
}  # fmt: skip
FILTERED = ("group", "difficulty", "category")
"""Kinds of parts the gallery can filter by."""

MAX_PROBLEMS = 60

MAX_WORSE = 8
"""Maximum number of samples that are named as those on which the first system is below the second."""


@dataclass(frozen=True)
class FigureDot:
    """A figure of one system with its link."""

    system: ReportSystem
    figure: Figure
    link: str


@dataclass(frozen=True)
class FigureGroup:
    """A group, category or difficulty with the figures of all systems; `samples` is n, or its range over systems."""

    name: str
    samples: str
    link: str
    dots: tuple[FigureDot | None, ...]


@dataclass(frozen=True)
class HeadlineRow:
    """Row of a system in the headline table."""

    system: ReportSystem
    summary: Summary
    headline: FigureDot
    dimensions: tuple[FigureDot, ...]
    coverage: Coverage
    states: tuple[tuple[str, str, int, str], ...]


@dataclass(frozen=True)
class ScorerPanel:
    """Content of the page for one scorer and protocol; `fit` is whether any system is fit for a leaderboard,
    `failures` the number of failures of all systems.
    """

    view: ReportView
    answer: Headline
    score: str
    lines: tuple[HeadlineRow, ...]
    absent: tuple[ReportSystem, ...]
    measures: tuple[tuple[str, str, tuple[FigureDot, ...]], ...]
    parts: tuple[tuple[str, str, tuple[tuple[str, tuple[FigureGroup, ...]], ...]], ...]
    fit: bool
    failures: int
    notes: tuple[tuple[str, str], ...]
    effect: SearchEffect | None
    worse_on: tuple[tuple[str, str], ...]
    more_worse: int
    selections: tuple[str, ...]
    counting: str
    problems: tuple[dict[str, Any], ...]
    hidden_problems: int


def link(view: ReportView, **chosen: str | None) -> str:
    """Return the address of the samples that a number is computed from."""
    pairs = {
        **{name: value for name, value in chosen.items() if value is not None},
        "scorer": view.scorer,
        "protocol": view.protocol,
    }
    return "#samples?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())


def environment(package: str = "knowgen.report") -> Environment:
    """Return an environment for the templates of a package: values are escaped and unknown names are errors."""
    templates = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        number=numbers.number, interval=numbers.interval, position=numbers.position, money=numbers.money,
        duration=numbers.duration, in_words=numbers.in_words, canonical=canonical,
    )  # fmt: skip
    templates.globals.update(alt_text=numbers.alt_text, share=numbers.share, missing=numbers.missing, OVERALL=OVERALL)
    return templates


def render(
    output: PageOutput,
    systems: Sequence[ReportSystem],
    views: Sequence[ReportView],
    collected: Gallery,
    entries: int,
    shown: Mapping[str, ShownImage],
    leads: Mapping[int, LeadDifference],
    effects: Mapping[int, SearchEffect | None],
) -> str:
    """Return the HTML of the page.

    Args:
        output: Where the page goes.
        systems: Runs of the page.
        views: Scorers and protocols.
        collected: Results of single samples.
        entries: How many of them the page has.
        shown: Image files by digest.
        leads: Paired difference of the two best systems, by index of the view.
        effects: Where search helped, by index of the view.
    """
    panels = [_panel(systems, view, collected, leads.get(view.index), effects[view.index]) for view in views]
    return (
        environment()
        .get_template("report.html")
        .render(
            output=output,
            generator=GENERATOR,
            panels=panels,
            systems=systems,
            views=views,
            tasks=list(dict.fromkeys(system.run.store.spec.task for system in systems)),
            scorers=list(dict.fromkeys(view.scorer for view in views)),
            protocols=list(dict.fromkeys(view.protocol for view in views)),
            shown=shown,
            agents=[_agent(system, figures) for system in systems if (figures := collected.agents[system.index])],
            agent_meaning=agent_tables.MEANING,
            signed=lambda value: numbers.number(value, signed=True),
            sample_link=lambda view, name: link(view, id=name),
            category_link=lambda view, name: link(view, category=name),
            spending=[_spending(system, collected.spending[system.index]) for system in systems],
            entries=entries,
            all_entries=len(collected.entries),
            choices=_choices(collected),
            state_words=STATE_WORDS,
            definitions=definitions(views),
            provenance={system.index: provenance(system) for system in systems},
            citations={system.index: citation(system, views[0]) for system in systems},
            rubrics=collected.rubrics,
            faults=sum(image.fault not in ("", LEFT_OUT) for image in shown.values()),
            left_out=any(image.fault == LEFT_OUT for image in shown.values()),
        )
    )


def _panel(
    systems: Sequence[ReportSystem],
    view: ReportView,
    collected: Gallery,
    lead: LeadDifference | None,
    effect: SearchEffect | None,
) -> ScorerPanel:
    lines = [
        _line(system, view, summary) for system in systems if (summary := view.summaries[system.index]) is not None
    ]
    order = {system.index: place for place, system in enumerate(ranked(systems, view))}
    lines.sort(key=lambda line: order.get(line.system.index, len(systems)))
    shown_figures = (OVERALL, *view.dimensions)
    titles = {OVERALL: _capital(score_words(view.dimensions))}
    problems = sorted(
        (problem for problem in collected.problems if problem.view == view.index),
        key=lambda problem: (problem.system, -problem.count),
    )
    worse = lead.worse_on if lead is not None else ()
    return ScorerPanel(
        view=view,
        answer=answer(systems, view, lead),
        score=score_words(view.dimensions),
        lines=tuple(lines),
        absent=tuple(system for system in systems if view.summaries[system.index] is None),
        measures=tuple(
            (
                name,
                titles.get(name, _capital(name)),
                tuple(_dot(line.system, view, line.summary, name) for line in lines),
            )
            for name in shown_figures
        ),
        parts=tuple((name, titles.get(name, _capital(name)), _parts(systems, view, name)) for name in shown_figures),
        fit=any(line.summary.fit_for_board for line in lines),
        failures=sum(numbers.missing(line.coverage) for line in lines),
        notes=_notes(lines),
        effect=effect,
        worse_on=tuple((each, link(view, id=each)) for each in worse[:MAX_WORSE]),
        more_worse=max(0, len(worse) - MAX_WORSE),
        selections=tuple(dict.fromkeys(line.summary.selection for line in lines if line.summary.selection)),
        counting=_capital(counting_words(view.protocol)),
        problems=tuple(
            {
                "system": systems[problem.system],
                "state": STATE_WORDS[problem.state],
                "reason": problem.reason,
                "counts_as": counts_as(problem.state, get_protocol(view.protocol)),
                "count": problem.count,
                "link": link(
                    view,
                    system=systems[problem.system].label,
                    status=problem.state,
                    reason=_first_words(problem.reason),
                ),
            }
            for problem in problems[:MAX_PROBLEMS]
        ),
        hidden_problems=max(0, len(problems) - MAX_PROBLEMS),
    )


def _line(system: ReportSystem, view: ReportView, summary: Summary) -> HeadlineRow:
    coverage = summary.slice().coverage
    states = tuple(
        (state, words, count, link(view, system=system.label, status=state))
        for state, words in STATE_WORDS.items()
        if state != "scored" and (count := getattr(coverage, state))
    )
    return HeadlineRow(
        system=system,
        summary=summary,
        headline=_dot(system, view, summary, OVERALL),
        dimensions=tuple(_dot(system, view, summary, name) for name in view.dimensions),
        coverage=coverage,
        states=states,
    )


def _dot(
    system: ReportSystem, view: ReportView, summary: Summary, name: str, kind: str = "all", part: str = ""
) -> FigureDot:
    figure = summary.slice(kind, part).figures.get(name, Figure())
    chosen = {kind: part} if kind in FILTERED else {}
    if name != OVERALL:
        chosen["by"] = numbers.in_words(name)  # the samples with a value in this dimension
    return FigureDot(system, figure, link(view, system=system.label, **chosen))


def _parts(
    systems: Sequence[ReportSystem], view: ReportView, name: str
) -> tuple[tuple[str, tuple[FigureGroup, ...]], ...]:
    tables = []
    for kind, title in PART_KINDS.items():
        names: dict[str, set[int]] = {}
        for summary in view.summaries:
            for piece in summary.slices if summary else ():
                if piece.kind == kind:
                    names.setdefault(piece.name, set()).add(piece.figures[OVERALL].n)
        parts = tuple(
            FigureGroup(
                part,
                str(min(numbers_of)) if len(numbers_of) == 1 else f"{min(numbers_of)} to {max(numbers_of)}",
                link(view, **({kind: part} if kind in FILTERED else {})),
                _part_dots(systems, view, name, kind, part),
            )
            for part, numbers_of in names.items()
        )
        if parts:
            tables.append((title, parts))
    return tuple(tables)


def _part_dots(
    systems: Sequence[ReportSystem], view: ReportView, name: str, kind: str, part: str
) -> tuple[FigureDot | None, ...]:
    dots: list[FigureDot | None] = []
    for system in systems:
        summary = view.summaries[system.index]
        present = summary is not None and any((one.kind, one.name) == (kind, part) for one in summary.slices)
        dots.append(_dot(system, view, summary, name, kind, part) if summary is not None and present else None)
    return tuple(dots)


def _notes(lines: Sequence[HeadlineRow]) -> tuple[tuple[str, str], ...]:
    """Return the notes of the summaries; a note that all systems share appears once."""
    systems_by_note: dict[str, list[str]] = {}
    for line in lines:
        for note in line.summary.notes:
            systems_by_note.setdefault(note, []).append(line.system.label)
        if len(line.summary.judges) > 1:
            moved = f"the judge's endpoint returned more than one model: {', '.join(line.summary.judges)}"
            systems_by_note.setdefault(moved, []).append(line.system.label)
    return tuple(
        ("" if len(labels) == len(lines) else ", ".join(labels), note) for note, labels in systems_by_note.items()
    )


def _agent(system: ReportSystem, figures: Sequence[AgentFigures]) -> dict[str, Any]:
    """Return the tables of an agent's figures: columns, and the rows of each kind of part with their links."""
    kinds = []
    for kind, title in agent_tables.TITLES.items():
        rows = [
            (number, each.name or "all samples", _agent_link(system, each))
            for number, each in enumerate(figures)
            if each.kind == kind
        ]
        if rows:
            kinds.append((title, rows))
    whole = figures[0]
    notes = [
        f"{count(number, one, many)} {words}"
        for number, one, many, words in (
            (whole.errors, "step", "steps", "with an error"),
            (whole.blocked, "page or image", "pages or images", "not fetched for other reasons, such as robots.txt"),
            (whole.capped, "token", "tokens", "cut from tool results"),
        )
        if number
    ]
    return {"system": system, "columns": agent_tables.columns(figures), "kinds": kinds, "notes": notes}


def _agent_link(system: ReportSystem, figures: AgentFigures) -> str:
    part = f"&{figures.kind}={quote(figures.name, safe='')}" if figures.name else ""
    return f"#samples?system={quote(system.label, safe='')}{part}"


def _spending(system: ReportSystem, spent: Spending) -> dict[str, Any]:
    summary = system.run.summaries[0]
    if summary.cost == 0:
        spent.agent_cost = spent.generation_cost = spent.scoring_cost = 0.0  # the spend table has no paid calls
    costs = [cost for cost in (spent.agent_cost, spent.generation_cost, spent.scoring_cost) if cost is not None]
    total = sum(costs) if len(costs) == 3 else None
    return {
        "system": system,
        "generations": spent.generations,
        "median": median(spent.generation_seconds) if spent.generation_seconds else None,
        "slowest": max(spent.generation_seconds, default=None),
        "agent_cost": spent.agent_cost if spent.answers else None,
        "answers": spent.answers,
        "generation_cost": spent.generation_cost,
        "scores": spent.scores,
        "scoring_each": spent.scoring_seconds / spent.scores if spent.scores else None,
        "scoring_cost": spent.scoring_cost,
        "tokens": spent.tokens,
        "total": summary.cost if summary.cost is not None else total,
        "each": total / spent.generations if total is not None and spent.generations else None,
        "wall": summary.seconds,
        "call_notes": _call_notes(system, spent),
    }


def _agent_notes(spent: Spending) -> list[str]:
    """Return a line on the answers of an agent, and one on the cost of each of its parts."""
    if not spent.answers:
        return []
    lines = [f"{count(spent.answers, 'answer')}, median {numbers.duration(median(spent.answer_seconds))}"]
    for name, part in sorted(spent.parts.items()):
        cost = "unknown cost" if part.cost is None else numbers.money(part.cost)
        lines.append(f"{name}: {count(part.calls, 'paid call')}, {cost}, {part.tokens:,} tokens")
    return lines


def _call_notes(system: ReportSystem, spent: Spending) -> tuple[str, ...]:
    """Return lines on the calls of judges: concurrency, throttling, and replies reused from earlier runs."""
    changes_by_caller: dict[str, list[dict[str, Any]]] = {}
    for caller, _, change in system.run.store.notes("pace"):
        changes_by_caller.setdefault(caller, []).append(change)
    lines = _agent_notes(spent)
    for caller, changes in changes_by_caller.items():
        times = sum("busy" in str(change["why"]) or "faults" in str(change["why"]) for change in changes)
        highest = max(int(change["at_once"]) for change in changes)
        slowed = f"; slowed down {count(times, 'time')}" if times else ""
        lines.append(f"{caller}: up to {highest} concurrent calls{slowed}")
    if spent.cached:
        lines.append(f"{count(spent.cached, 'score')} reused replies of earlier runs at no cost")
    return tuple(lines)


def _choices(collected: Gallery) -> dict[str, list[str]]:
    """Return the options of the filters, in the order of the task."""
    names = ("group", "category", "difficulty")
    return {
        name: list(dict.fromkeys(value for entry in collected.entries if (value := getattr(entry.sample, name))))
        for name in names
    }


def _first_words(reason: str) -> str | None:
    """Return the beginning of a reason, by which the gallery filters."""
    return reason[:120] or None


def _capital(text: str) -> str:
    words = numbers.in_words(text)
    return words[:1].upper() + words[1:]
