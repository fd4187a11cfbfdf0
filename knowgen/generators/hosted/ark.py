"""Seedream through the images API of Volcengine Ark, which BytePlus ModelArk shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowgen.clients.pricing import TokenCounts
from knowgen.core.errors import RefusalError
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import GenerationRequest
from knowgen.generators.hosted.base import (
    UNKEYED,
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
from knowgen.generators.hosted.openai import first_picture

VENDOR = ServiceFormat(
    name="ark",
    url="https://ark.cn-beijing.volces.com/api/v3",
    key_env="ARK_API_KEY",
    header="Authorization",
    scheme="Bearer",
    form=ReferenceForm(most=14, most_bytes=10_000_000, most_pixels=36_000_000),
)
_REFUSALS = ("Sensitive", "RiskDetection", "content_filter")
_SEEDED = ("seedream-3", "seededit-3")
"""Only models of this generation take a seed, and only later ones draw sequences."""


@dataclass(eq=False, repr=False, kw_only=True)
class ArkImages(HostedImages):
    """A Seedream model behind Ark.

    Args:
        model: Model name such as `doubao-seedream-4-5-251128`, or the name of an endpoint of one's own.
        base_url: Address of another region or server, up to and with `/api/v3`.
        size: 2K, 4K, or width and height such as `2048x2048`.
        watermark: Is the picture marked as made by a model?
        response_format: b64_json or url: how the picture comes.
        send_seed: Is the seed sent? When None, to models of the third generation alone, for later ones take none.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the address holds a secret.
    """

    revision = "ark-images-1"
    identity_excludes = UNKEYED | {"response_format"}

    size: str = "2K"
    watermark: bool = False
    response_format: str = "b64_json"
    send_seed: bool | None = None

    def __post_init__(self) -> None:
        """Check the arguments and prepare the service."""
        where = f"generator ark:{self.model}"
        third = any(word in str(self.model) for word in _SEEDED)
        formats = ("url", "b64_json")
        self._response_format = one_of(self.response_format, "response_format", formats, where) or "b64_json"
        self._sends_seed = third if self.send_seed is None else flag(self.send_seed, "send_seed", where)
        self._fields: dict[str, Any] = {"size": self.size} if self.size else {}
        self._fields["watermark"] = flag(self.watermark, "watermark", where)
        if not third:
            self._fields["sequential_image_generation"] = "disabled"
        self.connect(VENDOR, self._fields)

    def compose(self, request: GenerationRequest, pictures: Sequence[EncodedReference]) -> ServiceRequest:
        """Returns the request; references ride along as data URLs."""
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, **self._fields}
        if pictures:
            body["image"] = [picture.data_url for picture in pictures]
        if self._sends_seed:
            body["seed"] = request.seed
        body["response_format"] = self._response_format
        return ServiceRequest("/images/generations", body)

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns what is noted of the seed."""
        return {"seed": request.seed} if self._sends_seed else super().seed_settings(request)

    def traits(self) -> tuple[str, ...]:
        """Returns the size."""
        return (str(self._fields.get("size", "")),)

    def usage(self, data: Mapping[str, Any]) -> ReportedUsage:
        """Reads the tokens; what is paid for is the picture."""
        counts, images = UsageReader(data.get("usage")), UsageReader(data.get("usage"))
        entries = data.get("data")
        drawn = [one for one in entries if _is_picture(one)] if isinstance(entries, list) else []
        pictures = max(images.optional("generated_images") or 0, len(drawn))
        written = counts.optional("output_tokens") or 0
        cost = self.prices.cost(TokenCounts(image_out=written), pictures)
        complete = images.complete if self.prices.per_image is not None else counts.complete
        return ReportedUsage(0, written, cost, complete and isinstance(entries, list))

    def find(self, data: Mapping[str, Any]) -> ResponseImage:
        """Returns the picture, in base64 or as an address."""
        entry = first_picture(data, self._service.name)
        if not _is_picture(entry):
            self._raise(entry)
        settings = {}
        if size := text_in(entry, "size"):
            settings["returned_size"] = self.cleaned(size)
        return ResponseImage(base64=text_in(entry, "b64_json"), url=text_in(entry, "url"), settings=settings)

    def _raise(self, entry: Mapping[str, Any]) -> None:
        """Raises what an entry says that stands in the place of a picture."""
        code, words = text_in(entry, "error", "code"), text_in(entry, "error", "message")
        said = self.cleaned(f"{code} {words}") or "no picture"
        if any(word in code for word in _REFUSALS):
            raise RefusalError(f"{self._service.name} declined: {self.cleaned(words) or code}")
        raise ServiceRejectedError(f"the answer of {self._service.name} holds no picture: {said}")

    def refuses(self, fault: ServiceError) -> bool:
        """Tells whether an error says that a prompt, a reference or the picture is held to be sensitive."""
        return any(word in fault.code for word in _REFUSALS)


def _is_picture(entry: Any) -> bool:
    return bool(text_in(entry, "b64_json") or text_in(entry, "url"))
