"""Puts the shards of a run together: whether they belong together, one run directory of them, its tables and page."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from knowgen import outputs
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import GenerationStatus
from knowgen.core.spec import RunShard, RunSpec, select
from knowgen.runs import Run, load_run
from knowgen.stats.protocol import get_protocol
from knowgen.store.folder import is_run_directory
from knowgen.store.images import explain_os_error
from knowgen.store.lock import RunLock
from knowgen.store.manifest import difference
from knowgen.store.merge import MERGED, RunPart, write_merged
from knowgen.store.run import RunStore

MAKE = "shards are made by `knowgen run … --shard I/N`"


def merge(
    shards: Sequence[Path | str],
    out: Path | str,
    *,
    policy: str = "strict",
    unfinished: bool = False,
    fresh: bool = False,
) -> Run:
    """Puts the shards of a run together in one directory, as one unsharded run would have left it.

    The directory appears whole under its name. A second call does nothing, and finishes what a kill left.

    Args:
        shards: Run directories, in any order.
        out: The directory to make.
        policy: Policy of the headline.
        unfinished: Also where drawings or judgements are lacking in a shard; they count as not run.
        fresh: Replaces an earlier merge, or another run, in `out`.

    Raises:
        UsageError: A shard is missing or comes twice, or a directory is no shard.
        ConfigError: They do not belong together, `out` holds something else, or it cannot be written.
        DataError: A shard is damaged or not finished; the disk is full.
    """
    get_protocol(policy)
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
    run.policy = policy
    if not outputs.complete(target, run.spec):
        from knowgen.api import write_report

        outputs.write(target, run.spec, run.summaries())
        write_report([run], target / "report")
    return run


def _shard(part: RunPart) -> RunShard:
    shard = part.manifest.spec.shard
    if shard is None:
        raise UsageError("is no shard of a run", where=str(part.path), fix=MAKE)
    return shard


def _number(part: RunPart) -> int:
    return _shard(part).number


def _whole(parts: Sequence[RunPart]) -> RunSpec:
    """Returns the specification of the run that the parts, sorted by number, make up.

    Raises:
        UsageError: A part is missing or there twice.
        ConfigError: They are parts of different runs.
    """
    first = parts[0]
    shard = _shard(first)
    for part in parts[1:]:
        if differs := _apart(first.manifest.spec, part.manifest.spec):
            raise ConfigError(
                f"is a shard of another run than {first.path}: {differs}",
                where=str(part.path),
                fix="merge shards that were started alike",
            )
    numbers = [_number(part) for part in parts]
    for earlier, later in itertools.pairwise(parts):
        if _number(earlier) == _number(later):
            raise UsageError(
                f"{earlier.path} and {later.path} both hold {_shard(later).label}", fix="name each shard once"
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
            fix="run the shards anew, each with --fresh",
        )
    return first.manifest.spec.model_copy(update={"selection": shard.of, "shard": None})


def _apart(first: RunSpec, other: RunSpec) -> str:
    """Says where two shards belong to different runs; empty when they are of one."""
    assert first.shard is not None and other.shard is not None
    if found := difference(first, other):
        return found
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
    """Returns what a directory was put together from; empty where it was not, or is not there."""
    if not is_run_directory(target):
        return ""
    with RunStore.read(target) as store:
        return next((str(data.get("content", "")) for _, _, data in store.notes(MERGED)), "")


def _refuse_foreign(target: Path, *, fresh: bool) -> None:
    """Holds that nothing of worth is in the way.

    Raises:
        ConfigError: Something is.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if is_run_directory(target):
        if not fresh:
            held = "an earlier state of these shards, or others" if _content(target) else "another run"
            raise ConfigError(f"holds {held}", where=str(target), fix="choose another -o, or merge with --fresh")
    elif target.exists() or target.is_symlink():
        raise ConfigError("is there already and no run directory", where=str(target), fix="choose another -o")


def _refuse_unfinished(parts: Sequence[RunPart]) -> None:
    """Holds that every sample of every shard was drawn and judged, be it in vain.

    Raises:
        DataError: Something is still to be done.
    """
    for part in parts:
        with RunStore.read(part.path) as store:
            if lacks := _lacking(store):
                raise DataError(
                    f"{_shard(part).label} is not finished: {lacks}",
                    where=str(part.path),
                    fix="run it again, or merge with --unfinished",
                )


def _lacking(store: RunStore) -> str:
    undrawn = 0
    for place, scorer in enumerate(store.spec.scorers):
        unjudged = 0
        for cell in store.cells(scorer.name):
            undrawn += cell.generation is None and place == 0
            if cell.generation is not None and cell.generation.status is GenerationStatus.OK:
                unjudged += sum(score is None for score in cell.scores)
        if undrawn:
            return f"{undrawn} of {store.spec.selection.n * store.spec.repeats} drawings are lacking"
        if unjudged:
            return f"{unjudged} judgements by {scorer.name} are lacking"
    return ""


def _place(target: Path, spec: RunSpec, parts: Sequence[RunPart], content: str) -> None:
    """Writes the whole beside its place and gives it its name when it is complete."""
    stem = f".{target.name}.merge-"
    fresh = target.with_name(f"{stem}{content[:12]}")
    write_merged(fresh, spec, parts, content)
    old = target.with_name(f"{stem}old")
    try:
        if is_run_directory(target):
            shutil.rmtree(old, ignore_errors=True)
            lock = RunLock(target)  # nobody may be writing what is replaced
            try:
                target.rename(old)
            finally:
                lock.release()
        fresh.rename(target)
        for left in target.parent.glob(f"{glob.escape(stem)}*"):  # also of merges that were killed
            shutil.rmtree(left)
    except OSError as error:
        raise explain_os_error(error, target) from error
