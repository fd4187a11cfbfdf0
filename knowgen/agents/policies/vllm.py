"""The policy `vllm:MODEL`: a model behind vLLM, with token ids in and out.

Protocol of vLLM 0.31, looked up in November 2026 (docs.vllm.ai, "Renderer APIs", and the schemas of
`entrypoints/scale_out/token_in_token_out`). `vllm serve MODEL --enable-scale-out` starts a server that speaks it:

- `POST /v1/chat/completions/render` prepares an image: its hash, its data for the model and its placeholders.
- `POST /inference/v1/generate` takes token ids, the prepared images with the places of their placeholders, and
  sampling parameters. It returns token ids with their log-probabilities.

An image is prepared once, in whatever trajectory it is seen. Each call of a trajectory carries the same session in the
header `X-Session-ID`, by which routers keep it at one replica, and begins with the ids of the call before, which the
server's prefix cache holds.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import math
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from knowgen.agents.policies.contract import ContextFullError, Finish, Sampling
from knowgen.agents.rendering import Renderer
from knowgen.agents.tokens import SampledReply, TokenSession
from knowgen.clients.endpoint_url import NO_KEY, endpoint_url, key_for, key_headers
from knowgen.clients.http_client import HttpClient
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.clients.service_errors import Outcome, is_context_error, read_error
from knowgen.core.errors import AccountError, KnowgenError, ServiceUnavailableError, UsageError
from knowgen.core.metering import paid_call
from knowgen.core.records import ImageRef
from knowgen.core.secrets import refuse_secrets
from knowgen.core.text import error_summary
from knowgen.local_models.tokenizer import load_tokenizer

DEFAULT_URL = "http://127.0.0.1:8000"

MAX_BODY = 256 << 20
"""Maximum size of a response in bytes: that for an image holds its pixels as text."""

_BAN = -100.0
"""Bias of a banned token: e**-100 of its probability."""

_PLAIN = re.compile(r"[\w+/=-]+", re.ASCII)
"""Text of base64."""

_FINAL_ONLY = 2
"""`output_kind` of a response that holds the whole reply."""


@dataclass(frozen=True)
class PreparedImage:
    """An image as the server prepared it.

    Attributes:
        hash: Its hash on the server.
        data: Its data for the model, as text; None where the server keeps it.
        length: Number of its placeholders.
    """

    hash: str
    data: str | None
    length: int

    @property
    def size(self) -> int:
        """Approximate size in memory, in bytes."""
        return len(self.data or "") + 512


class _ImageData(str):
    """Data of a prepared image that JSON writes as it is, such as base64. It is put into a body while that is sent."""

    __slots__ = ()

    @classmethod
    def of(cls, data: str | None) -> str | None:
        """Return data of this type; as it is if JSON would write it in another way."""
        return cls(data) if data is not None and _PLAIN.fullmatch(data) else data


class _RequestBody:
    """A request as JSON. The data of images is not copied, so that requests that are sent take no memory for it.

    Args:
        body: Plain data, with `_ImageData` in the place of data of images.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        features = body.get("features") or {}
        images = features.get("kwargs_data", {}).get("image", [])
        self._images = [image for image in images if isinstance(image, _ImageData)]
        mark = secrets.token_hex(16)  # random, so no text can contain it
        if self._images:
            marked = [mark if isinstance(image, _ImageData) else image for image in images]
            body = {**body, "features": {**features, "kwargs_data": {"image": marked}}}
        self._parts = [part.encode() for part in json.dumps(body).split(mark)]

    @property
    def length(self) -> int:
        """Length in bytes."""
        return sum(map(len, self._parts)) + sum(map(len, self._images))

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        yield self._parts[0]
        for image, rest in zip(self._images, self._parts[1:], strict=True):
            yield image.encode("ascii")
            yield rest


