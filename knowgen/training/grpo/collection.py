"""The episodes of a step: run them, compare each group, and replace groups from which nothing can be learnt.

A group is all trajectories of one prompt. With several processes a group may lie in more than one of them; what is
decided about groups is decided from the rewards of all processes, in each of them in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.core.errors import AccountError, BudgetReachedError, KnowgenError, ServiceUnavailableError
from knowgen.core.text import error_summary
from knowgen.training.backends.contract import Episode, Rollouts, TrainingPrompt
from knowgen.training.grpo.interrupts import InterruptSwitch
from knowgen.training.grpo.prompt_schedule import PromptSchedule

INTERRUPTED, BUDGET = "interrupted", "budget"

ATTEMPTS = 3
"""Maximum number of times that the groups of a step without spread are replaced."""

_EXPECTED = (KeyboardInterrupt, BudgetReachedError, AccountError, ServiceUnavailableError)


class TrainingStopped(Exception):
    """The training stops before the step that it is in, and can be resumed.

    Args:
        reason: `interrupted`, `budget`, or a reason in words.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Collected:
    """The episodes of a step in one process, with what follows from those of all processes.

    Attributes:
        episodes: The episodes of this process.
        usable: For each of them, whether it is compared with others: it is not masked, nor alone in its group.
        equal: For each of them, whether all rewards of its group are equal.
        total: Number of episodes of all processes.
        used: Number of usable ones among them.
        without_spread: Share of the groups whose rewards are all equal, among those with at least two rewards.
        replaced: Number of groups that were replaced because they had no spread.
    """

    episodes: list[Episode]
    usable: list[bool]
    equal: list[bool]
    total: int
    used: int
    without_spread: float
    replaced: int


class Collector:
    """Runs the episodes of steps.

    Args:
        plan: The prompts.
        rollouts: Runs episodes.
        group: Trajectories of one prompt.
        skip_equal: Whether groups without spread are replaced.
        share: Returns the concatenation of the lists of all processes, in order.
        process: Number of this process, from 0.
        interrupt: Ends rollouts when the training is asked to stop.
    """

    def __init__(
        self,
        plan: PromptSchedule,
        rollouts: Rollouts,
        *,
        group: int,
        skip_equal: bool,
        share: Callable[[list[Any]], list[Any]],
        process: int,
        interrupt: InterruptSwitch,
    ) -> None:
        self._plan, self._rollouts, self._group, self._skip_equal = plan, rollouts, group, skip_equal
        self._share, self._process, self._interrupt = share, process, interrupt

    def collect(self, positions: Sequence[int], step: int) -> Collected:
        """Run the episodes of a step in this process.

        Args:
            positions: Position of the prompt of each episode of this process.
            step: Number of the step.

        Raises:
            TrainingStopped: A process was interrupted, or a service it needs is not there.
        """
        first = self._process * len(positions)
        groups = [(first + place) // self._group for place in range(len(positions))]
        numbers = [(first + place) % self._group for place in range(len(positions))]
        everywhere = self._share(list(positions))
        starts = everywhere[:: self._group]
        prompts = [self._plan.at(position) for position in starts]
        episodes: dict[int, Episode] = {}
        pending, replaced = list(range(len(prompts))), 0
        for attempt in range(ATTEMPTS + 1):
            places = [place for place, group in enumerate(groups) if group in pending]
            seeds = [self._plan.seed_of(positions[place], numbers[place], attempt) for place in places]
            fresh = self._run([prompts[groups[place]] for place in places], step, seeds)
            for place, episode in zip(places, fresh, strict=True):
                episode.number = numbers[place]
                episodes[place] = episode
            values = self._share([episodes[place].reward.value for place in range(len(positions))])
            equal = [number for number in range(len(prompts)) if _spread(self._of(values, number)) == 0]
            if not self._skip_equal or not equal or attempt == ATTEMPTS:
                break
            others = self._plan.others(starts[0], len(equal), attempt + 1, [prompt.key for prompt in prompts])
            for number, other in zip(equal, others, strict=True):
                prompts[number] = other
            pending, replaced = equal, replaced + len(equal)
        return self._result([episodes[place] for place in range(len(positions))], groups, values, equal, replaced)

    def _result(
        self, episodes: list[Episode], groups: list[int], values: list[float | None], equal: list[int], replaced: int
    ) -> Collected:
        counts = [sum(value is not None for value in self._of(values, n)) for n in range(len(values) // self._group)]
        return Collected(
            episodes,
            [
                episode.reward.value is not None and counts[group] > 1
                for episode, group in zip(episodes, groups, strict=True)
            ],
            [group in equal for group in groups],
            len(values),
            sum(count for count in counts if count > 1),
            len(equal) / max(1, sum(count > 1 for count in counts)),
            replaced,
        )

    def _of(self, values: list[float | None], number: int) -> list[float | None]:
        """Return the rewards of a group."""
        return values[number * self._group : (number + 1) * self._group]

    def _run(self, prompts: list[TrainingPrompt], step: int, seeds: list[int]) -> list[Episode]:
        """Run episodes, and stop in all processes if one of them cannot go on."""
        episodes: list[Episode] = []
        stop, failure = "", None
        try:
            with self._interrupt.sampling():
                episodes = self._rollouts.run(prompts, step=step, seeds=seeds) if prompts else []
        except _EXPECTED as error:
            stop = _reason(error)
        except Exception as error:  # noqa: BLE001 - the other processes must not wait for this one
            failure = error
        ends = self._share([(stop, "" if failure is None else error_summary(failure))])
        if failure is not None:
            raise failure
        if failed := [text for _, text in ends if text]:
            raise KnowgenError(f"another process failed: {failed[0]}", where="backend trl")
        if stops := [text for text, _ in ends if text]:
            raise TrainingStopped(INTERRUPTED if INTERRUPTED in stops else stops[0])
        return episodes


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, ServiceUnavailableError) and error.service:
        return f"{error.service}: {error}"
    return BUDGET if isinstance(error, BudgetReachedError) else str(error)


def _spread(values: list[float | None]) -> float | None:
    """Return the distance of the lowest and highest reward of a group; None with fewer than two rewards.

    Example:
        >>> _spread([0.5, None, 1.0]), _spread([None, 1.0])
        (0.5, None)
    """
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None
