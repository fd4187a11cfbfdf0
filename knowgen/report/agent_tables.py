"""Tables of what an agent did, as Markdown, as CSV and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from knowgen.report.numbers import duration, in_words, money
from knowgen.report.text_table import NONE, TextTable, csv_text, markdown_text
from knowgen.stats.agent_figures import IMAGE_MODEL, AgentFigures

TITLES = {"all": "All samples", "difficulty": "Difficulty", "category": "Category"}
MEANING = (
    "rounds, calls and references: mean per answer; a round is a reply of the policy; fallbacks: images whose answer "
    "was not used; leaks: pages and images that were not fetched because they are the benchmark's own data; cost: US "
    "dollars per answer, image model: per attempted image"
)

Column = tuple[str, list[str]]


def columns(figures: Sequence[AgentFigures]) -> list[Column]:
    """Return the columns of a table of figures, each with its head; a dash where there is nothing to divide by.

    Args:
        figures: Figures of one run, the whole first; its tools and parts are the columns of all.
    """
    tools = list(dict.fromkeys(name for each in figures for name in each.calls))
    parts = list(dict.fromkeys(name for each in figures for name in each.parts))
    found: list[Column] = [
        ("answers", [f"{each.answers}/{each.expected}" for each in figures]),
        ("rounds", [_mean(each.each(each.rounds)) for each in figures]),
        *((in_words(tool), [_mean(each.each(each.calls.get(tool, 0))) for each in figures]) for tool in tools),
        ("references", [_mean(each.each(each.references)) for each in figures]),
        ("endings", [endings(each) for each in figures]),
        ("fallbacks", [str(each.fallbacks) for each in figures]),
        ("leaks", [str(each.leaks) for each in figures]),
        ("median time", [duration(each.seconds) for each in figures]),
    ]
    return [*found, *((f"cost: {part}", [_part_cost(each, part) for each in figures]) for part in parts)]


def endings(figures: AgentFigures) -> str:
    """Return how the trajectories ended, the most frequent ending first; failed answers last."""
    ordered = sorted(figures.endings.items(), key=lambda each: -each[1])
    failed = [f"{figures.failed} failed"] if figures.failed else []
    return ", ".join([*(f"{number} {in_words(name)}" for name, number in ordered), *failed]) or NONE


def _mean(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _part_cost(figures: AgentFigures, name: str) -> str:
    part = figures.parts.get(name)
    number = part.calls if part is not None and name == IMAGE_MODEL else figures.answers + figures.failed
    if part is None or not number:
        return NONE
    return money(None if part.cost is None else part.cost / number)


def agent_markdown(system: str, figures: Sequence[AgentFigures]) -> str:
    """Return Markdown: one table with a row for the whole and for each difficulty and category.

    Args:
        system: Name of the system.
        figures: Its figures, the whole first.
    """
    found = columns(figures)
    heads = ["", *(head for head, _ in found)]
    rows = [
        [(each.name and in_words(each.name)) or TITLES["all"], *(cells[number] for _, cells in found)]
        for number, each in enumerate(figures)
    ]
    left = frozenset({0, heads.index("endings")})
    return markdown_text([TextTable(f"Agent: {system}", heads, rows, left, [MEANING])])


_CSV_HEAD = ("system", "part", "name", "figure", "of", "value", "answers", "expected")


def agent_csv(system: str, figures: Sequence[AgentFigures]) -> str:
    """Return CSV with full precision: one row for each part of the samples and figure, totals unless named otherwise.

    `of` is the tool of `calls`, the ending of `endings`, and the part of `paid_calls`, `tokens`, `cost` and `seconds`.
    A cost is in US dollars, and empty where the price of a paid call is not known.
    """
    return csv_text(
        _CSV_HEAD,
        (
            [system, each.kind, each.name, figure, of, value, each.answers, each.expected]
            for each in figures
            for figure, of, value in _values(each)
        ),
    )


def _values(each: AgentFigures) -> Iterator[tuple[str, str, float | None]]:
    for name in ("rounds", "references", "fallbacks", "leaks", "blocked", "errors", "capped", "failed"):
        yield name, "", getattr(each, name)
    yield "median_seconds", "", each.seconds
    for tool, number in each.calls.items():
        yield "calls", tool, number
    for ending, number in each.endings.items():
        yield "endings", ending, number
    for name, part in each.parts.items():
        yield "paid_calls" if name != IMAGE_MODEL else "images", name, part.calls
        yield "tokens", name, part.tokens
        yield "cost", name, part.cost
        yield "seconds", name, part.seconds
