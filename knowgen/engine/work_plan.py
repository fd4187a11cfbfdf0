"""Plan the work of a run: what each sample still lacks, from keys and the results in the store.

`WorkPlanner` yields one `WorkItem` per sample x repeat. An item whose results all exist needs no work, which is what
makes a run resumable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from knowgen.core.errors import ConfigError
from knowgen.core.records import (
    AgentAnswer,
    FailureCause,
    Generation,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.spec import RunSpec, fingerprint, generation_key, score_key, select, text_hash
from knowgen.engine.components import ScorerHandle
from knowgen.generators.contract import SAMPLE_PROMPT, AnswerSource
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task


@dataclass(slots=True)
class PendingScore:
    """A score that is still to be made.

    Attributes:
        scorer_index: Position of the scorer in the run's list.
        judge_repeat: Number of the judge repeat, from 0.
        key: Key under which the score is stored.
        earlier: Failed score of an earlier run that is now retried, None for a first attempt.
    """

    scorer_index: int
    judge_repeat: int
    key: str
    earlier: Score | None


@dataclass(slots=True)
class WorkItem:
    """One sample x repeat on its way through a run.

    Attributes:
        sample: The sample.
        truth: Its ground truth.
        truth_hash: Hash of sample and ground truth.
        repeat: Number of the repeat, from 0.
        key: Key under which its generation is stored.
        generation: Its generation, once there is one, failed or not.
        earlier: Failed generation of an earlier run that is now retried, None for a first attempt.
        pending_scores: Scores that are still to be made of `generation`.
        needs_generation: Whether an image is to be generated.
        stored_scores: Scores that exist already.
        answer: The agent's answer, which replaces the sample's prompt.
    """

    sample: Sample
    truth: GroundTruth
    truth_hash: str
    repeat: int
    key: str
    generation: Generation | None = None
    earlier: Generation | None = None
    pending_scores: Sequence[PendingScore] = ()
    needs_generation: bool = False
    stored_scores: Sequence[Score] = ()
    answer: AgentAnswer = SAMPLE_PROMPT

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to do in this pass."""
        return not self.needs_generation and not self.pending_scores

    @property
    def stored_results_usable(self) -> bool:
        """Return whether no result that exists already is failed."""
        generated = self.generation is None or self.generation.status is GenerationStatus.OK
        return generated and all(score.status is not ScoreStatus.FAILED for score in self.stored_scores)


def store_samples(spec: RunSpec, task: Task, store: RunStore) -> None:
    """Write the selected samples of a run to the store.

    The task yields either all its samples or the selected ones. A selection by ids that is in the store already is not
    read from the task again.

    Raises:
        ConfigError: The task does not yield the selected samples.
        DataError: A ground truth is missing, or an id is duplicated.
    """
    kind = spec.selection.kind
    if kind == "ids" and select([sample.id for sample in store.samples()], kind) == spec.selection:
        return
    ids: list[str] = []

    def selected() -> Iterator[tuple[Sample, GroundTruth]]:
        for sample in islice(task.samples(), spec.selection.n):
            ids.append(sample.id)
            yield sample, task.truth(sample.id)
        if select(ids, kind) != spec.selection:
            raise ConfigError(
                f"yields other samples than the {spec.selection.label} that were selected",
                where=f"task {spec.task}",
                fix="select the samples again",
            )

    store.put_samples(selected())


