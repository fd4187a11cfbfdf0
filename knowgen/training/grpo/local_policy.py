"""The policy over the weights that are trained, sampled in the process of the trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.agents.tokens import TokenSession
from knowgen.local_models.vlm import LocalVlm

_WHERE = "policy of the training"


class LocalPolicy:
    """A policy over a model that a trainer changes between its trajectories.

    Args:
        model: The model of transformers itself, not wrapped; its layers may have adapters.
        processor: Its processor.
        batch_size: Maximum number of trajectories in a batch.
        weights: Content id of the weights before the training.

    Attributes:
        engine: What samples.
    """

    def __init__(self, model: Any, processor: Any, *, batch_size: int, weights: str) -> None:
        self._model = model
        self._processor = copy.copy(processor)  # the trainer replaces parts of its own
        self._weights, self._version = weights, weights
        self._generation: Any = None
        self.engine = HfEngine(self._loaded, batch_size=batch_size, where=_WHERE)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights before the training."""
        return {"policy": "training", "weights": self._weights}

    def open(self, sampling: Sampling, prompt: str, session: str) -> TokenSession:
        """Return a new session."""
        return TokenSession(self.engine, sampling, session)

    async def close(self) -> None:
        """Let go of the model."""
        await self.engine.close()

    @contextmanager
    def sampling(self, version: str) -> Iterator[None]:
        """Prepare the model for sampling, and for training again at the end.

        Args:
            version: Version of the weights, which the segments name.
        """
        training, stated = self._model.training, self._model.generation_config
        self._version = self.engine.model = version
        self._model.eval()
        if self._generation is not None:
            self._model.generation_config = self._generation
        try:
            yield
        finally:
            if self._model.generation_config is not stated:
                self._generation = self._model.generation_config  # the engine's own
            self._model.generation_config = stated  # exports keep that of the model
            self._model.train(training)

    def _loaded(self) -> LocalVlm:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return LocalVlm(self._model, self._processor, self._version, dtype)
