"""Which prompts belong to which step: a function of the seed and the number of the step alone.

A training that is resumed at a step therefore samples what it would have sampled without the interruption.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from knowgen.core.errors import DataError
from knowgen.training.backends.contract import TrainingPrompt
from knowgen.training.seeds import derived_seed

_KEPT_EPOCHS = 2
"""Epochs in memory at once: a batch of prompts may lie across the end of one."""


class PromptSchedule:
    """The prompts of a training, as one sequence over all epochs.

    Args:
        prompts: Returns the prompts of an epoch in their order; epochs count from 0.
        seed: Seed of the training.

    Raises:
        DataError: The first epoch has no prompts.
    """

    def __init__(self, prompts: Callable[[int], Sequence[TrainingPrompt]], seed: int) -> None:
        self._prompts, self._seed = prompts, seed
        self._starts = [0]
        self._epochs: dict[int, Sequence[TrainingPrompt]] = {}
        self._epoch(0)

    def batches(self, epochs: float, size: int) -> int:
        """Return the number of batches of prompts in a number of epochs that are as long as the first; at least 1."""
        return max(1, int(epochs * len(self._epoch(0)) / size))

    def at(self, position: int) -> TrainingPrompt:
        """Return a prompt by its position in the training, from 0."""
        epoch = self._epoch_of(position)
        return self._epoch(epoch)[position - self._starts[epoch]]

    def others(self, position: int, count: int, attempt: int, used: Iterable[str]) -> list[TrainingPrompt]:
        """Return prompts of an epoch that take the places of others.

        Args:
            position: A position in the epoch.
            count: Number of prompts.
            attempt: Number of the attempt, from 1; each gives other prompts.
            used: Keys of prompts that are not returned while there are others.
        """
        prompts = self._epoch(self._epoch_of(position))
        taken = set(used)
        fresh = [prompt for prompt in prompts if prompt.key not in taken] or list(prompts)
        source = random.Random(f"{self._seed} {position} {attempt}")
        chosen = source.sample(fresh, min(count, len(fresh)))
        return chosen + source.choices(fresh, k=count - len(chosen))

    def seed_of(self, position: int, number: int, attempt: int = 0) -> int:
        """Return the seed of a trajectory: the same for the same training, position, number and attempt."""
        return derived_seed(self._seed, "episode", position, number, attempt)

    def _epoch_of(self, position: int) -> int:
        while self._starts[-1] <= position:
            self._epoch(len(self._starts) - 1)
        return next(number for number, start in enumerate(self._starts[1:]) if position < start)

    def _epoch(self, number: int) -> Sequence[TrainingPrompt]:
        """Return the prompts of an epoch; those of all earlier ones have been counted."""
        if number not in self._epochs:
            prompts = self._prompts(number)
            if not prompts:
                fix = "name a task with prompts under grpo.prompts"
                raise DataError(f"epoch {number} has no prompts", where="training", fix=fix)
            self._epochs[number] = prompts
            if number == len(self._starts) - 1:
                self._starts.append(self._starts[-1] + len(prompts))
            while len(self._epochs) > _KEPT_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
        return self._epochs[number]
