"""Embedding images and texts: each content once, from the cache where possible, in batches that fit the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from knowgen.core.images import UnreadableImageError, open_rgb
from knowgen.local_models.memory import BatchSizes, in_batches, run_if_fits
from knowgen.scorers.similarity.cache import EmbeddingCache
from knowgen.scorers.similarity.images import ImageFile
from knowgen.scorers.similarity.networks import Network, NetworkIdentity, NetworkSource, Vectors, resolve_precision

BATCH_CPU, BATCH_ACCELERATOR = 16, 64
"""Default batch sizes on a CPU and on an accelerator."""

MAX_THREADS = 16
"""Maximum number of threads that decode and scale images while the model computes."""


@dataclass
class EmbeddingResult:
    """The embeddings of some contents; each content is in exactly one of `vectors` and `faults`.

    Attributes:
        vectors: Unit vectors, shape (dimensions,), by SHA-256 of an image file or by text.
        faults: Reason why a content has no vector.
        cut: Texts longer than the model's context, of which only the beginning was embedded.
    """

    vectors: dict[str, Vectors] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)


class Embedder:
    """Embeds images and texts with one model, which is loaded when a content is not in the cache.

    Args:
        source: Source of the model.
        device: Device as torch names it.
        precision: auto, fp32, bf16 or fp16.
        batch_size: Number of images per batch, 0 for 16 on a CPU and 64 on an accelerator; halved permanently when
            memory runs out.

    Attributes:
        identity: Identity of the model.
        device: Device as torch names it.
        precision: fp32, bf16 or fp16.

    Raises:
        KnowgenError: As `NetworkSource.prepare`.
    """

    def __init__(self, source: NetworkSource, device: str, precision: str, batch_size: int) -> None:
        self.identity: NetworkIdentity = source.prepare()
        self.device, self.precision = device, resolve_precision(precision, device)
        self._sizes = BatchSizes(batch_size or (BATCH_CPU if device == "cpu" else BATCH_ACCELERATOR))
        self._source = source
        self._cache = EmbeddingCache(self.identity, self.precision)
        self._network: Network | None = None
        self._threads: ThreadPoolExecutor | None = None

    def images(self, images: Sequence[ImageFile]) -> EmbeddingResult:
        """Embed images, each content once.

        Raises:
            ConfigError: The model cannot be loaded.
        """
        result = EmbeddingResult()
        missing: dict[str, ImageFile] = {}
        for image in images:
            if image.sha256 in result.vectors or image.sha256 in missing:
                continue
            cached = self._cache.image(image.sha256)
            if cached is None:
                missing[image.sha256] = image
            else:
                result.vectors[image.sha256] = cached
        if missing:
            self._compute(missing, result)
        return result

    def texts(self, texts: Sequence[str]) -> EmbeddingResult:
        """Embed texts, each once.

        Raises:
            ConfigError: The model cannot be loaded.
            UsageError: The model has no text tower.
        """
        result = EmbeddingResult()
        missing: list[str] = []
        for text in dict.fromkeys(texts):
            cached = self._cache.text(text)
            if cached is None:
                missing.append(text)
                continue
            result.vectors[text] = cached[0]
            if cached[1]:
                result.cut.add(text)

        def embed(chunk: list[str]) -> tuple[Vectors, list[bool]] | None:
            return run_if_fits(lambda: self._loaded().texts(chunk))

        for chunk, embedded in in_batches(missing, embed, self._sizes):
            if embedded is None:
                result.faults[chunk[0]] = _too_large("text")
                continue
            for text, vector, cut in zip(chunk, *embedded, strict=True):
                if cut:
                    result.cut.add(text)
                if self._add(text, vector, result):
                    self._cache.put_text(text, vector, cut)
        self._cache.flush()
        return result

    def _compute(self, missing: Mapping[str, ImageFile], result: EmbeddingResult) -> None:
        network = self._loaded()
        threads = self._pool()
        waiting = [(digest, threads.submit(_tensor, network, image)) for digest, image in missing.items()]
        for digest, vector in self._vectors(network, self._tensors(waiting, result), result):
            if self._add(digest, vector, result):
                self._cache.put_image(digest, vector)
        self._cache.flush()

    def _tensors(self, waiting: list[tuple[str, Future[Any]]], result: EmbeddingResult) -> Iterator[tuple[str, Any]]:
        """Yield tensors in order as they are ready; add images that cannot be opened to the faults."""
        for digest, future in waiting:
            try:
                yield digest, future.result()
            except UnreadableImageError as error:
                result.faults[digest] = f"does not open: {error}"

    def _vectors(
        self, network: Network, tensors: Iterator[tuple[str, Any]], result: EmbeddingResult
    ) -> Iterator[tuple[str, Vectors]]:
        """Yield vectors; a batch that does not fit into memory is halved until it does."""

        def embed(chunk: list[tuple[str, Any]]) -> Vectors | None:
            return run_if_fits(lambda: network.images([tensor for _, tensor in chunk]))

        for chunk, vectors in in_batches(tensors, embed, self._sizes):
            if vectors is None:
                result.faults[chunk[0][0]] = _too_large("image")
                continue
            yield from zip((digest for digest, _ in chunk), vectors, strict=True)

    @property
    def batch_size(self) -> int:
        """Current number of images per batch."""
        return self._sizes.size

    def _add(self, key: str, vector: Vectors, result: EmbeddingResult) -> bool:
        """Add a vector to the result, or a fault where it is not finite; return whether it was added."""
        if not np.isfinite(vector).all() or not np.any(vector):
            result.faults[key] = f"has no finite embedding at {self.precision}; try -s precision=fp32"
            return False
        result.vectors[key] = vector
        return True

    def _loaded(self) -> Network:
        if self._network is None:
            self._network = self._source.load(self.device, self.precision)
        return self._network

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="images")
        return self._threads

    def close(self) -> None:
        """Release the model, the threads and the cache."""
        self._network = None
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._cache.close()


def _tensor(network: Network, image: ImageFile) -> Any:
    return network.pixels(open_rgb(image.path))


def _too_large(what: str) -> str:
    return f"does not fit into memory, even as a single {what}"
