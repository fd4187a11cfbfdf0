"""The Images API of OpenAI, and of every server with an API in its style.

What a request looks like follows from what the server is (`servers.py`): OpenAI, Azure, vLLM-Omni, SGLang-Diffusion,
LiteLLM, OpenRouter, or another one. The server is known by its address or found by a free call, never by the name of
the model. Requests without references go to `/images/generations` as JSON, requests with references to `/images/edits`
as a form with files, or as the server has it. A field that a server turns out not to take is left out from then on,
which is recorded; one that the user chose is never left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from knowgen.clients.endpoint_url import OPENAI_KEY, OPENAI_URL, endpoint_url
from knowgen.clients.preflight import missing_model, raise_listing_error
from knowgen.clients.pricing import TokenCounts
from knowgen.core.errors import AccountError, ConfigError, TransientError, UsageError
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
from knowgen.generators.hosted.chat_images import CHAT_PATH, chat_image, chat_message, chat_usage
from knowgen.generators.hosted.client import ServiceRequest
from knowgen.generators.hosted.images import EncodedReference, ReferenceLimits
from knowgen.generators.hosted.request_fields import checked_fields, merged, width_height
from knowgen.generators.hosted.server_probe import Capabilities, Probe, probe
from knowgen.generators.hosted.servers import ANY_NUMBER, AUTO, FORMS, Api, ServerForm, form_of_host

FORMAT = ServiceFormat(
    name="openai",
    url=OPENAI_URL,
    key_env=OPENAI_KEY,
    key_header="Authorization",
    key_scheme="Bearer",
    reference_limits=ReferenceLimits(max_images=16, max_bytes=48_000_000, max_pixels=100_000_000),
)
OPENROUTER_KEY = "OPENROUTER_API_KEY"
PROMPT_MARK = "{prompt}"
"""The place of the prompt in `prompt_format`."""

_DEFAULTS = {"size": "auto", "quality": "auto", "moderation": "low", "output_format": "png"}
_OPTIONAL_FIELDS = frozenset({"n", "size", "quality", "output_format", "response_format", "moderation", "seed"})
_RETURNED_SETTINGS = ("size", "quality", "output_format", "background")
_COST_HEADER = "x-litellm-response-cost"


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAiImages(HostedImages):
    """A model behind an API for images in OpenAI's style.

    Args:
        model: Model name, such as `gpt-image-2`.
        base_url: URL of another server with such an API, up to and with `/v1`.
        size: Such as `1024x1024`. `auto` leaves it to the server.
        quality: auto, low, medium or high; or a value that another server knows.
        moderation: low or auto, where the server has such a field; edits have none.
        output_format: png, jpeg or webp.
        send_seed: Whether the seed is sent. When None, to every server but OpenAI's and Azure's, which take none.
        server: openai, azure, vllm-omni, sglang, litellm, openrouter or other; auto asks the server.
        api: images for `/images/…`, chat for images through `/chat/completions` where the server offers that.
        fields: Further fields of the request by name, such as `{num_inference_steps: 50, negative_prompt: blurry}`.
        edit_fields: The same for requests with reference images; None for those of `fields`.
        prompt_format: Text around the prompt, with `{prompt}` in its place.
        max_references: Maximum number of reference images that are used; None for the server's.

    Further arguments are those of `ServiceAccess`.

    Raises:
        UsageError: An argument is out of its range.
        ConfigError: The key is missing, or the URL holds a secret.

    Example:
        >>> generator = OpenAiImages(model="Qwen/Qwen-Image", base_url="http://127.0.0.1:8000/v1", server="vllm-omni",
        ...                          fields={"num_inference_steps": 50})
        >>> request = GenerationRequest(id="r", prompt="A red boat", seed=7)
        >>> hidden = ("model", "n", "response_format")
        >>> {name: value for name, value in generator.compose(request, []).body.items() if name not in hidden}
        {'prompt': 'A red boat', 'output_format': 'png', 'seed': 7, 'num_inference_steps': 50}
    """

    revision = "openai-images-3"
    service_url = FORMAT.url
    most_references = FORMAT.reference_limits.max_images

    size: str = "auto"
    quality: str = "auto"
    moderation: str = "low"
    output_format: str = "png"
    send_seed: bool | None = None
    server: str = AUTO
    api: str = "images"
    fields: dict[str, Any] | None = None
    edit_fields: dict[str, Any] | None = None
    prompt_format: str = PROMPT_MARK
    max_references: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = f"generator openai:{self.model}"
        one_of(self.server, "server", (AUTO, *FORMS), where)
        self._api: Api = "chat" if one_of(self.api, "api", ("images", "chat"), where) == "chat" else "images"
        self.moderation = one_of(self.moderation, "moderation", ("low", "auto"), where)
        self.output_format = one_of(self.output_format, "output_format", ("png", "jpeg", "webp"), where)
        if self.send_seed is not None:
            boolean(self.send_seed, "send_seed", where)
        if not isinstance(self.prompt_format, str) or self.prompt_format.count(PROMPT_MARK) != 1:
            fix = f"write {PROMPT_MARK} once, in its place"
            raise UsageError("prompt_format must contain the prompt once", where=where, fix=fix)
        if self.max_references is not None and (type(self.max_references) is not int or self.max_references < 0):
            raise UsageError(f"max_references must be an integer >= 0, got {self.max_references!r}", where=where)
        self._further = checked_fields(self.fields, where)
        self._edit_further = self._further if self.edit_fields is None else checked_fields(self.edit_fields, where)
        by_host = form_of_host(endpoint_url(self.base_url, where, OPENAI_URL))
        at_openrouter = by_host is not None and by_host.name == "openrouter"
        key_env = OPENROUTER_KEY if at_openrouter else OPENAI_KEY
        self.connect(replace(FORMAT, key_env=key_env, azure=self.server == "azure"), {})
        self._capabilities = Capabilities()
        self._of_form: set[str] = set()
        self._form: ServerForm | None = None
        known = FORMS.get(self.server) if self.server not in ("", AUTO) else by_host
        self._settled = known is not None and known.name != "openrouter"
        if known is not None:
            self._use(known)

    @classmethod
    def reference_limit(
        cls, base_url: str = "", server: str = AUTO, max_references: int | None = None, **_: Any
    ) -> int:
        """Return the maximum number of reference images that some arguments allow."""
        if max_references is not None:
            return int(max_references)
        form = FORMS.get(server) or form_of_host(base_url)
        return form.max_references if form is not None else cls.most_references

    def _use(self, form: ServerForm, capabilities: Capabilities = Capabilities()) -> None:
        """Take requests in the form of a server from now on.

        Raises:
            ConfigError: An argument does not suit the server.
        """
        self._form, self._capabilities = form, capabilities
        self._check_choices(form)
        if self.max_references is not None:
            limit = self.max_references
        else:
            stated = capabilities.max_references
            limit = form.max_references if stated is None else min(stated, form.max_references)
        self._reference_limits = replace(self._reference_limits, max_images=limit, formats=form.reference_formats)
        settings: dict[str, Any] = {"server": form.name, "api": self._api}
        sent = self._sent_arguments(form) - {"moderation"}  # which edits do not have
        settings |= {name: self._value(name) for name in _DEFAULTS if name in sent}
        if self.prompt_format != PROMPT_MARK:
            settings["prompt_format"] = self.prompt_format
        if self._further:
            settings["fields"] = self._further
        if self.edit_fields is not None:
            settings["edit_fields"] = self._edit_further
        kept = {name: value for name, value in self._settings.items() if name not in self._of_form}
        self._settings, self._of_form = kept | settings, set(settings)

    def _check_choices(self, form: ServerForm) -> None:
        """Check that the server has a field for everything that the user chose.

        Raises:
            ConfigError: It has none, and might not say so.
        """
        where = f"generator openai:{self.model}"
        if self._api == "chat" and not form.chat_modalities:
            raise ConfigError(f"{form.title} has no images through chat", where=where, fix="leave api out")
        arguments = frozenset({"size"}) if self._api == "chat" else form.arguments
        for name in sorted(self._chosen_arguments() - arguments):
            raise ConfigError(f"{form.title} has no field for {name}", where=where, fix=f"leave {name} out")
        if form.pixel_sizes and "size" in self._chosen_arguments():
            width_height(self.size, where)
        known = form.known_fields(self._api, edit=False)
        unread = sorted(self._further.keys() - known) if known and not form.nested_in(self._api, edit=False) else []
        in_edits = form.known_fields(self._api, edit=True)
        if self.edit_fields is not None and in_edits and not form.nested_in(self._api, edit=True):
            unread += sorted(self._edit_further.keys() - in_edits)
        unread += [name for name in sorted(self.chosen_fields()) if name != "provider" and not self._takes(name)]
        if unread:
            what = f"{form.title} does not read {', '.join(unread)} for {self.model}, as it publishes"
            fix = "leave it out of fields"
            if form.name == "openrouter":
                fix = "give what is the provider's own as fields={provider: {options: {PROVIDER: {NAME: VALUE}}}}"
            raise ConfigError(what, where=where, fix=fix)

    def _takes(self, name: str) -> bool:
        value = self._value(name) if name in _DEFAULTS else ""
        return self._api == "chat" or self._capabilities.takes(name, value)

    def _value(self, name: str) -> str:
        return str(getattr(self, name))

    def _chosen_arguments(self) -> set[str]:
        return {name for name, default in _DEFAULTS.items() if self._value(name) not in ("", default)}

    def _sent_arguments(self, form: ServerForm) -> set[str]:
        """Return the arguments that are sent with a generation."""
        if self._api == "chat":
            return self._chosen_arguments()
        sent = (form.arguments & self._chosen_arguments()) | form.sent_by_default
        return {name for name in sent if self._value(name) and self._takes(name)}

    @property
    def form(self) -> ServerForm:
        """The form of the server; that of any other server while it is not known."""
        return self._form or FORMS["other"]

    async def prepare(self) -> None:
        """Find out what the server is, before the first request.

        Raises:
            ServiceUnavailableError: It cannot be reached, or is busy.
            AccountError: It runs another model.
            ConfigError: An argument does not suit the server.
        """
        if not self._settled:
            await self._probe()

    async def _probe(self) -> Probe:
        found = await probe(self._client, self.model, self._form)
        if found.form.one_model and missing_model(self.model, found.names):
            runs = ", ".join(dict.fromkeys(found.names))
            what = f"{found.form.title} at {self._client.url} runs {runs}, not {self.model}"
            fix = "write the name of the model that it runs"
            raise AccountError(what, where=f"generator {self._client.name}", fix=fix)
        self._use(found.form, found.capabilities)
        self._settled = True
        return found

    async def check_service(self) -> str:
        """Check the address, the key and the model, and find out what the server is, with free calls.

        Returns:
            A warning in one line, or an empty text.

        Raises:
            AccountError: The service rejects the key, or runs another model.
            ServiceUnavailableError: The service cannot be reached, or is busy.
            ConfigError: An argument does not suit the server.
        """
        found = await self._probe()
        if found.error is not None:
            raise_listing_error(found.error, self._client.name)
        return self.warned(missing_model(self.model, found.names))

    def service_facts(self) -> str:
        """Return what is known about the server, in one line.

        Example:
            >>> OpenAiImages("m", base_url="http://127.0.0.1:8000/v1", server="azure").service_facts()
            'Azure at http://127.0.0.1:8000/v1, through /images/…: it takes no seed; up to 16 reference images'
        """
        form, most = self.form, self._reference_limits.max_images
        path = CHAT_PATH if self._api == "chat" else form.path.replace("/generations", "/…")
        seeds = [self._sends_seed(edit=edit) for edit in (False, True)]
        seed = {(True, True): "a seed is sent", (True, False): "a seed is sent, but not with reference images"}
        said = seed.get((seeds[0], seeds[1]), "it takes no seed")
        some = {0: "no reference images", 1: "one reference image", ANY_NUMBER: "references as its model takes"}
        references = some.get(most, f"up to {most} reference images")
        return f"{form.title} at {self._client.url}, through {path}: {said}; {references}"

    def sent_prompt(self, request: GenerationRequest) -> str:
        """Return the prompt as it is sent."""
        return self.prompt_format.replace(PROMPT_MARK, request.prompt)

    def compose(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request in the form of the server.

        Raises:
            ConfigError: The server does not read a chosen field in a request with references.
        """
        form = self.form
        if self._api == "chat":
            return ServiceRequest(CHAT_PATH, self._chat_body(request, references))
        as_files = bool(references) and not form.references_in_json
        body: dict[str, Any] = {"model": self.model, "prompt": self.sent_prompt(request), **form.fixed}
        sent = self._sent_arguments(form) - ({"moderation"} if as_files else set())
        body |= {name: self._value(name) for name in _DEFAULTS if name in sent}
        if self._sends_seed(edit=bool(references)):
            body["seed"] = request.seed
        if references and form.references_in_json:
            parts = [{"type": "image_url", "image_url": {"url": reference.data_url}} for reference in references]
            body["input_references"] = parts
        body = self._with_fields(body, edit=bool(references))
        if as_files:
            return ServiceRequest("/images/edits", body, tuple(references), "image[]")
        return ServiceRequest(form.path, body)

    def _chat_body(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> dict[str, Any]:
        form = self.form
        body: dict[str, Any] = {"model": self.model, "messages": [chat_message(self.sent_prompt(request), references)]}
        modalities = [name for name in form.chat_modalities if name in (self._capabilities.modalities or (name,))]
        body["modalities"] = modalities or list(form.chat_modalities)
        inner: dict[str, Any] = {}
        if self.size not in ("", "auto"):
            inner |= width_height(self.size) if form.chat_further else {"image_config": {"image_size": self.size}}
        if self._sends_seed(edit=bool(references)):
            inner["seed"] = request.seed
        if form.chat_further:
            inner = {form.chat_further: inner}
        return self._with_fields(body | inner, edit=bool(references))

    def _with_fields(self, body: dict[str, Any], *, edit: bool) -> dict[str, Any]:
        """Return a request with the user's fields, where the server reads them.

        Raises:
            ConfigError: The server does not read one of them in such a request.
        """
        form, fields = self.form, self._edit_further if edit else self._further
        known, nested = form.known_fields(self._api, edit=edit), form.nested_in(self._api, edit=edit)
        if nested and known is None:
            return merged(body, {nested: fields})
        beside = {name: value for name, value in fields.items() if known is None or name in known}
        further = {name: value for name, value in fields.items() if name not in beside}
        if further and not nested:
            what = f"{form.title} does not read {', '.join(sorted(further))} in a request with reference images"
            fix = "name the fields of such requests with edit_fields={…}"
            fix += ", or use api=chat, which takes it" if form.chat_further else ""
            raise ConfigError(f"{what}, as it publishes", where=f"generator {self._client.name}", fix=fix)
        return merged(merged(body, beside), {nested: further} if further else {})

    def _sends_seed(self, *, edit: bool) -> bool:
        if self.send_seed is not None:
            return self.send_seed
        reads = self.form.seed and (self.form.seed_in_edits or not edit or self._api == "chat")
        return reads and self._takes("seed")

    def optional_fields(self) -> frozenset[str]:
        """Return the fields that are left out where a server does not take them; not those that the user chose."""
        return _OPTIONAL_FIELDS - self.chosen_fields()

    def chosen_fields(self) -> frozenset[str]:
        """Return the fields that the user chose."""
        return frozenset(self._chosen_arguments() | self._further.keys() | self._edit_further.keys())

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings to record about the seed and the operation."""
        edit = bool(request.references) and self._reference_limits.max_images > 0
        sent = self._sent_arguments(self.form) - ({"moderation"} if edit else set())
        seed = {"seed": request.seed} if self._sends_seed(edit=edit) else {}
        settings = {**(seed or super().seed_settings(request))}
        settings["operation"] = "edits" if edit else "generations"
        if "moderation" in sent:
            settings["moderation"] = self.moderation
        further = self._edit_further if edit else self._further
        if unchecked := self.form.unchecked_fields(sent | further.keys() | seed.keys(), self._api, edit=edit):
            settings["fields_unchecked"] = unchecked
        return settings

    def price_options(self) -> tuple[str, ...]:
        """Return quality and size."""
        return self.quality, self.size

    def usage(self, data: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedUsage:
        """Read the cost, where the server reports one, or the tokens.

        A response without counts is charged at least the tokens of its quality and size.
        """
        reported = _reported_cost(data, headers, self.price)
        if self._api == "chat":
            images = 1 if isinstance(data.get("choices"), list) else 0
            listed = self.prices.per_image * images if self.prices.per_image is not None else None
            return chat_usage(data, listed if reported is None else reported)
        counts = UsageReader(data.get("usage"))
        if reported is not None:
            prompt = counts.optional("prompt_tokens") or counts.optional("input_tokens") or 0
            completion = counts.optional("completion_tokens") or counts.optional("output_tokens") or 0
            return ReportedUsage(prompt, completion, reported, complete=True)
        return self._token_usage(data, counts)

    def _token_usage(self, data: Mapping[str, Any], counts: UsageReader) -> ReportedUsage:
        """Return the usage of a response in OpenAI's form, with its cost by tokens or images."""
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
        if self._api == "chat":
            return ResponseImage(url=chat_image(data, self._client.name, self._client.key))
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


def _reported_cost(data: Mapping[str, Any], headers: Mapping[str, str], price: float | None) -> float | None:
    """Return the cost in US dollars that a server reports, OpenRouter in `usage` and LiteLLM in a header; else None.

    A gateway that reports 0 for a model whose price the user states does not know the price.
    """
    usage = data.get("usage")
    value: Any = usage.get("cost") if isinstance(usage, Mapping) else None
    if value is None:
        value = headers.get(_COST_HEADER) or None
        if price and value is not None and not value.strip("0."):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cost = float(value)
    except ValueError:
        return None
    return cost if 0 <= cost < math.inf else None
