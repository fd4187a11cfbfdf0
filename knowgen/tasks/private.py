"""Tasks whose ground truths are private: images are generated for them, and scored by those who hold the truths."""

from __future__ import annotations

from collections.abc import Iterator

from knowgen.core.errors import DataError
from knowgen.core.records import GroundTruth, Sample
from knowgen.tasks.contract import Task

_PRIVATE = "private"
"""Field of `GroundTruth.extra` in the run of such a task."""


def has_private_truths(task: object) -> bool:
    """Return whether the ground truths of a task are private."""
    return bool(getattr(task, "private_truths", False))


def private_truths_error(task: str) -> DataError:
    """Return the error of what needs a ground truth that is private."""
    return DataError(
        "the ground truths are private until they are revealed",
        where=f"task {task}",
        fix="generate images with `knowgen run`, and send them to those who score them",
    )


def is_private(truth: GroundTruth) -> bool:
    """Return whether a recorded ground truth stands for one that is private."""
    return bool(truth.extra.get(_PRIVATE))


class UnscoredTask:
    """A task with private ground truths for a run that only generates: each sample has an empty ground truth.

    Args:
        task: The task.
    """

    private_truths = True

    def __init__(self, task: Task) -> None:
        self._task = task
        self.name, self.default_scorers, self.search = task.name, task.default_scorers, task.search
        self.limit = getattr(task, "limit", "stratified")

    @property
    def version(self) -> str:
        """Version of the task."""
        return self._task.version

    @property
    def search_version(self) -> str:
        """Identity of the task's search backend."""
        return self._task.search_version

    def __len__(self) -> int:
        return len(self._task)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples."""
        yield from self._task.samples()

    def truth(self, sample_id: str) -> GroundTruth:
        """Return a ground truth that says no more than that it is private."""
        return GroundTruth(sample_id=sample_id, extra={_PRIVATE: True})
