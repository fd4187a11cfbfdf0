"""Find the ground-truth images of a fetched run in its task on this machine: they are not sent with a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from knowgen.core.errors import KnowgenError
from knowgen.core.records import GroundTruth
from knowgen.store.folder import DATABASE_FILE
from knowgen.store.run import RunStore
from knowgen.store.schema import open_writer
from knowgen.workflows.described import open_task


def with_truth_images(folder: Path) -> int:
    """Record where the task of a run has the ground-truth images, and return for how many samples.

    Args:
        folder: The run directory. A task that is not on this machine, or has another version, leaves it as it is.
    """
    with RunStore.read(folder) as store:
        spec = store.spec
        wanted = {sample.id: store.truth(sample.id) for sample in store.samples()}
    try:
        task = open_task(spec.task, in_worker=True)
        if task.version != spec.task_version:
            return 0
        found = list(_files(wanted, (task.truth(sample.id) for sample in task.samples() if sample.id in wanted)))
    except KnowgenError:  # not on this machine, or not prepared: the report then shows no ground truth
        return 0
    _record(folder / DATABASE_FILE, found)
    return len(found)


def _files(wanted: dict[str, GroundTruth], truths: Iterable[GroundTruth]) -> Iterable[tuple[str, str]]:
    """Yield the path and the sample id of every ground truth that is the same image."""
    for truth in truths:
        here, there = truth.image, wanted[truth.sample_id].image
        if here is not None and there is not None and here.path is not None and here.sha256 == there.sha256:
            yield str(Path(here.path).absolute()), truth.sample_id


def _record(database: Path, found: list[tuple[str, str]]) -> None:
    connection: sqlite3.Connection = open_writer(database)
    try:
        connection.execute("begin immediate")
        connection.executemany("update samples set truth_file = ? where sample_id = ?", found)
        connection.execute("commit")
        connection.execute("pragma journal_mode=delete")
    finally:
        connection.close()
