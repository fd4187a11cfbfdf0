"""Seeds of worlds, and the random streams that are drawn from them.

Everything in a world follows from its seed. A seed that is a number can be found from the prompts of its world by
trying numbers. A secret seed is 256 random bits, too many to try. Random streams of a secret seed are keyed by
HMAC-SHA256 of their purpose, because the generator behind `random.Random` can be run backwards: whoever worked out the
state of one stream from its published choices would learn that stream's key, and from it neither the seed nor another
stream.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import secrets
from typing import Any

from knowgen.core.errors import UsageError
from knowgen.worlds.content.difficulty import RECIPE_VERSION

WorldSeed = int | str
"""Seed of a world: a number, at least 0, or a secret seed of 64 hex digits."""

SECRET_BYTES = 32

_SECRET = re.compile(f"[0-9a-f]{{{2 * SECRET_BYTES}}}")
_LEAST_DIFFERENT = 16
"""Least number of different bytes in a secret seed; 32 random bytes have fewer with a probability below 1e-16."""


def draw_secret() -> str:
    """Return a secret seed from the system's source of randomness."""
    return secrets.token_hex(SECRET_BYTES)


def check_seed(seed: WorldSeed, where: str) -> None:
    """Check a seed. No error repeats it.

    Args:
        seed: The seed.
        where: Where it comes from, for errors.

    Raises:
        UsageError: It is a number below 0, or a text that is not 64 hex digits or cannot be random.
    """
    if isinstance(seed, int):
        if seed < 0:
            raise UsageError("the seed must be 0 or more", where=where)
        return
    if not _SECRET.fullmatch(seed):
        raise UsageError(f"the secret seed is not {2 * SECRET_BYTES} hex digits", where=where)
    if len(set(bytes.fromhex(seed))) < _LEAST_DIFFERENT:
        raise UsageError("the secret seed is not random, and could be guessed", where=where)


def random_stream(seed: WorldSeed, shard: int, *purpose: Any) -> random.Random:
    """Return the random stream for one purpose, so that a change to one purpose does not affect the others."""
    if isinstance(seed, int):
        return random.Random("/".join(map(str, ("world", RECIPE_VERSION, seed, shard, *purpose))))
    return random.Random(_keyed(seed, "stream", shard, *purpose))


def layout_key(seed: WorldSeed, sample_id: str) -> str:
    """Return what the layout of a ground-truth image is drawn from.

    For a number it is the id of the sample. For a secret seed it is secret as well: the id is published.
    """
    return f"truth/{sample_id}" if isinstance(seed, int) else _keyed(seed, "layout", sample_id)


def _keyed(seed: str, *purpose: Any) -> str:
    text = "/".join(map(str, ("world", RECIPE_VERSION, *purpose)))
    return hmac.new(bytes.fromhex(seed), text.encode(), hashlib.sha256).hexdigest()
