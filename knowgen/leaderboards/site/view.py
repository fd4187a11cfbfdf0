"""What the pages of a board show: systems with their markers, figures by part, and the facts of their submissions."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from knowgen.core.records import group_of
from knowgen.core.spec import canonical
from knowgen.leaderboards.figures import BoardFigures, BoardSystem, PairDifference, RankRange
from knowgen.leaderboards.folder import SAMPLES_FILE, Board, Submission
from knowgen.leaderboards.records import BoardSample, SubmissionResult, SystemFile
from knowgen.leaderboards.samples import SampleOutcome
from knowgen.leaderboards.site.failures import MissingScores
from knowgen.report.headline import score_words
from knowgen.report.numbers import in_words
from knowgen.report.view import SystemMarker
from knowgen.stats.summary import OVERALL, Figure, Slice, Summary

KIND_WORDS = {"image_model": "image model", "agent": "agent", "baseline": "baseline"}
"""Words for each kind of system."""

PARTS = {"group": "Groups", "difficulty": "Difficulty", "category": "Categories"}
"""Kinds of parts of the samples that have figures and pages of their own, in the order of the site."""


@dataclass(frozen=True)
class SampleValue:
    """What a sample counts as in the ranking figure, and the number of its missing scores.

    Attributes:
        value: Its value in [0, 1]; None if it is left out.
        missing: Number of expected scores without values.
    """

    value: float | None
    missing: int

    @classmethod
    def of(cls, outcome: SampleOutcome, board: Board) -> SampleValue:
        """Return the value of an outcome, without its texts."""
        ranking, dimensions = board.file.ranking, board.file.scorer.dimensions
        value = outcome.overall if ranking == OVERALL else outcome.values[dimensions.index(ranking)]
        return cls(value, outcome.missing)


@dataclass(frozen=True)
class SubmissionFacts:
    """What a submission says of its run, without the texts of its samples.

    Attributes:
        created: When the run was created, ISO 8601.
        system: Name of the system in reports of the run, which gives its marker there and here.
        knowgen: Version of knowgen.
        machine: Machine in words; empty if not known.
        seconds: Wall time of the run in seconds; None if not known.
        cost: US dollars by part of the run; None where a price is not known.
        judges: Number of scores by model name that the judge's endpoint returned.
        scorer: Name and version of the scorer.
        rerun: Command lines that run the system again.
        failures: Reasons of missing scores, the most frequent first.
        values: Value of each sample in the order of the board.
        images: Number of images.
    """

    created: str
    system: str
    knowgen: str
    machine: str
    seconds: float | None
    cost: Mapping[str, float | None]
    judges: Mapping[str, int]
    scorer: str
    rerun: tuple[str, ...]
    failures: tuple[MissingScores, ...]
    values: tuple[SampleValue, ...]
    images: int


@dataclass(frozen=True)
class OtherRevision:
    """A revision that is not the current one of its system, with the reason."""

    submission: Submission
    created: str
    claimed: float | None
    reason: str


@dataclass(frozen=True)
class SiteSystem:
    """A system of a board on the site.

    Attributes:
        index: Place on the board, from 0, the best first.
        label: Its name, unique on the board.
        mark: Colour and shape, the same on all pages of the site.
        figures: Its figures.
        facts: Facts of its current submission.
        others: Its other revisions, the latest first.
    """

    index: int
    label: str
    mark: SystemMarker
    figures: BoardSystem
    facts: SubmissionFacts
    others: tuple[OtherRevision, ...]

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return self.figures.submission.slug

    @property
    def revision(self) -> str:
        """Name of its current revision."""
        return self.figures.submission.revision

    @property
    def file(self) -> SystemFile:
        """What the submitter says of it."""
        return self.figures.submission.system

    @property
    def summary(self) -> Summary:
        """Its figures by part."""
        return self.figures.summary

    @property
    def kind(self) -> str:
        """Its kind in words."""
        return KIND_WORDS[self.file.kind]

    @property
    def page(self) -> str:
        """File name of its page in the folder of the board."""
        return f"system-{self.slug}.html"

    def part(self, kind: str = "all", name: str = "") -> Slice | None:
        """Return its figures of a part; None if it has no sample of it."""
        found = (one for one in self.summary.slices if (one.kind, one.name) == (kind, name))
        return next(found, None)

    def figure(self, name: str, kind: str = "all", part: str = "") -> Figure:
        """Return a figure of a part; an empty one if there is none."""
        piece = self.part(kind, part)
        return piece.figures.get(name, Figure()) if piece is not None else Figure()


@dataclass(frozen=True)
class SiteDot:
    """A figure of a system, as the figures of the report's templates take it."""

    system: SiteSystem
    figure: Figure


@dataclass(frozen=True)
class PartView:
    """A group, difficulty or category with samples on the board.

    Attributes:
        kind: group, difficulty or category.
        name: Its name.
        page: File name of its page in the folder of the board.
        samples: Places of its samples in the order of the board.
    """

    kind: str
    name: str
    page: str
    samples: tuple[int, ...]

    @property
    def title(self) -> str:
        """Its name in words."""
        return in_words(self.name)


