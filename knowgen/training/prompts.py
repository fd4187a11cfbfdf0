"""The prompts of a training: samples of tasks with their ground truths, in an order that follows from seed and epoch.

    prompts = TrainingPrompts(config.grpo.prompts, seed=config.seed, curriculum="none", load=load_task)
    first, second = prompts(0), prompts(1)

Nothing depends on what was asked before, so that a resumed training goes on with the same prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, overload

from knowgen.core.errors import ConfigError
from knowgen.core.records import Sample
from knowgen.tasks.contract import Task
from knowgen.training.backends.contract import TrainingPrompt
from knowgen.training.config import PromptSource
from knowgen.training.seeds import derived_seed

DIFFICULTIES = {"easy": 1.0, "medium": 2.0, "hard": 3.0}
"""Difficulties in words, in their order; others are numbers."""

_KEPT_EPOCHS = 2
_SEED = re.compile(r"(.*:)(\d+)")
_SIZED_SEED = re.compile(r"([^:]+):(?:\d+:)?(\d+)")


def epoch_task(source: PromptSource, epoch: int, step: int = 1) -> str:
    """Return the name of a source's task in an epoch: with `fresh_seed`, the seed at its end is counted up.

    Args:
        source: The source.
        epoch: The epoch, from 0.
        step: What is added to the seed for each epoch.

    Raises:
        ConfigError: The name ends in no seed.

    Example:
        >>> epoch_task(PromptSource(task="things:7", fresh_seed=True), epoch=2)
        'things:9'
        >>> epoch_task(PromptSource(task="things:7"), epoch=2)
        'things:7'
    """
    if not source.fresh_seed:
        return source.task
    match = _SEED.fullmatch(source.task)
    if match is None:
        fix = "name it as things:0, or remove fresh_seed"
        raise ConfigError(f"the name {source.task!r} ends in no seed", where="grpo.prompts", fix=fix)
    return f"{match[1]}{int(match[2]) + epoch * step}"


def content_of(task: str) -> str:
    """Return what tasks of the same content have in common: all but the number of samples of a seeded one.

    Example:
        >>> content_of("things:800:1000") == content_of("things:1000"), content_of("rl_items:test")
        (True, 'rl_items:test')
    """
    match = _SIZED_SEED.fullmatch(task)
    return f"{match[1]}:{match[2]}" if match else task


class _Entry(NamedTuple):
    """A prompt whose ground truth has not been read."""

    task_name: str
    task: Task
    sample: Sample
    difficulty: float
    search: str

    @property
    def key(self) -> str:
        return f"{self.task_name}/{self.sample.id}"

    def prompt(self) -> TrainingPrompt:
        truth = self.task.truth(self.sample.id)
        return TrainingPrompt(self.key, self.sample, truth, self.difficulty, self.search)


class EpochPrompts(Sequence[TrainingPrompt]):
    """The prompts of an epoch. A ground truth is read when its prompt is taken.

    Args:
        entries: The prompts in their order.
    """

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> TrainingPrompt: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[TrainingPrompt]: ...

    def __getitem__(self, place: int | slice) -> TrainingPrompt | Sequence[TrainingPrompt]:
        """Return a prompt, or some of them.

        Raises:
            DataError: A ground truth is missing.
        """
        if isinstance(place, slice):
            return EpochPrompts(self._entries[place])
        return self._entries[place].prompt()


class TrainingPrompts:
    """The prompts of each epoch.

    Args:
        sources: Where prompts come from.
        seed: Seed of the order.
        curriculum: `none` for a shuffled order, `difficulty` for easy ones first, shuffled among equals.
        load: Returns a task of a name.
        search: Returns the name of the search backend of a task; empty where the agent has one for all.
    """

    def __init__(
        self,
        sources: Sequence[PromptSource],
        *,
        seed: int,
        curriculum: Literal["none", "difficulty"] = "none",
        load: Callable[[str], Task],
        search: Callable[[Task], str] = lambda task: "",
    ) -> None:
        self._sources, self._seed, self._curriculum = tuple(sources), seed, curriculum
        self._search = search
        self._steps: dict[str, int] = {}
        self._task = lru_cache(maxsize=_KEPT_EPOCHS * max(1, len(self._sources)))(load)
        self._epoch = lru_cache(maxsize=_KEPT_EPOCHS)(self._made)

    def __call__(self, epoch: int) -> EpochPrompts:
        """Return the prompts of an epoch in their order; epochs count from 0.

        Raises:
            UsageError, DataError: A task cannot be opened.
            ConfigError: A difficulty is not known, or a name ends in no seed.
        """
        return self._epoch(epoch)

    def tasks(self, epoch: int = 0) -> list[Task]:
        """Return the tasks of an epoch, each once."""
        return [self._task(name) for name in dict.fromkeys(self._name(source, epoch) for source in self._sources)]

    def refuse_overlap(self, epochs: int, evaluation: str) -> None:
        """Check that no epoch is trained on the task that checkpoints are evaluated on.

        Args:
            epochs: Number of epochs that the training may have.
            evaluation: Name of the task of the evaluation; empty for none.

        Raises:
            ConfigError: An epoch has that task.
        """
        evaluated = content_of(self._whole_name(evaluation)) if evaluation else ""
        for source in self._sources if evaluation else ():
            for epoch in range(max(1, epochs) if source.fresh_seed else 1):
                name = self._name(source, epoch)
                if content_of(self._whole_name(name)) == evaluated:
                    raise ConfigError(
                        f"the training has the task {name!r} in epoch {epoch + 1}, on which it is evaluated",
                        where="evaluation.task",
                        fix="evaluate on a task that is not trained on, such as another seed",
                    )

    def _whole_name(self, name: str) -> str:
        """Return the name of a task with the seed that it has where none is named."""
        return name if ":" in name else str(getattr(self._task(name), "name", name))

    def _name(self, source: PromptSource, epoch: int) -> str:
        """Return the name of a source's task in an epoch. A task says by how much its seed is counted up."""
        if not source.fresh_seed or epoch == 0:
            return epoch_task(source, 0)
        if source.task not in self._steps:
            self._steps[source.task] = int(getattr(self._task(source.task), "seed_step", 1))
        return epoch_task(source, epoch, self._steps[source.task])

    def _made(self, epoch: int) -> EpochPrompts:
        entries: dict[str, _Entry] = {}
        for source in self._sources:
            for entry in self._of(source, epoch):
                entries.setdefault(entry.key, entry)  # a prompt of two sources is one prompt
        if not entries:
            raise ConfigError("names no prompts", where="grpo.prompts", fix="write prompts: [{task: NAME}]")
        ordered = list(entries.values())
        random.Random(derived_seed(self._seed, "prompts", epoch)).shuffle(ordered)
        if self._curriculum == "difficulty":
            ordered.sort(key=lambda entry: entry.difficulty)
        return EpochPrompts(ordered)

    def _of(self, source: PromptSource, epoch: int) -> Iterator[_Entry]:
        name = self._name(source, epoch)
        task = self._task(name)
        search = self._search(task)
        samples = list(task.samples())
        if source.limit is not None and source.limit < len(samples):
            # the same choice in each epoch of a task, in its order
            chosen = random.Random(derived_seed(self._seed, "limit", name)).sample(range(len(samples)), source.limit)
            samples = [samples[place] for place in sorted(chosen)]
        for sample in samples:
            yield _Entry(name, task, sample, self._difficulty(sample, name), search)

    def _difficulty(self, sample: Sample, name: str) -> float:
        """Return the difficulty as a number; a word that is not known matters only to a curriculum."""
        text = sample.difficulty.strip().lower()
        if not text:
            return 0.0
        try:
            return DIFFICULTIES[text] if text in DIFFICULTIES else float(text)
        except ValueError:
            if self._curriculum == "none":
                return 0.0
            what = f"the difficulty {sample.difficulty!r} is neither a number nor {', '.join(DIFFICULTIES)}"
            fix = "remove grpo.curriculum"
            raise ConfigError(what, where=f"task {name}, sample {sample.id}", fix=fix) from None
