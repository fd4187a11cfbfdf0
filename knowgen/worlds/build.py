"""Builds a world on disk: a task folder with samples, truths, and what the `world` search backend answers from.

The work goes shard by shard over processes; each shard writes its pictures and its rows, and the rows are joined in
order at the end. So memory stays flat, and the files are the same byte for byte however many workers there are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from knowgen.core.atomic import replace_folder
from knowgen.core.errors import ConfigError, UsageError
from knowgen.worlds import dials, shard_files
from knowgen.worlds.shard import SHARD_SIZE
from knowgen.worlds.shard_files import PARTS, ROW_FILES, part_path, write_shard


def build_world(out: Path, seed: int, samples: int, *, name: str | None = None, workers: int | None = None) -> Path:
    """Builds a world and puts it in place in one step.

    Args:
        out: The folder to make. An earlier world there is replaced; anything else is left alone.
        seed: Of the world, 0 or more.
        samples: Number of samples, 1 or more; one of each category, then the second of each, and so on.
        name: Name of the task; `world-<seed>` when None.
        workers: Processes; as many as there are cores when None.

    Returns:
        The folder.

    Raises:
        UsageError: A number is out of range.
        ConfigError: There is something else at `out`, or it cannot be written.
    """
    if seed < 0 or samples < 1 or (workers is not None and workers < 1):
        raise UsageError("seed must be 0 or more, samples and workers 1 or more", where="world build")
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(out.parent)) from error
    try:
        for folder in ("truth", "pictures", PARTS):
            (draft / folder).mkdir()
        shards = -(-samples // SHARD_SIZE)
        _write_shards(draft, seed, samples, min(workers or os.cpu_count() or 1, shards))
        for file in ROW_FILES:
            _join(draft, file, shards)
        (draft / PARTS).rmdir()
        _write_task_file(draft / "task.yaml", seed, samples, name or f"world-{seed}")
        draft.chmod(0o755)
        replace_folder(draft, out)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(out), fix="check the disk") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _write_shards(folder: Path, seed: int, samples: int, workers: int) -> None:
    """Writes all shards, each worker every `workers`-th of them.

    Workers are plain processes of their own module, so that a script without a main guard can build a world too.
    """
    if workers == 1:
        for number in range(-(-samples // SHARD_SIZE)):
            write_shard(folder, seed, number, samples)
        return
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started: list[subprocess.Popen[str]] = []
    try:
        for first in range(workers):
            command = [sys.executable, "-m", shard_files.__name__, *map(str, (folder, seed, samples, first, workers))]
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        for process in started:
            _, complaint = process.communicate()
            if process.returncode:
                reason = complaint.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
                raise ConfigError(f"a worker failed: {reason[0]}", where="world build", fix="try with one worker")
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _join(folder: Path, file: str, shards: int) -> None:
    with (folder / file).open("wb") as whole:
        for number in range(shards):
            part = part_path(folder, file, number)
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
            part.unlink()


def _write_task_file(path: Path, seed: int, samples: int, name: str) -> None:
    import yaml

    fields = {
        "name": name,
        "version": str(dials.VERSION),
        "description": f"A made-up world of {samples} samples, drawn from seed {seed}.",
        "license": "Apache-2.0",
        "default_scorers": ["world_check"],
        "search": "world",
        "seed": seed,
    }
    path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _is_world(folder: Path) -> bool:
    return all((folder / file).is_file() for file in (*ROW_FILES, "task.yaml"))


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not _is_world(out):
        raise ConfigError("the folder holds something that is no world", where=str(out), fix="name another folder")
    if out.exists() and not out.is_dir():
        raise ConfigError("is a file", where=str(out), fix="name a folder")
