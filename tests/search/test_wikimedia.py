"""The backend `wikimedia`: articles of Wikipedia and images of Commons, without a key."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from knowgen.core.errors import DataError, UsageError
from knowgen.core.leaks import current_leak_guard
from knowgen.core.version import __version__
from knowgen.search.contract import BlockReason, Hit, PageBlockedError
from knowgen.search.services.wikimedia import Wikimedia, any_word, page_url
from knowgen.search.web.images import RawImageHit
from tests.helpers import search_forms as forms
from tests.helpers.search_services import WikimediaServer

ARTICLES = {
    "Harrow Union": "Harrow Union is a club.\nIt plays in green.\n\n\nHistory\nFounded in 1931.",
    "Ost (planet)": "The planet Ost has one wide ring.",
    "Category of clubs": "",
}


@pytest.fixture(autouse=True)
def no_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNOWGEN_CONTACT", raising=False)


def backend_of(server: WikimediaServer, **arguments: Any) -> Wikimedia:
    return Wikimedia(base_url=server.api, images_url=server.api, **{"contact": "me@example.org", **arguments})


def run(backend: Wikimedia, call: Callable[[], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        try:
            return await call()
        finally:
            await backend.close()

    return asyncio.run(ask())


def test_every_field_of_a_page_is_read_from_the_published_form() -> None:
    with WikimediaServer() as server:
        backend = backend_of(server)
        server.next(forms.WIKI_SEARCH)
        assert run(backend, lambda: backend.find_pages("harrow union", 5)) == [
            Hit(
                title="Harrow Union",
                url=f"{server.address}/wiki/Harrow_Union",
                snippet="Harrow Union plays in green & white",
                date="2026-03-03",
            )
        ]
        assert server.calls[0].params == {
            "action": "query",
            "format": "json",
            "formatversion": "2",
            "maxlag": "5",
            "list": "search",
            "srsearch": "harrow union",
            "srlimit": "5",
            "srprop": "snippet|timestamp",
        }


def test_every_field_of_an_image_is_read_from_the_published_form() -> None:
    with WikimediaServer() as server:
        backend = backend_of(server, width=330)
        server.next(forms.WIKI_IMAGES)
        assert run(backend, lambda: backend.find_images("harrow kit", 10)) == [
            RawImageHit(
                title="Harrow Union kit 2026",
                url="https://upload.wikimedia.org/thumb/harrow.jpg/960px-harrow.jpg",
                page_url="https://commons.wikimedia.org/wiki/File:Harrow_Union_kit_2026.jpg",
                source="Wikimedia Commons",
            )
        ]
        params = server.calls[0].params
        assert params["gsrsearch"] == "filetype:bitmap|drawing harrow kit" and params["iiurlwidth"] == "330"


def test_images_keep_the_rank_of_the_search_and_are_downloaded_as_thumbnails() -> None:
    names = tuple(f"Harrow kit {number}.jpg" for number in ("first", "second", "third"))
    with WikimediaServer(files=names) as server:
        backend = backend_of(server)
        hits = run(backend, lambda: backend.image_search("harrow kit", 3))
        fetched = [call for call in server.calls if call.path.endswith(".jpg")]
    assert [hit.title for hit in hits] == ["Harrow kit first", "Harrow kit second", "Harrow kit third"]
    assert all(hit.image is not None and hit.image.width <= 960 for hit in hits)
    assert len(fetched) == 3 and all("960px-" in call.path for call in fetched)
    assert all(call.headers["user-agent"].startswith("knowgen/") for call in fetched)


def test_pages_and_images_with_some_of_the_words_are_found_where_none_has_all() -> None:
    query = "What is the home kit of Harrow Union in 2026?"
    with WikimediaServer(ARTICLES, ("Harrow Union shirt.jpg",)) as server:
        backend = backend_of(server)

        async def ask() -> list[list[Any]]:
            return [await backend.find_pages(query, 5), await backend.find_images(query, 5)]

        pages, images = run(backend, ask)
        asked = [call.params.get("srsearch") or call.params["gsrsearch"] for call in server.calls]
    assert [hit.title for hit in pages] == ["Harrow Union"] and [hit.title for hit in images] == ["Harrow Union shirt"]
    loose = "home OR kit OR Harrow OR Union OR 2026"
    assert asked == [query, loose, f"filetype:bitmap|drawing {query}", f"filetype:bitmap|drawing {loose}"]


def test_the_longest_queries_stay_within_what_the_wiki_takes() -> None:
    query = "a very long question about the colours of the shirt " * 9
    assert len(any_word(query)) <= 300 and not any_word(query).endswith("OR")
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server)
        run(backend, lambda: backend.find_images(query, 5))
        assert all(len(call.params["gsrsearch"]) <= 300 for call in server.calls) and len(server.calls) == 2


def test_text_that_cannot_be_encoded_is_replaced() -> None:
    with WikimediaServer(ARTICLES) as server:
        form = copy.deepcopy(forms.WIKI_SEARCH)
        form["query"]["search"][0]["title"] = "Harrow \ud83d Union"
        server.next(form)
        backend = backend_of(server)
        hits = run(backend, lambda: backend.search("harrow", 1))
        assert hits[0].title == "Harrow \ufffd Union" and hits[0].url.endswith("/wiki/Harrow_%EF%BF%BD_Union")


def test_nothing_found_is_an_empty_list() -> None:
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server)

        async def ask() -> list[list[Any]]:
            return [await backend.find_pages("zebra", 5), await backend.find_images("zebra", 5)]

        assert run(backend, ask) == [[], []]


@pytest.mark.parametrize(
    ("contact", "variable", "agent"),
    [
        ("me@example.org", "", "me@example.org"),
        ("", "https://example.org/me", "https://example.org/me"),
        ("", "", "no contact given"),
    ],
)
def test_every_request_names_the_client_and_a_contact(
    contact: str, variable: str, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWGEN_CONTACT", variable)
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server, contact=contact, text="page", rpm=0)

        async def ask() -> str:
            await backend.image_search("harrow", 1)
            await backend.open(f"{server.address}/wiki/Harrow_Union")
            return await backend.check_service()

        warning = run(backend, ask)
        agents = {call.headers["user-agent"] for call in server.calls}
    assert agents == {f"knowgen/{__version__} ({agent}) aiohttp/{aiohttp.__version__}"}
    assert ("search.contact=you@example.org" in warning) is (not contact and not variable)


def test_a_client_without_a_contact_asks_as_rarely_as_wikimedia_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Wikimedia().rpm == 10 and Wikimedia(contact="me@example.org").rpm == 200 and Wikimedia(rpm=30).rpm == 30
    monkeypatch.setenv("KNOWGEN_CONTACT", "me@example.org")
    assert Wikimedia().rpm == 200


def test_an_article_is_the_text_of_the_api_in_paragraphs() -> None:
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server)

        async def ask() -> list[Any]:
            url = f"{server.address}/wiki/Harrow_Union#History"
            return [await backend.open(url), await backend.open(f"{server.address}/wiki/Ost_%28planet%29")]

        article, planet = run(backend, ask)
        titles = [call.params.get("titles") for call in server.calls]
    assert article.text == "Harrow Union is a club.\n\nIt plays in green.\n\nHistory\n\nFounded in 1931."
    assert article.url == f"{server.address}/wiki/Harrow_Union" and article.title == "Harrow Union"
    assert planet.text == "The planet Ost has one wide ring."
    assert titles == ["Harrow Union", "Ost (planet)"]


def test_an_article_is_asked_for_once_a_day() -> None:
    with WikimediaServer(ARTICLES) as server:
        for _ in range(2):
            backend = backend_of(server)
            run(backend, lambda backend=backend: backend.open(f"{server.address}/wiki/Harrow_Union"))  # type: ignore[misc]
        assert len(server.calls) == 1


def test_a_page_that_does_not_exist_is_an_error_of_the_page() -> None:
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server)
        with pytest.raises(DataError, match="the wiki has no page 'Nowhere'; open another page"):
            run(backend, lambda: backend.open(f"{server.address}/wiki/Nowhere"))


@pytest.mark.parametrize(
    ("title", "arguments"), [("Harrow_Union", {"text": "page"}), ("Category_of_clubs", {"text": "extract"})]
)
def test_a_page_is_fetched_if_it_is_asked_for_or_has_no_extract(title: str, arguments: dict[str, Any]) -> None:
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server, **arguments)
        page = run(backend, lambda: backend.open(f"{server.address}/wiki/{title}"))
    assert "fetched as a page of the web, with its table" in page.text


def test_articles_of_other_wikipedias_are_asked_for_at_their_own_api() -> None:
    backend = Wikimedia(language="de", contact="me@example.org")
    article = backend._pages._article  # type: ignore[attr-defined]
    assert backend.url == "https://de.wikipedia.org/w/api.php"
    assert article("https://de.wikipedia.org/wiki/K%C3%B6ln") == (backend.url, "Köln")
    assert article("https://en.m.wikipedia.org/wiki/AC/DC") == ("https://en.wikipedia.org/w/api.php", "AC/DC")
    for url in ("https://example.org/wiki/Cologne", "https://en.wikipedia.org/w/index.php?title=A", "x://[", ""):
        assert article(url) == (backend.url, "")


def test_a_title_is_an_address_and_back() -> None:
    api = "https://en.wikipedia.org/w/api.php"
    backend = Wikimedia(contact="me@example.org")
    for title in ("AC/DC", "Café 100% (film)", "What is this?", "C++", "100 %", "Tōkyō", 'The "Who"'):
        url = page_url(api, title)
        assert " " not in url and "?" not in url
        assert backend._pages._article(url) == (api, title)  # type: ignore[attr-defined]


class Guard:
    """Blocks one address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def blocked_url(self, url: str) -> str:
        return "the benchmark's own data" if url == self.url else ""

    def blocked_image(self, image: Any) -> str:
        return ""


