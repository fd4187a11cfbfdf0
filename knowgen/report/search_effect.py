"""Where search helped and where it hurt: an agent that searches against a system that does not, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.report.details import cut
from knowgen.report.gallery import Gallery, GalleryCell
from knowgen.report.headline import differences, ranked
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.compare.records import ComparedSlice, Comparison, FigureDifference
from knowgen.stats.compare.systems import compare

MAX_SHOWN = 6
"""Maximum number of samples that are shown as gains, and as losses."""

LONGEST_PROMPT = 300


@dataclass(frozen=True)
class SampleResult:
    """What one system has for a sample: the digest of its image, and its score or why it has none."""

    image: str
    score: float | None
    words: str


@dataclass(frozen=True)
class PairedSample:
    """A sample with both results; the difference is search minus no search, None without both scores."""

    id: str
    prompt: str
    category: str
    without: SampleResult
    with_search: SampleResult

    @property
    def difference(self) -> float | None:
        """Difference of the scores of the two images."""
        first, second = self.without.score, self.with_search.score
        return None if first is None or second is None else second - first


@dataclass(frozen=True)
class SearchEffect:
    """The paired difference between an agent and a system without search.

    Attributes:
        agent: The system that searches.
        baseline: The system that does not.
        whole: Paired difference of the headline figure, agent minus baseline.
        categories: Differences of the categories, the largest first.
        better: Number of samples on which the agent is above.
        equal: Number of samples on which both are equal.
        worse: Number of samples on which it is below.
        paired: Number of samples with both scores.
        gains: Samples with the largest gains, largest first.
        losses: Samples with the largest losses, largest first.
        same_image_model: Whether both generate with the same image model, so that only the search differs.
    """

    agent: ReportSystem
    baseline: ReportSystem
    whole: FigureDifference
    categories: tuple[tuple[str, FigureDifference], ...]
    better: int
    equal: int
    worse: int
    paired: int
    gains: tuple[PairedSample, ...]
    losses: tuple[PairedSample, ...]
    same_image_model: bool


def search_effect(systems: Sequence[ReportSystem], view: ReportView, collected: Gallery) -> SearchEffect | None:
    """Compare the best system that searches with one that does not.

    Of several systems without search, the best one with the agent's image model is taken, or else the best one. An
    agent that called no tool counts as a system without search.

    Returns:
        The effect; None if the page has no such pair with a result, or the two cannot be compared.
    """
    order = ranked(systems, view)
    agents = [one for one in order if _searched(one, collected)]
    others = [one for one in order if not _searched(one, collected)]
    if not agents or not others:
        return None
    agent = agents[0]
    baseline = next((one for one in others if _same_image_model(one, agent)), others[0])
    if differences([one for each in (agent, baseline) if (one := view.summaries[each.index]) is not None]):
        return None
    comparison = compare(
        baseline.run.store.rows(view.scorer),
        agent.run.store.rows(view.scorer),
        view.protocol,
        dimensions=view.dimensions,
        permutations=0,  # only intervals are shown
        a_name=baseline.label,
        b_name=agent.label,
    )
    if comparison.headline.value is None:
        return None
    samples = _Samples(view, collected, baseline, agent)
    return SearchEffect(
        agent=agent,
        baseline=baseline,
        whole=comparison.headline,
        categories=_categories(comparison),
        better=comparison.better,
        equal=comparison.equal,
        worse=comparison.worse,
        paired=comparison.paired,
        gains=samples.named(comparison.better_on[:MAX_SHOWN]),
        losses=samples.named(comparison.worse_on[:MAX_SHOWN]),
        same_image_model=_same_image_model(baseline, agent),
    )


def _searched(system: ReportSystem, collected: Gallery) -> bool:
    """Return whether a system is an agent that called a tool."""
    figures = collected.agents[system.index]
    return bool(figures) and sum(figures[0].calls.values()) > 0


def _same_image_model(one: ReportSystem, other: ReportSystem) -> bool:
    first, second = one.run.store.spec.generator, other.run.store.spec.generator
    return (first.name, first.args) == (second.name, second.args)


def _categories(comparison: Comparison) -> tuple[tuple[str, FigureDifference], ...]:
    def size(part: ComparedSlice) -> float:
        value = part.figures["overall"].value
        return float("inf") if value is None else -value

    parts = [part for part in comparison.slices if part.kind == "category"]
    return tuple((part.name, part.figures["overall"]) for part in sorted(parts, key=size))


class _Samples:
    """Samples of two systems on the page, by id."""

    def __init__(self, view: ReportView, collected: Gallery, baseline: ReportSystem, agent: ReportSystem) -> None:
        self._view, self._pair = view, (baseline, agent)
        version = f"{agent.run.store.spec.task} {agent.run.store.spec.task_version}"
        self._samples = {}
        self._cells: dict[str, list[list[GalleryCell | None]]] = {}
        for entry in collected.entries:
            if entry.task_version == version:
                self._samples[entry.sample.id] = entry.sample
                self._cells.setdefault(entry.sample.id, []).append(entry.cells)

    def named(self, ids: Sequence[str]) -> tuple[PairedSample, ...]:
        """Return samples by id."""
        found = []
        for each in ids:
            sample = self._samples[each]
            without, with_search = (self._result(each, system.index) for system in self._pair)
            prompt = cut(sample.prompt, LONGEST_PROMPT).split(" … (")[0]
            found.append(PairedSample(each, prompt, sample.category, without, with_search))
        return tuple(found)

    def _result(self, name: str, index: int) -> SampleResult:
        """Return the first image of a system, and the mean score of its repeats."""
        cells = [cell for row in self._cells[name] if (cell := row[index]) is not None]
        readings = [cell.readings[self._view.index] for cell in cells if len(cell.readings) > self._view.index]
        scores = [one.overall for one in readings if one is not None and one.overall is not None]
        image = next((cell.image for cell in cells if cell.image), "")
        words = next((one.state for one in readings if one is not None and one.state != "scored"), "no image")
        return SampleResult(image, sum(scores) / len(scores) if scores else None, words.replace("_", " "))
