"""A task whose samples are given in Python: a list of samples, and the ground truths that are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Literal

from knowgen.core.errors import DataError
from knowgen.core.records import UNKNOWN_GROUP, GroundTruth, Sample, group_of


class InMemoryTask:
    """A task of samples that are given in Python.

    Args:
        name: Name of the task.
        samples: Samples in order, with unique ids. A sample without a group gets the one of its category.
        truths: Ground truths. A sample without one gets an empty one; scorers that need more do not apply to it.
        default_scorers: Scorers of a run that names none.
        search: Name of the search backend that serves this task's pages, empty for none.
        search_version: Identity of that backend's content, for keys.
        limit: What `--limit N` takes: a stratified sample, or the first N of a task that is ordered for it.

    Raises:
        DataError: The list is empty, an id is a duplicate, or a ground truth belongs to no sample.
    """

    def __init__(
        self,
        name: str,
        samples: Iterable[Sample],
        truths: Iterable[GroundTruth] = (),
        *,
        default_scorers: Iterable[str] = (),
        search: str = "",
        search_version: str = "",
        limit: Literal["stratified", "first"] = "stratified",
    ) -> None:
        self.name, self.default_scorers = name, tuple(default_scorers)
        self.search, self.search_version, self.limit = search, search_version, limit
        self._samples: dict[str, Sample] = {}
        for sample in samples:
            if sample.id in self._samples:
                raise DataError(f"duplicate id {sample.id!r}", where=f"task {name}", fix="make ids unique")
            group = group_of(sample.category) if sample.group == UNKNOWN_GROUP else sample.group
            self._samples[sample.id] = sample.model_copy(update={"group": group})
        if not self._samples:
            raise DataError("there are no samples", where=f"task {name}")
        self._truths = {truth.sample_id: truth for truth in truths}
        if unknown := sorted(self._truths.keys() - self._samples.keys()):
            raise DataError(f"the ground truth of {unknown[0]!r} belongs to no sample", where=f"task {name}")

    def __len__(self) -> int:
        return len(self._samples)

    @cached_property
    def version(self) -> str:
        """Hash of all samples and ground truths, images by their own hashes: `1-` and 12 hex digits."""
        digest = hashlib.sha256()
        for sample in self.samples():
            for record in (sample, self.truth(sample.id)):
                digest.update(json.dumps(record.model_dump(mode="json"), sort_keys=True).encode() + b"\n")
        return f"1-{digest.hexdigest()[:12]}"

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in order."""
        yield from self._samples.values()

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample.

        Raises:
            DataError: The sample is unknown.
        """
        sample = self._samples.get(sample_id)
        if sample is None:
            raise DataError(f"no sample {sample_id!r}", where=f"task {self.name}")
        return self._truths.get(sample_id) or GroundTruth(sample_id=sample_id, text_required=sample.text_required)