@dataclass(frozen=True)
class SiteBoard:
    """A board on the site.

    Attributes:
        figures: All its figures.
        systems: Its systems, the best first, those without a result last.
        withdrawn: Revisions of systems that have no current one.
    """

    figures: BoardFigures
    systems: tuple[SiteSystem, ...]
    withdrawn: tuple[OtherRevision, ...]

    @property
    def board(self) -> Board:
        """The board."""
        return self.figures.board

    @property
    def name(self) -> str:
        """Name of its folder, here and on the site."""
        return self.board.name

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimensions in the order of the table."""
        return self.board.file.scorer.dimensions

    @property
    def ranking(self) -> str:
        """Name of the figure that ranks the systems."""
        return self.board.file.ranking

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the figures besides the ranking one, in the order of the table."""
        return tuple(name for name in (OVERALL, *self.dimensions) if name != self.ranking)

    @property
    def score(self) -> str:
        """The ranking figure in words."""
        return figure_words(self.ranking, self.dimensions)

    @cached_property
    def samples(self) -> tuple[BoardSample, ...]:
        """The samples; none while the board is not pinned to a version of its task."""
        return self.board.samples if board_has_samples(self.board) else ()

    @cached_property
    def ranked(self) -> tuple[SiteSystem, ...]:
        """Systems with a result, the best first."""
        return tuple(one for one in self.systems if one.figures.rank is not None)

    @cached_property
    def parts(self) -> tuple[PartView, ...]:
        """Parts of the samples, by kind, in the order of the first system's figures."""
        order = list(dict.fromkeys((one.kind, one.name) for each in self.systems for one in each.summary.slices))
        members: dict[tuple[str, str], list[int]] = {}
        for place, sample in enumerate(self.samples):
            names = (group_of(sample.category), sample.difficulty, sample.category)
            for key in zip(PARTS, names, strict=True):
                members.setdefault(key, []).append(place)
        return tuple(
            PartView(kind, name, part_page(kind, name), tuple(members.get((kind, name), ())))
            for shown in PARTS
            for kind, name in order
            if kind == shown and members.get((kind, name))
        )

    def pair(self, a: SiteSystem, b: SiteSystem) -> PairDifference:
        """Return the paired difference b - a of the ranking figure."""
        if (a.slug, b.slug) in self.figures.pairs:
            return self.figures.pairs[a.slug, b.slug]
        return reversed_pair(self.figures.pairs.get((b.slug, a.slug), PairDifference(note="no result")))

    def differ(self, pair: PairDifference) -> bool:
        """Return whether a difference counts as one under the tie rule of the board."""
        return pair.differs(self.board.file.ties)

    def rank(self, system: SiteSystem, kind: str, part: str) -> RankRange | None:
        """Return the ranks that a system may have on a part of the samples; None without any."""
        found = self.figures.parts.get((kind, part))
        return found.ranks.get(system.slug) if found is not None else None

    def ordered(self, kind: str, part: str) -> tuple[SiteSystem, ...]:
        """Return the systems with a figure on a part of the samples, the best first."""
        found = self.figures.parts.get((kind, part))
        by_slug = {one.slug: one for one in self.systems}
        return tuple(by_slug[slug] for slug in found.order) if found is not None else ()


def board_has_samples(board: Board) -> bool:
    """Return whether a board has samples, or should have: none while it is not pinned to a version of its task."""
    return board.file.task.version is not None or (board.path / SAMPLES_FILE).exists()


def reversed_pair(pair: PairDifference) -> PairDifference:
    """Return the difference a - b from the difference b - a."""
    value, low, high = (None if one is None else 0.0 - one for one in (pair.value, pair.high, pair.low))
    return replace(pair, value=value, low=low, high=high)


def figure_words(name: str, dimensions: Sequence[str]) -> str:
    """Return a figure in words, such as `K-Score`, `overall score` or `text accuracy`."""
    return score_words(dimensions) if name == OVERALL else in_words(name)


def part_page(kind: str, name: str) -> str:
    """Return the file name of the page of a part: readable, and safe whatever the name is.

    Example:
        >>> part_page("category", "biology"), part_page("category", "../x")
        ('category-biology.html', 'category-x-d6b96a97.html')
    """
    words = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:40]
    if words and words == name:
        return f"{kind}-{words}.html"
    return f"{kind}-{words or 'part'}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}.html"


def rank_words(rank: RankRange | None) -> str:
    """Return the ranks that a system may have, such as `2` or `2–4`; a dash without a result."""
    if rank is None:
        return "–"
    return str(rank.best) if rank.best == rank.worst else f"{rank.best}–{rank.worst}"


def rerun_commands(board: Board, submission: Submission, result: SubmissionResult) -> tuple[str, ...]:
    """Return the command lines that run a system again on the task of its board.

    The task of a season is its public folder, without ground truths, so that a run of it scores nothing.
    """
    adapter, scorer, spec = submission.system.adapter, board.file.scorer, result.spec
    season = board.file.season is not None
    task = f"{board.file.task.name}/public" if season else board.file.task.name
    words = ["knowgen", "run", "--task", task, "--generator", adapter.generator, *_arguments("-g", adapter.arguments)]
    if not season:
        words += ["--scorer", scorer.name, *_arguments("-s", scorer.args), "--protocol", board.file.protocol]
    words += ["--seed", str(spec.seed)]
    if spec.repeats > 1:
        words += ["--repeats", str(spec.repeats)]
    words += ["--out", f"reports/{board.name}-{submission.slug}-{submission.revision}"]
    install = [shlex.join(["pip", "install", adapter.package])] if adapter.package else []
    return (*install, shlex.join(words))


def _arguments(flag: str, arguments: Mapping[str, Any]) -> list[str]:
    pairs = [f"{name}={one if isinstance(one, str) else canonical(one)}" for name, one in sorted(arguments.items())]
    return [word for pair in pairs for word in (flag, pair)]


def system_entry(system: SiteSystem) -> dict[str, Any]:
    """Return what the scripts of a board's pages need of a system."""
    return {
        "slug": system.slug,
        "label": system.label,
        "revision": system.revision,
        "page": system.page,
        "colour": system.mark.colour,
        "outline": system.mark.outline,
    }
