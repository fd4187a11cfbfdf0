"""What adapters of hosted image services share: from a request to a drawing, whatever the service answers.

A service's adapter says how its request is put together, where the picture lies in the answer and what it cost.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from knowgen.clients.endpoint_url import endpoint_url, key_for
from knowgen.clients.pricing import image_price
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch
from knowgen.core.errors import TransientError, UsageError
from knowgen.core.metering import ReportedUsage
from knowgen.core.records import GenerationRequest, GenerationStatus, Usage
from knowgen.core.retry import exponential, retry
from knowgen.core.secrets import refuse_secrets
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.hosted.call import ServiceClient, ServiceRequest
from knowgen.generators.hosted.errors import ServiceError, ServiceRejectedError, clean
from knowgen.generators.hosted.images import (
    EncodedReference,
    ReferenceForm,
    UnusableImageError,
    check,
    decode,
    load_references,
)

MOST_AT_ONCE = 32
DOWNLOADS = 3
"""Tries to fetch a picture that came as an address; drawing it again would cost again."""

UNKEYED = frozenset({"key_env", "concurrency", "timeout", "rpm", "tpm", "price"})
SEED_NOT_TAKEN = "not taken"

_BYTES_A_TOKEN = 4
_TOKENS_A_PICTURE = 1000
"""Rough counts for limits of tokens a minute; what answers count takes their place."""


@dataclass(frozen=True)
class ResponseImage:
    """The picture in an answer.

    Attributes:
        base64: The picture, empty when it came as an address.
        url: Its address.
        used_prompt: The prompt as the service rewrote it, empty when it did not.
        settings: What else the answer says of the picture.
    """

    base64: str = ""
    url: str = ""
    used_prompt: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class ServiceAccess:
    """A model behind a service and how it is reached. A generator inherits these as arguments of its own constructor.

    None of them decides what is generated, but for the model and the URL.

    Args:
        model: Model name, as the service knows it.
        base_url: URL of another region or server, empty for the service's own.
        key_env: Environment variable with the key; empty means the usual one, and none for a server on this machine.
        timeout: Seconds for one call.
        concurrency: Maximum number of concurrent calls.
        rpm: Requests per minute that the service admits, 0 for no limit.
        tpm: Tokens per minute that the service admits, 0 for no limit.
        price: US dollars an image; the published price when None.
    """

    model: str
    base_url: str = ""
    _: KW_ONLY
    key_env: str = ""
    timeout: float = 300.0
    concurrency: int = MOST_AT_ONCE
    rpm: float = 0
    tpm: float = 0
    price: float | None = None

    def check(self, where: str) -> None:
        """Check the values.

        Raises:
            UsageError: One is not possible.
        """
        number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not number or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout={self.timeout} is not possible", where=where, fix="give seconds, more than 0")
        whole = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if not whole or self.concurrency < 1:
            raise UsageError(f"concurrency={self.concurrency} is not possible", where=where, fix="give 1 or more")


@dataclass(frozen=True)
class ServiceFormat:
    """What sets a service apart.

    Attributes:
        name: As generators are named.
        url: Its own address.
        key_env: The environment variable that usually holds its key.
        header: Name of the header that carries the key.
        scheme: Word before the key in that header.
        form: What it takes as reference images.
    """

    name: str
    url: str
    key_env: str
    header: str
    scheme: str
    form: ReferenceForm


class HostedImages(ServiceAccess, ABC):
    """A model behind a service. Its arguments are those of `ServiceAccess`, and those that its own class adds."""

    references: ClassVar[bool] = True
    deadline: ClassVar[float] = 6 * 3600.0
    identity_excludes: ClassVar[frozenset[str]] = UNKEYED

    def connect(self, vendor: ServiceFormat, settings: Mapping[str, Any], url: str = "") -> None:
        """Check the access and prepare the service; nothing is sent yet.

        Args:
            vendor: The service.
            settings: What decides the image besides prompt, seed and references; recorded with every image.
            url: URL to use instead of `base_url`.

        Raises:
            UsageError: An argument is out of its range.
            ConfigError: The key is missing, or the URL holds a secret.
        """
        refuse_secrets({"model": self.model})
        where = f"generator {vendor.name}:{self.model}"
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("no model is named", where=f"generator {vendor.name}", fix=f"write {vendor.name}:MODEL")
        self.check(where)
        url = endpoint_url(url or self.base_url, where, vendor.url)
        key = key_for(url, self.key_env, where, vendor.key_env)
        self.prices = image_price(self.model, url, self.price)
        self._form = vendor.form
        self._settings = {"service": vendor.name, "model": self.model, "endpoint": url, **settings}
        self._service = ServiceClient(
            name=f"{vendor.name}:{self.model}",
            url=url,
            key=key,
            headers={vendor.header: f"{vendor.scheme} {key}".strip()},
            timeout=float(self.timeout),
            limits=RateLimits(self.concurrency, self.rpm, self.tpm),
            refuses=self.refuses,
        )

    @abstractmethod
    def compose(self, request: GenerationRequest, pictures: Sequence[EncodedReference]) -> ServiceRequest:
        """Returns the request in the service's form."""

    @abstractmethod
    def traits(self) -> tuple[str, ...]:
        """Returns what the price of a picture depends on: quality and size, as the price list names them."""

    @abstractmethod
    def usage(self, data: Mapping[str, Any]) -> ReportedUsage:
        """Reads tokens and cost from an answer; what it leaves open counts at the worst case."""

    @abstractmethod
    def find(self, data: Mapping[str, Any]) -> ResponseImage:
        """Returns the picture of an answer.

        Raises:
            RefusalError: The service declined after all.
            TransientError: There is none, and the next answer may hold one.
            ServiceRejectedError: There is none.
        """

    @abstractmethod
    def refuses(self, fault: ServiceError) -> bool:
        """Tells whether an error says that the content is declined."""

    def seed_settings(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns what is noted of the seed."""
        return {"seed": SEED_NOT_TAKEN}

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draws one picture.

        Returns:
            The picture, or a failed drawing with its reason when the service rejects the request, when what comes back
            is no picture, or when a reference image does not open.

        Raises:
            TransientError: The service is busy, broken or out of reach.
            RefusalError: It declined the content, in its own words.
            BudgetReachedError: The budget does not admit the call.
            ConfigError: There is a budget and the price is not known.
        """
        settings: dict[str, Any] = {**self._settings, **self.seed_settings(request)}
        usage = Usage()
        try:
            pictures, notes = await asyncio.to_thread(load_references, request.references, self._form)
            settings |= notes
            worst = self.prices.worst(request.prompt, len(pictures), *self.traits())
            estimate = len(request.prompt) // _BYTES_A_TOKEN + _TOKENS_A_PICTURE * (1 + len(pictures))
            answer = await self._service.ask(self.compose(request, pictures), worst, self.usage, estimate)
            usage = answer.usage
            found = self.find(answer.data)
            settings |= found.settings
            data = await self._bytes(found)
        except (ServiceRejectedError, UnusableImageError) as error:
            return GeneratedImage(status=GenerationStatus.FAILED, reason=str(error), settings=settings, usage=usage)
        used = self.cleaned(found.used_prompt, whole=True).strip()
        rewritten = used if used != request.prompt.strip() else ""
        return GeneratedImage(image=data, settings=settings, usage=usage, used_prompt=rewritten)

    async def _bytes(self, found: ResponseImage) -> bytes:
        """Returns the picture of an answer, decoded once to see that it opens.

        Raises:
            UnusableImageError: It is broken, or cannot be had.
        """
        inline = found.base64 or (found.url if found.url.startswith("data:") else "")
        data = await asyncio.to_thread(decode, inline) if inline else await self._fetched(found.url)
        await asyncio.to_thread(check, data)
        return data

    async def _fetched(self, url: str) -> bytes:
        """Fetches a picture, without the key; a fault that passes is tried again here, for the picture is paid for."""

        async def download(number: int) -> bytes:
            return (await fetch(url, trusted=self._service.url)).data

        def wait(number: int, error: BaseException | None) -> float:
            return min(max(exponential(number, 0.5), getattr(error, "retry_after", None) or 0.0), 10.0)

        try:
            return await retry(
                download, attempts=DOWNLOADS, retryable=lambda error: isinstance(error, TransientError), wait=wait
            )
        except (BlockedError, FetchError) as error:
            raise UnusableImageError(f"the picture's address was not fetched: {error}") from error
        except TransientError as error:
            raise UnusableImageError(f"the picture could not be fetched in {DOWNLOADS} tries: {error}") from error

    def cleaned(self, text: str, *, whole: bool = False) -> str:
        """Returns a service's words without the key, on one line and shortened unless the whole is wanted."""
        return clean(text, self._service.key, None) if whole else clean(text, self._service.key)

    async def close(self) -> None:
        """Closes the connections."""
        await self._service.close()


def one_of(value: Any, name: str, choices: Sequence[str], where: str) -> str:
    """Returns an argument that must be one of some words; the empty word leaves it to the service.

    Raises:
        UsageError: It is none of them.
    """
    if value not in ("", *choices):
        raise UsageError(f"{name}={value!r} is not known", where=where, fix=f"write {', '.join(choices)}")
    return str(value)


def flag(value: Any, name: str, where: str) -> bool:
    """Returns an argument that must be true or false.

    Raises:
        UsageError: It is neither.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} is not known", where=where, fix="write true or false")
    return value


def text_in(data: Any, *names: str) -> str:
    """Returns a text that stands under nested names, empty where it is missing or no text."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data if isinstance(data, str) else ""
