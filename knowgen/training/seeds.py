"""Seeds of a training, each a pure function of what it belongs to, so that a resumed training draws the same."""

from __future__ import annotations

import hashlib

SEEDS = 2**31
"""Seeds are in [0, SEEDS)."""


def derived_seed(*parts: object) -> int:
    """Return a seed that follows from some parts, the same on every machine.

    Example:
        >>> derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 1) != derived_seed(0, "epoch", 2)
        True
    """
    data = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big") % SEEDS


def episode_seed(seed: int, step: int, key: str, number: int) -> int:
    """Return the seed of an episode's sampling.

    Args:
        seed: Seed of the training.
        step: Number of the step.
        key: Identity of its prompt.
        number: Number within the group of its prompt, from 0.
    """
    return derived_seed(seed, "episode", step, key, number)


def image_seed(seed: int, step: int, key: str) -> int:
    """Return the seed of the images of a group: the same for all of it, so that rewards differ by answers alone."""
    return derived_seed(seed, "image", step, key)
