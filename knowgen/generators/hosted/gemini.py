"""Gemini models that generate images, through `generateContent`.

Prompt and references are parts of one message, and the image comes back in base64 as a part of the reply, between
thoughts and text. The key has a header of its own. A refusal is a normal response with a finish or block reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from knowgen.clients.preflight import raise_listing_error
from knowgen.clients.pricing import TokenCounts
from knowgen.clients.service_errors import read_error
from knowgen.core.errors import AccountError, RefusalError, TransientError
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import GenerationRequest
from knowgen.generators.hosted.base import (
    HostedImages,
    ResponseImage,
    ServiceFormat,
    boolean,
    one_of,
    text_at,
)
from knowgen.generators.hosted.client import ServiceRequest
from knowgen.generators.hosted.errors import ServiceRejectedError
from knowgen.generators.hosted.images import EncodedReference, ReferenceLimits

FORMAT = ServiceFormat(
    name="gemini",
    url="https://generativelanguage.googleapis.com",
    key_env="GEMINI_API_KEY",
    key_header="x-goog-api-key",
    key_scheme="",
    reference_limits=ReferenceLimits(max_images=14, max_bytes=7_000_000, max_pixels=36_000_000),
)
LEFT_TO_MODEL = "left to the model"
"""Recorded as size or aspect ratio where none is sent."""

_MAX_REFERENCES_GEMINI_2 = 3
"""Maximum number of reference images of models of the second generation."""

_SIZES = ("0.5K", "1K", "2K", "4K")
_DEFAULT_SIZE = "1K"
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "1:4", "4:1", "1:8", "8:1")

_REFUSAL_REASONS = frozenset(
    {
        "SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "RECITATION", "IMAGE_RECITATION",
        "BLOCKLIST", "SPII",
    }
)  # fmt: skip
_PERMANENT_REASONS = frozenset({"LANGUAGE"})
"""Finish reasons that another attempt would not change. After any other (`NO_IMAGE`, `IMAGE_OTHER`, text or nothing
instead of an image) the same request may give an image next time."""


@dataclass(eq=False, repr=False, kw_only=True)
class GeminiImages(HostedImages):
    """A Gemini model that generates images.

    Args:
        model: Model name, such as `gemini-3-pro-image`.
        base_url: URL of another server with this API, without `/v1beta`.
        size: 0.5K, 1K, 2K or 4K where the model has sizes; empty leaves it to the model (1K).
        aspect: Aspect ratio such as 1:1 or 16:9; empty leaves it to the model.
        send_seed: Whether the seed is sent as `generationConfig.seed`. It is not documented that these models use it.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the URL holds a secret.

    Example:
        >>> generator = GeminiImages(model="gemini-3-pro-image", base_url="http://127.0.0.1:9", size="2K")
        >>> generator.price_options()
        ('2K',)
    """

    revision = "gemini-images-1"
    service_url = FORMAT.url
    most_references = FORMAT.reference_limits.max_images
    models_path = "/v1beta/models"

    async def check_service(self) -> str:
        """Check the address, the key and the model with one free call; see `HostedImages.check_service`.

        Raises:
            AccountError: The service rejects the key, or does not have the model.
            ServiceUnavailableError: The service cannot be reached, or is busy.
        """
        status, headers, body = await self._client.get(f"{self.models_path}/{self._name_in_url()}")
        if status == 404 and b'"NOT_FOUND"' in body:
            what = f"{self._client.name} does not exist, or this key has no access to it"
            raise AccountError(what, where=f"generator {self._client.name}", fix="correct the name of the model")
        if not 200 <= status < 300:
            raise_listing_error(read_error(status, headers, body, self._client.key), self._client.name)
        return ""

    size: str = ""
    aspect: str = ""
    send_seed: bool = False

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = f"generator gemini:{self.model}"
        self._size = one_of(self.size, "size", _SIZES, where)
        self._aspect = one_of(self.aspect, "aspect", _ASPECTS, where)
        self._sends_seed = boolean(self.send_seed, "send_seed", where)
        limits = replace(FORMAT.reference_limits, max_images=self.reference_limit(self.model))
        settings = {"size": self._size or LEFT_TO_MODEL, "aspect": self._aspect or LEFT_TO_MODEL}
        url = self.base_url.rstrip("/").removesuffix("/v1beta")
        self.connect(replace(FORMAT, reference_limits=limits), settings, url)

    @classmethod
    def reference_limit(cls, model: str = "", **_: Any) -> int:
        """Return the maximum number of reference images of a request that are used, which depends on the model."""
        return _MAX_REFERENCES_GEMINI_2 if "gemini-2" in str(model) else cls.most_references

    def compose(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request: the prompt first, then the references inline."""
        parts: list[dict[str, Any]] = [{"text": request.prompt}]
        parts += [{"inlineData": {"mimeType": reference.mime, "data": reference.base64}} for reference in references]
        config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"]}
        image = {"aspectRatio": self._aspect, "imageSize": self._size}
        if any(image.values()):
            config["imageConfig"] = {name: value for name, value in image.items() if value}
        if self._sends_seed:
            config["seed"] = request.seed
        body = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
        return ServiceRequest(f"{self.models_path}/{self._name_in_url()}:generateContent", body)

    def _name_in_url(self) -> str:
        return quote(self.model.removeprefix("models/"), safe="")

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings to record about the seed."""
        return {"seed": request.seed} if self._sends_seed else super().seed_settings(request)

    def price_options(self) -> tuple[str, ...]:
        """Return the size."""
        return (self._size or _DEFAULT_SIZE,)

    def usage(self, data: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedUsage:
        """Read the tokens of the prompt, of thoughts and text, and of the image."""
        counts = UsageReader(data.get("usageMetadata"))
        images = sum(1 for _ in _images(data))
        prompt = counts.required("promptTokenCount", minimum=1)
        thoughts = counts.optional("thoughtsTokenCount") or 0
        output = counts.optional("candidatesTokenCount") or 0  # omitted by the service where it is 0
        if total := UsageReader(data.get("usageMetadata")).optional("totalTokenCount"):
            thoughts = max(thoughts, total - prompt - output) if prompt else thoughts
        image_output = _tokens_of(counts, "candidatesTokensDetails", "IMAGE")
        if image_output > output:
            counts.complete = False
        if images and not image_output:  # the share of the image is not reported: all at the higher price
            counts.complete = counts.complete and output > 0
            image_output = max(output, self.prices.image_tokens(*self.price_options()))
        image_input = _tokens_of(counts, "promptTokensDetails", "IMAGE")
        if image_input > prompt:
            counts.complete = False
        text_output = thoughts + max(0, output - image_output)
        tokens = TokenCounts(max(0, prompt - image_input), image_input, text_output, image_output)
        cost = self.prices.cost(tokens, min(images, 1))
        has_result = bool(_candidate(data) or text_at(data, "promptFeedback", "blockReason"))
        complete = has_result if self.prices.per_image is not None else counts.complete
        return ReportedUsage(prompt, thoughts + max(output, image_output), cost, complete)

    def read_image(self, data: Mapping[str, Any]) -> ResponseImage:
        """Return the last image that is not part of a thought; earlier ones are drafts of it."""
        images = list(_images(data))
        if images:
            version = text_at(data, "modelVersion")
            settings = {"returned_model": self.clean(version)} if version else {}
            return ResponseImage(base64=images[-1], settings=settings)
        blocked = text_at(data, "promptFeedback", "blockReason")
        candidate = _candidate(data)
        finish = text_at(candidate, "finishReason")
        message = " ".join(
            text for text in (text_at(data, "promptFeedback", "blockReasonMessage"), _text(data)) if text
        ) or text_at(candidate, "finishMessage")
        name = self._client.name
        if blocked or finish in _REFUSAL_REASONS:
            raise RefusalError(f"{name} declined: {self.clean(f'{blocked or finish} {message}')}")
        reason = self.clean(f"{finish} {message}") or "no candidate"
        problem = f"the response of {name} has no image: {reason}"
        raise ServiceRejectedError(problem) if finish in _PERMANENT_REASONS else TransientError(problem)


def _candidate(data: Mapping[str, Any]) -> Mapping[str, Any]:
    candidates = data.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], Mapping):
        return candidates[0]
    return {}


def _parts(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a response that are not thoughts."""
    content = _candidate(data).get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("thought") is not True:
            yield part


def _images(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the images of a response in base64."""
    for part in _parts(data):
        for name in ("inlineData", "inline_data"):
            if image := text_at(part, name, "data"):
                yield image


def _text(data: Mapping[str, Any]) -> str:
    return " ".join(text for part in _parts(data) if (text := text_at(part, "text")))


def _tokens_of(counts: UsageReader, name: str, modality: str) -> int:
    entries = [entry for entry in counts.entries(name) if entry.get("modality") == modality]
    return sum(counts.count(entry.get("tokenCount")) for entry in entries)
