"""Plan the work of a run: what each sample still lacks, from keys and the results in the store.

With an agent, a sample first lacks an answer. What is generated, and so the key of the generation, follows from it.

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
    AnswerStatus,
    FailureCause,
    Generation,
    GenerationStatus,
    GroundTruth,
    ImageRef,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.core.spec import AgentSpec, RunSpec, answer_key, fingerprint, generation_key, score_key, select, text_hash
from knowgen.engine.components import ScorerHandle
from knowgen.generators.contract import SAMPLE_PROMPT, AnswerSource, KeyedAnswers
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task

NO_ANSWER = AgentAnswer(status=AnswerStatus.NOT_RUN)
"""Stands for the answer of an item that this pass does not search for."""


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
        answer_key: Key under which the answer is stored; empty without an agent.
        needs_answer: Whether the agent is to search.
        earlier_answer: Failed answer of an earlier run that is now retried, None for a first attempt.
        prompt: What is generated: the answer's prompt, or the sample's own.
        references: Reference images that it is generated from, as many as the generator takes.
        fallback: Why the answer is not used; empty where it is, and without an agent.
        no_image: Why no image can be generated from the answer, and the cause; None where one can.
    """

    sample: Sample
    truth: GroundTruth
    truth_hash: str
    repeat: int
    key: str = ""
    generation: Generation | None = None
    earlier: Generation | None = None
    pending_scores: Sequence[PendingScore] = ()
    needs_generation: bool = False
    stored_scores: Sequence[Score] = ()
    answer: AgentAnswer = SAMPLE_PROMPT
    answer_key: str = ""
    needs_answer: bool = False
    earlier_answer: AgentAnswer | None = None
    prompt: str = ""
    references: tuple[ImageRef, ...] = ()
    fallback: str = ""
    no_image: tuple[str, FailureCause] | None = None

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to do in this pass."""
        return not self.needs_answer and not self.needs_generation and not self.pending_scores

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


@dataclass(frozen=True)
class PlannedStages:
    """Which stages a pass over the samples has.

    Attributes:
        answer: The agent searches.
        generate: Images are generated.
        scorers: Scorers of the pass.
    """

    answer: bool = False
    generate: bool = True
    scorers: Sequence[ScorerHandle] = ()


class WorkPlanner:
    """Yield the items of a run with what each still lacks.

    Args:
        spec: The run.
        task: Source of the ground truths.
        store: Results that exist.
        stages: Stages of this pass. One that only scores skips samples without an image, one that does not search
            those without an answer.
        max_attempts: Attempts at a generation over all runs; None for generations that exist elsewhere, where reading
            them again costs nothing.
        max_other_attempts: Attempts at an answer or a score over all runs.
        requests: Agent answers that replace the samples' prompts.
        answers: Stored answers of the same agent, which are taken by key before it searches.
        most_references: Maximum number of reference images of `requests` that the generator takes; None for no maximum.
    """

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        store: RunStore,
        stages: PlannedStages,
        *,
        max_attempts: int | None,
        max_other_attempts: int,
        requests: AnswerSource | None = None,
        answers: KeyedAnswers | None = None,
        most_references: int | None = None,
    ) -> None:
        self._spec, self._task, self._store, self._stages = spec, task, store, stages
        self._max_attempts, self._max_other_attempts = max_attempts, max_other_attempts
        self._requests, self._answers, self._most_references = requests, answers, most_references
        # a pass looks up each key once, so a store that is empty at its start needs no look-ups
        generations, scores, *answered = store.last_numbers()
        self._no_generations, self._no_scores, self._no_answers = not generations, not scores, not any(answered)

    def items(self) -> Iterator[WorkItem]:
        """Yield every sample x repeat in order, complete ones included."""
        for sample in self._store.samples():
            truth = self._task.truth(sample.id)
            truth_hash = fingerprint([sample.model_dump(mode="json"), truth.model_dump(mode="json")])
            for repeat in range(self._spec.repeats):
                item = WorkItem(sample, truth, truth_hash, repeat, prompt=sample.prompt)
                if self._spec.agent is not None:
                    self._plan_answer(item)
                elif self._requests is not None:
                    item.answer = self._requests.answer(sample.id, repeat)
                if not item.needs_answer and item.answer.status is not AnswerStatus.NOT_RUN:
                    self.plan_image(item)
                yield item

    def _plan_answer(self, item: WorkItem) -> None:
        """Fill in the stored answer of an item, or that the agent is to search."""
        item.answer_key = answer_key(
            self._spec, sample_id=item.sample.id, prompt_hash=text_hash(item.sample.prompt), repeat=item.repeat
        )
        known = None if self._no_answers else self._store.answer(item.answer_key)
        if known is not None and not all(map(self._store.image_ok, known.references)):
            known = None  # a file is missing or damaged
        if known is None and self._answers is not None:
            known = self._answers.take(item.answer_key, self._store)
        if known is not None and (known.status is not AnswerStatus.FAILED or self._is_final_answer(known)):
            item.answer = known
            return
        item.earlier_answer, item.needs_answer = known, self._stages.answer
        if not item.needs_answer:
            item.answer = NO_ANSWER if known is None else known

    def _is_final_answer(self, failed: AgentAnswer) -> bool:
        return failed.cause is not FailureCause.INFRASTRUCTURE and failed.attempts >= self._max_other_attempts

    def plan_image(self, item: WorkItem) -> None:
        """Fill in what is generated from an item's answer, its key, its stored results and what it lacks."""
        if self._spec.agent is not None or self._requests is not None:
            use_answer(item, self._spec.agent, self._most_references)
        item.key = image_key(self._spec, item)
        self._plan(item)

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
                known.tries < self._max_other_attempts or known.cause is FailureCause.INFRASTRUCTURE
            ):
                one.earlier = known
                pending.append(one)
            else:
                stored.append(known)
        item.pending_scores, item.stored_scores = pending, stored

    def _plan(self, item: WorkItem) -> None:
        """Fill in the stored generation of an item and the scores it lacks."""
        known = None if self._no_generations else self._store.generation(item.key)
        if known is None:
            item.needs_generation = self._stages.generate
        elif known.status is GenerationStatus.OK:
            if known.image is not None and self._store.image_ok(known.image):
                item.generation = known
                self.plan_scores(item)
            else:  # the image file is missing or damaged
                item.needs_generation = self._stages.generate
        elif self._is_final(known) or (item.no_image is not None and known.reason == item.no_image[0]):
            item.generation = known
        else:
            item.earlier, item.needs_generation = known, True

    def _is_final(self, failed: Generation) -> bool:
        if not self._stages.generate or failed.status is GenerationStatus.REFUSED:
            return True
        if failed.cause is FailureCause.INFRASTRUCTURE:
            return False  # it says nothing about the generator, however often it happens
        return self._max_attempts is not None and failed.attempts >= self._max_attempts

    def _required_scores(self, item: WorkItem, generation: Generation) -> Iterator[PendingScore]:
        """Yield every score that a generation must have, existing ones included."""
        if generation.image is None:
            return
        for index, scorer in enumerate(self._stages.scorers):
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


