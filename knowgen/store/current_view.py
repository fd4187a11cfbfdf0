"""The current content of a run directory: the selected samples, their latest generations, and the scores of these.

A directory may contain more: samples of an earlier selection, replaced images, scores of a scorer that has changed.
Nothing of it is deleted; it is only not current. All content is read in pages, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.core.records import (
    OFFICIAL_SKIP,
    AgentAnswer,
    AnswerStatus,
    FailureCause,
    Generation,
    GenerationStatus,
    ImageRef,
    ParsedScore,
    Row,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.spec import RunSpec, ScorerSpec, fingerprint
from knowgen.store.database import Database, has_table
from knowgen.store.images import ImageFolder
from knowgen.store.rows import from_json

PAGE = 256
"""Number of samples read at once."""

_NOT_RUN = ParsedScore(status=ScoreStatus.NOT_RUN)


@dataclass(frozen=True)
class AnswerState:
    """What the statistics count of an agent's answer.

    Attributes:
        status: Its status.
        reason: Why the answer is missing, or what of it could not be used.
        ending: How the agent ended, in the terms of its own protocol.
        cause: What caused the failure, when it failed.
    """

    status: AnswerStatus = AnswerStatus.NOT_RUN
    reason: str = ""
    ending: str = ""
    cause: FailureCause | None = None


_NO_ANSWER = AnswerState()

_AnswerStates = dict[tuple[str, int], AnswerState]
_Generations = dict[tuple[str, int], tuple[str, Generation]]
_Images = dict[tuple[str, int], str]
"""Digest of the current image of each sample and repeat; empty if the generation has none."""

_Scores = dict[tuple[str, int, int], tuple[str, Score]]


@dataclass(frozen=True)
class ExpectedGeneration:
    """A selected sample and repeat, with its generation and its scores by one scorer, if they exist.

    Attributes:
        sample: The sample.
        repeat: Number of the generation of this sample, from 0.
        generation: The generation; None if there is none yet.
        scores: One score per judge repeat; None where the current score is missing.
        answer: State of the agent's answer; None in a run without an agent.
    """

    sample: Sample
    repeat: int
    generation: Generation | None
    scores: tuple[Score | None, ...]
    answer: AnswerState | None = None

    def rows(self) -> list[Row]:
        """Return the rows that the statistics read, one per judge repeat."""
        return [_row(self, judge_repeat, score) for judge_repeat, score in enumerate(self.scores)]


class CurrentView:
    """The current content of a run's database, according to its specification.

    Args:
        database: Database of the run.
        images: Images of the run, for their paths.
        spec: Specification with the current repeats and scorers.
        path: The run directory, for error messages.
    """

    def __init__(self, database: Database, images: ImageFolder, spec: RunSpec, path: Path) -> None:
        self._database = database
        self._images = images
        self._spec = spec
        self._path = path
        self._hashes: dict[int, tuple[ScorerSpec, str]] = {}

    def pages(self) -> Iterator[list[Sample]]:
        """Yield the selected samples in order, in lists of up to `PAGE`."""
        after = -1
        while True:
            sql = "select place, sample from samples where place > ? order by place limit ?"
            rows = self._database.read(sql, (after, PAGE))
            if not rows:
                return
            after = rows[-1][0]
            yield [from_json(Sample, row[1]) for row in rows]

    def id_pages(self) -> Iterator[list[str]]:
        """Yield the ids of the selected samples in order, in lists of up to `PAGE`, without reading their records."""
        after = -1
        sql = "select place, sample_id from samples where place > ? order by place limit ?"
        while rows := self._database.read(sql, (after, PAGE)):
            after = rows[-1][0]
            yield [row[1] for row in rows]

    def generations(self, *, paths: bool = True) -> Iterator[tuple[str, Generation]]:
        """Yield key and generation of every selected sample and repeat that has one.

        Args:
            paths: As in `expected_generations`.
        """
        for ids in self.id_pages():
            yield from self._page_generations(ids, paths=paths).values()

    def answers(self) -> Iterator[tuple[str, AgentAnswer]]:
        """Yield key and answer of every selected sample and repeat that has one."""
        if not has_table(self._database, "answers"):
            return  # written by a version without answers
        for ids in self.id_pages():
            latest = {(row[0], row[1]): (row[2], row[3]) for row in self._page_answers(ids, "key, record")}
            for sample_id in ids:
                for repeat in range(self._spec.repeats):
                    if (entry := latest.get((sample_id, repeat))) is not None:
                        yield entry[0], self.read_answer(entry[1])

    def scores(self, scorers: Iterable[ScorerSpec]) -> Iterator[tuple[str, Score]]:
        """Yield key and score, one scorer after the other."""
        for spec in scorers:
            for ids in self.id_pages():
                yield from self._page_scores(ids, spec, self._page_images(ids)).values()

    def expected_generations(self, scorer: ScorerSpec, *, paths: bool = True) -> Iterator[ExpectedGeneration]:
        """Yield every selected sample and repeat exactly once, in order.

        Args:
            scorer: The scorer.
            paths: Whether generations name the files of their images, which takes longer than to read the rest.
        """
        numbers = range(self._spec.judge_repeats_of(scorer))
        for page in self.pages():
            ids = [sample.id for sample in page]
            generations = self._page_generations(ids, paths=paths)
            images = {place: _digest(generation) for place, (_, generation) in generations.items()}
            scores = self._page_scores(ids, scorer, images)
            answers = self._page_answer_states(ids)
            for sample in page:
                for repeat in range(self._spec.repeats):
                    entry = generations.get((sample.id, repeat))
                    scored = [scores.get((sample.id, repeat, number)) for number in numbers]
                    yield ExpectedGeneration(
                        sample=sample,
                        repeat=repeat,
                        generation=entry[1] if entry else None,
                        scores=tuple(each[1] if each else None for each in scored),
                        answer=None if answers is None else answers.get((sample.id, repeat), _NO_ANSWER),
                    )

    def rows(self, scorer: ScorerSpec) -> Iterator[Row]:
        """Yield every selected sample x repeat x judge repeat exactly once, in order."""
        for expected in self.expected_generations(scorer, paths=False):
            yield from expected.rows()

    def _page_answers(self, ids: list[str], columns: str) -> list[tuple[Any, ...]]:
        """Return sample, repeat and further columns of the answers of some samples, the latest last."""
        marks = ",".join("?" * len(ids))
        return self._database.read(
            f"select sample_id, repeat, {columns} from answers where sample_id in ({marks}) and repeat < ?"
            " order by number",
            (*ids, self._spec.repeats),
        )

    def _page_answer_states(self, ids: list[str]) -> _AnswerStates | None:
        """Return the states of the answers of some samples; None in a run without an agent."""
        if self._spec.agent is None:
            return None
        rows = self._page_answers(ids, "status, reason, ending, json_extract(record, '$.cause')")
        return {
            (row[0], row[1]): AnswerState(
                AnswerStatus(row[2]), row[3], row[4], None if row[5] is None else FailureCause(row[5])
            )
            for row in rows
        }

    def _page_generations(self, ids: list[str], *, paths: bool = True) -> _Generations:
        latest = {(row[0], row[1]): (row[2], row[3]) for row in self._generation_rows(ids, "key, record")}
        places = ((sample_id, repeat) for sample_id in ids for repeat in range(self._spec.repeats))
        return {
            place: (latest[place][0], self.read_generation(latest[place][1], paths=paths))
            for place in places
            if place in latest
        }

    def _page_images(self, ids: list[str]) -> _Images:
        """Return the digests of the current images of some samples, without reading their records."""
        return {(row[0], row[1]): row[2] for row in self._generation_rows(ids, "image")}

    def _generation_rows(self, ids: list[str], columns: str) -> list[tuple[Any, ...]]:
        """Return sample, repeat and further columns of the generations of some samples, the latest last."""
        marks = ",".join("?" * len(ids))
        return self._database.read(
            f"select sample_id, repeat, {columns} from generations where sample_id in ({marks}) and repeat < ?"
            " order by number",
            (*ids, self._spec.repeats),
        )

    def _page_scores(self, ids: list[str], scorer: ScorerSpec, images: _Images) -> _Scores:
        marks = ",".join("?" * len(ids))
        repeats, judge_repeats = self._spec.repeats, self._spec.judge_repeats_of(scorer)
        rows = self._database.read(
            f"select sample_id, repeat, judge_repeat, image, key, record from scores where sample_id in ({marks})"
            " and scorer = ? and scorer_hash = ? and repeat < ? and judge_repeat < ? order by number",
            (*ids, scorer.name, self.scorer_hash(scorer), repeats, judge_repeats),
        )
        latest: dict[tuple[str, int, int], tuple[str, str]] = {}
        for sample_id, repeat, judge_repeat, image, key, record in rows:
            if image == images.get((sample_id, repeat)):
                latest[sample_id, repeat, judge_repeat] = (key, record)
        return {
            place: (latest[place][0], from_json(Score, latest[place][1]))
            for sample_id in ids
            for repeat in range(repeats)
            for number in range(judge_repeats)
            if (place := (sample_id, repeat, number)) in latest
        }

    def read_generation(self, record: str, *, paths: bool = True) -> Generation:
        """Return a stored generation, with the paths of its image and of references that are stored in this run.

        Args:
            record: Its JSON text.
            paths: Whether the paths are wanted.
        """
        generation = from_json(Generation, record)
        if not paths:
            return generation
        updates: dict[str, Any] = {}
        if generation.image is not None:
            updates["image"] = self._placed(generation.image)
        if any("format" in reference for reference in generation.references):
            updates["references"] = tuple(map(self._placed_reference, generation.references))
        return generation.model_copy(update=updates) if updates else generation

    def read_answer(self, record: str) -> AgentAnswer:
        """Return a stored answer, with the paths of its images."""
        answer = from_json(AgentAnswer, record)
        return answer.model_copy(
            update={
                "references": tuple(map(self._placed, answer.references)),
                "images": tuple(map(self._placed, answer.images)),
            }
        )

    def _placed(self, image: ImageRef) -> ImageRef:
        return image.model_copy(update={"path": self._images.path(image)})

    def _placed_reference(self, reference: dict[str, Any]) -> dict[str, Any]:
        """Return a reference with its path, if its image is stored in this run."""
        if "path" in reference or "format" not in reference:
            return reference
        image = ImageRef.model_validate({name: reference[name] for name in ("sha256", "width", "height", "format")})
        return {**reference, "path": str(self._images.path(image))}

    def scorer(self, name: str) -> ScorerSpec:
        """Return the run's scorer of a name.

        Raises:
            UsageError: The run has no scorer of this name.
        """
        for spec in self._spec.scorers:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self._spec.scorers) or "none"
        raise UsageError(f"the run has no scorer {name!r}", where=str(self._path), fix=f"it has {known}")

    def scorer_hash(self, scorer: ScorerSpec) -> str:
        """Return the hash of a scorer's identity: name, arguments and version, without its note."""
        known = self._hashes.get(id(scorer))
        if known is None or known[0] is not scorer:
            value = fingerprint({"name": scorer.name, "args": scorer.args, "version": scorer.version})
            known = self._hashes[id(scorer)] = (scorer, value)
        return known[1]


