"""Merge the shards of a run into one run directory, with its tables and page."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from knowgen.core.atomic import remove_leftovers, replace_folder
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import GenerationStatus
from knowgen.core.spec import RunShard, RunSpec, select
from knowgen.stats.protocol import get_protocol
from knowgen.store.files import explain_os_error
from knowgen.store.folder import is_run_directory
from knowgen.store.lock import RunLock
from knowgen.store.manifest import spec_difference
from knowgen.store.merge import MERGED, RunPart, write_merged
from knowgen.store.run import RunStore
from knowgen.workflows import artifacts
from knowgen.workflows.run import Run, load_run

MAKE = "make shards with `knowgen run … --shard I/N`"


def merge(
    shards: Sequence[Path | str],
    out: Path | str,
    *,
    protocol: str = "strict",
    unfinished: bool = False,
    fresh: bool = False,
) -> Run:
    """Merge the shards of a run into one directory, the same as one unsharded run would have written.

    The directory appears under its name when it is complete. A second call does nothing, or finishes after a kill.

    Args:
        shards: Run directories, in any order.
        out: The merged run directory.
        protocol: Scoring protocol of the headline.
        unfinished: Merge even if images or scores are missing in a shard; they count as not run.
        fresh: Replace an earlier merge, or another run, in `out`.

    Raises:
        UsageError: A shard is missing or given twice, or a directory is not a shard.
        ConfigError: They belong to different runs, `out` contains something else, or it cannot be written.
        DataError: A shard is damaged or not finished; the disk is full.
    """
    get_protocol(protocol)
    target = Path(out) if Path(out).name not in {"", ".."} else Path(out).resolve()
    if not shards:
        raise UsageError("no shard to merge", fix=MAKE)
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(RunPart(Path(shard))) for shard in shards]
        parts.sort(key=_number)
        spec = _whole(parts)
        if any(part.path.resolve() == target.resolve() for part in parts):
            raise UsageError("is one of the shards", where=str(target), fix="choose another -o")
        content = hashlib.sha256(json.dumps([part.state() for part in parts]).encode()).hexdigest()
        if fresh or _content(target) != content:
            _refuse_foreign(target, fresh=fresh)
            if not unfinished:
                _refuse_unfinished(parts)
            _place(target, spec, parts, content)
    run = load_run(target)
    run.protocol = protocol
    if not artifacts.complete(target, run.spec):
        run.write_outputs()
    return run


def _shard(part: RunPart) -> RunShard:
    shard = part.manifest.spec.shard
    if shard is None:
        raise UsageError("is not a shard of a run", where=str(part.path), fix=MAKE)
    return shard


def _number(part: RunPart) -> int:
    return _shard(part).number


def _whole(parts: Sequence[RunPart]) -> RunSpec:
    """Return the specification of the run that the parts, sorted by number, make up.

    Raises:
        UsageError: A part is missing or given twice.
        ConfigError: They are parts of different runs.
    """
    first = parts[0]
    shard = _shard(first)
    for part in parts[1:]:
        if differs := _apart(first.manifest.spec, part.manifest.spec):
            raise ConfigError(
                f"is a shard of another run than {first.path}: {differs}",
                where=str(part.path),
                fix="merge shards of one command line",
            )
    numbers = [_number(part) for part in parts]
    for earlier, later in itertools.pairwise(parts):
        if _number(earlier) == _number(later):
            raise UsageError(
                f"{earlier.path} and {later.path} both contain {_shard(later).label}", fix="name each shard once"
            )
    if missing := sorted(set(range(1, shard.count + 1)) - set(numbers)):
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"shard {missing[0]}/{shard.count}{rest} is not among the directories", fix="name all shards of the run"
        )
    each = [part.ids() for part in parts]
    ids = [each[place % shard.count][place // shard.count] for place in range(sum(map(len, each)))]
    if select(ids, shard.of.kind) != shard.of:
        raise DataError(
            f"the shards do not make up the selection {shard.of.label}",
            where=str(first.path),
            fix="run the shards again, each with --fresh",
        )
    return first.manifest.spec.model_copy(update={"selection": shard.of, "shard": None})


def _apart(first: RunSpec, other: RunSpec) -> str:
    """Return how two shards belong to different runs; empty when they belong to one."""
    assert first.shard is not None and other.shard is not None
    if differs := spec_difference(first, other):
        return differs
    if first.shard.count != other.shard.count:
        return f"{first.shard.count} shards there and {other.shard.count} here"
    if first.shard.of != other.shard.of:
        return f"selection {first.shard.of.label} there and {other.shard.of.label} here"
    for name in ("repeats", "judge_repeats"):
        if (there := getattr(first, name)) != (here := getattr(other, name)):
            return f"{name} is {there} there and {here} here"
    for there, here in zip(first.scorers, other.scorers, strict=False):
        if there != here:
            return f"scorer {there.name} {there.version} there and {here.name} {here.version} here, or its arguments"
    if len(first.scorers) != len(other.scorers):
        return f"{len(first.scorers)} scorers there and {len(other.scorers)} here"
    return ""


def _content(target: Path) -> str:
    """Return the hash of the shards that a directory was merged from; empty for any other directory."""
    if not is_run_directory(target):
        return ""
    with RunStore.read(target) as store:
        return next((str(data.get("content", "")) for _, _, data in store.notes(MERGED)), "")


def _refuse_foreign(target: Path, *, fresh: bool) -> None:
    """Refuse to replace anything but an earlier merge.

    Raises:
        ConfigError: The directory contains something else.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if is_run_directory(target):
        if not fresh:
            content = "an earlier state of these shards, or others" if _content(target) else "another run"
            raise ConfigError(f"contains {content}", where=str(target), fix="choose another -o, or merge with --fresh")
    elif target.exists() or target.is_symlink():
        raise ConfigError("exists and is not a run directory", where=str(target), fix="choose another -o")


def _refuse_unfinished(parts: Sequence[RunPart]) -> None:
    """Check that every sample of every shard was attempted, even if it failed.

    Raises:
        DataError: An image or score was never attempted.
    """
    for part in parts:
        with RunStore.read(part.path) as store:
            if missing := _missing(store):
                raise DataError(
                    f"{_shard(part).label} is not finished: {missing}",
                    where=str(part.path),
                    fix="run it again, or merge with --unfinished",
                )


def _missing(store: RunStore) -> str:
    no_image = 0
    for place, scorer in enumerate(store.spec.scorers):
        no_score = 0
        for cell in store.expected_generations(scorer.name):
            no_image += cell.generation is None and place == 0
            if cell.generation is not None and cell.generation.status is GenerationStatus.OK:
                no_score += sum(score is None for score in cell.scores)
        if no_image:
            return f"{no_image} of {store.spec.selection.n * store.spec.repeats} images are missing"
        if no_score:
            return f"{no_score} scores by {scorer.name} are missing"
    return ""


def _place(target: Path, spec: RunSpec, parts: Sequence[RunPart], content: str) -> None:
    """Write the merged run beside its place and rename it when it is complete."""
    stem = f".{target.name}.merge-"
    fresh = target.with_name(f"{stem}{content[:12]}")
    write_merged(fresh, spec, parts, content)
    try:
        if is_run_directory(target):
            lock = RunLock(target)  # no process may be writing what is replaced
            try:
                replace_folder(fresh, target)
            finally:
                lock.release()
        else:
            fresh.rename(target)
        remove_leftovers(target)
        for left in target.parent.glob(f"{glob.escape(stem)}*"):  # also of merges that were killed
            shutil.rmtree(left)
    except OSError as error:
        raise explain_os_error(error, target) from error
