"""Runs a specification: builds the stages, walks the samples, minds signals, and says what came of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Sequence

from knowgen.core.spec import RunSpec
from knowgen.engine.budget import BudgetMeter
from knowgen.engine.components import GeneratorHandle, ScorerHandle
from knowgen.engine.executors.concurrency import LoopBridge, WorkerThreads
from knowgen.engine.executors.subprocess import SCRATCH
from knowgen.engine.generation import GenerationStep, GenerationWriter, GeneratorStep, SourceStep
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.engine.pipeline import SamplePipeline
from knowgen.engine.placement import generator_stage, scorer_stage, stage_width
from knowgen.engine.progress import Progress, RunCounts
from knowgen.engine.run_state import RunState, SignalHandler
from knowgen.engine.scoring import ScoringStep
from knowgen.engine.work_plan import WorkPlanner, enter_samples
from knowgen.generators.contract import AnswerSource, GenerationSource
from knowgen.store.run import RunStore
from knowgen.tasks.contract import Task

GRACE_SECONDS = 1.2
"""What is under way when a run is interrupted may still end within this time."""

PATIENCE_SECONDS = 2.0
"""After this time an interrupted run ends, whatever still hangs."""

_TICK_SECONDS = 0.1
_FINISHERS = 2


class Engine:
    """One run. Its loop lives in a thread of its own, so that a signal always finds the main thread awake.

    Args:
        spec: What decides the results.
        task: Samples and ground truths.
        generator: Who draws, or drawings made elsewhere.
        scorers: Who judges, in the order of `spec.scorers`.
        store: Where results go.
        options: How the run is carried out.
        requests: Says what is drawn in place of the samples' prompts.
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
    ) -> None:
        self._spec, self._task, self._generator, self._requests = spec, task, generator, requests
        self._scorers, self._store, self._options = scorers, store, options
        self._passes = 2 if options.schedule == "phased" and scorers else 1
        self._loop = asyncio.new_event_loop()
        self._mailbox = LoopBridge(self._loop)
        self._books = BudgetMeter(store, options.budget, self._refused)
        self._control = RunState()
        self._drawer: GenerationStep | None = None
        self._judges: list[ScoringStep] = []
        self._lanes: list[WorkerThreads] = []
        self._error: BaseException | None = None
        made_here = isinstance(generator, GeneratorHandle)
        self.tally = RunCounts(spec.selection.n * spec.repeats, self._passes, draws=made_here)
        self.done = threading.Event()

    @property
    def cost(self) -> float:
        """Returns US dollars spent by this run so far."""
        return max(self._books.cost, self.tally.paid)

    def interrupt(self) -> None:
        """Takes no new work and ends soon; from any thread."""
        self._mailbox.post(self._stop, "interrupted")

    def _refused(self) -> None:
        self._mailbox.post(self._stop, "budget")

    def _stop(self, reason: str) -> None:
        self._control.stop(reason)

    # -- the engine's thread ---------------------------------------------------------------------------------------

    def main(self) -> None:
        """Carries the run out; the body of the engine's thread."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the run
            self._error = error
        finally:
            self._loop.close()
            self.done.set()

    async def _main(self) -> None:
        control = self._control
        try:
            planning = self._lane(1, "planning")
            await planning.call(enter_samples, self._spec, self._task, self._store)
            self._drawer = self._make_drawer(control)
            for handle in self._scorers:
                self._judges.append(self._make_judge(control, handle))
            for draw, score in [(True, False), (False, True)] if self._passes == 2 else [(True, True)]:
                await self._pass(control, planning, draw=draw, score=score)
                if draw and not score and not control.at_once:
                    await self._drawer.close()
        finally:
            try:
                await self._close(control)
            finally:
                for lane in self._lanes:
                    lane.close()
        if control.error is not None:
            raise control.error

    async def _pass(self, control: RunState, planning: WorkerThreads, *, draw: bool, score: bool) -> None:
        # where the budget ended the drawing, scorers that cost nothing still judge what is there
        drain = bool(control.stopped) and not draw
        if control.at_once or (control.stopped and not drain):
            return
        handles = self._scorers if score else ()
        planner = self._planner(handles, draw=draw)
        pipeline = SamplePipeline(
            control,
            planner,
            self._drawer if draw else None,
            self._judges if score else (),
            self.tally,
            planning,
            width=stage_width(self._generator, handles, self._options),
            drain=drain,
        )
        running = self._loop.create_task(pipeline.run())
        stopping = self._loop.create_task(self._mind(control, pipeline))
        try:
            await running
        finally:
            stopping.cancel()

    def _planner(self, handles: Sequence[ScorerHandle], *, draw: bool) -> WorkPlanner:
        cap = self._options.max_attempts
        made_here = isinstance(self._generator, GeneratorHandle)
        return WorkPlanner(
            self._spec,
            self._task,
            self._store,
            handles,
            draw=draw,
            max_attempts=cap if made_here else None,
            max_tries=cap,
            requests=self._requests,
        )

    async def _mind(self, control: RunState, pipeline: SamplePipeline) -> None:
        """Lets go of what waits as soon as the run stops, and cuts off what is under way when it must end at once."""
        while True:
            await control.changed.wait()
            control.changed.clear()
            for part in [self._drawer, *self._judges]:
                if part is not None and (control.at_once or part is self._drawer):
                    part.stop()
            if control.at_once:
                break
        await asyncio.sleep(0 if control.error is not None else GRACE_SECONDS)
        pipeline.cancel()

    async def _close(self, control: RunState) -> None:
        parts = [part for part in [self._drawer, *self._judges] if part is not None]
        if control.at_once:
            for part in parts:
                part.kill()
        else:
            await asyncio.gather(*(part.close() for part in parts))
        self._books.close()
        shutil.rmtree(self._store.path / SCRATCH, ignore_errors=True)

    def _lane(self, threads: int, name: str) -> WorkerThreads:
        lane = WorkerThreads(self._mailbox, threads, name)
        self._lanes.append(lane)
        return lane

    def _make_drawer(self, control: RunState) -> GenerationStep:
        finisher = GenerationWriter(self._spec, self._store)
        lane = self._lane(_FINISHERS, "pictures")
        if not isinstance(self._generator, GeneratorHandle):
            return SourceStep(self._generator, finisher, lane)
        stage = generator_stage(self._generator, self._options, self._mailbox, control, self._books, self._store.path)
        privileged = self._generator.traits.privileged
        return GeneratorStep(self._spec, self._options, stage, finisher, lane, privileged=privileged)

    def _make_judge(self, control: RunState, handle: ScorerHandle) -> ScoringStep:
        stage = scorer_stage(handle, self._options, self._mailbox, control, self._books, self._store.path)
        return ScoringStep(handle, self._options, stage, self._store)

    # -- the caller's thread ---------------------------------------------------------------------------------------

    def wait(self, progress: Progress, signals: SignalHandler) -> RunOutcome:
        """Waits for the run's end, shows progress, and gives up waiting soon after an interruption.

        Raises:
            KnowgenError: The run ended with an error; what was done is committed.
        """
        began = time.monotonic()
        while not self.done.wait(_TICK_SECONDS):
            progress.show(self.tally, self.cost)
            if signals.since is not None and time.monotonic() - signals.since > PATIENCE_SECONDS:
                break  # something hangs in a thread, and threads cannot be killed: leave it behind
        outcome = self.tally.outcome
        outcome.seconds = time.monotonic() - began
        outcome.cost = self.cost
        outcome.stopped = self._control.stopped
        outcome.refusal = self._books.refusal
        if signals.since is not None:
            outcome.stopped = "interrupted"
        elif self._error is not None:
            raise self._error
        return outcome


def run(
    spec: RunSpec,
    task: Task,
    generator: GeneratorHandle | GenerationSource,
    scorers: Sequence[ScorerHandle],
    store: RunStore,
    options: EngineOptions | None = None,
    requests: AnswerSource | None = None,
) -> RunOutcome:
    """Carries out a run and returns when it has ended.

    What the store holds already is not done again. A first SIGINT or SIGTERM ends the run within about two seconds
    with everything that was done committed; a second one ends the process at once.

    Args:
        spec: What decides the results; `spec.scorers` are those of `scorers`, in order.
        task: Samples and ground truths: the selected ones, or all of which the first `spec.selection.n` are selected.
        generator: Who draws, or drawings made elsewhere.
        scorers: Who judges.
        store: An open run directory.
        options: How the run is carried out.
        requests: Says what is drawn in place of the samples' prompts: the answers of an agent that searched.

    Returns:
        What was done.

    Raises:
        ConfigError: A plugin cannot be built or configured; the store cannot be written; the task does not yield what
            was selected.
        DataError: A ground truth is missing; the disk is full.
    """
    options = options or EngineOptions()
    engine = Engine(spec, task, generator, scorers, store, options, requests)
    progress = Progress(options.progress)
    store.note_session("start")
    outcome = ""
    try:
        with SignalHandler(engine.interrupt) as signals:
            threading.Thread(target=engine.main, name="knowgen engine", daemon=True).start()
            result = engine.wait(progress, signals)
        outcome = result.stopped or "done"
    except BaseException as error:
        outcome = f"error: {type(error).__name__}"
        raise
    finally:
        progress.close()
        _end_session(store, outcome)
    return result


def _end_session(store: RunStore, outcome: str) -> None:
    """Commits; after an error of the store that error is the one to be told, not this one."""
    from knowgen.core.errors import KnowgenError

    try:
        store.note_session("end", outcome)
    except KnowgenError:
        if not outcome.startswith("error"):
            raise