def _digest(generation: Generation) -> str:
    return generation.image.sha256 if generation.image else ""


def _cause(score: Score | None) -> FailureCause | None:
    """Return what caused the failure of a score; a failed score whose last attempt was refused was refused."""
    if score is None or score.status is not ScoreStatus.FAILED:
        return None
    if score.cause is None and score.attempts and score.attempts[-1].refused:
        return FailureCause.REFUSAL
    return score.cause


def _row(expected: ExpectedGeneration, judge_repeat: int, score: Score | None) -> Row:
    sample, generation = expected.sample, expected.generation
    return Row(
        sample_id=sample.id,
        category=sample.category,
        group=sample.group,
        difficulty=sample.difficulty,
        text_required=sample.text_required,
        repeat=expected.repeat,
        judge_repeat=judge_repeat,
        generation=generation.status if generation else GenerationStatus.NOT_RUN,
        generation_reason=generation.reason if generation else "",
        generation_cause=generation.cause if generation else None,
        score_cause=_cause(score),
        strict=score.strict if score else _NOT_RUN,
        lenient=_lenient(sample, score),
        judge_returned=score.judge_returned if score else "",
        **_answer_fields(expected),
    )


def _answer_fields(expected: ExpectedGeneration) -> dict[str, Any]:
    answer, generation = expected.answer, expected.generation
    fallback = generation.fallback if generation else ""
    if answer is None:  # an answer of another run has no state of its own here
        return {"ending": generation.ending if generation else "", "fallback": fallback}
    failed = answer.status is AnswerStatus.FAILED
    return {
        "answer": answer.status,
        "answer_reason": answer.reason if failed else "",
        "answer_cause": answer.cause if failed else None,
        "ending": answer.ending,
        "fallback": fallback,
    }


def _lenient(sample: Sample, score: Score | None) -> ParsedScore | None:
    """Return the values that the published arithmetic reads: none for a sample that its evaluator skips."""
    if score is not None and isinstance(reason := sample.meta.get(OFFICIAL_SKIP), str):
        return ParsedScore(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
    return score.lenient if score else None
