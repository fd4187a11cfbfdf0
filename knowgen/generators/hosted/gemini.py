"""Gemini models that draw, through `generateContent`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from knowgen.clients.pricing import TokenCounts
from knowgen.core.errors import RefusalError, TransientError
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import GenerationRequest
from knowgen.generators.hosted.base import (
    HostedImages,
    ResponseImage,
    ServiceFormat,
    flag,
    one_of,
    text_in,
)
from knowgen.generators.hosted.call import ServiceRequest
from knowgen.generators.hosted.errors import ServiceError, ServiceRejectedError
from knowgen.generators.hosted.images import EncodedReference, ReferenceForm

VENDOR = ServiceFormat(
    name="gemini",
    url="https://generativelanguage.googleapis.com",
    key_env="GEMINI_API_KEY",
    header="x-goog-api-key",
    scheme="",
    form=ReferenceForm(most=14, most_bytes=7_000_000, most_pixels=36_000_000),
)
LEFT_TO_MODEL = "left to the model"
_MOST_OF_THE_SECOND = 3
"""Reference images that models of the second generation take."""

_SIZES = ("0.5K", "1K", "2K", "4K")
_USUAL_SIZE = "1K"
_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "1:4", "4:1", "1:8", "8:1")

_REFUSALS = frozenset(
    {
        "SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "RECITATION", "IMAGE_RECITATION",
        "BLOCKLIST", "SPII",
    }
)  # fmt: skip
_NOTHING_DRAWN = frozenset({"NO_IMAGE"})
"""The model took the request and drew nothing; the same request may well give a picture the next time."""


@dataclass(eq=False, repr=False, kw_only=True)
class GeminiImages(HostedImages):
    """A Gemini model that draws.

    Args:
        model: Model name, such as `gemini-3-pro-image-preview`.
        base_url: Address of another server in this form, without `/v1beta`.
        size: 1K, 2K, 4K where the model knows sizes; empty leaves it to the model (1K).
        aspect: Such as 1:1 or 16:9; empty leaves it to the model.
        send_seed: Is the seed sent as `generationConfig.seed`? It is not published that these models heed it.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    revision = "gemini-images-1"

    size: str = ""
    aspect: str = ""
    send_seed: bool = False

    def __post_init__(self) -> None:
        """Check the arguments and prepare the service."""
        where = f"generator gemini:{self.model}"
        self._size = one_of(self.size, "size", _SIZES, where)
        self._aspect = one_of(self.aspect, "aspect", _ASPECTS, where)
        self._sends_seed = flag(self.send_seed, "send_seed", where)
        vendor = VENDOR
        if "gemini-2" in str(self.model):
            vendor = replace(VENDOR, form=replace(VENDOR.form, most=_MOST_OF_THE_SECOND))
        settings = {"size": self._size or LEFT_TO_MODEL, "aspect": self._aspect or LEFT_TO_MODEL}
        self.connect(vendor, settings, self.base_url.rstrip("/").removesuffix("/v1beta"))

    def compose(self, request: GenerationRequest, pictures: Sequence[EncodedReference]) -> ServiceRequest:
        """Returns the request: the prompt first, then the references inline."""
        parts: list[dict[str, Any]] = [{"text": request.prompt}]
        parts += [{"inlineData": {"mimeType": picture.mime, "data": picture.base64}} for picture in pictures]
        config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"]}
        image = {"aspectRatio": self._aspect, "imageSize": self._size}
        if any(image.values()):
            config["imageConfig"] = {name: value for name, value in image.items() if value}
        if self._sends_seed:
            config["seed"] = request.seed
        name = quote(self.model.removeprefix("models/"), safe="")
        body = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
        return ServiceRequest(f"/v1beta/models/{name}:generateContent", body)

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns what is noted of the seed."""
        return {"seed": request.seed} if self._sends_seed else super().seed_settings(request)

    def traits(self) -> tuple[str, ...]:
        """Returns the size."""
        return (self._size or _USUAL_SIZE,)

    def usage(self, data: Mapping[str, Any]) -> ReportedUsage:
        """Reads the tokens: of the prompt, of thoughts and words, of the picture."""
        counts = UsageReader(data.get("usageMetadata"))
        pictures = sum(1 for _ in _pictures(data))
        read = counts.required("promptTokenCount", least=1)
        thought = counts.optional("thoughtsTokenCount") or 0
        written = counts.optional("candidatesTokenCount") or 0  # left out where it is 0
        if total := UsageReader(data.get("usageMetadata")).optional("totalTokenCount"):
            thought = max(thought, total - read - written) if read else thought
        drawn = _of_modality(counts, "candidatesTokensDetails", "IMAGE")
        if drawn > written:
            counts.complete = False
        if pictures and not drawn:  # how much of it is the picture is open: all at the dearer price
            counts.complete = counts.complete and written > 0
            drawn = max(written, self.prices.image_tokens(*self.traits()))
        seen = _of_modality(counts, "promptTokensDetails", "IMAGE")
        if seen > read:
            counts.complete = False
        counted = TokenCounts(max(0, read - seen), seen, thought + max(0, written - drawn), drawn)
        cost = self.prices.cost(counted, min(pictures, 1))
        answered = bool(_candidate(data) or text_in(data, "promptFeedback", "blockReason"))
        complete = answered if self.prices.per_image is not None else counts.complete
        return ReportedUsage(read, thought + max(written, drawn), cost, complete)

    def find(self, data: Mapping[str, Any]) -> ResponseImage:
        """Returns the last picture that is no thought: what came before it was on the way to it."""
        pictures = list(_pictures(data))
        if pictures:
            version = text_in(data, "modelVersion")
            settings = {"returned_model": self.cleaned(version)} if version else {}
            return ResponseImage(base64=pictures[-1], settings=settings)
        blocked = text_in(data, "promptFeedback", "blockReason")
        candidate = _candidate(data)
        finish = text_in(candidate, "finishReason")
        words = " ".join(
            text for text in (text_in(data, "promptFeedback", "blockReasonMessage"), _words(data)) if text
        ) or text_in(candidate, "finishMessage")
        if blocked or finish in _REFUSALS:
            raise RefusalError(f"{self._service.name} declined: {self.cleaned(f'{blocked or finish} {words}')}")
        said = self.cleaned(f"{finish} {words}") or "no candidate"
        what = f"the answer of {self._service.name} holds no picture: {said}"
        raise TransientError(what) if finish in _NOTHING_DRAWN else ServiceRejectedError(what)

    def refuses(self, fault: ServiceError) -> bool:
        """Tells whether an error says that the content is declined; this service says so in answers instead."""
        return fault.code in _REFUSALS


def _candidate(data: Mapping[str, Any]) -> Mapping[str, Any]:
    candidates = data.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], Mapping):
        return candidates[0]
    return {}


def _parts(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the parts of an answer that are no thoughts."""
    content = _candidate(data).get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("thought") is not True:
            yield part


def _pictures(data: Mapping[str, Any]) -> Iterator[str]:
    for part in _parts(data):
        for name in ("inlineData", "inline_data"):
            if picture := text_in(part, name, "data"):
                yield picture


def _words(data: Mapping[str, Any]) -> str:
    return " ".join(text for part in _parts(data) if (text := text_in(part, "text")))


def _of_modality(counts: UsageReader, name: str, modality: str) -> int:
    entries = [entry for entry in counts.entries(name) if entry.get("modality") == modality]
    return sum(counts.count(entry.get("tokenCount")) for entry in entries)
