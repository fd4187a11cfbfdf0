"""A token engine that runs a model of the Qwen-VL family in this process; waiting trajectories share a batch.

The model runs in one thread. Each call queues a request; the thread takes as many as a batch holds, so that requests
that arrive while the model is busy run together. Rows of a batch have their own temperature, top_p, seed and limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.rendering import Renderer, image_token_count
from knowgen.agents.tokens import SampledReply
from knowgen.core.errors import ConfigError, KnowgenError, ServiceUnavailableError
from knowgen.core.records import ImageRef
from knowgen.core.text import error_summary
from knowgen.core.waiting import sending, waiting
from knowgen.local_models.devices import is_gpu_fault
from knowgen.local_models.memory import BatchSizes, free_memory, in_batches, run_if_fits
from knowgen.local_models.pixels import PixelCache
from knowgen.local_models.vlm import LocalVlm

GATHER_SECONDS = 0.005
"""Time without a further request after which a batch begins, in seconds: little beside the time of a reply."""


@dataclass
class _WaitingRow:
    """A reply that waits to be sampled."""

    ids: Sequence[int]
    images: Sequence[ImageRef]
    sampling: Sampling
    result: Future[SampledReply] = field(default_factory=Future)
    started: Future[None] = field(default_factory=Future)

    def random(self) -> random.Random:
        """Return the source of randomness of this reply: the same for the same seed and conversation."""
        if self.sampling.seed is None:
            return random.Random()
        state = hashlib.sha256(repr((self.sampling.seed, list(self.ids))).encode()).digest()
        return random.Random(state)


class HfEngine:
    """Samples with a model of transformers.

    Args:
        load: Loads the model; it is called once, in the engine's thread.
        batch_size: Maximum number of trajectories in a batch; halved when memory runs out.
        where: Name of the policy in errors.

    Attributes:
        renderer: Renderer of the model's chat format; set by `open`.
        max_context: Number of positions of the model; set by `open`.
        model: Content id of the weights; set by `open`.
        pixels: Preprocessed images.
        batches: Sizes of the batches so far.
    """

    renderer: Renderer

    def __init__(self, load: Callable[[], LocalVlm], *, batch_size: int, where: str) -> None:
        self.max_context, self.model = 0, ""
        self.batches: list[int] = []
        self._load, self._where, self._batch_size = load, where, batch_size
        self._sizes = BatchSizes(batch_size)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="knowgen-policy")
        self._lock = threading.Lock()
        self._waiting: deque[_WaitingRow] = deque()
        self._loading: Future[None] | None = None
        self._vlm: LocalVlm | None = None
        self.pixels = PixelCache(lambda: self._loaded.processor.image_processor)

    async def open(self) -> None:
        """Load the model, once.

        Raises:
            KnowgenError: The model cannot be loaded, or is not one of the Qwen-VL family.
        """
        with self._lock:
            if self._loading is None:
                self._loading = self._thread.submit(self._prepare)
        await asyncio.shield(asyncio.wrap_future(self._loading))

    def _prepare(self) -> None:
        from transformers import GenerationConfig

        vlm = self._load()
        if not hasattr(vlm.processor.image_processor, "get_number_of_image_patches"):
            raise ConfigError(
                "not a model of the Qwen-VL family: its processor does not tell the tokens of an image",
                where=self._where,
                fix="serve it and use policy=openai:MODEL with its base_url",
            )
        self.renderer = Renderer(vlm.processor.tokenizer, self._where)
        self.renderer.check_template(self._where)
        stated = vlm.model.generation_config.eos_token_id
        ends = {self.renderer.end, *(stated if isinstance(stated, list) else [stated] if stated is not None else [])}
        pad = vlm.processor.tokenizer.pad_token_id
        # the model's own settings, such as top_k and repetition_penalty, would change what is sampled
        vlm.model.generation_config = GenerationConfig(eos_token_id=sorted(ends), pad_token_id=pad)
        config = getattr(vlm.model.config, "text_config", vlm.model.config)
        self.max_context = int(getattr(config, "max_position_embeddings", 0) or 0)
        self.model = vlm.weights
        self._vlm = vlm

    async def image_tokens(self, image: ImageRef) -> int:
        """Return the number of placeholders of an image."""
        return image_token_count(self._loaded.processor.image_processor, image.width, image.height)

    async def generate(
        self, ids: Sequence[int], images: Sequence[ImageRef], sampling: Sampling, session: str
    ) -> SampledReply:
        """Sample a reply; see `TokenEngine`.

        Raises:
            ServiceUnavailableError: The GPU failed.
            KnowgenError: Memory ran out for this conversation alone, or the model failed.
        """
        request = _WaitingRow(ids, images, sampling)
        with self._lock:
            self._waiting.append(request)
        self._thread.submit(self._run_waiting)
        try:
            with waiting():  # for a place in a batch
                await asyncio.wrap_future(request.started)
            with sending():
                return await asyncio.wrap_future(request.result)
        except asyncio.CancelledError:
            request.result.cancel()
            raise

    async def close(self) -> None:
        """Wait for the batch that runs, and free the model."""
        with self._lock:
            left, self._waiting = list(self._waiting), deque()
        for request in left:
            request.started.cancel()
            request.result.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="knowgen-policy")
        self._vlm, self._loading = None, None
        self.pixels.clear()
        free_memory()

    @property
    def _loaded(self) -> LocalVlm:
        assert self._vlm is not None, "opened"
        return self._vlm

    def _run_waiting(self) -> None:
        """Run the requests that wait, in the engine's thread; there may be none left."""
        self._gather()
        with self._lock:
            count = min(len(self._waiting), self._batch_size)
            taken = [self._waiting.popleft() for _ in range(count)]
        requests = [request for request in taken if request.result.set_running_or_notify_cancel()]
        for request in requests:
            if request.started.set_running_or_notify_cancel():
                request.started.set_result(None)
        try:
            for batch, replies in in_batches(requests, self._run_if_fits, self._sizes):
                self.batches.append(len(batch))
                for number, request in enumerate(batch):
                    if replies is None:
                        request.result.set_exception(self._out_of_memory(request))
                    else:
                        request.result.set_result(replies[number])
        except Exception as error:  # noqa: BLE001 - whatever happened, every request needs an answer
            failure = self._failure(error)
            for request in requests:
                if not request.result.done():
                    request.result.set_exception(failure)

    def _gather(self) -> None:
        """Wait while requests keep coming and a batch has room for them."""
        before = 0
        while True:
            with self._lock:
                count = len(self._waiting)
            if count == before or count >= self._batch_size:
                return
            before = count
            time.sleep(GATHER_SECONDS)

    def _out_of_memory(self, request: _WaitingRow) -> KnowgenError:
        return KnowgenError(
            f"memory ran out for a conversation of {len(request.ids)} tokens alone",
            where=self._where,
            fix="lower max_context or image_pixels",
        )

    def _failure(self, error: Exception) -> KnowgenError:
        if isinstance(error, KnowgenError):
            return error
        if is_gpu_fault(error):
            return ServiceUnavailableError(f"the GPU failed: {error_summary(error)}", service=self._where)
        failure = KnowgenError(f"the model failed: {error_summary(error)}", where=self._where)
        failure.__cause__ = error
        return failure

    def _run_if_fits(self, batch: list[_WaitingRow]) -> list[SampledReply] | None:
        return run_if_fits(lambda: self._run(batch))

    def _run(self, batch: Sequence[_WaitingRow]) -> list[SampledReply]:
        """Sample the replies of a batch."""
        import torch

        model = self._loaded.model
        inputs = self._inputs(batch)
        start = inputs["input_ids"].shape[1]
        sampler = _RowSampler(batch, self.renderer.banned, model.device)
        limits = torch.tensor([request.sampling.max_new_tokens for request in batch], device=model.device)

        def at_limit(ids: Any, scores: Any, **_: Any) -> Any:
            return ids.shape[1] - start >= limits

        with torch.inference_mode():
            output = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=int(limits.max()),
                logits_processor=[sampler],
                stopping_criteria=[at_limit],
            )
        rows = output[:, start:].tolist()
        logprobs = sampler.logprobs()
        ends = set(model.generation_config.eos_token_id)
        replies = []
        for request, row, values in zip(batch, rows, logprobs, strict=True):
            length = request.sampling.max_new_tokens
            count = next(
                (place + 1 for place, token in enumerate(row[:length]) if token in ends), min(length, len(row))
            )
            ids = row[:count]
            finish = "stop" if ids and ids[-1] in ends else "length"
            replies.append(SampledReply(ids, values[:count], finish, self.model))  # type: ignore[arg-type]
        return replies

    def _inputs(self, batch: Sequence[_WaitingRow]) -> dict[str, Any]:
        """Return the inputs of a batch, padded on the left, with the images of all rows one after another."""
        import torch

        vlm = self._loaded
        device = vlm.model.device
        longest = max(len(request.ids) for request in batch)
        pad = vlm.processor.tokenizer.pad_token_id
        padding = [longest - len(request.ids) for request in batch]
        rows = [[pad] * count + list(request.ids) for count, request in zip(padding, batch, strict=True)]
        mask = [[0] * count + [1] * (longest - count) for count in padding]
        ids = torch.tensor(rows, device=device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.tensor(mask, device=device)}
        images = [self.pixels.of(image) for request in batch for image in request.images]
        if images:
            grids = torch.cat([grid for _, grid in images])
            merged = int(vlm.processor.image_processor.merge_size) ** 2
            placeholders = int((ids == self.renderer.image).sum())
            if int(grids.prod(-1).sum()) != placeholders * merged:
                raise KnowgenError("the placeholders do not match the images", where=self._where)
            pixels = torch.cat([values for values, _ in images])
            inputs |= {
                "pixel_values": pixels.to(device, dtype=vlm.model.dtype), "image_grid_thw": grids.to(device),
            }  # fmt: skip
        if "mm_token_type_ids" in signature(type(vlm.model).forward).parameters:
            inputs["mm_token_type_ids"] = (ids == self.renderer.image).int()
        return inputs


