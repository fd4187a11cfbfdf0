"""Render the pages of a site: compute everything that the templates show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader

from knowgen.leaderboards.exports import ExportFile
from knowgen.leaderboards.figures import board_protocol
from knowgen.leaderboards.folder import Board
from knowgen.leaderboards.published import read_published
from knowgen.leaderboards.season import read_season
from knowgen.leaderboards.site import words
from knowgen.leaderboards.site.chart import cost_chart
from knowgen.leaderboards.site.view import (
    KIND_WORDS,
    PARTS,
    OtherRevision,
    PartView,
    SiteBoard,
    SiteDot,
    SiteSystem,
    figure_words,
    rank_words,
)
from knowgen.report.gallery import STATE_WORDS
from knowgen.report.method import rules
from knowgen.report.numbers import NONE, in_words, number, share
from knowgen.report.page import environment
from knowgen.report.tables import refusal_words
from knowgen.stats.protocol import counting_words, counts_as
from knowgen.stats.summary import OVERALL, Coverage, Figure

MAX_FAILURES = 40
"""Reasons of missing scores that the page of a system lists; of the others it gives the number."""


@dataclass(frozen=True)
class PartLine:
    """A sample on the page of a part: mean and range of what it counts as over the systems, and missing scores."""

    id: str
    prompt: str
    mean: float | None
    low: float | None
    high: float | None
    missing: int
    link: str


class SitePages:
    """The templates of a site.

    Args:
        boards: Boards of the site, by name.
    """

    def __init__(self, boards: Sequence[SiteBoard]) -> None:
        self._boards = boards
        self._templates = _environment()

    def front(self) -> str:
        """Return the page that lists the boards."""
        entries = [(board, words.board_answer(board), read_season(board.board)) for board in self._boards]
        return self._templates.get_template("boards.html").render(root="", boards=entries)

    def board(self, board: SiteBoard, exports: Sequence[tuple[str, ExportFile]] = ()) -> str:
        """Return the page of a board.

        Args:
            board: The board.
            exports: Each export with its path from the page.
        """
        protocol = board_protocol(board.board)
        others = [one for system in board.systems for one in system.others]
        return self._render(
            "board.html",
            board,
            answer=words.board_answer(board),
            pinned=bool(board.samples),
            season=read_season(board.board),
            published=_published(board.board),
            others=sorted([*others, *board.withdrawn], key=lambda one: one.submission.key),
            chart=cost_chart(board),
            tie_words=words.tie_words(board),
            counting=counting_words(protocol).removeprefix("counting: "),
            rules=rules(protocol),
            exports=exports,
            parts=[(title, [part for part in board.parts if part.kind == kind]) for kind, title in PARTS.items()],
        )

    def system(self, board: SiteBoard, system: SiteSystem) -> str:
        """Return the page of a system."""
        shown = system.facts.failures[:MAX_FAILURES]
        protocol = board_protocol(board.board)
        return self._render(
            "system.html",
            board,
            system=system,
            tables=[
                (title, [part for part in board.parts if part.kind == kind and system.part(kind, part.name)])
                for kind, title in PARTS.items()
            ],
            versus=[
                (other, board.pair(other, system), words.verdict(board, other, system))
                for other in board.ranked
                if other.slug != system.slug and system.figures.rank is not None
            ],
            failures=[(one, STATE_WORDS[one.state], counts_as(one.state, protocol)) for one in shown],
            hidden_failures=len(system.facts.failures) - len(shown),
            links=[(link.title, link.url, web(link.url)) for link in system.file.links],
            contact=web(system.file.contact),
        )

    def part(self, board: SiteBoard, part: PartView) -> str:
        """Return the page of a group, difficulty or category."""
        samples = [_part_line(board, place) for place in part.samples]
        return self._render(
            "part.html",
            board,
            part=part,
            untested=words.untested(board, part.kind, part.name),
            lines=[
                (system, piece, board.rank(system, part.kind, part.name))
                for system in board.ordered(part.kind, part.name)
                if (piece := system.part(part.kind, part.name)) is not None
            ],
            samples=samples,
        )

    def compare(self, board: SiteBoard) -> str:
        """Return the page that compares two systems."""
        return self._render("compare.html", board)

    def sample(self, board: SiteBoard) -> str:
        """Return the page of a sample over all systems."""
        return self._render("sample.html", board)

    def _render(self, template: str, board: SiteBoard, **values: Any) -> str:
        return self._templates.get_template(template).render(root="../", board=board, file=board.board.file, **values)


def _environment() -> Environment:
    templates = environment("knowgen.leaderboards.site")
    own = templates.loader
    assert own is not None
    templates.loader = ChoiceLoader([own, PackageLoader("knowgen.report", "templates")])
    templates.filters.update(
        signed=lambda value: number(value, signed=True),
        p_value=lambda p: words.p_words(p).removeprefix("p ").removeprefix("= ") if p is not None else NONE,
        kilobytes=lambda size: f"{max(1, round(size / 1000)):,} kB",
        place=lambda share_of: f"{100 * share_of:.2f}%",
    )
    templates.globals.update(
        KIND_WORDS=KIND_WORDS,
        PARTS=PARTS,
        coverage_share=lambda coverage: share(coverage.scored, coverage.expected),
        covered=covered,
        dot_of=SiteDot,
        figure_words=figure_words,
        pair_words=words.pair_words,
        rank_words=rank_words,
        refusal_words=refusal_words,
        sample_link=sample_link,
        season_words=words.season_words,
        without_figure=words.without_figure,
        compare_link=compare_link,
        status_of=status_of,
        NO_FIGURE=Figure(),
        OVERALL=OVERALL,
    )
    return templates


def covered(coverage: Coverage) -> float:
    """Return the share of the expected scores that exist, for sorting."""
    return coverage.scored / coverage.expected if coverage.expected else 0.0


def sample_link(sample_id: str) -> str:
    """Return the address of a sample from another page of its board."""
    return f"sample.html#sample?id={quote(sample_id, safe='')}"


def compare_link(a: SiteSystem, b: SiteSystem) -> str:
    """Return the address of a comparison from another page of its board."""
    return f"compare.html#comparison?a={quote(a.slug, safe='')}&b={quote(b.slug, safe='')}"


def status_of(other: OtherRevision) -> str:
    """Return whether a revision was withdrawn or replaced."""
    return "withdrawn" if other.submission.withdrawal is not None else "replaced"


def _part_line(board: SiteBoard, place: int) -> PartLine:
    sample = board.samples[place]
    found = [system.facts.values[place] for system in board.systems]
    values = [one.value for one in found if one.value is not None]
    return PartLine(
        id=sample.id,
        prompt=sample.prompt,
        mean=sum(values) / len(values) if values else None,
        low=min(values, default=None),
        high=max(values, default=None),
        missing=sum(one.missing > 0 for one in found),
        link=sample_link(sample.id),
    )


_TITLES = {"k_score": "K-Score", "sk": "Science & Knowledge,", "pop": "Pop Culture & News,"}


@dataclass(frozen=True)
class PublishedSection:
    """Published rows as they are shown.

    Attributes:
        source: Where the rows come from.
        url: Its address, if it is one of the web; otherwise empty.
        columns: Titles of the columns of numbers.
        lines: Name, kind and numbers of each system; a column has the same number of decimals in all lines.
        kinds: Whether the table has a column of kinds.
    """

    source: str
    url: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[str, ...]], ...]
    kinds: bool


def _published(board: Board) -> PublishedSection | None:
    table = read_published(board)
    if table is None:
        return None
    decimals = {name: max(_decimals(row.values[name]) for row in table.rows) for name in table.columns}
    lines = tuple(
        (row.system, row.kind, tuple(_fixed(row.values[name], decimals[name]) for name in table.columns))
        for row in table.rows
    )
    columns = tuple(map(_title, table.columns))
    return PublishedSection(table.source, web(table.url), columns, lines, any(row.kind for row in table.rows))


def _decimals(value: float | None) -> int:
    return 0 if value is None or value == int(value) else len(repr(value).split(".")[1])


def _fixed(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _title(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    head, cut, rest = name.partition("_")
    words_of = f"{_TITLES[head]} {in_words(rest)}" if cut and head in _TITLES else in_words(name)
    return words_of[:1].upper() + words_of[1:]


def web(address: str) -> str:
    """Return an address if a browser may open it as a page of the web; empty for any other scheme."""
    return address if address.startswith(("https://", "http://")) else ""