def use_answer(item: WorkItem, agent: AgentSpec | None, most_references: int | None = None) -> None:
    """Fill in what is generated from an item's answer: its prompt and references, or the sample's own prompt.

    Args:
        item: An item with its answer.
        agent: The agent, which says how its answers are used; None for answers of a file or of another run.
        most_references: Maximum number of reference images without an agent; None for no maximum.
    """
    answer, most = item.answer, agent.most_references if agent is not None else most_references
    if answer.status is AnswerStatus.FAILED:
        item.no_image = f"the agent failed: {answer.reason}", answer.cause or FailureCause.SYSTEM
        return
    references = answer.references if most is None else answer.references[:most]
    if answer.prompt.strip() and (references or (agent is not None and agent.references_optional)):
        item.prompt, item.references = answer.prompt, references
        return
    item.fallback = _why_unused(answer)
    if agent is not None and agent.fallback == "fail":
        item.no_image = f"the agent gave no usable answer: {item.fallback}", FailureCause.SYSTEM


def _why_unused(answer: AgentAnswer) -> str:
    """Return why an answer is not used."""
    if answer.status is AnswerStatus.NONE:
        return "; ".join(filter(None, (answer.ending, answer.reason))) or "the agent ended without an answer"
    if not answer.prompt.strip():
        return answer.reason or "the answer has no prompt"
    if answer.references:
        return "the generator takes no reference images"
    return answer.reason or "the answer has no reference image"


def image_key(spec: RunSpec, item: WorkItem) -> str:
    """Return the key of the generation of an item whose answer is known.

    Where no image can be generated, the failure is stored under a key that follows from the answer's.
    """
    return generation_key(
        spec,
        sample_id=item.sample.id,
        prompt_hash=text_hash(item.prompt) if item.no_image is None else f"no image: {item.answer_key}",
        references=tuple(reference.sha256 for reference in item.references),
        repeat=item.repeat,
    )


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
