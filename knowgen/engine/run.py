"""Run a specification: the entry point of the engine.

`run` starts an `Engine` in a thread of its own. The engine stores the selected samples, builds an `AnswerStep` for an
agent, one `GenerationStep` and one `ScoringStep` per scorer, sends every sample through them (`SamplePipeline`), and
closes the plugins. The main thread meanwhile shows progress and handles signals.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context

from knowgen.core.errors import KnowgenError
from knowgen.core.leaks import current_leak_guard
from knowgen.core.spec import RunSpec
from knowgen.core.steps import hidden_steps, hide_steps
from knowgen.engine.answering import AnswerStep, AnswerWriter
from knowgen.engine.budget import BudgetMeter
from knowgen.engine.components import AgentHandle, GeneratorHandle, ScorerHandle
from knowgen.engine.executors.concurrency import LoopBridge, WorkerThreads
from knowgen.engine.executors.in_process import ABORT_SECONDS
from knowgen.engine.generation import GenerationStep, GenerationWriter, GeneratorStep, SourceStep
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.engine.pipeline import SamplePipeline, ServiceChecks
from knowgen.engine.placement import agent_dispatcher, generator_dispatcher, max_items_in_flight, scorer_dispatcher
from knowgen.engine.progress import Progress, RunCounts
from knowgen.engine.run_state import RunState, SignalHandler
from knowgen.engine.scoring import ScoringStep
from knowgen.engine.services import Service
from knowgen.engine.work_plan import PlannedStages, WorkPlanner, store_samples
from knowgen.generators.contract import AnswerSource, GenerationSource, KeyedAnswers
from knowgen.search.leaks import TruthGuard
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task

GRACE_SECONDS = 1.2
"""Seconds that work in flight gets to finish after an interruption, before it is cancelled."""

INTERRUPT_LIMIT_SECONDS = 2.0
"""Seconds after which an interrupted run returns even if a plugin hangs."""

_POLL_SECONDS = 0.1
_WRITER_THREADS = 2


class Engine:
    """One run. Its event loop has a thread of its own, so that the main thread can always handle a signal.

    Args:
        spec: What decides the results.
        task: Samples and ground truths.
        generator: The generator, or a source of generations that exist already.
        scorers: Scorers, in the order of `spec.scorers`.
        store: Where results are written.
        options: How the run is carried out.
        requests: Agent answers that replace the samples' prompts.
        before_calls: Called once, when the services have been checked and before the first call.
        agent: The agent that answers before the generator generates; None without one.
        answers: Stored answers of the same agent.
    """

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        generator: GeneratorHandle | GenerationSource,
        scorers: Sequence[ScorerHandle],
        store: RunStore,
        options: EngineOptions,
        requests: AnswerSource | None = None,
        before_calls: Callable[[], None] = lambda: None,
        *,
        agent: AgentHandle | None = None,
        answers: KeyedAnswers | None = None,
    ) -> None:
        self._spec, self._task, self._generator, self._requests = spec, task, generator, requests
        self._scorers, self._store, self._options = scorers, store, options
        self._before_calls, self._agent, self._answers = before_calls, agent, answers
        self._loop = asyncio.new_event_loop()
        self._context = copy_context()
        self._context.run(hide_steps)  # the run has its own display
        whole: Task = getattr(task, "whole", task)  # the same images are blocked in each part of a task
        self._context.run(current_leak_guard.set, TruthGuard(whole.truth(sample.id) for sample in whole.samples()))
        self._bridge = LoopBridge(self._loop, self._context)
        self._state = RunState()
        self._services: list[Service] = []
        self._meter = BudgetMeter(store, options.budget, lambda: self._stop("budget"))
        self._answer_step: AnswerStep | None = None
        self._generation_step: GenerationStep | None = None
        self._scoring_steps: list[ScoringStep] = []
        self._thread_pools: list[WorkerThreads] = []
        self._error: BaseException | None = None
        self.counts = RunCounts(
            spec.selection.n * spec.repeats,
            passes=len(self._passes()),
            pays_for_generations=isinstance(generator, GeneratorHandle),
        )
        self.done = threading.Event()

    @property
    def cost(self) -> float:
        """Return US dollars spent by this run so far: the meter's sum or the records' sum, whichever is higher."""
        return max(self._meter.cost, self.counts.recorded_cost)

    def interrupt(self) -> None:
        """Start no new work and end soon. May be called from any thread."""
        self._stop("interrupted")

    def _stop(self, reason: str) -> None:
        self._bridge.post(self._state.stop, reason)

    # -- the engine's thread ---------------------------------------------------------------------------------------

    def main(self) -> None:
        """Carry out the run; the target of the engine's thread."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._loop.create_task(self._main(), context=self._context.copy()))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the run
            self._error = error
        finally:
            self._loop.close()
            self.done.set()

    async def _main(self) -> None:
        try:
            planning = self._new_threads(1, "planning")
            await planning.run(store_samples, self._spec, self._task, self._store)
            self._generation_step = self._build_generation_step()
            for handle in self._scorers:
                self._scoring_steps.append(self._build_scoring_step(handle))
            if self._agent is not None:
                self._answer_step = self._build_answer_step(self._agent)
            self._checks = ServiceChecks(
                self._answer_step, self._generation_step, self._scoring_steps, self._before_calls
            )
            for stages in self._passes():
                await self._run_pass(planning, stages)
                await self._free(stages)
        finally:
            try:
                await self._close()
            finally:
                for threads in self._thread_pools:
                    threads.close()
        if (error := self._state.error or self._state.final_error) is not None:
            raise error

    def _passes(self) -> list[PlannedStages]:
        """Return the stages of each pass over the samples: one pass for all, or in a phased run one for each."""
        answers = self._agent is not None
        if self._options.schedule != "phased":
            return [PlannedStages(answers, True, self._scorers)]
        return [
            *([PlannedStages(answer=True, generate=False)] if answers else []),
            PlannedStages(generate=True),
            *([PlannedStages(generate=False, scorers=self._scorers)] if self._scorers else []),
        ]

    async def _free(self, stages: PlannedStages) -> None:
        """Close the plugins of a pass of a phased run, so that those of the next one have the accelerator's memory."""
        if self._options.schedule != "phased" or self._state.aborting:
            return
        if stages.answer and self._answer_step is not None:
            await self._answer_step.close()
        if stages.generate and self._generation_step is not None:
            await self._generation_step.close()

    async def _run_pass(self, planning: WorkerThreads, stages: PlannedStages) -> None:
        """Send every sample through the steps of one pass."""
        # when the budget stopped the stages before, free scorers still score the images that exist
        drain = self._state.stop_reason == "budget" and not stages.generate and not stages.answer
        if self._state.aborting or (self._state.stop_reason and not drain):
            return
        pipeline = SamplePipeline(
            self._state,
            self._planner(stages),
            self._answer_step if stages.answer else None,
            self._generation_step if stages.generate else None,
            self._scoring_steps if stages.scorers else (),
            self.counts,
            planning,
            max_in_flight=max_items_in_flight(
                self._generator if stages.generate else None,
                stages.scorers,
                self._options,
                self._agent if stages.answer else None,
            ),
            drain=drain,
            checks=self._checks,
        )
        running = self._loop.create_task(pipeline.run())
        watching = self._loop.create_task(self._stop_on_request(pipeline))
        try:
            await running
        finally:
            watching.cancel()

    def _planner(self, stages: PlannedStages) -> WorkPlanner:
        limit = self._options.max_attempts
        generator = self._generator
        made = isinstance(generator, GeneratorHandle)
        return WorkPlanner(
            self._spec,
            self._task,
            self._store,
            stages,
            max_attempts=limit if made else None,
            max_other_attempts=limit,
            requests=self._requests,
            answers=self._answers,
            most_references=_most_references(generator),
        )

    async def _stop_on_request(self, pipeline: SamplePipeline) -> None:
        """Wait for the run to stop; then drop queued requests, and cancel work in flight if the run is aborting."""
        state = self._state
        while not state.aborting:
            await state.changed.wait()
            state.changed.clear()
            if state.stop_reason:
                for made_first in (self._answer_step, self._generation_step):
                    if made_first is not None:
                        made_first.stop()
        for step in self._scoring_steps:
            step.stop()
        await asyncio.sleep(0 if state.error is not None else GRACE_SECONDS)
        pipeline.cancel()

    async def _close(self) -> None:
        every = [self._answer_step, self._generation_step, *self._scoring_steps]
        steps = [step for step in every if step is not None]
        if self._state.aborting:
            for step in steps:
                step.kill()
            until = time.monotonic() + ABORT_SECONDS
            for step in steps:
                step.join(max(0.0, until - time.monotonic()))
        else:
            await asyncio.gather(*(step.close() for step in steps))
        await self._end_tasks()
        self._meter.close()

    async def _end_tasks(self) -> None:
        """Cancel the tasks that are left, so that none is destroyed while it waits."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=ABORT_SECONDS)

    def _new_threads(self, count: int, name: str) -> WorkerThreads:
        threads = WorkerThreads(self._bridge, count, name)
        self._thread_pools.append(threads)
        return threads

    def _build_answer_step(self, handle: AgentHandle) -> AnswerStep:
        return AnswerStep(
            self._spec,
            self._options,
            agent_dispatcher(handle, self._options, self._bridge, self._state, self._meter, self._store.path),
            self._new_service(handle, calls_service=True),
            AnswerWriter(self._store),
            self._new_threads(_WRITER_THREADS, "answers"),
            privileged=handle.capabilities.privileged,
            checks_service=handle.capabilities.checks_service,
        )

    def _build_generation_step(self) -> GenerationStep:
        writer = GenerationWriter(self._spec, self._store)
        threads = self._new_threads(_WRITER_THREADS, "images")
        handle = self._generator
        if not isinstance(handle, GeneratorHandle):
            return SourceStep(handle, writer, threads)
        dispatcher = generator_dispatcher(
            handle, self._options, self._bridge, self._state, self._meter, self._store.path
        )
        return GeneratorStep(
            self._spec,
            self._options,
            dispatcher,
            self._new_service(handle, calls_service=handle.capabilities.shape == "generate"),
            writer,
            threads,
            privileged=handle.capabilities.privileged,
            checks_service=handle.capabilities.checks_service,
        )

    def _build_scoring_step(self, handle: ScorerHandle) -> ScoringStep:
        dispatcher = scorer_dispatcher(handle, self._options, self._bridge, self._state, self._meter, self._store.path)
        service = self._new_service(handle, calls_service=handle.capabilities.shape == "score")
        return ScoringStep(handle, self._options, dispatcher, service, self._store)

    def _new_service(self, handle: AgentHandle | GeneratorHandle | ScorerHandle, *, calls_service: bool) -> Service:
        drain = isinstance(handle, ScorerHandle)
        service = Service(handle.spec.name, self._state, self._options.patience, pausing=calls_service, drain=drain)
        self._services.append(service)
        return service

    # -- the caller's thread ---------------------------------------------------------------------------------------

    @property
    def _waiting_line(self) -> str:
        """Return what the run waits for; empty when no service is unavailable."""
        return next((line for service in self._services if (line := service.waiting_line())), "")

    def wait(self, progress: Progress, signals: SignalHandler) -> RunOutcome:
        """Wait until the run has ended and show its progress; return early if an interrupted run hangs.

        Raises:
            KnowgenError: The run ended with an error. Results are committed up to then.
        """
        started = time.monotonic()
        while not self.done.wait(_POLL_SECONDS):
            progress.show(self.counts, self.cost, self._waiting_line)
            if signals.since is not None and time.monotonic() - signals.since > INTERRUPT_LIMIT_SECONDS:
                break  # a plugin hangs in a thread, and threads cannot be killed: leave it behind
        outcome = self.counts.outcome
        outcome.seconds = time.monotonic() - started
        outcome.cost = self.cost
        outcome.stopped = self._state.stop_reason
        outcome.refusal = self._meter.refusal
        notices = [line for service in self._services for line in service.notices]
        outcome.notices = tuple([self._state.stop_line, *notices] if self._state.stop_line else notices)
        if signals.since is not None:
            outcome.stopped = "interrupted"
        elif self._error is not None:
            raise self._error
        return outcome


def _most_references(generator: GeneratorHandle | GenerationSource) -> int | None:
    """Return how many reference images a generator takes; None for no maximum."""
    if not isinstance(generator, GeneratorHandle):
        return None
    return generator.capabilities.most_references if generator.capabilities.references else 0


def run(
    spec: RunSpec,
    task: Task,
    generator: GeneratorHandle | GenerationSource,
    scorers: Sequence[ScorerHandle],
    store: RunStore,
    options: EngineOptions | None = None,
    requests: AnswerSource | None = None,
    before_calls: Callable[[], None] = lambda: None,
    *,
    agent: AgentHandle | None = None,
    answers: KeyedAnswers | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Carry out a run and return when it has ended.

    Results that the store holds are reused. The first SIGINT or SIGTERM ends the run within about two seconds, with all
    finished results committed; the second ends the process immediately.

    Args:
        spec: What decides the results; `spec.scorers` correspond to `scorers`, in order.
        task: Samples and ground truths. It yields either the selected samples only, or all samples, of which the first
            `spec.selection.n` are the selection.
        generator: The generator, or a source of generations that exist already.
        scorers: The scorers.
        store: An open run directory.
        options: How the run is carried out.
        requests: Agent answers (rewritten prompts, references) that replace the samples' prompts.
        before_calls: Called once, when the services that have work have been checked and before the first call; not
            where there is nothing to do.
        agent: The agent that answers before the generator generates; that of `spec.agent`.
        answers: Stored answers of the same agent, taken by key before it searches.
        progress: Shows the progress; that of `options` when None.

    Returns:
        Counts, cost and the reason of an early end.

    Raises:
        ConfigError: A plugin cannot be built or configured, the store cannot be written, or the task does not yield the
            selected samples.
        DataError: A ground truth is missing, or the disk is full.
    """
    options = options or EngineOptions()
    engine = Engine(
        spec, task, generator, scorers, store, options, requests, before_calls, agent=agent, answers=answers
    )
    progress = progress or Progress(options.progress)
    store.note_session("start")
    ending = ""
    try:
        with hidden_steps(), SignalHandler(engine.interrupt) as signals:
            threading.Thread(target=engine.main, name="knowgen engine", daemon=True).start()
            outcome = engine.wait(progress, signals)
        ending = outcome.stopped or "done"
    except BaseException as error:
        ending = f"error: {type(error).__name__}"
        raise
    finally:
        progress.close()
        _end_session(store, ending)
    return outcome


def _end_session(store: RunStore, ending: str) -> None:
    """Record how the session ended. After an error, a second error of the store must not hide the first."""
    try:
        store.note_session("end", ending)
    except KnowgenError:
        if not ending.startswith("error"):
            raise
