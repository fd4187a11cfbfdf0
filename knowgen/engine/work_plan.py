"""What is still to be done, sample by sample, worked out from keys and what the store holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Sample, Score, ScoreStatus
from knowgen.core.spec import RunSpec, fingerprint, generation_key, score_key, select, text_hash
from knowgen.engine.components import ScorerHandle
from knowgen.generators.contract import THE_PROMPT, AgentAnswer, AnswerSource
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task


@dataclass(slots=True)
class PendingScore:
    """A judgement that is to be made.

    Attributes:
        scorer: Place of the scorer among the run's.
        judge_repeat: From 0.
        key: Where it is stored.
        earlier: A failed judgement of an earlier run, tried again now.
    """

    scorer: int
    judge_repeat: int
    key: str
    earlier: Score | None


@dataclass(slots=True)
class WorkItem:
    """One sample x repeat on its walk.

    Attributes:
        sample: The sample.
        truth: Its ground truth.
        truth_hash: Of both.
        repeat: From 0.
        key: Where its drawing is stored.
        generation: The drawing, when it stands already, be it as failed.
        earlier: A failed drawing of an earlier run, tried again now.
        wanted: Judgements to be made of a drawing that stands already.
        to_draw: Is the drawing to be made?
        settled: Judgements that stand already.
        asked: What is drawn in place of the sample's prompt.
    """

    sample: Sample
    truth: GroundTruth
    truth_hash: str
    repeat: int
    key: str
    generation: Generation | None = None
    earlier: Generation | None = None
    wanted: Sequence[PendingScore] = ()
    to_draw: bool = False
    settled: Sequence[Score] = ()
    asked: AgentAnswer = THE_PROMPT


def enter_samples(spec: RunSpec, task: Task, store: RunStore) -> None:
    """Writes the selection of a run into the store.

    The task yields either all its samples or the selected ones; a selection by ids is also taken from the store, if
    it was put there before.

    Raises:
        ConfigError: The task does not yield what was selected.
        DataError: A ground truth is missing, or an id occurs twice.
    """
    kind = spec.selection.kind
    if kind == "ids" and select([sample.id for sample in store.samples()], kind) == spec.selection:
        return
    ids: list[str] = []

    def items() -> Iterator[tuple[Sample, GroundTruth]]:
        for sample in islice(task.samples(), spec.selection.n):
            ids.append(sample.id)
            yield sample, task.truth(sample.id)
        if select(ids, kind) != spec.selection:
            raise ConfigError(
                f"yields other samples than the {spec.selection.label} that were selected",
                where=f"task {spec.task}",
                fix="select anew",
            )

    store.put_samples(items())


class WorkPlanner:
    """Goes through the samples of a run and says what each still lacks.

    Args:
        spec: The run.
        task: Where ground truths come from.
        store: What there is already.
        scorers: Who judges; empty for a pass that only draws.
        draw: May this pass draw? A pass that only scores leaves what is not drawn.
        max_attempts: Tries over all runs; None for drawings made elsewhere, where looking again costs nothing.
        max_tries: The same for judgements.
        requests: Says what is drawn in place of the samples' prompts.
    """

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        store: RunStore,
        scorers: Sequence[ScorerHandle],
        *,
        draw: bool,
        max_attempts: int | None,
        max_tries: int,
        requests: AnswerSource | None = None,
    ) -> None:
        self._spec, self._task, self._store, self._scorers = spec, task, store, scorers
        self._draw, self._max_attempts, self._max_tries = draw, max_attempts, max_tries
        self._requests = requests
        # a pass asks for each key once, so where nothing lay when it began there is nothing to look up
        drawings, scores = store.last_numbers()
        self._no_drawings, self._no_scores = not drawings, not scores

    def jobs(self) -> Iterator[WorkItem]:
        """Yields every sample x repeat in order, those included that lack nothing."""
        for sample in self._store.samples():
            truth = self._task.truth(sample.id)
            truth_hash = fingerprint([sample.model_dump(mode="json"), truth.model_dump(mode="json")])
            for repeat in range(self._spec.repeats):
                asked = self._requests.answer(sample.id, repeat) if self._requests is not None else THE_PROMPT
                key = generation_key(
                    self._spec,
                    sample_id=sample.id,
                    prompt_hash=text_hash(asked.prompt or sample.prompt),
                    references=tuple(reference.sha256 for reference in asked.references),
                    repeat=repeat,
                )
                yield self._job(WorkItem(sample, truth, truth_hash, repeat, key, asked=asked))

    def _job(self, job: WorkItem) -> WorkItem:
        known = None if self._no_drawings else self._store.generation(job.key)
        if known is None:
            job.to_draw = self._draw
        elif known.status is GenerationStatus.OK:
            if known.image is not None and self._store.image_ok(known.image):
                job.generation = known
                self._judgements(job, known)
            else:  # the picture behind the row is gone or damaged
                job.to_draw = self._draw
        elif self._stands(known):
            job.generation = known
        else:
            job.earlier, job.to_draw = known, True
        return job

    def _stands(self, known: Generation) -> bool:
        if not self._draw or known.status is GenerationStatus.REFUSED:
            return True
        return self._max_attempts is not None and known.attempts >= self._max_attempts

    def _judgements(self, job: WorkItem, generation: Generation) -> None:
        settled: list[Score] = []
        wanted: list[PendingScore] = []
        for one in self.wanted(job, generation):
            known = None if self._no_scores else self._store.score(one.key)
            if known is None:
                wanted.append(one)
            elif known.status is ScoreStatus.FAILED and known.tries < self._max_tries:
                one.earlier = known
                wanted.append(one)
            else:
                settled.append(known)
        job.wanted, job.settled = wanted, settled

    def wanted(self, job: WorkItem, generation: Generation) -> Iterator[PendingScore]:
        """Yields every judgement a drawing is to have."""
        if generation.image is None:
            return
        for place, scorer in enumerate(self._scorers):
            for judge_repeat in range(self._spec.judgements(scorer.spec)):
                key = score_key(
                    scorer.spec,
                    task_version=self._spec.task_version,
                    sample_id=job.sample.id,
                    truth_hash=_read_beside(job.truth_hash, scorer, generation),
                    image=generation.image.sha256,
                    repeat=job.repeat,
                    judge_repeat=judge_repeat,
                )
                yield PendingScore(place, judge_repeat, key, None)

    def after_drawing(self, job: WorkItem) -> None:
        """Fills in the judgements a fresh drawing lacks; the same picture may have been judged before."""
        if job.generation is not None:
            self._judgements(job, job.generation)


def _read_beside(truth_hash: str, scorer: ScorerHandle, generation: Generation) -> str:
    """Returns the hash of what a scorer reads beside the picture; one may read what the generator gathered, too."""
    if not scorer.traits.needs & {"references", "evidence"}:
        return truth_hash
    gathered = generation.model_dump(mode="json", include={"used_prompt", "references", "evidence", "trajectory"})
    return fingerprint([truth_hash, gathered])
