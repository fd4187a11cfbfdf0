"""What adapters of hosted image services share: from a request to a drawing, whatever the service answers.

A service's adapter says how its request is put together, where the picture lies in the answer and what it cost.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knowgen.clients.endpoint_url import endpoint_url, key_for
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch
from knowgen.core.errors import TransientError, UsageError
from knowgen.core.metering import ReportedUsage
from knowgen.core.records import GenerationRequest, GenerationStatus, Usage
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
from knowgen.generators.hosted_prices import price_for

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


@dataclass(frozen=True)
class ServiceAccess:
    """How a service is reached; none of it decides what is drawn, but for the address.

    Attributes:
        base_url: Address as the user wrote it, empty for the service's own.
        key_env: Environment variable with the key, empty for the usual one.
        timeout: Seconds for one call.
        concurrency: Calls at once at most.
        rpm: Requests a minute that the service admits, 0 for no limit.
        tpm: Tokens a minute that the service admits, 0 for no limit.
        price: US dollars a picture, None for the published price.
    """

    base_url: str
    key_env: str
    timeout: float
    concurrency: int
    rpm: float
    tpm: float
    price: float | None

    def check(self, where: str) -> None:
        """Checks the values.

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


class HostedImages(ABC):
    """A model behind a service.

    Args:
        vendor: The service.
        model: Model name, as the service knows it.
        access: How it is reached.
        settings: What decides the picture besides prompt, seed and references; noted with every drawing.
    """

    references = True
    concurrency = MOST_AT_ONCE
    deadline = 6 * 3600.0
    identity_excludes = UNKEYED

    def __init__(self, vendor: ServiceFormat, model: str, access: ServiceAccess, settings: Mapping[str, Any]) -> None:
        refuse_secrets({"model": model})
        where = f"generator {vendor.name}:{model}"
        if not isinstance(model, str) or not model.strip():
            raise UsageError("no model is named", where=f"generator {vendor.name}", fix=f"write {vendor.name}:MODEL")
        access.check(where)
        url = endpoint_url(access.base_url, where, vendor.url)
        key = key_for(url, access.key_env, where, vendor.key_env)
        self.model = model
        self.concurrency = access.concurrency
        self.price = price_for(model, url, access.price)
        self._form = vendor.form
        self._settings = {"service": vendor.name, "model": model, "endpoint": url, **settings}
        self._service = ServiceClient(
            name=f"{vendor.name}:{model}",
            url=url,
            key=key,
            headers={vendor.header: f"{vendor.scheme} {key}".strip()},
            timeout=float(access.timeout),
            limits=RateLimits(access.concurrency, access.rpm, access.tpm),
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
            worst = self.price.worst(request.prompt, len(pictures), *self.traits())
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
        for number in range(1, DOWNLOADS + 1):
            try:
                return (await fetch(url, trusted=self._service.url)).data
            except (BlockedError, FetchError) as error:
                raise UnusableImageError(f"the picture's address was not fetched: {error}") from error
            except TransientError as error:
                if number == DOWNLOADS:
                    raise UnusableImageError(
                        f"the picture could not be fetched in {DOWNLOADS} tries: {error}"
                    ) from error
                await asyncio.sleep(min(max(0.25 * 2.0**number, error.retry_after or 0.0), 10.0))
        raise AssertionError("the last try returns or raises")

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
