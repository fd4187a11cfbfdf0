"""What a task offers: samples for everybody, ground truths for scorers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from knowgen.core.records import GroundTruth, Sample


class Task(Protocol):
    """A benchmark: an ordered set of samples with ground truths.

    Attributes:
        name: As users call it.
        version: Changes whenever a prompt, a truth or a picture changes; ends in a hash of the content.
        default_scorers: Scorers a run uses when none is named.
        search: Name of the search backend that serves this task's pages, such as `world:DIR`; empty when the task
            brings none.
        search_version: Identity of what that backend answers from, for keys; empty when there is none.
    """

    name: str
    default_scorers: tuple[str, ...]
    search: str

    @property
    def version(self) -> str:
        """Changes whenever a prompt, a truth or a picture changes."""
        ...

    @property
    def search_version(self) -> str:
        """Identity of what the search backend answers from."""
        ...

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Yields the samples in their fixed order, without touching any truth."""
        ...

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the ground truth of a sample, with the path of its picture.

        Raises:
            DataError: There is none, or its picture is missing.
        """
        ...
