"""What the backends over search services share: their arguments and their client.

| service     | pages                        | images                       | key                     |
|-------------|------------------------------|------------------------------|-------------------------|
| `wikimedia` | `list=search` of Wikipedia   | `generator=search` of Commons | none, a named user agent |
| `searxng`   | `GET /search`, general       | `GET /search`, images        | none                    |
| `serper`    | `POST /search`               | `POST /images`               | `X-API-KEY`             |
| `tavily`    | `POST /search`               | the same, `include_images`   | `Authorization: Bearer` |
| `brave`     | `GET /res/v1/web/search`     | `GET /res/v1/images/search`  | `X-Subscription-Token`  |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from knowgen.clients.endpoint_url import endpoint_url, key_for
from knowgen.clients.http_service import USER_AGENT, Connection
from knowgen.clients.pricing import SearchPrice, search_price
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.safe_fetch import Fetcher
from knowgen.core.errors import ServiceUnavailableError, UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.search.services.client import SearchClient
from knowgen.search.services.jina import JinaReader
from knowgen.search.web.backend import WebSearch
from knowgen.search.web.pages import PageOpener

PAGES = ("fetch", "jina")
"""How pages are opened: fetched by this machine, or by Jina's reader."""


@dataclass(eq=False, repr=False)
class SearchAccess:
    """How a search service is reached. A backend inherits these as arguments of its own constructor.

    Args:
        base_url: URL of another server with the same API, empty for the service's own.
        key_env: Environment variable with the key; empty means the usual one, and none for a server on this machine.
        pages: How pages are opened: `fetch`, or `jina` for Jina's reader.
        timeout: Seconds for one call.
        concurrency: Maximum number of concurrent calls.
        rpm: Requests per minute that the service admits, 0 for no limit.
        price: US dollars per credit of the service, or per query where it has none; the published price when None.
        page_price: US dollars per million tokens of a page that Jina's reader opens with a key.
    """

    _: KW_ONLY
    base_url: str = ""
    key_env: str = ""
    pages: str = "fetch"
    timeout: float = 30.0
    concurrency: int = 16
    rpm: float = 0
    price: float | None = None
    page_price: float | None = None

    def check(self, where: str) -> None:
        """Check the arguments.

        Raises:
            UsageError: One is out of its range.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, str) and not isinstance(value, str):
                fix = f"put it in quotes: {field.name}='…'"  # YAML reads `no`, the code of Norway, as false
                raise UsageError(f"{field.name} must be text, got {value!r}", where=where, fix=fix)
        is_number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not is_number or not 0 < self.timeout < math.inf:
            raise UsageError(f"timeout must be a number > 0, got {self.timeout}", where=where, fix="give seconds")
        is_integer = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if not is_integer or self.concurrency < 1:
            raise UsageError(f"concurrency must be an integer >= 1, got {self.concurrency}", where=where)
        if self.pages not in PAGES:
            raise UsageError(f"pages={self.pages!r} is unknown", where=where, fix=f"write {' or '.join(PAGES)}")


class ServiceSearch(SearchAccess, WebSearch):
    """A backend over a search service. Its arguments are those of `SearchAccess` and those that its own class adds.

    Attributes:
        service_url: URL of the service, used where none is given.
        default_key: Environment variable that usually holds the key; empty for a service without one.
        key_header: HTTP header that carries the key.
        key_scheme: Word before the key in that header, empty for none.
    """

    service_url: ClassVar[str] = ""
    default_key: ClassVar[str] = ""
    key_header: ClassVar[str] = "Authorization"
    key_scheme: ClassVar[str] = ""

    def connect(
        self,
        *,
        trusted: str = "",
        user_agent: str = USER_AGENT,
        fetcher: Fetcher | None = None,
        fixes: Mapping[int, str] | None = None,
    ) -> None:
        """Check the access and create the client. Nothing is sent yet.

        Args:
            trusted: As for `WebSearch`; `base_url` when empty.
            user_agent: User agent of calls to the service.
            fetcher: As for `WebSearch`.
            fixes: As for `SearchClient`.

        Raises:
            UsageError: An argument is out of its range.
            ConfigError: The key is missing, or the URL holds a secret.
        """
        where = f"search backend {self.provider}"
        self.check(where)
        self.url = endpoint_url(self.base_url, where, self.service_url)
        refuse_secrets({"search": self.settings()}, where=where)
        key = key_for(self.url, self.key_env, where, self.default_key) if self.default_key else ""
        header = {self.key_header: f"{self.key_scheme} {key}".strip()} if key else {}
        self.prices = self.price_at(self.url, self.price)
        self._client = SearchClient(
            Connection(
                name=f"search:{self.provider}",
                url=self.url,
                headers={"Accept": "application/json", "User-Agent": user_agent, **header},
                timeout=float(self.timeout),
                limits=RateLimits(self.concurrency, self.rpm),
            ),
            key=key,
            fixes=fixes or ({0: f"check the key in {self.key_env or self.default_key}"} if key else {}),
        )
        reader: PageOpener | None = JinaReader(price=self.page_price) if self.pages == "jina" else None
        WebSearch.__init__(self, fetcher=fetcher, pages=reader, trusted=trusted or self.base_url)

    @classmethod
    def price_at(cls, url: str, price: float | None) -> SearchPrice:
        """Return the price of the service at a URL."""
        return search_price(url, price)

    @classmethod
    def query_price(cls, base_url: str = "", price: float | None = None, **_arguments: Any) -> float | None:
        """Return the maximum cost of a query for ten results in US dollars, None when the price is not known.

        Args:
            base_url: As for the constructor.
            price: As for the constructor.
        """
        return cls.price_at(base_url or cls.service_url, price).worst(results=10)

    def unexpected(self, missing: str) -> ServiceUnavailableError:
        """Return the error for a response that is not of the service's format."""
        name = f"search:{self.provider}"
        return ServiceUnavailableError(f"the response of {name} has no `{missing}`", service=name)

    async def close_service(self) -> None:
        """Close the connections to the service."""
        await self._client.close()
