"""Generators behind hosted image services: the steps from a request to an image that all services share.

`HostedImages.generate` loads the reference images, sends one request, reads usage and cost, takes the image out of the
response (or downloads it) and checks that it opens. A subclass adds what differs between services:

| service  | path                                   | references       | image in the response | refusal             |
|----------|----------------------------------------|------------------|-----------------------|---------------------|
| `openai` | `/images/generations`, `/images/edits` | files of a form  | base64 or URL         | error code          |
| `hub`    | as the provider has it                 | data URLs        | any of these, polled  | error or flag       |
| `gemini` | `/v1beta/models/MODEL:generateContent` | base64 in parts  | base64 in parts       | in the response     |
| `ark`    | `/images/generations`                  | data URLs        | base64 or URL         | error code or entry |
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import urljoin

from knowgen.clients.endpoint_url import endpoint_url, is_azure, is_loopback, key_for, key_headers, url_with_path
from knowgen.clients.preflight import missing_model, model_names, raise_listing_error
from knowgen.clients.pricing import image_price
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch
from knowgen.clients.service_errors import clean_response_text, read_error
from knowgen.core.errors import AccountError, TransientError, UsageError
from knowgen.core.metering import ReportedUsage, note
from knowgen.core.records import GenerationRequest, GenerationStatus, Usage
from knowgen.core.retry import exponential, retry
from knowgen.core.secrets import refuse_secrets
from knowgen.generators.contract import SEED_NOT_TAKEN, GeneratedImage
from knowgen.generators.hosted.client import ServiceClient, ServiceRequest, ServiceResponse
from knowgen.generators.hosted.errors import ServiceRejectedError, refused_choice, refused_field, stated_reference_limit
from knowgen.generators.hosted.images import (
    EncodedReference,
    ReferenceLimits,
    UnusableImageError,
    check_response_image,
    decode_base64,
    load_references,
)

DEFAULT_CONCURRENCY = 32

DOWNLOAD_ATTEMPTS = 3
"""Attempts to download an image from the URL in a response. Generating it again would cost again."""

ACCESS_ARGUMENTS = frozenset({"key_env", "concurrency", "timeout", "rpm", "tpm", "price"})
"""Arguments of `ServiceAccess` that do not decide what is generated, and are not part of keys."""

_BYTES_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
"""Rough token counts for the tokens-per-minute limit, replaced by the counts of the response."""


@dataclass(frozen=True)
class ResponseImage:
    """The image in a response.

    Attributes:
        base64: The image in base64, empty when the response has a URL instead.
        url: URL of the image, http or data.
        used_prompt: The prompt as the service rewrote it, empty when it did not.
        settings: Other facts about the image in the response, to be recorded.
        content: Bytes of the image, where the response was nothing else.
    """

    base64: str = ""
    url: str = ""
    used_prompt: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = b""


@dataclass(eq=False, repr=False)
class ServiceAccess:
    """A model behind a service and how it is reached. A generator inherits these as arguments of its own constructor.

    Only the model and the URL decide what is generated.

    Args:
        model: Model name, as the service knows it.
        base_url: URL of another region or server, empty for the service's own.
        key_env: Environment variable with the key; empty means the usual one, and none for a server on this machine.
        timeout: Seconds for one call.
        concurrency: Maximum number of concurrent calls.
        rpm: Requests per minute that the service admits, 0 for no limit.
        tpm: Tokens per minute that the service admits, 0 for no limit.
        price: US dollars per image; the published price when None.
    """

    model: str
    base_url: str = ""
    _: KW_ONLY
    key_env: str = ""
    timeout: float = 300.0
    concurrency: int = DEFAULT_CONCURRENCY
    rpm: float = 0
    tpm: float = 0
    price: float | None = None

    def check(self, where: str) -> None:
        """Check the timeout and the concurrency.

        Raises:
            UsageError: The timeout is not a number > 0, or the concurrency is not an integer >= 1.
        """
        is_number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not is_number or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {self.timeout}", where=where, fix="give seconds")
        is_integer = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if not is_integer or self.concurrency < 1:
            raise UsageError(f"concurrency must be an integer >= 1, got {self.concurrency}", where=where)


@dataclass(frozen=True)
class ServiceFormat:
    """What differs between services before anything is sent.

    Attributes:
        name: Name of the generator, such as `openai`.
        url: URL of the service.
        key_env: Environment variable that usually holds the key.
        key_header: Name of the HTTP header that carries the key.
        key_scheme: Word before the key in that header, empty for none.
        reference_limits: Limits of the service on reference images.
        azure: Whether it is Azure behind another address, whose keys have a header of their own.
    """

    name: str
    url: str
    key_env: str
    key_header: str
    key_scheme: str
    reference_limits: ReferenceLimits
    azure: bool = False


class HostedImages(ServiceAccess, ABC):
    """A generator behind a service. Its arguments are those of `ServiceAccess` and those that its own class adds."""

    references: ClassVar[bool] = True
    deadline: ClassVar[float] = 6 * 3600.0
    identity_excludes: ClassVar[frozenset[str]] = ACCESS_ARGUMENTS

    def connect(self, service_format: ServiceFormat, settings: Mapping[str, Any], url: str = "") -> None:
        """Check the access and create the client. Nothing is sent yet.

        Args:
            service_format: The service.
            settings: What decides the image besides prompt, seed and references; recorded with every image.
            url: URL to use instead of `base_url`.

        Raises:
            UsageError: An argument is out of its range.
            ConfigError: The key is missing, or the URL holds a secret.
        """
        refuse_secrets({"model": self.model})
        service = service_format.name
        where = f"generator {service}:{self.model}"
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("no model is named", where=f"generator {service}", fix=f"write {service}:MODEL")
        self.check(where)
        url = endpoint_url(url or self.base_url, where, service_format.url)
        key = key_for(url, self.key_env, where, service_format.key_env)
        header = {service_format.key_header: f"{service_format.key_scheme} {key}".strip()}
        self._not_taken: set[str] = set()
        self.prices = image_price(self.model, url, self.price)
        self._reference_limits = service_format.reference_limits
        self._settings = {"service": service, "model": self.model, "endpoint": url, **settings}
        self._client = ServiceClient(
            name=f"{service}:{self.model}",
            url=url,
            key=key,
            headers=key_headers(url, key, azure=True) if service_format.azure or is_azure(url) else header,
            timeout=float(self.timeout),
            limits=RateLimits(self.concurrency, self.rpm, self.tpm),
        )

    service_url: ClassVar[str]
    """URL of the service, used where none is given."""

    most_references: ClassVar[int]
    """Maximum number of reference images of a request that are used."""

    @classmethod
    def reference_limit(cls, **_: Any) -> int:
        """Return the maximum number of reference images that some arguments allow."""
        return cls.most_references

    @classmethod
    def price_known(cls, model: str, base_url: str = "", price: float | None = None, **_: Any) -> bool:
        """Return whether the cost of an image is known, or the server is on this machine."""
        return is_loopback(base_url) or image_price(model, base_url or cls.service_url, price).known

    @abstractmethod
    def compose(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request in the service's format."""

    @abstractmethod
    def price_options(self) -> tuple[str, ...]:
        """Return the settings that decide the price of an image, quality and size, as the price list names them."""

    @abstractmethod
    def usage(self, data: Mapping[str, Any], headers: Mapping[str, str]) -> ReportedUsage:
        """Read tokens and cost from a response. Where it does not report them, the worst case is charged."""

    @abstractmethod
    def read_image(self, data: Mapping[str, Any]) -> ResponseImage:
        """Return the image of a response.

        Raises:
            RefusalError: The response says that the content was declined.
            TransientError: The response has no image, but a retry may give one.
            ServiceRejectedError: The response has no image.
        """

    def optional_fields(self) -> frozenset[str]:
        """Return the fields of a request that are left out where the service does not take them."""
        return frozenset()

    def chosen_fields(self) -> frozenset[str]:
        """Return the fields that the user chose. No call is made without them: refusing one ends the run."""
        return frozenset()

    async def prepare(self) -> None:
        """Find out what has to be known before the first request. Called before each request.

        Raises:
            KnowgenError: It cannot be found out, or the arguments do not suit the service.
        """

    async def composed(self, request: GenerationRequest, references: Sequence[EncodedReference]) -> ServiceRequest:
        """Return the request in the service's format; for services that take more than `compose` to make one."""
        return self.compose(request, references)

    async def finished(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data of a finished image; for services that first answer with the number of a task.

        Raises:
            ServiceUnavailableError: The task did not finish in time.
            ServiceRejectedError: The task failed.
        """
        return data

    def sent_prompt(self, request: GenerationRequest) -> str:
        """Return the prompt as it is sent."""
        return request.prompt

    models_path: ClassVar[str] = "/models"
    """Path of the service's free list of models; empty where it has none."""

    async def check_service(self) -> str:
        """Check the address, the key and the model with one free call, before anything is generated.

        Returns:
            A warning in one line, or an empty text.

        Raises:
            AccountError: The service rejects the key.
            ServiceUnavailableError: The service cannot be reached, or is busy.
        """
        if not self.models_path:
            return ""
        status, headers, body = await self._client.get(self.models_path)
        if 200 <= status < 300:
            return self.warned(missing_model(self.model, model_names(body)))
        raise_listing_error(read_error(status, headers, body, self._client.key), self._client.name)
        return ""

    def warned(self, warning: str) -> str:
        """Note and log a warning about the service, and return it; do nothing with an empty one."""
        if warning:
            note(self._client.name, "service", {"warning": warning})
            logging.getLogger("knowgen.clients").warning("%s: %s", self._client.name, warning)
        return warning

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the settings to record about the seed."""
        return {"seed": SEED_NOT_TAKEN}

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate one image.

        Returns:
            The image. A failed one with its reason when the service rejects the request, when the response has no
            usable image, or when a reference image does not open.

        Raises:
            ServiceUnavailableError: The service is overloaded, broken or cannot be reached.
            AccountError: The service rejects every call: a wrong key, no credit, an unknown model, a wrong address.
            TransientError: The response has no image, but a retry may give one.
            RefusalError: The service declined the content.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        await self.prepare()
        settings: dict[str, Any] = {**self._settings, **self.seed_settings(request)}
        usage = Usage()
        try:
            response, reference_settings = await self._answered(request)
            usage = response.usage
            settings |= reference_settings
            settings = self._as_sent(settings)
            image = self.read_image(await self.finished(response.data))
            settings |= image.settings
            data = image.content or await self._image_bytes(image)
            if image.content:
                await asyncio.to_thread(check_response_image, data)
        except (ServiceRejectedError, UnusableImageError) as error:
            return GeneratedImage(status=GenerationStatus.FAILED, reason=str(error), settings=settings, usage=usage)
        used = self.clean(image.used_prompt, full=True).strip()
        rewritten = used if used not in (request.prompt.strip(), self.sent_prompt(request).strip()) else ""
        return GeneratedImage(image=data, settings=settings, usage=usage, used_prompt=rewritten)

    async def _answered(self, request: GenerationRequest) -> tuple[ServiceResponse, dict[str, Any]]:
        """Send a request with as many reference images as the service takes, and return what is recorded of them."""
        while True:
            references, settings = await asyncio.to_thread(load_references, request.references, self._reference_limits)
            worst = self.prices.worst(request.prompt, len(references), *self.price_options())
            tokens = len(request.prompt) // _BYTES_PER_TOKEN + _TOKENS_PER_IMAGE * (1 + len(references))
            composed = await self.composed(request, references)
            try:
                return await self._send(composed, worst, tokens), settings
            except ServiceRejectedError as error:
                limit = stated_reference_limit(error.error, len(references))
                if limit is None:
                    raise
                note(self._client.name, "references", {"most": limit, "refused": error.what})
                most = min(limit, self._reference_limits.max_images)
                self._reference_limits = replace(self._reference_limits, max_images=most)

    async def _send(self, composed: ServiceRequest, worst: float | None, tokens: int) -> ServiceResponse:
        """Send a request, without the optional fields that the service has been found not to take."""
        while True:
            body = {name: value for name, value in composed.body.items() if name not in self._not_taken}
            try:
                return await self._client.send(replace(composed, body=body), worst, self.usage, tokens)
            except ServiceRejectedError as error:
                if chosen := refused_choice(error.error, sorted(self.chosen_fields())):
                    fix = f"leave {chosen} out, or give it another value"
                    raise AccountError(error.what, where=f"generator {self._client.name}", fix=fix) from error
                field_name = refused_field(error.error, sorted(self.optional_fields() & body.keys()))
                if not field_name:
                    raise
                if field_name not in self._not_taken:
                    note(self._client.name, "fields", {"not_taken": field_name, "refused": error.what})
                self._not_taken.add(field_name)

    def _as_sent(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings without the fields that the service does not take, which they name."""
        if not self._not_taken:
            return dict(settings)
        sent = {name: value for name, value in settings.items() if name not in self._not_taken}
        unchecked = [name for name in sent.pop("fields_unchecked", ()) if name not in self._not_taken]
        seed = {"seed": SEED_NOT_TAKEN} if "seed" in self._not_taken else {}
        listed = {"fields_unchecked": unchecked} if unchecked else {}
        return {**sent, **seed, **listed, "fields_not_taken": sorted(self._not_taken)}

    async def _image_bytes(self, image: ResponseImage) -> bytes:
        """Return the bytes of a response's image, after decoding them once as a check.

        Raises:
            UnusableImageError: The image does not open or cannot be downloaded.
        """
        inline = image.base64 or (image.url if image.url.startswith("data:") else "")
        data = await asyncio.to_thread(decode_base64, inline) if inline else await self._download(image.url)
        await asyncio.to_thread(check_response_image, data)
        return data

    async def _download(self, url: str) -> bytes:
        """Download an image, without sending the key. Transient errors are retried here: the image is paid for.

        A relative URL is one of the service. The URL may be at the service's own address, wherever that is, or on the
        public internet.

        Raises:
            UnusableImageError: The URL is not allowed, or the download failed.
        """

        async def download(number: int) -> bytes:
            return (await fetch(urljoin(url_with_path(self._client.url, "/"), url), trusted=self._client.url)).data

        def wait(number: int, error: BaseException | None) -> float:
            return min(max(exponential(number, 0.5), getattr(error, "retry_after", None) or 0.0), 10.0)

        try:
            return await retry(
                download,
                attempts=DOWNLOAD_ATTEMPTS,
                retryable=lambda error: isinstance(error, TransientError),
                wait=wait,
            )
        except (BlockedError, FetchError) as error:
            raise UnusableImageError(f"the URL of the image was not downloaded: {error}") from error
        except TransientError as error:
            raise UnusableImageError(
                f"the image could not be downloaded in {DOWNLOAD_ATTEMPTS} attempts: {error}"
            ) from error

    def clean(self, text: str, *, full: bool = False) -> str:
        """Return text of a service without the key, on one line and shortened unless `full`."""
        return (
            clean_response_text(text, self._client.key, None) if full else clean_response_text(text, self._client.key)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def first_entry(data: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    """Return the first entry of `data` in a response of an Images API (OpenAI's and Ark's).

    Raises:
        TransientError: The response has no entry. The same request may give one next time.
    """
    entries = data.get("data")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], Mapping):
        raise TransientError(f"the response of {service} has no image")
    return entries[0]


def one_of(value: Any, name: str, choices: Sequence[str], where: str) -> str:
    """Return an argument that must be one of some words; the empty word leaves the choice to the service.

    Raises:
        UsageError: It is another value.
    """
    if value not in ("", *choices):
        raise UsageError(f"{name}={value!r} is unknown", where=where, fix=f"write {', '.join(choices)}")
    return str(value)


def boolean(value: Any, name: str, where: str) -> bool:
    """Return an argument that must be true or false.

    Raises:
        UsageError: It is another value.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, got {value!r}", where=where)
    return value


def text_at(data: Any, *names: str) -> str:
    """Return the text under nested names, empty where it is missing or not a text."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data if isinstance(data, str) else ""
