"""Pages of Wikipedia and images of Wikimedia Commons, without a key.

Sources, looked up in 2026-11:

- User-Agent: foundation.wikimedia.org, User-Agent Policy; mediawiki.org, Wikimedia APIs/Access policy: client name,
  version, contact, library. Clients without a contact are limited to 10 requests a minute, those with one to 200, and
  asked for at most 3 requests at a time (mediawiki.org, Wikimedia APIs/Rate limits, as of 2026-06).
- upload.wikimedia.org: at most 2 requests at a time (wikitech.wikimedia.org, Robot policy, since 2025-04).
- `maxlag=5` for tools: Manual:Maxlag parameter. The error comes with status 200 and `Retry-After`.
- Search: API:Search (`srsearch`, `srlimit` up to 500, `snippet` with markup). CirrusSearch finds pages with all words
  of a query, and with `OR` between them those with any (its `QueryStringRegexParser.php`).
- Images: API:Imageinfo (`iiurlwidth`, `thumburl`, `descriptionurl`). Thumbnails exist in the widths of
  `THUMBNAIL_WIDTHS` alone (mediawiki.org, Common thumbnail sizes; phabricator T414805).
- Text: Extension:TextExtracts (`explaintext`; a whole article is one request). Tables and info boxes are not in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from knowgen.clients.endpoint_url import endpoint_url
from knowgen.clients.pricing import FREE, SearchPrice
from knowgen.clients.safe_fetch import Fetcher
from knowgen.clients.service_errors import ServiceError, error_from
from knowgen.core.errors import DataError, UsageError
from knowgen.core.version import __version__
from knowgen.search.contract import Hit, Page
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.cached_reader import CachedReader
from knowgen.search.services.client import SearchClient, SearchRequest
from knowgen.search.services.reading import rows_at, shortened, text_at, url_at
from knowgen.search.web.images import RawImageHit
from knowgen.search.web.pages import PageFetcher, PageOpener

CONTACT = "KNOWGEN_CONTACT"
"""Environment variable with the address at which Wikimedia reaches whoever runs this."""

MAX_LAG = 5
MAX_CONCURRENCY = 3
REQUESTS_PER_MINUTE = 200
REQUESTS_WITHOUT_CONTACT = 10
MEDIA_CONCURRENCY = 2
THUMBNAIL_WIDTHS = (120, 250, 330, 500, 960, 1280, 1920, 3840)
MAX_QUERY = 300
"""Maximum number of characters of a query that CirrusSearch admits by default; longer ones are cut at a word."""

MAX_RESULTS = 50
TEXTS = ("extract", "page")

_IMAGES = "filetype:bitmap|drawing "
_WORD = re.compile(r"[^\W_](?:[\w'’.-]*\w)?")
_EMPTY_WORDS = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "by", "did", "do", "does", "for", "from", "has", "have", "how",
        "in", "is", "it", "its", "of", "on", "or", "that", "the", "their", "this", "to", "was", "were", "what",
        "when", "where", "which", "who", "why", "with",
    }
)  # fmt: skip
_COMMONS = "https://commons.wikimedia.org/w/api.php"
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
_CONTACT = re.compile(r"[\x21-\x7e]+@[\x21-\x7e]+|https?://[\x21-\x7e]+")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{2,5}\Z")
_BUSY = ("internal_api_error", "search-error", "cirrussearch-backend", "cirrussearch-too-busy", "readonly", "maxlag")
_NO_CONTACT = f"give an address where you can be reached: search.contact=you@example.org, or {CONTACT}"


@dataclass(eq=False, repr=False, kw_only=True)
class Wikimedia(ServiceSearch):
    """The search backend `wikimedia`: Wikipedia's pages and the images of Wikimedia Commons.

    Args:
        language: Language of Wikipedia, such as `en`.
        contact: Mail or web address at which Wikimedia reaches you; `KNOWGEN_CONTACT` when empty. Without any,
            `rpm` is 10 unless you set it.
        width: Maximum width of images in pixels, one of `THUMBNAIL_WIDTHS`.
        text: `extract` for the text that the API gives; `page` to fetch the page, with its tables and info boxes.
        images_url: URL of the API for images, empty for that of Commons.

    Further arguments are those of `SearchAccess`; `base_url` is the URL of a wiki's API.

    Raises:
        UsageError: An argument is out of its range.
    """

    provider: ClassVar[str] = "wikimedia"

    concurrency: int = MAX_CONCURRENCY
    rpm: float = REQUESTS_PER_MINUTE
    language: str = "en"
    contact: str = ""
    width: int = 960
    text: str = "extract"
    images_url: str = ""

    def __post_init__(self) -> None:
        """Check the arguments and create the client."""
        where = f"search backend {self.provider}"
        self.check(where)
        if not _LANGUAGE.fullmatch(self.language):
            raise UsageError(f"language={self.language!r} is not a language code", where=where, fix="write `en`")
        if self.width not in THUMBNAIL_WIDTHS:
            widths = ", ".join(map(str, THUMBNAIL_WIDTHS))
            raise UsageError(f"width={self.width} is not a width of thumbnails", where=where, fix=f"write {widths}")
        if self.text not in TEXTS:
            raise UsageError(f"text={self.text!r} is unknown", where=where, fix=f"write {' or '.join(TEXTS)}")
        self._contact = (self.contact or os.environ.get(CONTACT, "")).strip()
        if self._contact and not _CONTACT.fullmatch(self._contact):
            raise UsageError("the contact is neither a mail nor a web address", where=where, fix=_NO_CONTACT)
        if not self._contact and self.rpm == REQUESTS_PER_MINUTE:
            self.rpm = REQUESTS_WITHOUT_CONTACT
        self.base_url = self.base_url or f"https://{self.language}.wikipedia.org/w/api.php"
        self._images_api = endpoint_url(self.images_url, where, _COMMONS)
        agent = user_agent(self._contact)
        fetcher = Fetcher(per_host=MEDIA_CONCURRENCY, user_agent=agent)
        self.connect(trusted=self._images_api, user_agent=agent, fetcher=fetcher, fixes={403: _NO_CONTACT})
        if self.pages == "fetch":
            fetched = PageFetcher(fetcher, trusted=self.base_url)
            self._pages: PageOpener = WikiPages(self._client, self.url, fetched) if self.text == "extract" else fetched

    def settings(self) -> str:
        """Return the wikis and the width of images."""
        return f"{self.base_url} {self.images_url} {self.width}"

    @classmethod
    def price_at(cls, url: str, price: float | None) -> SearchPrice:
        """Return the price of a query: nothing."""
        return FREE

    async def find_pages(self, query: str, k: int) -> list[Hit]:
        """Ask for pages: those with all words of the query, or if there are none, those with some."""
        for words in (shortened(query, MAX_QUERY), any_word(query)):
            if words and (hits := await self._pages_with(words, k)):
                return hits
        return []

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        """Ask for images, at most `width` pixels wide; as for pages."""
        for words in (shortened(query, MAX_QUERY - len(_IMAGES)), any_word(query)):
            if words and (hits := await self._images_with(words, n)):
                return hits
        return []

    async def _pages_with(self, words: str, k: int) -> list[Hit]:
        number = str(max(1, min(k, MAX_RESULTS)))
        params = {"list": "search", "srsearch": words, "srlimit": number, "srprop": "snippet|timestamp", "srinfo": ""}
        data = await ask(self._client, self.url, params)
        hits = [
            Hit(
                title=text_at(row, "title"),
                url=page_url(self.url, str(row.get("title") or "")),
                snippet=text_at(row, "snippet"),
                date=text_at(row, "timestamp")[:10],
            )
            for row in rows_at(data, "query", "search")
        ]
        return [hit for hit in hits if hit.title][:k]

    async def _images_with(self, words: str, n: int) -> list[RawImageHit]:
        params = {
            "generator": "search",
            "gsrsearch": f"{_IMAGES}{words}",
            "gsrnamespace": "6",
            "gsrlimit": str(max(1, min(n, MAX_RESULTS))),
            "prop": "imageinfo",
            "iiprop": "url|size|mime",
            "iiurlwidth": str(self.width),
        }
        data = await ask(self._client, self._images_api, params)
        pages = sorted(rows_at(data, "query", "pages"), key=_rank)  # the order of `pages` says nothing
        hits = [
            RawImageHit(
                title=_caption(text_at(page, "title")),
                url=url_at(info, "thumburl") or url_at(info, "url"),
                page_url=url_at(info, "descriptionurl"),
                source="Wikimedia Commons",
            )
            for page in pages
            for info in rows_at(page, "imageinfo")[:1]
        ]
        return [hit for hit in hits if hit.url][:n]

    async def check_service(self) -> str:
        """Check that both wikis answer, with one free call to each.

        Returns:
            A warning in one line where no contact is given, or an empty text.

        Raises:
            AccountError: A wiki turns this client away.
            ServiceUnavailableError: It cannot be reached, or is busy.
        """
        for api in (self.url, self._images_api):
            await ask(self._client, api, {"meta": "siteinfo"})
        return "" if self._contact else f"Wikimedia asks for a contact: {_NO_CONTACT}"


class WikiPages(CachedReader):
    """Opens articles of a wiki as the text that its API gives, and other pages by fetching them.

    Args:
        client: Asks the wiki.
        api: URL of the wiki's API; articles of every Wikipedia are asked for at its own.
        others: Opens pages that are not articles, and articles without text. It is closed with this object.
    """

    version = "wiki-1"

    def __init__(self, client: SearchClient, api: str, others: PageOpener) -> None:
        super().__init__()
        self._client = client
        self._api = api
        self._others = others

    async def open(self, url: str) -> Page:
        """Return the page at a URL; errors as in `SearchBackend.open`."""
        api, title = self._article(url)
        if not title:
            return await self._others.open(url)
        page = await super().open(page_url(api, title))
        return page if page.text else await self._others.open(url)

    async def read(self, url: str) -> Page:
        """Return an article that is not cached; without text where the wiki has no extract of it.

        Raises:
            DataError: The wiki has no such article.
        """
        api, title = self._article(url)
        params = {"prop": "extracts|info", "explaintext": "1", "exsectionformat": "plain", "inprop": "url"}
        data = await ask(self._client, api, {"titles": title, "redirects": "1", **params})
        found = rows_at(data, "query", "pages")
        if not found or "missing" in found[0] or "invalid" in found[0]:
            raise DataError(f"the wiki has no page {title!r}", where=url, fix="open another page")
        extract = found[0].get("extract")
        lines = [line.strip() for line in (extract if isinstance(extract, str) else "").splitlines()]
        return Page(
            url=url_at(found[0], "fullurl") or page_url(api, text_at(found[0], "title")),
            title=text_at(found[0], "title"),
            text="\n\n".join(line for line in lines if line),
        )

    async def close(self) -> None:
        """Close the cache and the reader of other pages."""
        await super().close()
        await self._others.close()

    def _article(self, url: str) -> tuple[str, str]:
        """Return the API and the title of an article; an empty title for any other page."""
        try:
            parts = urlsplit(url.strip())
            own = urlsplit(self._api)
            host = (parts.hostname or "").replace(".m.wikipedia.org", ".wikipedia.org")
        except ValueError:
            return self._api, ""
        title = unquote(parts.path.removeprefix("/wiki/")).replace("_", " ").strip()
        if not parts.path.startswith("/wiki/") or parts.query or "|" in title:
            return self._api, ""
        if parts.netloc == own.netloc:
            return self._api, title
        if parts.scheme in {"http", "https"} and host.endswith(".wikipedia.org"):
            return f"https://{host}/w/api.php", title
        return self._api, ""


async def ask(client: SearchClient, api: str, params: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the response of a wiki to a query.

    Args:
        client: Asks the wiki.
        api: URL of the wiki's API.
        params: Parameters of `action=query`.
    """
    common = {"action": "query", "format": "json", "formatversion": "2", "maxlag": str(MAX_LAG)}
    return await client.send(SearchRequest(api, {**common, **params}), 0.0, error_inside=error_inside)


