"""Walks every sample along the line: drawn, stored, scored, without waiting for any other sample."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

from knowgen.core.errors import BudgetReachedError
from knowgen.core.records import GenerationStatus
from knowgen.engine.executors.concurrency import WorkerThreads
from knowgen.engine.generation import GenerationStep
from knowgen.engine.progress import RunCounts
from knowgen.engine.retry import NotGeneratedError, StoppedError, StoreError
from knowgen.engine.run_state import RunState
from knowgen.engine.scoring import ScoringStep
from knowgen.engine.work_plan import PendingScore, WorkItem, WorkPlanner

CHUNK = 32


class SamplePipeline:
    """One pass over the samples of a run, with a bounded number of walks under way.

    Args:
        control: Says whether work is still taken.
        planner: Says what each sample lacks.
        drawer: Draws; None in a pass that only scores.
        judges: Score; in the planner's order.
        tally: Counts.
        lane: A thread for planning.
        width: Walks under way at once.
        drain: Goes on where the run comes to its end in order, for what was drawn already.
    """

    def __init__(
        self,
        control: RunState,
        planner: WorkPlanner,
        drawer: GenerationStep | None,
        judges: Sequence[ScoringStep],
        tally: RunCounts,
        lane: WorkerThreads,
        *,
        width: int,
        drain: bool = False,
    ) -> None:
        self._control, self._planner, self._drawer, self._judges = control, planner, drawer, judges
        self._tally, self._lane, self._drain = tally, lane, drain
        self._slots = asyncio.Semaphore(width)
        self._walks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    async def run(self) -> None:
        """Starts walks until all have begun or the run stops, and waits until those under way have ended."""
        try:
            await self._feed()
        except Exception as error:  # noqa: BLE001 - a truth that is missing, a store that cannot be read
            self._control.fail(error)
        while self._walks:
            self._empty.clear()
            await self._empty.wait()

    @property
    def _stopped(self) -> bool:
        """Tells whether no further walk begins."""
        return self._control.at_once or (bool(self._control.stopped) and not self._drain)

    async def _feed(self) -> None:
        jobs = self._planner.jobs()
        chunk = await self._next(jobs)
        while chunk and not self._stopped:
            ahead = self._next(jobs)
            for job in chunk:
                if not await self._start(job):
                    break
            chunk = await ahead

    def _next(self, jobs: Iterator[WorkItem]) -> asyncio.Future[list[WorkItem]]:
        return self._lane.call(lambda: list(islice(jobs, CHUNK)))

    async def _start(self, job: WorkItem) -> bool:
        """Begins a walk, or counts a job that lacks nothing; False when the run has stopped."""
        if self._stopped:
            return False
        if not job.to_draw and not job.wanted:
            self._tally.standing(job, drawing=self._drawer is not None)
            self._tally.done += 1
            return True
        await self._slots.acquire()
        if self._stopped:
            self._slots.release()
            return False
        walk = asyncio.get_running_loop().create_task(self._walk(job))
        self._walks.add(walk)
        walk.add_done_callback(self._ended)
        return True

    def _ended(self, walk: asyncio.Task[None]) -> None:
        self._walks.discard(walk)
        self._slots.release()
        if not self._walks:
            self._empty.set()

    def cancel(self) -> None:
        """Cancels every walk under way."""
        for walk in self._walks:
            walk.cancel()

    async def _walk(self, job: WorkItem) -> None:
        try:
            await self._draw_and_judge(job)
            self._tally.done += 1
        except StoppedError:
            return  # left not run; the reason is in the control
        except NotGeneratedError:
            self._tally.done += 1  # left not run: there is nothing to judge yet
        except BudgetReachedError:
            self._control.stop("budget")
        except StoreError as error:
            self._control.fail(error.error)
        except Exception as error:  # noqa: BLE001 - an error that would hit every sample, or one of the engine
            self._control.fail(error)

    async def _draw_and_judge(self, job: WorkItem) -> None:
        if job.to_draw and self._drawer is not None:
            generation = await self._drawer.draw(job)
            self._tally.drawn(generation)
            job.generation = generation
            if generation.status is GenerationStatus.OK and self._judges:
                self._planner.after_drawing(job)
                self._tally.settled(job)
        else:
            self._tally.standing(job, drawing=self._drawer is not None)
        if len(job.wanted) == 1:
            await self._judge(job, job.wanted[0])
        elif job.wanted:
            await self._judge_all(job)

    async def _judge_all(self, job: WorkItem) -> None:
        """Has all judgements of a picture made side by side; the first error is raised when all have ended."""
        results = await asyncio.gather(*(self._judge(job, one) for one in job.wanted), return_exceptions=True)
        faults = [result for result in results if isinstance(result, BaseException)]
        # an error of the store outweighs the others, and a spent budget mere stopping
        faults.sort(key=lambda fault: (not isinstance(fault, StoreError), isinstance(fault, StoppedError)))
        if faults:
            raise faults[0]

    async def _judge(self, job: WorkItem, wanted: PendingScore) -> None:
        if job.generation is None:
            return
        score = await self._judges[wanted.scorer].judge(job, job.generation, wanted)
        self._tally.judged(score, wanted.earlier)
