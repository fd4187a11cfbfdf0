"""A cache of embeddings between runs. The key covers model, weights, preprocessing, libraries and content."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from knowgen.core.cache import Cache
from knowgen.core.images import OPENING_VERSION
from knowgen.core.spec import fingerprint, text_hash
from knowgen.scorers.similarity.networks import NetworkIdentity, Vectors

KEY_VERSION = 1
"""Version of keys and entries. Increment it with any change to their format."""

_LENGTH_SLACK = 1e-3
"""Tolerance of a vector's length: an entry further from length 1 is damaged and computed again."""


class EmbeddingCache:
    """Unit vectors by content, stored as little-endian float32, for a text after one byte that says if it was cut.

    Args:
        identity: Identity of the model.
        precision: Precision of the model: fp32, bf16 or fp16.
    """

    def __init__(self, identity: NetworkIdentity, precision: str) -> None:
        self._cache = Cache("embeddings")
        self._decides: dict[str, Any] = {
            "embedding": KEY_VERSION, "precision": precision, **dataclasses.asdict(identity)
        }  # fmt: skip

    def image_key(self, sha256: str) -> str:
        """Return the key of an image file.

        Args:
            sha256: SHA-256 of the file, hex.
        """
        return fingerprint({**self._decides, "opening": OPENING_VERSION, "image": sha256})

    def text_key(self, text: str) -> str:
        """Return the key of a text."""
        return fingerprint({**self._decides, "text": text_hash(text)})

    def image(self, sha256: str) -> Vectors | None:
        """Return the vector of an image, None where it is not cached."""
        return _vector(self._cache.get(self.image_key(sha256)))

    def put_image(self, sha256: str, vector: Vectors) -> None:
        """Store the vector of an image."""
        self._cache.put(self.image_key(sha256), _packed(vector))

    def text(self, text: str) -> tuple[Vectors, bool] | None:
        """Return the vector of a text and whether the text was cut, None where it is not cached."""
        entry = self._cache.get(self.text_key(text))
        vector = _vector(entry[1:]) if entry else None
        return None if entry is None or vector is None else (vector, bool(entry[0]))

    def put_text(self, text: str, vector: Vectors, cut: bool) -> None:
        """Store the vector of a text, and whether the text was cut."""
        self._cache.put(self.text_key(text), bytes([cut]) + _packed(vector))

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def flush(self) -> None:
        """Write stored entries to disk, so that other processes find them."""
        self._cache.flush()


def _packed(vector: Vectors) -> bytes:
    return vector.astype("<f4").tobytes()


def _vector(entry: bytes | None) -> Vectors | None:
    if not entry or len(entry) % 4:
        return None
    vector = np.frombuffer(entry, dtype="<f4").astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector if abs(length - 1.0) < _LENGTH_SLACK else None  # NaN fails as well