def error_inside(data: Mapping[str, Any], headers: Mapping[str, str]) -> ServiceError | None:
    """Return the error that a response of status 200 reports, None where it reports none."""
    error = data.get("error")
    if not isinstance(error, Mapping):
        return None
    code = str(error.get("code") or "")
    status = 503 if code.startswith(_BUSY) else 429 if code == "ratelimited" else 400
    return error_from(error, status, headers, "")


def user_agent(contact: str) -> str:
    """Return the user agent in the form that Wikimedia's policy asks for."""
    import aiohttp

    return f"knowgen/{__version__} ({contact or 'no contact given'}) aiohttp/{aiohttp.__version__}"


def any_word(query: str) -> str:
    """Return a query for pages with any of the words of another one; empty where that says no more.

    Example:
        >>> any_word("What is the home kit of Harrow Union?")
        'home OR kit OR Harrow OR Union'
        >>> any_word("Harrow")
        ''
    """
    words = [word for word in _WORD.findall(query) if word.casefold() not in _EMPTY_WORDS]
    return "" if len(words) < 2 else shortened(" OR ".join(words), MAX_QUERY - len(_IMAGES)).removesuffix(" OR")


def page_url(api: str, title: str) -> str:
    """Return the URL of a page of a wiki.

    Example:
        >>> page_url("https://en.wikipedia.org/w/api.php", "AC/DC (band)")
        'https://en.wikipedia.org/wiki/AC/DC_(band)'
    """
    parts = urlsplit(api)
    path = quote(title.replace(" ", "_"), safe="/:()',;!*@~")
    return f"{parts.scheme}://{parts.netloc}/wiki/{path}"


def _caption(title: str) -> str:
    """Return the name of a file without its namespace and extension."""
    return _EXTENSION.sub("", title.partition(":")[2] or title).replace("_", " ").strip()


def _rank(page: Mapping[str, Any]) -> int:
    index = page.get("index")
    return index if isinstance(index, int) else MAX_RESULTS