class _RowSampler:
    """Samples the next token of each row by the row's own settings, as a logits processor that leaves one token.

    The log-probability of a token is that of the model at the row's temperature (at 1 where decoding is greedy), before
    banned tokens and those outside `top_p` are taken out: what a trainer computes from the same weights.
    """

    def __init__(self, batch: Sequence[_WaitingRow], banned: Sequence[int], device: Any) -> None:
        import torch

        temperatures = torch.tensor([request.sampling.temperature for request in batch], device=device)
        self._greedy = temperatures <= 0
        self._temperatures = torch.where(self._greedy, 1.0, temperatures)[:, None]
        self._top_p = torch.tensor([request.sampling.top_p for request in batch], device=device)[:, None]
        self._banned = torch.tensor(list(banned), device=device)
        self._random = [request.random() for request in batch]
        self._logprobs: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores that leave the sampled token alone."""
        import torch

        logprobs = torch.log_softmax(scores.float() / self._temperatures, dim=-1)
        allowed = logprobs.index_fill(-1, self._banned, -torch.inf)
        chosen = allowed.argmax(dim=-1)
        if not bool(self._greedy.all()):
            chosen = torch.where(self._greedy, chosen, self._sample(allowed.softmax(dim=-1)))
        self._logprobs.append(logprobs.gather(-1, chosen[:, None])[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)

    def _sample(self, probabilities: Any) -> Any:
        """Return a token per row from the most probable ones that together reach `top_p`."""
        import torch

        values, order = probabilities.sort(dim=-1, descending=True)
        before = values.cumsum(dim=-1) - values
        kept = torch.where(before < self._top_p, values, 0.0)
        reached = kept.cumsum(dim=-1)
        draws = torch.tensor([source.random() for source in self._random], device=values.device)
        places = (reached <= draws[:, None] * reached[:, -1:]).sum(dim=-1)
        places = torch.minimum(places, (kept > 0).sum(dim=-1) - 1)
        return order.gather(-1, places[:, None])[:, 0]

    def logprobs(self) -> list[list[float]]:
        """Return the log-probabilities by row."""
        import torch

        return torch.stack(self._logprobs, dim=1).tolist()  # type: ignore[no-any-return]
