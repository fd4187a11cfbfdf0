"""Build a world on disk: a task folder with samples, ground truths, and the data of the `world` search backend.

Shards are distributed over worker processes. Each shard writes its images and rows, and the rows are concatenated in
order at the end, so memory use is constant and the files are byte-identical for any number of workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from knowgen.core.atomic import folder_draft
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.import_path import child_environment, module_command
from knowgen.core.steps import LongStep, step
from knowgen.tasks.folder import SEARCH_FOLDER
from knowgen.worlds import shard_files
from knowgen.worlds.content.difficulty import RECIPE_VERSION
from knowgen.worlds.content.seeds import WorldSeed, check_seed
from knowgen.worlds.shard import SHARD_SIZE
from knowgen.worlds.shard_files import PARTS, ROW_FILES, part_path, samples_of, write_shard


def build_world(
    out: Path,
    seed: WorldSeed,
    samples: int,
    *,
    name: str | None = None,
    workers: int | None = None,
    commitment: str = "",
) -> Path:
    """Build a world and move it to its folder in one step.

    Args:
        out: Folder to create. An existing world is replaced; any other content is an error.
        seed: World seed: a number, at least 0, or a secret seed of 64 hex digits, which no file of the world repeats.
        samples: Number of samples, at least 1: one of each category, then the second of each, and so on.
        name: Task name; `world-<seed>` if None, and `world` for a secret seed.
        workers: Number of processes; the number of cores if None.
        commitment: Commitment of the task file to the seed, so that the task keeps its version when its ground truths
            are taken away; empty for none.

    Returns:
        The path `out`.

    Raises:
        UsageError: If a number is out of range, or a secret seed could be guessed.
        ConfigError: If `out` has other content or cannot be written, or a worker fails.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     world = build_world(Path(folder) / "world", seed=7, samples=1, workers=1)
        ...     sorted(path.name for path in world.iterdir())
        ...     sorted(path.name for path in (world / "search").iterdir())
        ['samples.jsonl', 'search', 'task.yaml', 'truth', 'truth.jsonl']
        ['pages.jsonl', 'pictures', 'pictures.jsonl']
    """
    check_seed(seed, "world build")
    if samples < 1 or (workers is not None and workers < 1):
        raise UsageError("samples and workers must be 1 or more", where="world build")
    _require_replaceable(out)
    try:
        with folder_draft(out) as draft:
            for folder in ("truth", f"{SEARCH_FOLDER}/pictures", PARTS):
                (draft / folder).mkdir(parents=True)
            shards = -(-samples // SHARD_SIZE)
            _write_shards(draft, seed, samples, min(workers or os.cpu_count() or 1, shards))
            for file in ROW_FILES:
                _join(draft, file, shards)
            (draft / PARTS).rmdir()
            _write_task_file(draft / "task.yaml", seed, samples, name, commitment)
    except OSError as error:
        where = str(error.filename or out)
        raise ConfigError(f"cannot be written: {error.strerror}", where=where, fix="check the disk") from error
    return out


def _write_shards(folder: Path, seed: WorldSeed, samples: int, workers: int) -> None:
    """Write all shards; each worker writes every `workers`-th one.

    Workers are started as `python -m`, so that a script without a main guard can build a world too. They read the seed
    from a pipe, because the arguments of a process are public on its machine.
    """
    if workers == 1:
        with step("building samples", samples) as shown:
            for number in range(-(-samples // SHARD_SIZE)):
                write_shard(folder, seed, number, samples)
                shown.advance(samples_of(number, samples))
        return
    started: list[subprocess.Popen[str]] = []
    try:
        for first in range(workers):
            command = module_command(shard_files.__name__, *map(str, (folder, samples, first, workers)))
            pipe = subprocess.PIPE
            started.append(
                subprocess.Popen(command, env=child_environment(), text=True, stdin=pipe, stdout=pipe, stderr=pipe)
            )
        for process in started:
            _give_seed(process, seed)
        with step("building samples", samples) as shown, ThreadPoolExecutor(workers) as pool:
            errors = list(pool.map(lambda process: _followed(process, shown), started))
        for process, stderr in zip(started, errors, strict=True):
            if process.returncode:
                reason = stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
                raise ConfigError(f"a worker failed: {reason[0]}", where="world build", fix="try with one worker")
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _followed(process: subprocess.Popen[str], shown: LongStep) -> str:
    """Wait for a worker, which writes the number of samples of each shard, and return its errors."""
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        shown.advance(int(line))
    errors = process.stderr.read()
    process.wait()
    return errors


def _give_seed(process: subprocess.Popen[str], seed: WorldSeed) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # its exit code says why it ended
        pipe.write(json.dumps(seed))


def _join(folder: Path, file: str, shards: int) -> None:
    with (folder / file).open("wb") as whole:
        for number in range(shards):
            part = part_path(folder, file, number)
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
            part.unlink()


def _write_task_file(path: Path, seed: WorldSeed, samples: int, name: str | None, commitment: str) -> None:
    import yaml

    public = isinstance(seed, int)
    source = f"seed {seed}" if public else "a secret seed"
    fields = {
        "name": name or (f"world-{seed}" if public else "world"),
        "version": str(RECIPE_VERSION),
        "description": f"A made-up world of {samples} samples, drawn from {source}.",
        "license": "Apache-2.0",
        "default_scorers": ["world_check"],
        "search": "world",
        **({"seed": seed} if public else {}),
        **({"commitment": commitment} if commitment else {}),
    }
    path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _is_world(folder: Path) -> bool:
    return all((folder / file).is_file() for file in (*ROW_FILES, "task.yaml"))


def _require_replaceable(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not _is_world(out):
        raise ConfigError("the folder has content that is not a world", where=str(out), fix="name another folder")
    if out.exists() and not out.is_dir():
        raise ConfigError("is a file, not a folder", where=str(out), fix="name a folder")