class VllmPolicy:
    """A vision-language model of the Qwen-VL family behind vLLM, with token ids in and out.

    Args:
        model: Model name, as the server knows it.
        base_url: URL of the server; a path `/v1` at its end is left out. Of several, with commas between them, a
            trajectory uses the one with the fewest trajectories from its first call to its last.
        tokenizer: Folder with the model's tokenizer, or name on the Hugging Face hub; empty for the model's name.
        revision: Branch, tag or commit of the tokenizer on the hub; empty for the default one.
        download: Whether the tokenizer may be downloaded from the hub; otherwise it must be in its cache.
        key_env: Environment variable with the key of a server that asks for one; empty for none.
        timeout: Maximum duration of one call in seconds.
        image_cache: Maximum size of the prepared images that are kept, in MB; one that was dropped is prepared again.
        endpoint_id: Identity of the server, such as a hash of its weights, as part of keys.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The key is missing, or the URL contains a secret.
    """

    identity_excludes: ClassVar[frozenset[str]] = frozenset({"download", "key_env", "timeout", "image_cache"})

    def __init__(
        self,
        model: str,
        base_url: str = "http://127.0.0.1:8000",
        tokenizer: str = "",
        revision: str = "",
        download: bool = False,
        key_env: str = "",
        timeout: float = 600.0,
        image_cache: int = 1024,
        endpoint_id: str = "",
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError("the policy needs a model", where="policy vllm", fix="name it as vllm:MODEL")
        refuse_secrets({"model": model})
        where = f"policy vllm:{model}"
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {timeout!r}", where=where, fix="give seconds")
        urls = [endpoint_url(url, where, default=DEFAULT_URL).removesuffix("/v1") for url in base_url.split(",")]
        key = key_for(urls[0], key_env, where) if key_env else NO_KEY
        self._named = {"policy": "vllm", "model": model, "endpoint": endpoint_id or ",".join(urls)}
        loaded = cache(lambda: load_tokenizer(tokenizer or model, revision, download, where, "-g policy."))
        self.engines = [
            VllmEngine(
                model, url, key, loaded, timeout=float(timeout), where=where,
                cache_bytes=image_cache * 1_000_000 // len(urls),
            )
            for url in urls
        ]  # fmt: skip
        self._sessions = [0] * len(urls)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and server."""
        return self._named

    def open(self, sampling: Sampling, prompt: str, session: str) -> TokenSession:
        """Return a new session, at the server with the fewest."""
        number = min(range(len(self.engines)), key=self._sessions.__getitem__)
        self._sessions[number] += 1

        def closed() -> None:
            self._sessions[number] -= 1

        return TokenSession(self.engines[number], sampling, session, closed)

    async def check_service(self) -> str:
        """Ask each server for its models, which is free, and load the tokenizer.

        Returns:
            An empty text.

        Raises:
            AccountError: The server rejects the key, does not serve the model, or is none of this kind.
            ServiceUnavailableError: The server cannot be reached, or is busy.
            KnowgenError: The tokenizer is missing, or is not one of the Qwen-VL family.
        """
        for engine in self.engines:
            await engine.open()
        return ""

    async def close(self) -> None:
        """Close connections. Call it in the event loop they were used in."""
        for engine in self.engines:
            await engine.close()


class VllmEngine:
    """Samples with a vLLM server; a `TokenEngine`.

    Args:
        model: Model name, as the server knows it.
        url: URL of the server, without `/v1`.
        key: Key of the server.
        tokenizer: Loads the tokenizer.
        timeout: Maximum duration of one call in seconds.
        cache_bytes: Maximum size of the prepared images that are kept.
        where: Name of the policy in errors.

    Attributes:
        renderer: Renderer of the model's chat format; set by `open`.
        max_context: Maximum number of ids that the server takes; set by `open`.
        weights: Version of the server's weights, for replies to which the server names none.
    """

    renderer: Renderer

    def __init__(
        self, model: str, url: str, key: str, tokenizer: Any, *, timeout: float, cache_bytes: int, where: str
    ) -> None:
        self.model, self.max_context, self.weights = model, 0, ""
        self._url, self._key, self._where, self._timeout = url, key, where, timeout
        self._load_tokenizer = tokenizer
        self._client: HttpClient | None = None
        self._opening: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._prepared: OrderedDict[str, asyncio.Future[PreparedImage]] = OrderedDict()
        self._cache_bytes, self._used_bytes = cache_bytes, 0
        self._lengths: dict[str, int] = {}
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Load the tokenizer and ask the server for its limit on ids, once in an event loop.

        Raises:
            AccountError: The server does not serve the model, or is none of this kind.
            ServiceUnavailableError: The server cannot be reached.
            KnowgenError: The tokenizer is missing, or is not one of the Qwen-VL family.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._opening is None or _failed(self._opening):
            self._loop, self._client = loop, None
            self._prepared.clear()
            self._used_bytes = 0
            self._opening = asyncio.ensure_future(self._prepare())
        await asyncio.shield(self._opening)

    async def _prepare(self) -> None:
        if not hasattr(self, "renderer"):
            renderer = Renderer(await asyncio.to_thread(self._load_tokenizer), self._where)
            renderer.check_template(self._where)
            self.renderer = renderer
        listed = await self._call("/v1/models")
        models = listed.get("data")
        served = [each for each in models if isinstance(each, Mapping)] if isinstance(models, list) else []
        mine = next((each for each in served if each.get("id") == self.model), None)
        if mine is None:
            names = ", ".join(str(each.get("id")) for each in served) or "none"
            raise AccountError(f"the server does not serve {self.model!r}", where=self._where, fix=f"it serves {names}")
        limit = mine.get("max_model_len")
        self.max_context = limit if isinstance(limit, int) and not isinstance(limit, bool) else 0

    async def image_tokens(self, image: ImageRef) -> int:
        """Return the number of placeholders of an image; the server prepares it for that."""
        if image.sha256 not in self._lengths:
            self._lengths[image.sha256] = (await self._image(image)).length
        return self._lengths[image.sha256]

    async def generate(
        self, ids: Sequence[int], images: Sequence[ImageRef], sampling: Sampling, session: str
    ) -> SampledReply:
        """Sample a reply; see `TokenEngine`."""
        prepared = await asyncio.gather(*(self._image(image) for image in images))
        body = self._body(ids, prepared, sampling, session)
        encoded = await asyncio.to_thread(lambda: _RequestBody(body))
        async with paid_call(0.0, self._where.removeprefix("policy ")):
            answer = await self._call("/inference/v1/generate", encoded, {"X-Session-ID": session})
        return self._sampled(answer)

    def _body(
        self, ids: Sequence[int], images: Sequence[PreparedImage], sampling: Sampling, session: str
    ) -> dict[str, Any]:
        """Return the body of a request for a reply."""
        parameters: dict[str, Any] = {
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "logprobs": 0,  # of the sampled token alone
            "logit_bias": {str(token): _BAN for token in self.renderer.banned},
            "output_kind": _FINAL_ONLY,
            "detokenize": False,
        }
        if sampling.seed is not None:
            parameters["seed"] = sampling.seed
        body: dict[str, Any] = {
            "request_id": f"{session}-{next(self._numbers)}",
            "model": self.model,
            "token_ids": list(ids),
            "sampling_params": parameters,
        }
        if images:
            places = list(_runs(ids, self.renderer.image))
            if [length for _, length in places] != [image.length for image in images]:
                raise KnowgenError("the placeholders do not match the images", where=self._where)
            body["features"] = {
                "mm_hashes": {"image": [image.hash for image in images]},
                "mm_placeholders": {"image": [{"offset": start, "length": length} for start, length in places]},
                "kwargs_data": {"image": [image.data for image in images]},
            }
        return body

    def _sampled(self, answer: Mapping[str, Any]) -> SampledReply:
        """Read a response.

        Raises:
            ServiceUnavailableError: The server gave the request up.
            KnowgenError: The response is none of this protocol.
        """
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
        ids = choice.get("token_ids")
        finish = choice.get("finish_reason")
        if finish in ("abort", "error"):
            raise self._unavailable(f"the server gave the request up ({finish})")
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            raise KnowgenError("the answer contains no token ids", where=self._where, fix="use vLLM 0.31 or later")
        content = (choice.get("logprobs") or {}).get("content")
        logprobs = [float(each["logprob"]) for each in content] if isinstance(content, list) else None
        if logprobs is not None and len(logprobs) != len(ids):
            raise KnowgenError(
                f"the answer has {len(ids)} token ids and {len(logprobs)} log-probabilities", where=self._where
            )
        ended: Finish = "length" if finish == "length" else "stop"
        return SampledReply(list(ids), logprobs, ended, _weights(choice.get("weight_versions")) or self.weights)

    async def _image(self, image: ImageRef) -> PreparedImage:
        """Return an image as the server prepared it; each is prepared once while the cache holds it."""
        known = self._prepared.get(image.sha256)
        if known is None or _failed(known):
            known = asyncio.ensure_future(self._prepare_image(image))
            self._prepared[image.sha256] = known
        self._prepared.move_to_end(image.sha256)
        return await asyncio.shield(known)

    async def _prepare_image(self, image: ImageRef) -> PreparedImage:
        url = await asyncio.to_thread(_data_url, image)
        part = {"type": "image_url", "image_url": {"url": url}}
        request = {"model": self.model, "max_tokens": 1, "messages": [{"role": "user", "content": [part]}]}
        encoded = await asyncio.to_thread(lambda: _RequestBody(request))
        answer = await self._call("/v1/chat/completions/render", encoded)
        try:
            features = answer["features"]
            [digest] = features["mm_hashes"]["image"]
            [place] = features["mm_placeholders"]["image"]
            data = features.get("kwargs_data")
            prepared = PreparedImage(
                str(digest), _ImageData.of(data["image"][0] if data else None), int(place["length"])
            )
        except (LookupError, TypeError, ValueError) as error:
            raise KnowgenError(
                f"the server did not prepare an image ({error_summary(error)})",
                where=self._where,
                fix="serve a vision-language model with vLLM 0.31 or later",
            ) from error
        self._used_bytes += prepared.size
        self._drop_oldest()
        return prepared

    def _drop_oldest(self) -> None:
        """Drop prepared images until the rest fits, the least recently used first."""
        for name, prepared in list(self._prepared.items()):
            if self._used_bytes <= self._cache_bytes:
                return
            if prepared.done() and not _failed(prepared):
                self._used_bytes -= prepared.result().size
                del self._prepared[name]

    async def _call(
        self, path: str, body: _RequestBody | None = None, headers: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """Send one request, with a body by POST, and return the JSON object of its response.

        Raises:
            ContextFullError: The conversation is longer than the server takes.
            ServiceUnavailableError: The server cannot be reached, is busy or failed.
            AccountError: The server rejects the key, or does not offer this path.
            KnowgenError: The server rejects the request, or answers something else.
        """
        import aiohttp

        url = self._url + path
        if body is None:
            request = self._http().get(url)
        else:
            length = {"Content-Type": "application/json", "Content-Length": str(body.length)}
            request = self._http().post(url, headers={**(headers or {}), **length}, data=body.stream())
        try:
            async with asyncio.timeout(self._timeout), request as response:
                content = await read_body(response, MAX_BODY)
        except aiohttp.ClientConnectorError as error:
            raise self._unavailable(f"{self._url} cannot be reached ({type(error).__name__})", busy=True) from error
        except TimeoutError as error:
            raise self._unavailable(f"no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._unavailable(f"the answer was lost ({type(error).__name__})") from error
        except UnreadableBodyError as error:
            raise KnowgenError(error.what, where=self._where) from error
        if not 200 <= response.status < 300:
            self._raise_for(response.status, response.headers, content, path)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, Mapping):
            raise KnowgenError(f"the answer to {path} is not a JSON object", where=self._where, fix="check base_url")
        return data

    def _raise_for(self, status: int, headers: Mapping[str, str], content: bytes, path: str) -> None:
        """Raise the error of a response."""
        error = read_error(status, headers, content, self._key)
        what = error.describe("the server")
        if is_context_error(error.message):
            raise ContextFullError(what, where=self._where)
        if error.outcome.transient:
            raise self._unavailable(what, busy=error.outcome is Outcome.BUSY, retry_after=error.retry_after)
        if status in (404, 405):
            raise AccountError(
                f"the server has no {path}", where=self._where, fix="start it with vllm serve MODEL --enable-scale-out"
            )
        if error.outcome is Outcome.ACCOUNT:
            raise AccountError(what, where=self._where)
        raise KnowgenError(what, where=self._where)

    def _unavailable(
        self, what: str, *, busy: bool = False, retry_after: float | None = None
    ) -> ServiceUnavailableError:
        service = self._where.removeprefix("policy ")
        return ServiceUnavailableError(what, service=service, busy=busy, retry_after=retry_after)

    def _http(self) -> HttpClient:
        """Return the HTTP client of the running event loop."""
        if self._client is None:
            self._client = HttpClient(key_headers(self._url, self._key), min(30.0, self._timeout))
        return self._client

    async def close(self) -> None:
        """Close the connections and drop the prepared images."""
        client, self._client, self._opening = self._client, None, None
        self._prepared.clear()
        self._used_bytes = 0
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()


def _failed(future: asyncio.Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _runs(ids: Sequence[int], token: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of each run of a token."""
    for same, places in itertools.groupby(range(len(ids)), key=lambda place: ids[place] == token):
        if same:
            run = list(places)
            yield run[0], len(run)


def _data_url(image: ImageRef) -> str:
    """Return an image as PNG in a data URL: the same pixels that a model in this process is given."""
    buffer = io.BytesIO()
    image.open().save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _weights(spans: Any) -> str:
    """Return the versions of the weights that sampled a reply, in order; empty where the server names none."""
    names = [
        str(span.get("weight_version", span.get("version", "")))
        for span in (spans if isinstance(spans, list) else ())
        if isinstance(span, Mapping)
    ]
    return " ".join(dict.fromkeys(name for name in names if name))
