"""Scorers that break their contract on sample s2."""

from __future__ import annotations

import os
import signal
import sys
import time

from knowgen.core.errors import TransientError, UnscorableError
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

HOURS = 3 * 3600


def scored(sample_id: str, repeat: int, value: float = 0.5, **fields) -> Score:
    """Return a score."""
    reading = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(DIMENSIONS, value))
    return Score(
        sample_id=sample_id, repeat=repeat, scorer="hostile", status=ScoreStatus.OK, strict=reading, **fields
    )


class _Async:
    async def wrong(self, sample, generation):
        raise NotImplementedError

    async def score(self, sample, truth, generation):
        if sample.id == "s2":
            return await self.wrong(sample, generation)
        return scored(sample.id, generation.repeat)


class OtherSample(_Async):
    """Returns the score of another sample."""

    async def wrong(self, sample, generation):
        return scored("s0", generation.repeat)


class NotANumber(_Async):
    """Gives NaN."""

    async def wrong(self, sample, generation):
        return scored(sample.id, generation.repeat, float("nan"))


class TooGood(_Async):
    """Gives 1.5."""

    async def wrong(self, sample, generation):
        return scored(sample.id, generation.repeat, 1.5)


class GivesNone(_Async):
    """Gives None."""

    async def wrong(self, sample, generation):
        return None


class Contradicts(_Async):
    """Returns status ok with a parsed score that failed."""

    async def wrong(self, sample, generation):
        reading = ParsedScore(status=ScoreStatus.FAILED, reason="no")
        return Score(sample_id=sample.id, scorer="hostile", status=ScoreStatus.OK, strict=reading)


class NotesJunk(_Async):
    """Puts an object into its details."""

    async def wrong(self, sample, generation):
        return scored(sample.id, generation.repeat, details={"model": object()})


class Raises(_Async):
    """Raises."""

    async def wrong(self, sample, generation):
        raise ZeroDivisionError("nothing to divide by")


class CannotJudge(_Async):
    """Raises because it cannot score the image."""

    async def wrong(self, sample, generation):
        raise UnscorableError("there is nothing to see")


class Exits(_Async):
    """Calls sys.exit."""

    async def wrong(self, sample, generation):
        sys.exit(1)


class Hangs(_Async):
    """Waits forever."""

    async def wrong(self, sample, generation):
        import asyncio

        await asyncio.sleep(HOURS)


class Stubborn(_Async):
    """Waits forever and ignores cancellation."""

    async def wrong(self, sample, generation):
        import asyncio

        while True:
            try:
                await asyncio.sleep(HOURS)
            except asyncio.CancelledError:
                pass


class BlocksLoop(_Async):
    """Blocks its event loop."""

    async def wrong(self, sample, generation):
        time.sleep(HOURS)


class Flaky(_Async):
    """Has a passing fault in every call."""

    async def wrong(self, sample, generation):
        raise TransientError("a passing fault")


class _Batch:
    concurrency = 3

    def wrong(self, sample, generation):
        raise NotImplementedError

    def score_batch(self, items):
        for sample, _, generation in items:
            if sample.id == "s2":
                yield self.wrong(sample, generation)
            else:
                yield scored(sample.id, generation.repeat)


class BatchRaises(_Batch):
    """Raises in the middle of a batch."""

    def wrong(self, sample, generation):
        raise ZeroDivisionError("nothing to divide by")


class BatchDies(_Batch):
    """Kills its process."""

    def wrong(self, sample, generation):
        os.kill(os.getpid(), signal.SIGKILL)


class BatchHangs(_Batch):
    """Hangs."""

    def wrong(self, sample, generation):
        time.sleep(HOURS)


class BatchJunk(_Batch):
    """Yields something that is not a score."""

    def wrong(self, sample, generation):
        return 0.5


class BatchNotANumber(_Batch):
    """Yields NaN."""

    def wrong(self, sample, generation):
        return scored(sample.id, generation.repeat, float("nan"))
