"""Pages through Jina's reader, which fetches a page elsewhere, with a browser, and returns it as text.

Sources, looked up in 2026-11: the API's description for language models (docs.jina.ai, r.reader), and the error classes
in github.com/jina-ai/reader (`src/services/errors.ts`). Without a key it is free and admits 20 requests a minute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from knowgen.clients.endpoint_url import endpoint_url
from knowgen.clients.http_service import Connection
from knowgen.clients.pricing import MILLION
from knowgen.clients.rate_control import RateLimits
from knowgen.clients.safe_fetch import BlockedError, check_url
from knowgen.core.errors import DataError, ServiceUnavailableError, UsageError
from knowgen.core.secrets import check_variable_name, remember_secret
from knowgen.search.contract import Link, Page
from knowgen.search.services.cached_reader import CachedReader
from knowgen.search.services.client import SearchClient, SearchRequest
from knowgen.search.services.reading import number_at
from knowgen.search.web.guarding import address_blocked

URL = "https://r.jina.ai"
KEY = "JINA_API_KEY"

_NAME = "search:jina"
_REQUESTS_WITHOUT_KEY = 20
_TOKEN_BUDGET = 200_000
"""Maximum number of tokens of a page where tokens cost; the reader refuses a longer one."""


class JinaReader(CachedReader):
    """Opens pages through Jina's reader.

    Args:
        base_url: URL of another server with the same API, empty for the service's own.
        key_env: Environment variable with the key; `JINA_API_KEY` is used if it is set. No key is needed.
        timeout: Seconds for one call.
        price: US dollars per million tokens of a page; without a key it is free.

    Raises:
        UsageError: The price is not a number >= 0.
        ConfigError: `key_env` is not the name of a variable.
    """

    version = "jina-1"

    def __init__(
        self, *, base_url: str = "", key_env: str = "", timeout: float = 60.0, price: float | None = None
    ) -> None:
        super().__init__()
        check_variable_name(key_env or KEY, "key_env", KEY)
        if price is not None and (isinstance(price, bool) or not price >= 0):
            fix = "give US dollars per million tokens"
            raise UsageError(f"price must be a number >= 0, got {price}", where="jina", fix=fix)
        key = os.environ.get(key_env or KEY, "").strip()
        if key:
            remember_secret(key)
        self._price = price if key else 0.0
        self._url = endpoint_url(base_url, "jina", URL)
        self._client = SearchClient(
            Connection(
                name=_NAME,
                url=self._url,
                headers=self._headers(key),
                timeout=timeout,
                limits=RateLimits(concurrency=8, rpm=0 if key else _REQUESTS_WITHOUT_KEY),
            ),
            key=key,
            fixes={0: f"check the key in {key_env or KEY}"},
        )

    def _headers(self, key: str) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "X-Md-Link-Style": "discarded",
            "X-Retain-Images": "none",
            "X-With-Links-Summary": "true",
        }
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if self._price:
            headers["X-Token-Budget"] = str(_TOKEN_BUDGET)
        return headers

    async def read(self, url: str) -> Page:
        """Return a page that is not cached.

        Raises:
            PageBlockedError: Its address does not lead to the public internet.
            DataError: The reader cannot read it, or it has no text.
            ServiceUnavailableError: The reader is busy or broken.
            AccountError: The reader rejects the key.
        """
        try:
            check_url(url)
        except BlockedError as error:
            raise address_blocked(error, url) from error
        worst = None if self._price is None else self._price * _TOKEN_BUDGET / MILLION
        data = await self._client.send(SearchRequest(f"{self._url}/", body={"url": url}), worst, self._cost)
        page = data.get("data")
        if not isinstance(page, Mapping):
            raise ServiceUnavailableError(f"the response of {_NAME} has no `data`", service=_NAME)
        text = page.get("content") or page.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError("the page has no text", where=url, fix="open another page")
        links = page.get("links")
        return Page(
            url=str(page.get("url") or url),
            title=str(page.get("title") or ""),
            text=text.strip(),
            links=tuple(
                Link(text=str(name), url=str(target))
                for name, target in (links.items() if isinstance(links, Mapping) else ())
            ),
        )

    def _cost(self, data: Mapping[str, Any]) -> float | None:
        tokens = number_at(data, "data", "usage", "tokens")
        return None if tokens is None or self._price is None else self._price * tokens / MILLION

    async def close(self) -> None:
        """Close connections and the cache."""
        await super().close()
        await self._client.close()