def test_an_article_that_the_guard_blocks_is_not_opened_even_by_a_redirect() -> None:
    with WikimediaServer(ARTICLES) as server:
        backend = backend_of(server)

        async def ask(url: str) -> Any:
            current_leak_guard.set(Guard(f"{server.address}/wiki/Harrow_Union"))
            return await backend.open(url)

        redirected = copy.deepcopy(forms.WIKI_EXTRACT)
        redirected["query"]["pages"][0]["fullurl"] = f"{server.address}/wiki/Harrow_Union"
        server.next(redirected)
        for title in ("The_Harrow", "Harrow_Union"):
            with pytest.raises(PageBlockedError) as raised:
                run(backend, lambda title=title: ask(f"{server.address}/wiki/{title}"))  # type: ignore[misc]
            assert raised.value.reason is BlockReason.LEAK
        assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "en.evil.org/"}, "language='en.evil.org/' is not a language code; write `en`"),
        ({"language": False}, "language must be text, got False; put it in quotes: language='…'"),
        ({"width": 640}, "width=640 is not a width of thumbnails; write 120, 250, 330, 500, 960, 1280, 1920, 3840"),
        ({"text": "html"}, "text='html' is unknown; write extract or page"),
        ({"contact": "Me (at) home"}, "the contact is neither a mail nor a web address; give an address where"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Wikimedia(**arguments)
    assert str(raised.value).startswith(f"search backend wikimedia: {message}")
