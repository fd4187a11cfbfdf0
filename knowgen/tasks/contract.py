"""The protocol of a task: samples for generators, ground truths for scorers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from knowgen.core.records import GroundTruth, Sample


class Task(Protocol):
    """A benchmark: an ordered set of samples with ground truths.

    Attributes:
        name: Name on the command line and in Python.
        version: Changes whenever a prompt, a ground truth or an image changes; ends in a hash of the content.
        default_scorers: Scorers of a run that names none.
        search: Name of the search backend for this task's pages, such as `world:DIR`; empty if the task has none.
        search_version: Identity of that backend's content, for keys; empty if there is none.

    A task that is ordered for it has an attribute `limit = "first"`: `--limit N` then takes its first N samples, and
    otherwise a stratified sample. One that is a part of another task has that as its attribute `whole`.
    One whose name ends in a seed has `seed_step`, by which a training counts it up, and one whose images an image
    model of its own draws names that as `painter`. One whose ground truths are not known yet has `private_truths`:
    images are generated for it and not scored.
    """

    name: str
    default_scorers: tuple[str, ...]
    search: str

    @property
    def version(self) -> str:
        """Version that changes whenever a prompt, a ground truth or an image changes."""
        ...

    @property
    def search_version(self) -> str:
        """Identity of the search backend's content."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in a fixed order, without reading any ground truth."""
        ...

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample, with the path of its image.

        Raises:
            DataError: The sample has no ground truth, or its image is missing.
        """
        ...
