"""What of a run directory counts now: the selected samples, their latest drawings, and the judgements of these.

A directory may hold more: samples of an earlier selection, pictures that were drawn again, judgements by a scorer
that has changed since. Nothing is thrown away; it only does not count. Everything is read in pages, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import UsageError
from knowgen.core.records import Generation, GenerationStatus, ParsedScore, Row, Sample, Score, ScoreStatus
from knowgen.core.spec import RunSpec, ScorerSpec, fingerprint
from knowgen.store.database import Database
from knowgen.store.images import ImageFolder
from knowgen.store.rows import from_json

PAGE = 256
"""Samples that are held at once when going through a run."""

_NOT_JUDGED = ParsedScore(status=ScoreStatus.NOT_RUN)

_Generations = dict[tuple[str, int], tuple[str, Generation]]
_Scores = dict[tuple[str, int, int], tuple[str, Score]]


@dataclass(frozen=True)
class ExpectedGeneration:
    """One expected drawing with its judgements by one scorer, present or not.

    Attributes:
        sample: The sample.
        repeat: Of the drawing.
        generation: The drawing, None when there is none yet.
        scores: One entry a judge repeat, None where there is no current judgement.
    """

    sample: Sample
    repeat: int
    generation: Generation | None
    scores: tuple[Score | None, ...]


class CurrentView:
    """The view of a run's database through its specification.

    Args:
        database: Of the run.
        images: Its pictures, to fill in their paths.
        spec: Says which repeats and which scorers count.
        path: The run directory, for messages.
    """

    def __init__(self, database: Database, images: ImageFolder, spec: RunSpec, path: Path) -> None:
        self._database = database
        self._images = images
        self._spec = spec
        self._path = path
        self._hashes: dict[int, tuple[ScorerSpec, str]] = {}

    def pages(self) -> Iterator[list[Sample]]:
        """Yields the selected samples in order, some hundred at a time."""
        after = -1
        while True:
            sql = "select place, sample from samples where place > ? order by place limit ?"
            found = self._database.read(sql, (after, PAGE))
            if not found:
                return
            after = found[-1][0]
            yield [from_json(Sample, row[1]) for row in found]

    def generations(self) -> Iterator[tuple[str, Generation]]:
        """Yields key and drawing of every selected sample and repeat that has one."""
        for page in self.pages():
            yield from self._page_generations(page).values()

    def scores(self, scorers: Iterable[ScorerSpec]) -> Iterator[tuple[str, Score]]:
        """Yields key and judgement, of one scorer after the other."""
        for spec in scorers:
            for page in self.pages():
                yield from self._page_scores(page, spec, self._page_generations(page)).values()

    def cells(self, scorer: ScorerSpec) -> Iterator[ExpectedGeneration]:
        """Yields every selected sample and repeat exactly once, in order."""
        numbers = range(self._spec.judge_repeats_of(scorer))
        for page in self.pages():
            generations = self._page_generations(page)
            scores = self._page_scores(page, scorer, generations)
            for sample in page:
                for repeat in range(self._spec.repeats):
                    drawn = generations.get((sample.id, repeat))
                    judged = [scores.get((sample.id, repeat, number)) for number in numbers]
                    yield ExpectedGeneration(
                        sample=sample,
                        repeat=repeat,
                        generation=drawn[1] if drawn else None,
                        scores=tuple(found[1] if found else None for found in judged),
                    )

    def rows(self, scorer: ScorerSpec) -> Iterator[Row]:
        """Yields every selected sample x repeat x judge repeat exactly once, in order."""
        for cell in self.cells(scorer):
            for judge_repeat, score in enumerate(cell.scores):
                yield _row(cell, judge_repeat, score)

    def _page_generations(self, page: list[Sample]) -> _Generations:
        marks = ",".join("?" * len(page))
        found = self._database.read(
            f"select sample_id, repeat, key, record from generations where sample_id in ({marks}) and repeat < ?"
            " order by number",
            (*(sample.id for sample in page), self._spec.repeats),
        )
        latest = {(row[0], row[1]): (row[2], row[3]) for row in found}
        wanted = ((sample.id, repeat) for sample in page for repeat in range(self._spec.repeats))
        return {
            place: (latest[place][0], self.read_generation(latest[place][1])) for place in wanted if place in latest
        }

    def _page_scores(self, page: list[Sample], scorer: ScorerSpec, generations: _Generations) -> _Scores:
        marks = ",".join("?" * len(page))
        judgements = self._spec.judge_repeats_of(scorer)
        counts = (scorer.name, self.scorer_hash(scorer), self._spec.repeats, judgements)
        found = self._database.read(
            f"select sample_id, repeat, judge_repeat, image, key, record from scores where sample_id in ({marks})"
            " and scorer = ? and scorer_hash = ? and repeat < ? and judge_repeat < ? order by number",
            (*(sample.id for sample in page), *counts),
        )
        latest: dict[tuple[str, int, int], tuple[str, str]] = {}
        for sample_id, repeat, judge_repeat, image, key, record in found:
            drawn = generations.get((sample_id, repeat))
            if drawn is not None and image == (drawn[1].image.sha256 if drawn[1].image else ""):
                latest[sample_id, repeat, judge_repeat] = (key, record)
        return {
            place: (latest[place][0], from_json(Score, latest[place][1]))
            for sample in page
            for repeat in range(self._spec.repeats)
            for number in range(judgements)
            if (place := (sample.id, repeat, number)) in latest
        }

    def read_generation(self, record: str) -> Generation:
        """Reads a stored drawing and fills in where its picture lies."""
        generation = from_json(Generation, record)
        if generation.image is None:
            return generation
        image = generation.image.model_copy(update={"path": self._images.path(generation.image)})
        return generation.model_copy(update={"image": image})

    def scorer(self, name: str) -> ScorerSpec:
        """Returns the run's scorer of a name.

        Raises:
            UsageError: There is none.
        """
        for spec in self._spec.scorers:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self._spec.scorers) or "none"
        raise UsageError(f"the run has no scorer {name!r}", where=str(self._path), fix=f"it has {known}")

    def scorer_hash(self, scorer: ScorerSpec) -> str:
        """Returns the identity of a scorer: name, arguments and version, but not the note."""
        known = self._hashes.get(id(scorer))
        if known is None or known[0] is not scorer:
            value = fingerprint({"name": scorer.name, "args": scorer.args, "version": scorer.version})
            known = self._hashes[id(scorer)] = (scorer, value)
        return known[1]


def _row(cell: ExpectedGeneration, judge_repeat: int, score: Score | None) -> Row:
    sample, drawn = cell.sample, cell.generation
    return Row(
        sample_id=sample.id,
        category=sample.category,
        group=sample.group,
        difficulty=sample.difficulty,
        text_required=sample.text_required,
        repeat=cell.repeat,
        judge_repeat=judge_repeat,
        generation=drawn.status if drawn else GenerationStatus.NOT_RUN,
        generation_reason=drawn.reason if drawn else "",
        strict=score.strict if score else _NOT_JUDGED,
        lenient=score.lenient if score else None,
        judge_returned=score.judge_returned if score else "",
    )
