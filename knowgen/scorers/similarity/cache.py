"""Embeddings kept between runs, found by all that decides them: model, weights, preprocessing, libraries, content."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from knowgen.core.cache import Cache
from knowgen.core.spec import fingerprint, text_hash
from knowgen.scorers.similarity.images import OPENING_VERSION
from knowgen.scorers.similarity.networks import NetworkIdentity, Vectors

KEY_VERSION = 1
"""Raised when the making of keys or the form of entries changes."""

_LENGTH_SLACK = 1e-3
"""An entry whose vector is not of length 1 within this is damaged, and is made again."""


class EmbeddingCache:
    """Unit vectors by content, as little-endian float32; a text's entry begins with a byte that says it was cut.

    Args:
        identity: Of the model.
        precision: fp32, bf16 or fp16.
    """

    def __init__(self, identity: NetworkIdentity, precision: str) -> None:
        self._cache = Cache("embeddings")
        self._decides: dict[str, Any] = {
            "embedding": KEY_VERSION, "precision": precision, **dataclasses.asdict(identity)
        }  # fmt: skip

    def image_key(self, sha256: str) -> str:
        """Returns the key of a picture file with this digest."""
        return fingerprint({**self._decides, "opening": OPENING_VERSION, "image": sha256})

    def text_key(self, text: str) -> str:
        """Returns the key of a text."""
        return fingerprint({**self._decides, "text": text_hash(text)})

    def image(self, sha256: str) -> Vectors | None:
        """Returns a picture's vector, None where it is not kept."""
        return _vector(self._cache.get(self.image_key(sha256)))

    def put_image(self, sha256: str, vector: Vectors) -> None:
        """Keeps a picture's vector."""
        self._cache.put(self.image_key(sha256), _packed(vector))

    def text(self, text: str) -> tuple[Vectors, bool] | None:
        """Returns a text's vector and whether the text was cut, None where it is not kept."""
        entry = self._cache.get(self.text_key(text))
        vector = _vector(entry[1:]) if entry else None
        return None if entry is None or vector is None else (vector, bool(entry[0]))

    def put_text(self, text: str, vector: Vectors, cut: bool) -> None:
        """Keeps a text's vector."""
        self._cache.put(self.text_key(text), bytes([cut]) + _packed(vector))

    def close(self) -> None:
        """Closes the file."""
        self._cache.close()

    def flush(self) -> None:
        """Writes what was put, so that other processes find it."""
        self._cache.flush()


def _packed(vector: Vectors) -> bytes:
    return vector.astype("<f4").tobytes()


def _vector(entry: bytes | None) -> Vectors | None:
    if not entry or len(entry) % 4:
        return None
    vector = np.frombuffer(entry, dtype="<f4").astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector if abs(length - 1.0) < _LENGTH_SLACK else None  # NaN fails as well
