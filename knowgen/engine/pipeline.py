"""Send every sample through a pass of the run: search, generate, score, and store the result of each.

Each item (one sample x repeat) is handled by an asyncio task of its own, so no sample waits for another; a semaphore
bounds the items in flight. `WorkPlanner` yields the items with what they still lack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from knowgen.core.errors import BudgetReachedError
from knowgen.core.records import AnswerStatus, GenerationStatus, ScoreStatus
from knowgen.engine.answering import AnswerStep
from knowgen.engine.executors.concurrency import WorkerThreads
from knowgen.engine.generation import GenerationStep
from knowgen.engine.progress import RunCounts
from knowgen.engine.retry import LeftOutError, NotGeneratedError, StoppedError, StoreError
from knowgen.engine.run_state import RunState
from knowgen.engine.scoring import ScoringStep
from knowgen.engine.work_plan import PendingScore, WorkItem, WorkPlanner

CHUNK = 32
"""Items planned at once, in the planning thread."""


class ServiceChecks:
    """Checks once per run that the services take calls, before anything is generated or paid. Only those with work.

    Args:
        answer_step: Has the agent search; None without one.
        generation_step: Generates images; None where none are generated.
        scoring_steps: One per scorer, in the planner's order.
        on_passed: Called once, after the first checks, before the first call.
    """

    def __init__(
        self,
        answer_step: AnswerStep | None,
        generation_step: GenerationStep | None,
        scoring_steps: Sequence[ScoringStep],
        on_passed: Callable[[], None] = lambda: None,
    ) -> None:
        self._answer_step, self._generation_step = answer_step, generation_step
        self._on_passed: Callable[[], None] | None = on_passed
        self._unchecked = dict(enumerate(scoring_steps))

    async def before(self, item: WorkItem) -> None:
        """Check the services that an item needs and that have not been checked.

        Raises:
            StoppedError: A service is unavailable, and the run waits no longer.
            KnowgenError: A service takes no calls, which ends the run.
        """
        makes_image = item.needs_generation or item.needs_answer
        indices = set(self._unchecked) if makes_image else {one.scorer_index for one in item.pending_scores}
        steps: list[AnswerStep | GenerationStep | ScoringStep] = [
            self._unchecked.pop(index) for index in sorted(indices) if index in self._unchecked
        ]
        if item.needs_answer and self._answer_step is not None:
            steps.append(self._answer_step)
            self._answer_step = None
        if makes_image and self._generation_step is not None:
            steps.append(self._generation_step)
            self._generation_step = None
        if steps:
            await asyncio.gather(*(step.check() for step in steps))
            if self._on_passed is not None:
                self._on_passed()
                self._on_passed = None


class SamplePipeline:
    """One pass over the samples of a run.

    Args:
        state: Whether the run goes on.
        planner: Yields the items and what each lacks.
        answer_step: Has the agent search and stores its answers; None in a pass that does not search.
        generation_step: Generates and stores images; None in a pass that does not generate.
        scoring_steps: One per scorer, in the planner's order; empty in a pass that only generates.
        counts: Counts of the run.
        planning: A thread for the planner, which reads the store.
        max_in_flight: Items in flight at once.
        drain: Go on after a stop that is not an interruption, to score images that exist.
        checks: Checks the services before the first call.
    """

    def __init__(
        self,
        state: RunState,
        planner: WorkPlanner,
        answer_step: AnswerStep | None,
        generation_step: GenerationStep | None,
        scoring_steps: Sequence[ScoringStep],
        counts: RunCounts,
        planning: WorkerThreads,
        *,
        max_in_flight: int,
        drain: bool = False,
        checks: ServiceChecks,
    ) -> None:
        self._state, self._planner, self._drain, self._checks = state, planner, drain, checks
        self._answer_step, self._generation_step, self._scoring_steps = answer_step, generation_step, scoring_steps
        self._counts, self._planning = counts, planning
        self._slots = asyncio.Semaphore(max_in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()

    async def run(self) -> None:
        """Start items until all have been started or the run stops; return when those in flight have ended."""
        try:
            await self._start_items()
        except Exception as error:  # noqa: BLE001 - for example a missing ground truth, or a store that cannot be read
            self._state.fail(error)
        while self._tasks:
            self._idle.clear()
            await self._idle.wait()

    def cancel(self) -> None:
        """Cancel every item in flight."""
        for task in self._tasks:
            task.cancel()

    @property
    def _stopped(self) -> bool:
        """Return whether no further item may start."""
        return self._state.aborting or (bool(self._state.stop_reason) and not self._drain)

    async def _start_items(self) -> None:
        items = self._planner.items()
        chunk = await self._plan_chunk(items)
        while chunk and not self._stopped:
            following = self._plan_chunk(items)
            for item in chunk:
                if not await self._start(item):
                    break
            chunk = await following

    def _plan_chunk(self, items: Iterator[WorkItem]) -> asyncio.Future[list[WorkItem]]:
        return self._planning.run(lambda: list(islice(items, CHUNK)))

    async def _start(self, item: WorkItem) -> bool:
        """Start an item, or count one that is complete. Return False if the run has stopped."""
        if self._stopped:
            return False
        if item.is_complete and item.answer.status is AnswerStatus.NOT_RUN:
            self._counts.not_run += 1  # a stage before this pass has no answer for it
            return True
        if item.is_complete:
            self._count_stored_answer(item)
            self._counts.add_stored(item, generations=self._generation_step is not None)
            self._counts.end_stored(item)
            return True
        try:
            await self._checks.before(item)
        except StoppedError:
            return False
        await self._slots.acquire()
        if self._stopped:
            self._slots.release()
            return False
        task = asyncio.get_running_loop().create_task(self._run_item(item))
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return True

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not self._tasks:
            self._idle.set()

    def _count_stored_answer(self, item: WorkItem) -> None:
        if self._answer_step is not None and not item.needs_answer:
            self._counts.add_answer(item.answer, made=False)

    async def _run_item(self, item: WorkItem) -> None:
        """Search, generate and score for an item. Failures of plugins are stored; what is raised here ends the run."""
        try:
            await self._answer(item)
            self._counts.end(failed=not await self._generate_and_score(item))
        except (StoppedError, LeftOutError):
            self._counts.not_run += 1  # the reason is in the run state, or known to the service
        except NotGeneratedError:
            self._counts.end(failed=False)  # stays not run: nothing to score yet
        except BudgetReachedError:
            self._state.stop("budget")
        except StoreError as error:
            self._state.fail(error.error)
        except Exception as error:  # noqa: BLE001 - would hit every sample, or is a bug of the engine
            self._state.fail(error)

    async def _answer(self, item: WorkItem) -> None:
        """Have the agent search, if the item lacks an answer, and plan what follows from it."""
        self._count_stored_answer(item)
        if not item.needs_answer or self._answer_step is None:
            return
        item.answer = await self._answer_step.answer(item)
        item.needs_answer = False
        self._counts.add_answer(item.answer, made=True)
        if self._generation_step is not None:
            self._planner.plan_image(item)

    async def _generate_and_score(self, item: WorkItem) -> bool:
        """Do what an item lacks. Return whether all its results are usable."""
        usable = True
        if item.needs_generation and self._generation_step is not None:
            generation = await self._generation_step.generate(item)
            self._counts.add_generation(generation)
            item.generation = generation
            usable = generation.status is GenerationStatus.OK
            if generation.status is GenerationStatus.OK and self._scoring_steps:
                self._planner.plan_scores(item)
                self._counts.add_stored_scores(item)
        else:
            self._counts.add_stored(item, generations=self._generation_step is not None)
        usable = usable and item.stored_results_usable
        if len(item.pending_scores) == 1:
            return await self._score(item, item.pending_scores[0]) and usable
        if item.pending_scores:
            return await self._score_all(item) and usable
        return usable

    async def _score_all(self, item: WorkItem) -> bool:
        """Make all scores of an image concurrently; raise the most serious error once all have ended."""
        scores = (self._score(item, pending) for pending in item.pending_scores)
        results = await asyncio.gather(*scores, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        # an error of the store comes first, then a reached budget, and last that the run was stopped
        errors.sort(
            key=lambda error: (not isinstance(error, StoreError), isinstance(error, (StoppedError, LeftOutError)))
        )
        if errors:
            raise errors[0]
        return all(results)

    async def _score(self, item: WorkItem, pending: PendingScore) -> bool:
        """Make a score. Return whether it is usable."""
        if item.generation is None:
            return True
        score = await self._scoring_steps[pending.scorer_index].score(item, item.generation, pending)
        self._counts.add_score(score, pending.earlier)
        return score.status is not ScoreStatus.FAILED
