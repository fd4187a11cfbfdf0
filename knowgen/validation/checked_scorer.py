"""The state of a check of a scorer: its meter, items, scores and findings so far."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import BudgetReachedError, ConfigError
from knowgen.core.metering import current_meter
from knowgen.core.records import Item, Score
from knowgen.engine.components import ScorerHandle
from knowgen.engine.executors.concurrency import InvocationEvent
from knowgen.engine.executors.invoke import invoke, item_id
from knowgen.engine.retry import CallTimeoutError, ContractError, describe
from knowgen.scorers.short_form import score_item
from knowgen.validation.findings import CheckStoppedError, FindingLog, ValueLevel
from knowgen.validation.probe import ProbeRunner

if TYPE_CHECKING:
    from knowgen.tasks.contract import Task

TRUE, BLANK, NOISE = "true image", "blank image", "noise image"
KINDS = (TRUE, BLANK, NOISE)
"""The images of a sample; the repeat of a generation is its position in this list."""


class CheckMeter:
    """A meter that admits paid calls up to a budget, and none without one.

    Args:
        budget: US dollars; None admits only calls that cost nothing.

    Attributes:
        highest_worst_case: The highest worst case of a call in US dollars, None before a paid call.
        unpriced: Whether there was a call of unknown price.
        calls: Cost of each call in US dollars; the worst case until it is settled.
    """

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self.highest_worst_case: float | None = None
        self.unpriced = False
        self.calls: dict[int, float] = {}

    @property
    def spent(self) -> float:
        """Return US dollars spent, open calls at their worst case."""
        return math.fsum(self.calls.values())

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        """Reserve the worst case of a call; see `knowgen.core.metering.Meter`."""
        if worst_case == 0.0:
            return -1
        if worst_case is None:
            self.unpriced = True
            if self.budget is not None:
                raise ConfigError(
                    "the price of its calls is unknown, so the budget cannot be enforced",
                    where=caller,
                    fix="give its prices",
                )
            raise BudgetReachedError("a call of unknown price was not made", where=caller)
        self.highest_worst_case = max(worst_case, self.highest_worst_case or 0.0)
        if self.budget is None or self.spent + worst_case > self.budget:
            raise BudgetReachedError(f"a call of up to ${worst_case:.4f} was not made", where=caller)
        number = len(self.calls)
        self.calls[number] = worst_case
        return number

    async def settle(self, number: int, cost: float | None) -> None:
        """Replace a reservation by the actual cost; None keeps the worst case."""
        if cost is not None and number in self.calls:
            self.calls[number] = cost


@dataclass
class ScoredItem:
    """The result of scoring an item.

    Attributes:
        item: Sample, ground truth and generation.
        value: What the scorer returned, None if it raised.
        error: What the scorer raised.
        seconds: Time it took.
    """

    item: Item
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def where(self) -> str:
        """Return a text such as `sample 'x', blank image`."""
        return f"sample {self.item[0].id!r}, {KINDS[self.item[2].repeat]}"


@dataclass
class CheckedScorer:
    """A scorer that is being checked.

    Attributes:
        handle: The scorer.
        task: The task whose samples are scored.
        folder: Folder of the test images.
        meter: Admits paid calls.
        runner: Calls the scorer with a time limit.
        device: Device for `setup`.
        notes: Findings so far.
        scorer: The scorer object, None before it is built.
        items: Items that are scored.
        scores: Valid scores of the first pass, in order.
        seconds: Time of each of them.
        problems: Problems of scores, by level, check, text and fix, with the images in which they occur.
    """

    handle: ScorerHandle
    task: Task
    folder: Path
    meter: CheckMeter
    runner: ProbeRunner
    device: str
    notes: FindingLog = field(default_factory=FindingLog)
    scorer: Any = None
    items: list[Item] = field(default_factory=list)
    scores: list[tuple[ScoredItem, Score]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: dict[tuple[ValueLevel, str, str, str], list[str]] = field(default_factory=dict)

    def problem(self, level: ValueLevel, check: str, result: ScoredItem, what: str, fix: str) -> None:
        """Collect a problem of a score, to be reported once for all images in which it occurs."""
        self.problems.setdefault((level, check, what, fix), []).append(result.where)

    def note_problems(self) -> bool:
        """Report the collected problems, each with its first image; return whether one of them is a failure."""
        failed = False
        for (level, check, what, fix), places in self.problems.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            (self.notes.fail if level == "fail" else self.notes.warn)(check, f"{places[0]}{more}: {what}", fix)
            failed = failed or level == "fail"
        self.problems.clear()
        return failed

    @property
    def is_measure(self) -> bool:
        """Return whether the scorer computes, instead of waiting for a service."""
        return self.handle.capabilities.shape == "score_batch"

    def score(self, items: Sequence[Item]) -> list[ScoredItem]:
        """Score items as the engine would: a batch form in batches, an async scorer one by one.

        Raises:
            CheckStoppedError: It takes longer than the time limit, which is reported.
        """
        results = {item[2].repeat: ScoredItem(item) for item in items}
        try:
            if self.is_measure:
                self._compute(items, results)
            else:
                self.runner.call(lambda: self._wait(items, results), len(items))
        except CallTimeoutError as error:
            self.notes.fail("time", describe(error), "find out what it waits for, or raise --timeout")
            raise CheckStoppedError from error
        return [results[item[2].repeat] for item in items]

    def _compute(self, items: Sequence[Item], results: dict[int, ScoredItem]) -> None:
        size = max(1, self.handle.capabilities.concurrency)
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            events: list[InvocationEvent] = []
            started = time.perf_counter()
            self.runner.call(lambda batch=batch, events=events: self._invoke(batch, events), len(batch))  # type: ignore[misc]
            each = (time.perf_counter() - started) / len(batch)
            values = {event.id: event.value for event in events if event.kind == "result"}
            errors = {event.id: event.value for event in events if event.kind == "error"}
            for item in batch:
                result, id = results[item[2].repeat], item_id(item[0].id, item[2].repeat)
                result.seconds, result.value = each, values.get(id)
                if id not in values:
                    missing = ContractError("it returned no score for this item")
                    result.error = errors.get(id) or errors.get("") or missing

    def _invoke(self, batch: Sequence[Item], events: list[InvocationEvent]) -> None:
        current_meter.set(self.meter)
        invoke("score_batch", self.scorer, batch, events.append)

    async def _wait(self, items: Sequence[Item], results: dict[int, ScoredItem]) -> None:
        current_meter.set(self.meter)
        for item in items:
            result, started = results[item[2].repeat], time.perf_counter()
            try:
                result.value = await score_item(self.scorer, item)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a scorer may raise anything
                result.error = error
            result.seconds = time.perf_counter() - started
            if isinstance(result.error, BudgetReachedError):
                break
