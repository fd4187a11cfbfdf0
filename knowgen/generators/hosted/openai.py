"""The Images API of OpenAI, and of every server that speaks it: generations, and edits where there are references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.clients.endpoint_url import OPENAI_KEY, OPENAI_URL
from knowgen.clients.pricing import TokenCounts
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import GenerationRequest
from knowgen.generators.hosted.base import (
    HostedImages,
    ResponseImage,
    ServiceFormat,
    one_of,
    text_in,
)
from knowgen.generators.hosted.call import ServiceRequest
from knowgen.generators.hosted.errors import ServiceError, ServiceRejectedError
from knowgen.generators.hosted.images import EncodedReference, ReferenceForm

VENDOR = ServiceFormat(
    name="openai",
    url=OPENAI_URL,
    key_env=OPENAI_KEY,
    header="Authorization",
    scheme="Bearer",
    form=ReferenceForm(most=16, most_bytes=48_000_000, most_pixels=100_000_000),
)
_REFUSALS = frozenset({"moderation_blocked", "content_policy_violation", "content_filter", "contentFilter"})
_GPT = ("gpt-image", "chatgpt-image")
_RETURNED = ("size", "quality", "output_format", "background")


def first_picture(data: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    """Returns the first entry of an answer's `data`.

    Raises:
        ServiceRejectedError: There is none.
    """
    entries = data.get("data")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], Mapping):
        raise ServiceRejectedError(f"the answer of {service} holds no picture")
    return entries[0]


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAiImages(HostedImages):
    """A model behind an Images API in OpenAI's form.

    References go to the edits of that API. Fields that only GPT image models know are sent to those alone.

    Args:
        model: Model name, such as `gpt-image-1`.
        base_url: Address of another server in this form, up to and with `/v1`.
        size: Such as `1024x1024`; `auto` lets GPT image models choose, and other servers are not told.
        quality: auto, low, medium, high; or what another server knows.
        moderation: low or auto. Edits have no such field.
        output_format: png, jpeg or webp.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    revision = "openai-images-1"

    size: str = "auto"
    quality: str = "auto"
    moderation: str = "low"
    output_format: str = "png"

    def __post_init__(self) -> None:
        """Check the arguments and prepare the service."""
        where = f"generator openai:{self.model}"
        gpt = str(self.model).startswith(_GPT)
        given = {"size": self.size, "quality": self.quality}
        if gpt:
            formats = ("png", "jpeg", "webp")
            given["output_format"] = one_of(self.output_format, "output_format", formats, where)
        self._fields = {name: value for name, value in given.items() if value and (gpt or value != "auto")}
        if not gpt:
            self._fields["response_format"] = "b64_json"
        self._moderation = one_of(self.moderation, "moderation", ("low", "auto"), where) if gpt else ""
        self.connect(VENDOR, self._fields)

    def compose(self, request: GenerationRequest, pictures: Sequence[EncodedReference]) -> ServiceRequest:
        """Returns the request: JSON without references, a form with them."""
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "n": 1, **self._fields}
        if pictures:
            return ServiceRequest("/images/edits", body, tuple(pictures), "image[]")
        if self._moderation:
            body["moderation"] = self._moderation
        return ServiceRequest("/images/generations", body)

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns what is noted of the seed, which this API does not know, and of the operation."""
        settings = super().seed_settings(request)
        if request.references:
            return {**settings, "operation": "edits"}
        moderation = {"moderation": self._moderation} if self._moderation else {}
        return {**settings, "operation": "generations", **moderation}

    def traits(self) -> tuple[str, ...]:
        """Returns quality and size."""
        return self._fields.get("quality", ""), self._fields.get("size", "")

    def usage(self, data: Mapping[str, Any]) -> ReportedUsage:
        """Reads the tokens; where an answer does not count them it comes to at least its quality and size."""
        counts = UsageReader(data.get("usage"))
        read, written = counts.required("input_tokens", least=1), counts.required("output_tokens")
        seen = counts.optional("input_tokens_details", "image_tokens")
        words = counts.optional("output_tokens_details", "text_tokens") or 0
        entries = data.get("data")
        pictures = len(entries) if isinstance(entries, list) else 0
        drawn = max(0, written - words)
        if pictures and not written:
            counts.complete = False
            asked = dict(zip(("quality", "size"), self.traits(), strict=True))
            traits = [str(data.get(name) or value) for name, value in asked.items()]
            drawn = self.prices.image_tokens(*traits) * pictures
        if seen is None:  # which part is references is open: all at the dearer price
            seen = read if self.prices.image_in > (self.prices.text_in or 0.0) else 0
        if seen > read or words > written:
            counts.complete = False
        counted = TokenCounts(max(0, read - seen), seen, words, drawn)
        complete = isinstance(entries, list) if self.prices.per_image is not None else counts.complete
        return ReportedUsage(read, written, self.prices.cost(counted, pictures), complete)

    def find(self, data: Mapping[str, Any]) -> ResponseImage:
        """Returns the picture, in base64 or as an address."""
        entry = first_picture(data, self._service.name)
        found = ResponseImage(
            base64=text_in(entry, "b64_json"),
            url=text_in(entry, "url"),
            used_prompt=text_in(entry, "revised_prompt"),
            settings={
                f"returned_{name}": self.cleaned(value)
                for name in _RETURNED
                if isinstance(value := data.get(name), str) and value
            },
        )
        if not found.base64 and not found.url:
            raise ServiceRejectedError(f"the answer of {self._service.name} holds no picture")
        return found

    def refuses(self, fault: ServiceError) -> bool:
        """Tells whether an error is one of the safety system's; servers in between may keep its words alone."""
        return fault.code in _REFUSALS or "safety system" in fault.words
