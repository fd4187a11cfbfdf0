"""One rater's progress: what comes next, what was labelled, and what is taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from knowgen.labelling.items import Item, ItemKey, LabelMatcher, LabelPlan
from knowgen.labelling.label_files import (
    append_label,
    current_labels,
    label_file,
    rater_key,
    rater_name,
    read_label_file,
)
from knowgen.labelling.records import Choice, Skip, StoredLabel


@dataclass(frozen=True)
class Answer:
    """What a rater answers about an item.

    Attributes:
        values: Value of each dimension.
        na: Dimensions that are not applicable.
        choice: The choice between two images.
        skipped: Why there is neither.
        seconds: Time that it took.
    """

    values: Mapping[str, float]
    na: tuple[str, ...] = ()
    choice: Choice = ""
    skipped: Skip = ""
    seconds: float = 0.0


class RaterProgress:
    """The labels of one rater in a folder. The file is read again when another process has added to it.

    Args:
        plan: Everything that can be labelled.
        folder: Folder of the labels.
        name: Name of the rater.
        page: Version of the page, for the records.

    Attributes:
        name: Name of the rater, as it was written first.
        notes: Lines of the file that were left out.
        outdated: Number of labels about images, prompts or questions that have changed since.

    Raises:
        UsageError: The name cannot be used.
        DataError: The file of the rater is damaged.
    """

    def __init__(self, plan: LabelPlan, folder: Path, name: str, page: str = "") -> None:
        self.plan, self.page = plan, page
        self.name = rater_name(name)
        self.path = label_file(folder, self.name)
        self.notes: tuple[str, ...] = ()
        self.outdated = 0
        self._matcher = LabelMatcher(plan)
        self._total = plan.total
        self._done: dict[ItemKey, StoredLabel] = {}
        self._last_time = ""
        self._size = -1
        self._reopened: Item | None = None
        self._refresh()

    @property
    def done(self) -> int:
        """Number of items with a label, those that were skipped included."""
        return len(self._done)

    @property
    def skipped(self) -> int:
        """Number of items that were skipped."""
        return sum(bool(label.skipped) for label in self._done.values())

    @property
    def total(self) -> int:
        """Number of items."""
        return self._total

    def next(self) -> tuple[Item, StoredLabel | None] | None:
        """Return the item to show, with its earlier label if that was just taken back; None if all have one.

        Two items of one sample follow each other only where nothing else is left.
        """
        self._refresh()
        if self._reopened is not None and self._reopened.key not in self._done:
            return self._reopened, self._taken_back
        last = next(reversed(self._done))[0] if self._done else None
        while self._ahead and self._ahead[0].key in self._done:
            self._ahead.popleft()
        waiting = (item for item in self._ahead if item.key not in self._done)
        fallback = None
        for item in waiting:
            if item.of.sample.id != last:
                return item, None
            fallback = fallback or item
        for item in self._rest:
            if item.key in self._done:
                continue
            self._ahead.append(item)
            if item.of.sample.id != last:
                return item, None
            fallback = fallback or item
        return (fallback, None) if fallback is not None else None

    def label(self, item: Item, answer: Answer) -> StoredLabel:
        """Store an answer; it is on the disk when this returns.

        Raises:
            DataError: It cannot be written.
        """
        self._refresh()
        label = self._record(item, answer)
        self._append(label)
        self._done.pop(item.key, None)
        self._done[item.key] = label
        if self._reopened is not None and self._reopened.key == item.key:
            self._reopened = None
        return label

    def undo(self) -> bool:
        """Withdraw the last label, so that `next` returns its item; return whether there was one.

        Raises:
            DataError: It cannot be written.
        """
        self._refresh()
        if not self._done:
            return False
        key, label = next(reversed(self._done.items()))
        item = self._matcher.item(label)
        assert item is not None
        self._append(label.model_copy(update={"at": self._now(), "undone": True}))
        del self._done[key]
        self._reopened, self._taken_back = item, label
        self._ahead.appendleft(item)
        return True

    def _record(self, item: Item, answer: Answer) -> StoredLabel:
        return StoredLabel(
            mode=self.plan.mode,
            at=self._now(),
            rater=self.name,
            task=self.plan.task,
            task_version=self.plan.task_version,
            sample=item.of.sample.id,
            repeat=item.repeat,
            systems=tuple(one.system for one in item.images),
            images=tuple(one.sha256 for one in item.images),
            prompt=item.of.prompt_hash,
            question=self.plan.question,
            page=self.page,
            values=dict(answer.values),
            na=answer.na,
            choice=answer.choice,
            skipped=answer.skipped,
            seconds=round(answer.seconds, 2),
        )

    def _now(self) -> str:
        """Return the time, later than that of the last label even where the clock was set back."""
        now = datetime.now(UTC)
        if self._last_time:
            now = max(now, datetime.fromisoformat(self._last_time) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")

    def _append(self, label: StoredLabel) -> None:
        append_label(self.path, label)
        self._last_time, self._size = label.at, self.path.stat().st_size

    def _refresh(self) -> None:
        """Read the file if its size is not what this process left."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._size:
            return
        read = read_label_file(self.path) if size else None
        mine = [one for one in (read.labels if read else ()) if rater_key(one.rater) == rater_key(self.name)]
        self.notes = read.notes if read else ()
        if mine:
            self.name, self._last_time = mine[0].rater, max(one.at for one in mine)
        self._done, self.outdated = {}, 0
        for label in current_labels(mine):
            if label.mode != self.plan.mode:
                continue
            item = self._matcher.item(label)
            if item is None:
                self.outdated += self._is_outdated(label)
                continue
            self._done.pop(item.key, None)
            self._done[item.key] = label
        self._size = size
        self._rest = self.plan.order(rater_key(self.name))
        self._ahead: deque[Item] = deque()

    def _is_outdated(self, label: StoredLabel) -> bool:
        """Return whether a label is about samples and systems of this plan, so that something has changed."""
        plan = self.plan
        known = label.task == plan.task and label.sample in self._matcher.samples
        return known and set(label.systems) <= set(plan.systems)
