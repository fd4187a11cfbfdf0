"""The task `world:SEED`: a synthetic world that is built from its seed when it is first named.

It is built once for a seed and a number of samples, in the cache folder, and comes with its search backend; 96 samples
took 11 seconds of one core (2026-11-28). A training with `fresh_seed` counts the seed up, and so gets a new world for
each epoch.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from knowgen.core.cache import cache_folder
from knowgen.core.errors import ConfigError
from knowgen.core.scratch import ScratchFolder
from knowgen.core.version import __version__
from knowgen.tasks.folder import FolderTask
from knowgen.worlds.build import build_world
from knowgen.worlds.content.difficulty import RECIPE_VERSION
from knowgen.worlds.shard import SHARD_SIZE
from knowgen.worlds.things.task import read_seed

SAMPLES = 4 * SHARD_SIZE
"""Number of samples of a world that is named without one: four of each category."""

FOLDER = "worlds"
"""Name of the folder of built worlds in the cache folder."""


class SeededWorld(FolderTask):
    """A world whose name ends in its seed; every other seed is another world."""

    seed_step = 1


def seeded_world(model: str = "0") -> SeededWorld:
    """Return the world of a seed, which is built on the first call.

    Args:
        model: The seed, such as `7`, or the number of samples and the seed, such as `48:7`; the number is 96 without.

    Raises:
        UsageError: It is not of that form.
        ConfigError: The world cannot be written.
    """
    seed, samples = read_seed(model, "task world", SAMPLES)
    return SeededWorld(_built(seed, samples), f"world:{model}")


def _built(seed: int, samples: int) -> Path:
    """Return the folder of a world, built if it is not there. Other processes wait for the one that builds it."""
    parent = _parent()
    folder = parent / f"{__version__}-{RECIPE_VERSION}-{seed}-{samples}"
    if not folder.is_dir():
        with _lock(parent, folder.name):
            if not folder.is_dir():
                build_world(folder, seed, samples, name=f"world-{seed}")
    return folder


def _parent() -> Path:
    root = cache_folder()
    return root / FOLDER if root is not None else Path(_scratch().path)


@cache
def _scratch() -> ScratchFolder:
    """Return the folder of worlds of a process without a cache folder."""
    return ScratchFolder("knowgen.worlds.")


@contextmanager
def _lock(parent: Path, name: str) -> Iterator[None]:
    """Hold the lock on a name.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        fix = "set KNOWGEN_CACHE to a folder with free space"
        where = str(error.filename or parent)
        raise ConfigError(f"cannot be written: {error.strerror}", where=where, fix=fix) from error
