"""Embeds pictures and texts: each content once, from the cache where it is kept, in batches that fit the memory."""

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
"""Pictures the model takes at once, where the user named no number."""

MAX_THREADS = 16
"""Threads that decode and scale pictures while the model computes."""


@dataclass
class EmbeddingResult:
    """What became of the contents that were to be embedded; each is in exactly one of the two.

    Attributes:
        vectors: Unit vectors, shape (dimensions,), by digest of a picture or by text.
        faults: Why there is none.
        cut: Texts that were longer than the model takes.
    """

    vectors: dict[str, Vectors] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)


class Embedder:
    """A model that is loaded when something is not in the cache, and not before.

    Args:
        source: Where the model comes from.
        device: As torch names it.
        precision: auto, fp32, bf16 or fp16.
        batch_size: Pictures at once; 0 takes 16 on the processor and 64 on an accelerator. Where memory runs out the
            number is halved, and stays so.

    Attributes:
        identity: Who the model is.
        precision: What `auto` stands for here.

    Raises:
        KnowgenError: What `NetworkSource.prepare` says.
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
        """Embeds pictures, each content once.

        Raises:
            ConfigError: The model cannot be loaded.
        """
        found = EmbeddingResult()
        wanted: dict[str, ImageFile] = {}
        for image in images:
            if image.sha256 in found.vectors or image.sha256 in wanted:
                continue
            kept = self._cache.image(image.sha256)
            if kept is None:
                wanted[image.sha256] = image
            else:
                found.vectors[image.sha256] = kept
        if wanted:
            self._compute(wanted, found)
        return found

    def texts(self, texts: Sequence[str]) -> EmbeddingResult:
        """Embeds texts, each once.

        Raises:
            ConfigError: The model cannot be loaded.
            UsageError: The model has no text tower.
        """
        found = EmbeddingResult()
        wanted: list[str] = []
        for text in dict.fromkeys(texts):
            kept = self._cache.text(text)
            if kept is None:
                wanted.append(text)
                continue
            found.vectors[text] = kept[0]
            if kept[1]:
                found.cut.add(text)
        for chunk, result in in_batches(
            wanted, lambda chunk: run_if_fits(lambda: self._loaded().texts(chunk)), self._sizes
        ):
            if result is None:
                found.faults[chunk[0]] = _too_large("text")
                continue
            for text, vector, cut in zip(chunk, *result, strict=True):
                if cut:
                    found.cut.add(text)
                if self._kept(text, vector, found):
                    self._cache.put_text(text, vector, cut)
        self._cache.flush()
        return found

    def _compute(self, wanted: Mapping[str, ImageFile], found: EmbeddingResult) -> None:
        network = self._loaded()
        threads = self._pool()
        waiting = [(digest, threads.submit(_tensor, network, image)) for digest, image in wanted.items()]
        for digest, vector in self._vectors(network, self._opened(waiting, found), found):
            if self._kept(digest, vector, found):
                self._cache.put_image(digest, vector)
        self._cache.flush()

    def _opened(self, waiting: list[tuple[str, Future[Any]]], found: EmbeddingResult) -> Iterator[tuple[str, Any]]:
        """Yields tensors in order as they are ready; notes the pictures that do not open."""
        for digest, future in waiting:
            try:
                yield digest, future.result()
            except UnreadableImageError as error:
                found.faults[digest] = f"does not open: {error}"

    def _vectors(
        self, network: Network, tensors: Iterator[tuple[str, Any]], found: EmbeddingResult
    ) -> Iterator[tuple[str, Vectors]]:
        """Yields vectors; a batch that does not fit is halved until it does."""

        def embed(chunk: list[tuple[str, Any]]) -> Vectors | None:
            return run_if_fits(lambda: network.images([tensor for _, tensor in chunk]))

        for chunk, vectors in in_batches(tensors, embed, self._sizes):
            if vectors is None:
                found.faults[chunk[0][0]] = _too_large("picture")
                continue
            yield from zip((digest for digest, _ in chunk), vectors, strict=True)

    @property
    def batch_size(self) -> int:
        """Number of images the model takes at once, as it stands now."""
        return self._sizes.size()

    def _kept(self, key: str, vector: Vectors, found: EmbeddingResult) -> bool:
        """Notes a vector; one that is no unit vector becomes a fault."""
        if not np.isfinite(vector).all() or not np.any(vector):
            found.faults[key] = f"has no finite embedding at {self.precision}; try -s precision=fp32"
            return False
        found.vectors[key] = vector
        return True

    def _loaded(self) -> Network:
        if self._network is None:
            self._network = self._source.load(self.device, self.precision)
        return self._network

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="pictures")
        return self._threads

    def close(self) -> None:
        """Lets go of model, threads and cache."""
        self._network = None
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._cache.close()


def _tensor(network: Network, image: ImageFile) -> Any:
    return network.pixels(open_rgb(image.path))


def _too_large(what: str) -> str:
    return f"does not fit into memory, even as a single {what}"
