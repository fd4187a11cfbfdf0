"""Which samples of a task a run covers: all, N of every category, some by id, or one shard of these."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from knowgen.core.errors import DataError, UsageError
from knowgen.core.records import GroundTruth, Sample
from knowgen.core.sample_ids import comparable_id
from knowgen.core.spec import RunShard, Selection, SelectionKind, select, text_hash
from knowgen.tasks.contract import Task


def select_samples(task: Task, *, limit: int | None, ids: Sequence[str] | None) -> tuple[list[Sample], Selection]:
    """Select the samples of a run, in the task's order.

    Args:
        task: The task.
        limit: Maximum number of samples: a stratified sample, or the first ones of a task with `limit = "first"`.
        ids: Ids of the samples to select.

    Raises:
        UsageError: Both were given, the limit is below 1, or an id is unknown.
        DataError: The task has no samples, or a duplicate id.
    """
    if limit is not None and ids is not None:
        raise UsageError("limit and ids exclude each other", fix="give one of them")
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be a whole number >= 1, got {limit}")
    if ids is not None and not ids:
        raise UsageError("the list of ids is empty", fix="name a sample, or omit it for all")
    kind: SelectionKind = "ids" if ids else "all"
    requested = {comparable_id(name): name for name in ids or ()}
    chosen: list[Sample] = []
    seen: dict[str, str] = {}
    for sample in task.samples():
        form = comparable_id(sample.id)
        if form in seen:
            raise DataError(f"duplicate id {sample.id!r}", where=f"task {task.name}", fix="make ids unique")
        seen[form] = sample.id
        if kind != "ids" or form in requested:
            chosen.append(sample)
    if unknown := sorted(name for form, name in requested.items() if form not in seen):
        near = difflib.get_close_matches(unknown[0], seen.values(), n=1)
        fix = f"did you mean {near[0]!r}?" if near else "the ids are in the task's samples.jsonl"
        raise UsageError(f"task {task.name} has no sample {unknown[0]!r}", fix=fix)
    if not chosen:
        raise DataError("no samples", where=f"task {task.name}")
    if limit is not None and limit < len(chosen):
        if getattr(task, "limit", "stratified") == "first":
            kind, chosen = "limit", chosen[:limit]
        else:
            kind, chosen = "stratified", stratified(chosen, limit, task.version)
    return chosen, select([sample.id for sample in chosen], kind)


def stratified(samples: Sequence[Sample], limit: int, seed: str) -> list[Sample]:
    """Return a stratified sample, in the given order of the samples.

    Groups, and in each group its categories, are represented in proportion to their size, as far as the limit allows.
    The same task gives the same sample everywhere, and a smaller limit a part of a larger one.

    Args:
        samples: All samples.
        limit: Number of samples to choose.
        seed: Decides which samples of a category are chosen.
    """

    def order(*names: str) -> str:
        return text_hash("\0".join((seed, *names)))

    groups: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        groups.setdefault(sample.group, {}).setdefault(sample.category, []).append(sample)
    ranked: list[tuple[float, str, Sample]] = []
    for group, categories in groups.items():
        within: list[tuple[float, str, Sample]] = []
        for category, members in categories.items():
            by_hash = sorted(members, key=lambda sample: order(sample.id))
            within += _spread(by_hash, order(group, category))
        within.sort(key=lambda place: place[:2])
        ranked += _spread([sample for _, _, sample in within], order(group))
    ranked.sort(key=lambda place: place[:2])
    chosen = {sample.id for _, _, sample in ranked[:limit]}
    return [sample for sample in samples if sample.id in chosen]


def _spread(samples: Sequence[Sample], tie: str) -> list[tuple[float, str, Sample]]:
    """Place samples evenly between 0 and 1, with what orders equal places of several strata."""
    return [((index + 0.5) / len(samples), tie, sample) for index, sample in enumerate(samples)]


def select_shard(samples: list[Sample], selection: Selection, shard: str) -> tuple[list[Sample], Selection, RunShard]:
    """Select one shard of a selection, for a run that several machines share.

    Args:
        samples: The selected samples, in order.
        selection: Their identity.
        shard: `I/N`, I from 1 to N.

    Returns:
        Every Nth sample from the Ith on, the identity of that selection, and the shard.

    Raises:
        UsageError: `shard` is not `I/N`, or there are fewer samples than shards.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if not match:
        raise UsageError(f"shard {shard!r} is not I/N", fix="write 2/4 for the second of four")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        raise UsageError(f"shard {shard} does not exist", fix="shards are counted from 1, such as 1/4 to 4/4")
    if count > len(samples):
        raise UsageError(f"cannot split {len(samples)} samples into {count} shards", fix="use fewer shards")
    part = samples[number - 1 :: count]
    return part, select([sample.id for sample in part], "shard"), RunShard(number=number, count=count, of=selection)


class SelectedTask:
    """A task reduced to selected samples.

    Args:
        task: The whole task.
        samples: The selected samples.

    Attributes:
        whole: The whole task.
    """

    def __init__(self, task: Task, samples: Sequence[Sample]) -> None:
        self._task, self._samples = task, samples
        self.whole = task
        self.name, self.default_scorers, self.search = task.name, task.default_scorers, task.search
        self.limit = getattr(task, "limit", "stratified")

    @property
    def version(self) -> str:
        """Version of the whole task."""
        return self._task.version

    @property
    def search_version(self) -> str:
        """Identity of the task's search backend."""
        return self._task.search_version

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """Yield the selected samples."""
        yield from self._samples

    def truth(self, sample_id: str) -> GroundTruth:
        """Return the ground truth of a sample."""
        return self._task.truth(sample_id)
