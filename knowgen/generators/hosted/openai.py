"""The Images API of OpenAI, and of every server with the same API.

Requests without references go to `/images/generations` as JSON, requests with references to `/images/edits` as a form
with files. OpenAI's own API takes no seed; many other servers with this API do, so it is sent to them. Fields that only
GPT image models know are not sent to other models. A field that a server does not take is left out from then on, which
is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import OPENAI_KEY, OPENAI_URL, is_azure
from knowgen.clients.pricing import TokenCounts
from knowgen.core.errors import TransientError
from knowgen.core.metering import ReportedUsage, UsageReader
from knowgen.core.records import GenerationRequest
from knowgen.generators.hosted.base import (
    HostedImages,
    ResponseImage,
    ServiceFormat,
    boolean,
    first_entry,
    one_of,
    text_at,
)
from knowgen.generators.hosted.client import ServiceRequest
from knowgen.generators.hosted.images import EncodedReference, ReferenceLimits

FORMAT = ServiceFormat(
    name="openai",
    url=OPENAI_URL,
    key_env=OPENAI_KEY,
    key_header="Authorization",
    key_scheme="Bearer",
    reference_limits=ReferenceLimits(max_images=16, max_bytes=48_000_000, max_pixels=100_000_000),
)
_GPT_IMAGE_MODELS = ("gpt-image", "chatgpt-image")
_OPTIONAL_FIELDS = frozenset({"n", "size", "quality", "output_format", "response_format", "moderation", "seed"})
_RETURNED_SETTINGS = ("size", "quality", "output_format", "background")


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAiImages(HostedImages):
    """A model behind an Images API in OpenAI's format.

    Args:
        model: Model name, such as `gpt-image-2`.
        base_url: URL of another server with this API, up to and with `/v1`.
        size: Such as `1024x1024`. `auto` lets GPT image models choose, and is not sent to other models.
        quality: auto, low, medium or high; or a value that another server knows.
        moderation: low or auto; edits have no such field.
        output_format: png, jpeg or webp.
        send_seed: Whether the seed is sent. When None, to other servers than OpenAI's and Azure's, and not to GPT image
            models, which take none.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the URL holds a secret.

    Example:
        >>> generator = OpenAiImages(model="gpt-image-2", base_url="http://127.0.0.1:9/v1", size="1024x1024")
        >>> generator.price_options()
        ('auto', '1024x1024')
    """

    revision = "openai-images-2"
    service_url = FORMAT.url
    most_references = FORMAT.reference_limits.max_images

    size: str = "auto"
    quality: str = "auto"
    moderation: str = "low"
    output_format: str = "png"
    send_seed: bool | None = None

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = f"generator openai:{self.model}"
        gpt = str(self.model).rpartition("/")[2].startswith(_GPT_IMAGE_MODELS)  # openai/gpt-image-2 of a gateway
        fields = {"size": self.size, "quality": self.quality}
        if gpt:
            formats = ("png", "jpeg", "webp")
            fields["output_format"] = one_of(self.output_format, "output_format", formats, where)
        self._fields = {name: value for name, value in fields.items() if value and (gpt or value != "auto")}
        if not gpt:
            self._fields["response_format"] = "b64_json"
        self._moderation = one_of(self.moderation, "moderation", ("low", "auto"), where) if gpt else ""
        self.connect(FORMAT, self._fields)
        url = self._client.url
        takes_seed = not gpt and urlsplit(url).hostname != urlsplit(OPENAI_URL).hostname and not is_azure(url)
        self._sends_seed = takes_seed if self.send_seed is None else boolean(self.send_seed, "send_seed", where)

    def compose(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request: JSON without references, a form with them."""
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "n": 1, **self._fields}
        if self._sends_seed:
            body["seed"] = request.seed
        if references:
            return ServiceRequest("/images/edits", body, tuple(references), "image[]")
        if self._moderation:
            body["moderation"] = self._moderation
        return ServiceRequest("/images/generations", body)

    def optional_fields(self) -> frozenset[str]:
        """Return the fields that are left out where a server does not take them; not those that the user chose."""
        chosen = {name for name in ("size", "quality") if self._fields.get(name, "auto") != "auto"}
        if self.output_format != "png":
            chosen.add("output_format")
        return _OPTIONAL_FIELDS - chosen

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings to record about the seed and the operation."""
        settings = {"seed": request.seed} if self._sends_seed else super().seed_settings(request)
        if request.references:
            return {**settings, "operation": "edits"}
        moderation = {"moderation": self._moderation} if self._moderation else {}
        return {**settings, "operation": "generations", **moderation}

    def price_options(self) -> tuple[str, ...]:
        """Return quality and size."""
        return self._fields.get("quality", ""), self._fields.get("size", "")

    def usage(self, data: Mapping[str, Any]) -> ReportedUsage:
        """Read the tokens. A response without counts is charged at least the tokens of its quality and size."""
        counts = UsageReader(data.get("usage"))
        input_tokens, output_tokens = counts.required("input_tokens", minimum=1), counts.required("output_tokens")
        image_input = counts.optional("input_tokens_details", "image_tokens")
        text_output = counts.optional("output_tokens_details", "text_tokens") or 0
        entries = data.get("data")
        images = len(entries) if isinstance(entries, list) else 0
        image_output = max(0, output_tokens - text_output)
        if images and not output_tokens:
            counts.complete = False
            requested = dict(zip(("quality", "size"), self.price_options(), strict=True))
            options = [str(data.get(name) or value) for name, value in requested.items()]
            image_output = self.prices.image_tokens(*options) * images
        if image_input is None:  # the share of the references is not reported: all at the higher price
            image_input = input_tokens if self.prices.image_in > (self.prices.text_in or 0.0) else 0
        if image_input > input_tokens or text_output > output_tokens:
            counts.complete = False
        tokens = TokenCounts(max(0, input_tokens - image_input), image_input, text_output, image_output)
        complete = isinstance(entries, list) if self.prices.per_image is not None else counts.complete
        return ReportedUsage(input_tokens, output_tokens, self.prices.cost(tokens, images), complete)

    def read_image(self, data: Mapping[str, Any]) -> ResponseImage:
        """Return the image, in base64 or as a URL."""
        entry = first_entry(data, self._client.name)
        image = ResponseImage(
            base64=text_at(entry, "b64_json"),
            url=text_at(entry, "url"),
            used_prompt=text_at(entry, "revised_prompt"),
            settings={
                f"returned_{name}": self.clean(value)
                for name in _RETURNED_SETTINGS
                if isinstance(value := data.get(name), str) and value
            },
        )
        if not image.base64 and not image.url:
            raise TransientError(f"the response of {self._client.name} has no image")
        return image
