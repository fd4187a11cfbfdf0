"""A token engine over verl's client of its inference servers, which hold the weights that are trained."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from knowgen.agents.policies.contract import ContextFullError, Sampling
from knowgen.agents.rendering import Renderer, image_token_count
from knowgen.agents.tokens import SampledReply, TokenSession
from knowgen.core.errors import KnowgenError, ServiceUnavailableError
from knowgen.core.records import ImageRef
from knowgen.core.text import error_summary

WHERE = "backend verl"

BAN = -100.0
"""Bias on the logits of tokens that must not be sampled: the least that vLLM takes."""


class VerlEngine:
    """Samples with verl's servers; a `TokenEngine`.

    Args:
        client: verl's `LLMServerClient`, or what has its method `generate`.
        processor: Processor of the model.
        max_prompt: Maximum number of ids of system prompt and prompt.
        max_completion: Maximum number of ids after them.

    Attributes:
        renderer: Renderer of the model's chat format.
        max_context: Maximum number of ids of a conversation.
        model: Name of the model.

    Raises:
        ConfigError: The model is not one of the Qwen-VL family.
    """

    model = "verl"

    def __init__(self, client: Any, processor: Any, *, max_prompt: int, max_completion: int) -> None:
        self.renderer = Renderer(processor.tokenizer, WHERE)
        self.renderer.check_template(WHERE)
        self.max_context = max_prompt + max_completion
        self._client, self._processor = client, processor
        self._max_prompt, self._max_completion = max_prompt, max_completion
        self._prompt_lengths: dict[str, int] = {}

    async def open(self) -> None:
        """Do nothing: the servers are running."""

    async def image_tokens(self, image: ImageRef) -> int:
        """Return the number of placeholders of an image."""
        return image_token_count(self._processor.image_processor, image.width, image.height)

    async def generate(
        self, ids: Sequence[int], images: Sequence[ImageRef], sampling: Sampling, session: str
    ) -> SampledReply:
        """Sample a reply; see `TokenEngine`.

        Raises:
            ContextFullError: The prompt, or all that follows it, has more ids than the training allows.
            ServiceUnavailableError: The servers gave no reply.
        """
        limit = min(sampling.max_new_tokens, self._room(len(ids), session))
        pixels = await asyncio.to_thread(lambda: [image.open() for image in images])
        try:
            output = await self._client.generate(
                request_id=session,  # requests of one trajectory go to the server that has its prefix
                prompt_ids=list(ids),
                sampling_params=self._parameters(sampling, limit),
                image_data=pixels or None,
            )
        except Exception as error:  # the servers run elsewhere, and Ray raises many types
            raise self._unavailable(f"the servers failed: {error_summary(error)}") from error
        return self._reply(output, limit)

    def forget(self, session: str) -> None:
        """Forget a trajectory that has ended."""
        self._prompt_lengths.pop(session, None)

    def _room(self, used: int, session: str) -> int:
        """Return the maximum number of ids of the next reply, so that prompt and completion keep to their limits."""
        prompt = self._prompt_lengths.setdefault(session, used)
        where = f"trajectory {session}"
        if prompt > self._max_prompt:
            raise ContextFullError(f"the prompt has {prompt} tokens, more than {self._max_prompt}", where=where)
        room = self._max_completion - (used - prompt)
        if room < 1:
            raise ContextFullError(
                f"{used - prompt} tokens follow the prompt, and at most {self._max_completion} may", where=where
            )
        return room

    def _parameters(self, sampling: Sampling, limit: int) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "max_tokens": limit,
            "logprobs": True,
            "stop_token_ids": [self.renderer.end],
            "logit_bias": dict.fromkeys(self.renderer.banned, BAN),
        }
        return parameters if sampling.seed is None else {**parameters, "seed": sampling.seed}

    def _reply(self, output: Any, limit: int) -> SampledReply:
        ids = [int(token) for token in output.token_ids]
        if output.stop_reason == "aborted" or not ids:
            raise self._unavailable(f"the servers gave the request up ({output.stop_reason or 'no tokens'})")
        logprobs = None if output.log_probs is None else [float(value) for value in output.log_probs]
        if logprobs is not None and len(logprobs) != len(ids):
            raise KnowgenError(f"{len(ids)} token ids have {len(logprobs)} log-probabilities", where=WHERE)
        ended = ids[-1] == self.renderer.end or len(ids) < limit
        version = output.extra_fields.get("global_steps")
        return SampledReply(ids, logprobs, "stop" if ended else "length", "" if version is None else str(version))

    def _unavailable(self, what: str) -> ServiceUnavailableError:
        return ServiceUnavailableError(what, service=WHERE)


class VerlPolicy:
    """The policy that is trained, for the agents of one process.

    Args:
        engine: Samples its replies.
    """

    def __init__(self, engine: VerlEngine) -> None:
        self._engine = engine

    @property
    def identity(self) -> Mapping[str, Any]:
        """The backend; its weights change from step to step."""
        return {"policy": "verl"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> TokenSession:
        """Return a new session."""
        return TokenSession(self._engine, sampling, session, lambda: self._engine.forget(session))

    async def close(self) -> None:
        """Do nothing: the servers are verl's."""