class WorkPlanner:
    """Yield the items of a run with what each still lacks.

    Args:
        spec: The run.
        task: Source of the ground truths.
        store: Results that exist.
        scorers: Scorers of this pass; empty for a pass that only generates.
        generate: Whether this pass may generate; a pass that only scores skips samples without an image.
        max_attempts: Attempts at a generation over all runs; None for generations that exist elsewhere, where reading
            them again costs nothing.
        max_score_attempts: Attempts at a score over all runs.
        requests: Agent answers that replace the samples' prompts.
    """

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        store: RunStore,
        scorers: Sequence[ScorerHandle],
        *,
        generate: bool,
        max_attempts: int | None,
        max_score_attempts: int,
        requests: AnswerSource | None = None,
    ) -> None:
        self._spec, self._task, self._store, self._scorers = spec, task, store, scorers
        self._generate, self._max_attempts, self._max_score_attempts = generate, max_attempts, max_score_attempts
        self._requests = requests
        # a pass looks up each key once, so a store that is empty at its start needs no look-ups
        generations, scores = store.last_numbers()
        self._no_generations, self._no_scores = not generations, not scores

    def items(self) -> Iterator[WorkItem]:
        """Yield every sample x repeat in order, complete ones included."""
        for sample in self._store.samples():
            truth = self._task.truth(sample.id)
            truth_hash = fingerprint([sample.model_dump(mode="json"), truth.model_dump(mode="json")])
            for repeat in range(self._spec.repeats):
                answer = self._requests.answer(sample.id, repeat) if self._requests is not None else SAMPLE_PROMPT
                key = generation_key(
                    self._spec,
                    sample_id=sample.id,
                    prompt_hash=text_hash(answer.prompt or sample.prompt),
                    references=tuple(reference.sha256 for reference in answer.references),
                    repeat=repeat,
                )
                item = WorkItem(sample, truth, truth_hash, repeat, key, answer=answer)
                self._plan(item)
                yield item

    def plan_scores(self, item: WorkItem) -> None:
        """Fill in which scores of an item's generation exist and which are to be made.

        A new generation may have scores as well: the same image may have been scored before.
        """
        if item.generation is None:
            return
        stored: list[Score] = []
        pending: list[PendingScore] = []
        for one in self._required_scores(item, item.generation):
            known = None if self._no_scores else self._store.score(one.key)
            if known is None:
                pending.append(one)
            elif known.status is ScoreStatus.FAILED and (
                known.tries < self._max_score_attempts or known.cause is FailureCause.INFRASTRUCTURE
            ):
                one.earlier = known
                pending.append(one)
            else:
                stored.append(known)
        item.pending_scores, item.stored_scores = pending, stored

    def _plan(self, item: WorkItem) -> None:
        """Fill in the stored results of an item and the scores it lacks."""
        known = None if self._no_generations else self._store.generation(item.key)
        if known is None:
            item.needs_generation = self._generate
        elif known.status is GenerationStatus.OK:
            if known.image is not None and self._store.image_ok(known.image):
                item.generation = known
                self.plan_scores(item)
            else:  # the image file is missing or damaged
                item.needs_generation = self._generate
        elif self._is_final(known):
            item.generation = known
        else:
            item.earlier, item.needs_generation = known, True

    def _is_final(self, failed: Generation) -> bool:
        if not self._generate or failed.status is GenerationStatus.REFUSED:
            return True
        if failed.cause is FailureCause.INFRASTRUCTURE:
            return False  # it says nothing about the generator, however often it happens
        return self._max_attempts is not None and failed.attempts >= self._max_attempts

    def _required_scores(self, item: WorkItem, generation: Generation) -> Iterator[PendingScore]:
        """Yield every score that a generation must have, existing ones included."""
        if generation.image is None:
            return
        for index, scorer in enumerate(self._scorers):
            for judge_repeat in range(self._spec.judge_repeats_of(scorer.spec)):
                key = score_key(
                    scorer.spec,
                    task_version=self._spec.task_version,
                    sample_id=item.sample.id,
                    truth_hash=inputs_hash(item.truth_hash, scorer.capabilities.needs, generation),
                    image=generation.image.sha256,
                    repeat=item.repeat,
                    judge_repeat=judge_repeat,
                )
                yield PendingScore(index, judge_repeat, key, None)


def inputs_hash(truth_hash: str, needs: frozenset[str], generation: Generation) -> str:
    """Return the hash of all that a scorer reads beside the image.

    For a scorer that needs references or evidence, this includes what the generator recorded with the image.

    Args:
        truth_hash: Hash of the sample and its ground truth.
        needs: Needs of the scorer.
        generation: The generation.
    """
    if not needs & {"references", "evidence"}:
        return truth_hash
    recorded = generation.model_dump(mode="json", include={"used_prompt", "references", "evidence", "trajectory"})
    return fingerprint([truth_hash, recorded])
