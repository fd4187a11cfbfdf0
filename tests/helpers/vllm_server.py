"""A server that speaks vLLM's tokens-in, tokens-out protocol, backed by a model in this process.

Requests are checked as strictly as the published schemas (vLLM 0.31: `GenerateRequest`, `MultiModalFeatures`,
`SamplingParams`) check them: an unknown sampling parameter, placeholders that overlap or lie outside the ids, and lists
of different lengths are errors. Data of an image is its PNG as text, where the real server has tensors.

    with VllmServer(engine, image_processor) as server:
        policy = VllmPolicy("tiny", server.address, tokenizer=folder)
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.agents.tokens import SampledReply
from knowgen.core.records import ImageRef, image_ref
from tests.helpers.local_server import LocalServer, QuietHandler

SAMPLING = frozenset(
    {
        "n", "presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "top_k", "min_p",
        "seed", "stop", "stop_token_ids", "ignore_eos", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs",
        "detokenize", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output",
        "output_kind", "logit_bias", "allowed_token_ids", "bad_words", "extra_args",
    }
)  # fmt: skip
"""Fields of `SamplingParams` that a request may set."""

REQUEST = frozenset(
    {
        "request_id", "token_ids", "features", "sampling_params", "model", "stream", "stream_options", "cache_salt",
        "priority", "return_token_ids", "output_mode",
    }
)  # fmt: skip


class ProtocolError(ValueError):
    """A request that the real server rejects."""


class VllmServer(LocalServer):
    """The server.

    Args:
        engine: Samples in this process.
        max_model_len: The limit on ids that the server states.
        key: Key that requests must carry; empty for none.

    Attributes:
        rendered: SHA-256 digests of the images that were prepared, in order.
        requests: Bodies of the requests for replies.
        sessions: Sessions of these requests.
        fail: Statuses and bodies to answer the next requests with instead, oldest first.
        change: Changes a response before it is sent.
    """

    def __init__(self, engine: HfEngine, *, model: str = "tiny", max_model_len: int = 4096, key: str = "") -> None:
        self.engine, self.model, self.max_model_len, self.key = engine, model, max_model_len, key
        self.rendered: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.sessions: list[str] = []
        self.fail: list[tuple[int, dict[str, Any]]] = []
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self._lock = threading.Lock()
        self._images = Path(tempfile.mkdtemp())
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.answer(*server.get(self.path, self.headers.get("Authorization", "")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
                self.answer(*server.post(self.path, dict(self.headers), body))

            def answer(self, status: int, data: Mapping[str, Any]) -> None:
                content = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        super().__init__(Handler)

    def get(self, path: str, authorization: str) -> tuple[int, Mapping[str, Any]]:
        """Answer a GET request."""
        if self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path != "/v1/models":
            return 404, {"detail": "Not Found"}
        card = {"id": self.model, "object": "model", "owned_by": "vllm", "max_model_len": self.max_model_len}
        return 200, {"object": "list", "data": [card]}

    def post(self, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Answer a POST request."""
        with self._lock:
            if self.fail:
                return self.fail.pop(0)
        try:
            if path == "/v1/chat/completions/render":
                return 200, self.render(body)
            if path == "/inference/v1/generate":
                return 200, self.change(self.generate(body, headers.get("X-Session-ID", "")))
        except ProtocolError as error:
            return 400, {"error": {"message": str(error), "type": "BadRequestError", "param": None, "code": 400}}
        return 404, {"detail": "Not Found"}

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """Prepare the images of a chat request, as a `GenerateRequest`."""
        if body["model"] != self.model:
            raise ProtocolError(f"The model `{body['model']}` does not exist.")
        parts = [part for message in body["messages"] for part in message["content"]]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        hashes, places, data, ids = [], [], [], [1, 2, 3]
        for url in urls:
            image = self._image(url.removeprefix("data:image/png;base64,"))
            count = asyncio.run(self.engine.image_tokens(image))
            hashes.append(image.sha256)
            places.append({"offset": len(ids), "length": count})
            ids += [self.engine.renderer.image] * count
            data.append(url.removeprefix("data:image/png;base64,"))
            with self._lock:
                self.rendered.append(image.sha256)
        features = {
            "mm_hashes": {"image": hashes}, "mm_placeholders": {"image": places}, "kwargs_data": {"image": data},
            "mm_metadata": None,
        }  # fmt: skip
        return {"request_id": "r", "token_ids": ids, "features": features, "sampling_params": {}, "model": self.model}

    def _image(self, data: str) -> ImageRef:
        content = base64.b64decode(data, validate=True)
        path = self._images / f"{hashlib.sha256(content).hexdigest()}.png"
        with self._lock:  # another request may read the file
            if not path.exists():
                path.write_bytes(content)
        return image_ref(path)

    def generate(self, body: dict[str, Any], session: str) -> dict[str, Any]:
        """Sample a reply, as a `GenerateResponse` of output mode tokens."""
        with self._lock:
            self.requests.append(body)
            self.sessions.append(session)
        ids, parameters = body["token_ids"], body["sampling_params"]
        if unknown := (set(body) - REQUEST) | (set(parameters) - SAMPLING):
            raise ProtocolError(f"unexpected fields: {sorted(unknown)}")
        if len(ids) >= self.max_model_len:
            raise ProtocolError(
                f"The decoder prompt (length {len(ids)}) is longer than the maximum model length of "
                f"{self.max_model_len}. Make sure that `max_model_len` is at least the number of text tokens."
            )
        images = self._checked_images(body.get("features"), ids)
        banned = {int(token) for token, bias in parameters.get("logit_bias", {}).items() if bias <= -100}
        if not banned >= set(self.engine.renderer.banned):
            raise ProtocolError("vision tokens may be sampled")
        sampling = Sampling(
            parameters["temperature"], parameters["top_p"], parameters["max_tokens"], seed=parameters.get("seed")
        )
        sampled = asyncio.run(self.engine.generate(ids, images, sampling, session))
        return self._response(body["request_id"], sampled, len(ids))

    def _checked_images(self, features: Mapping[str, Any] | None, ids: list[int]) -> list[ImageRef]:
        if features is None:
            return []
        hashes, data = features["mm_hashes"]["image"], features["kwargs_data"]["image"]
        places = features["mm_placeholders"]["image"]
        if not len(hashes) == len(data) == len(places):
            raise ProtocolError("image mm_hashes and mm_placeholders must have the same length")
        last = 0
        for place in places:
            start, end = place["offset"], place["offset"] + place["length"]
            if start < last or end > len(ids):
                raise ProtocolError("mm_placeholders must be globally non-overlapping and sorted")
            if set(ids[start:end]) != {self.engine.renderer.image}:
                raise ProtocolError("a placeholder range does not cover placeholders")
            last = end
        images = [self._image(each) for each in data]
        if [image.sha256 for image in images] != hashes:
            raise ProtocolError("the data of an image is not that of its hash")
        return images

    def _response(self, request: str, sampled: SampledReply, used: int) -> dict[str, Any]:
        assert sampled.logprobs is not None
        content = [
            {"token_id": token, "logprob": value, "rank": 1, "top_logprobs": []}
            for token, value in zip(sampled.ids, sampled.logprobs, strict=True)
        ]
        choice = {
            "index": 0, "token_ids": sampled.ids, "finish_reason": sampled.finish, "logprobs": {"content": content},
            "routed_experts": None, "weight_versions": None,
        }  # fmt: skip
        count = len(sampled.ids)
        usage = {"prompt_tokens": used, "completion_tokens": count, "total_tokens": used + count}
        return {"request_id": request, "output_mode": "tokens", "choices": [choice], "usage": usage}
