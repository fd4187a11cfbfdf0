"""Backends over search services: what they send, and what they make of the published responses, field by field."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from knowgen.core.errors import UsageError
from knowgen.search.contract import Hit
from knowgen.search.services.base import ServiceSearch
from knowgen.search.services.brave import Brave
from knowgen.search.services.searxng import Searxng
from knowgen.search.services.serper import Serper
from knowgen.search.services.tavily import Tavily
from knowgen.search.web.images import RawImageHit
from tests.helpers import search_forms as forms
from tests.helpers.search_services import (
    KEY,
    BraveServer,
    JinaServer,
    SearchServer,
    SearxngServer,
    SerperServer,
    TavilyServer,
)

PAGE = Hit(title="Harrow Union", url="https://example.org/harrow", snippet="The club plays in green.")
IMAGE = RawImageHit(
    title="The kit of Harrow Union",
    url="https://img.example.org/kit.jpg",
    page_url="https://example.org/harrow/kit",
    thumbnail_url="https://thumbs.example.org/kit.jpg",
    source="Example Sports",
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.setenv(name, KEY)


def serper(server: SearchServer, **arguments: Any) -> Serper:
    return Serper(base_url=server.address, key_env="SERPER_API_KEY", **arguments)


def tavily(server: SearchServer, **arguments: Any) -> Tavily:
    return Tavily(base_url=server.address, key_env="TAVILY_API_KEY", **arguments)


def brave(server: SearchServer, **arguments: Any) -> Brave:
    return Brave(base_url=server.address, key_env="BRAVE_SEARCH_API_KEY", **arguments)


def searxng(server: SearchServer, **arguments: Any) -> Searxng:
    return Searxng(server.address, **arguments)


Make = Callable[..., ServiceSearch]
KEYED: list[tuple[type[SearchServer], Make]] = [
    (SerperServer, serper),
    (TavilyServer, tavily),
    (BraveServer, brave),
]
ALL: list[tuple[type[SearchServer], Make]] = [*KEYED, (SearxngServer, searxng)]


def pages(backend: ServiceSearch, query: str = "harrow union", k: int = 5) -> list[Hit]:
    async def ask() -> list[Hit]:
        try:
            return await backend.find_pages(query, k)
        finally:
            await backend.close()

    return asyncio.run(ask())


def images(backend: ServiceSearch, query: str = "harrow union", n: int = 5) -> list[RawImageHit]:
    async def ask() -> list[RawImageHit]:
        try:
            return await backend.find_images(query, n)
        finally:
            await backend.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("server", "make", "form", "date"),
    [
        (SerperServer, serper, forms.SERPER_PAGES, "Mar 3, 2026"),
        (TavilyServer, tavily, forms.TAVILY, ""),
        (BraveServer, brave, forms.BRAVE_PAGES, "2026-03-03"),
        (SearxngServer, searxng, forms.SEARXNG_PAGES, "2026-03-03"),
    ],
)
def test_every_field_of_a_page_is_read_from_the_published_form(
    server: type[SearchServer], make: Make, form: Mapping[str, Any], date: str
) -> None:
    with server() as service:
        service.next(form)
        assert pages(make(service), k=1) == [PAGE.model_copy(update={"date": date})]


@pytest.mark.parametrize(
    ("server", "make", "form", "image"),
    [
        (SerperServer, serper, forms.SERPER_IMAGES, IMAGE),
        (
            TavilyServer,
            tavily,
            forms.TAVILY,
            RawImageHit(title="A green kit.", url="https://img.example.org/kit.jpg"),
        ),
        (
            BraveServer,
            brave,
            forms.BRAVE_IMAGES,
            IMAGE.model_copy(update={"thumbnail_url": "https://imgs.search.brave.com/kit", "source": "example.org"}),
        ),
        (SearxngServer, searxng, forms.SEARXNG_IMAGES, IMAGE),
    ],
)
def test_every_field_of_an_image_is_read_from_the_published_form(
    server: type[SearchServer], make: Make, form: Mapping[str, Any], image: RawImageHit
) -> None:
    with server() as service:
        service.next(form)
        assert images(make(service), n=1) == [image]


def shape(value: Any) -> Any:
    """Return the names and types inside a response, of lists those of the first entry."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.mark.parametrize(
    ("server", "make", "kind", "form"),
    [
        (SerperServer, serper, pages, forms.SERPER_PAGES),
        (SerperServer, serper, images, forms.SERPER_IMAGES),
        (TavilyServer, tavily, images, forms.TAVILY),
        (BraveServer, brave, pages, forms.BRAVE_PAGES),
        (BraveServer, brave, images, forms.BRAVE_IMAGES),
        (SearxngServer, searxng, pages, forms.SEARXNG_PAGES),
        (SearxngServer, searxng, images, forms.SEARXNG_IMAGES),
    ],
)
def test_the_servers_of_these_tests_send_every_published_field(
    server: type[SearchServer], make: Make, kind: Callable[..., Any], form: Mapping[str, Any]
) -> None:
    with server() as service:
        assert kind(make(service))
        call = service.calls[0]
        assert shape(service.answer(call).body) == shape(form)


@pytest.mark.parametrize(("server", "make"), ALL)
def test_as_many_results_are_returned_as_are_asked_for(server: type[SearchServer], make: Make) -> None:
    with server() as service:
        found = pages(make(service), k=7)
    assert len(found) == 7 and len({hit.url for hit in found}) == 7


@pytest.mark.parametrize(
    ("make", "server", "expected"),
    [
        (
            serper,
            SerperServer,
            [("POST", "/search", {}, {"q": 'the "green" kit', "num": 5, "gl": "gb", "hl": "en"})],
        ),
        (
            tavily,
            TavilyServer,
            [
                (
                    "POST",
                    "/search",
                    {},
                    {"query": 'the "green" kit', "max_results": 5, "search_depth": "basic", "include_usage": True},
                )
            ],
        ),
        (
            brave,
            BraveServer,
            [
                (
                    "GET",
                    "/res/v1/web/search",
                    {
                        "q": 'the "green" kit',
                        "count": "5",
                        "result_filter": "web",
                        "text_decorations": "false",
                        "country": "gb",
                        "search_lang": "en",
                    },
                    {},
                )
            ],
        ),
        (
            searxng,
            SearxngServer,
            [
                (
                    "GET",
                    "/search",
                    {
                        "q": 'the "green" kit',
                        "format": "json",
                        "categories": "general",
                        "pageno": str(page),
                        "language": "en",
                    },
                    {},
                )
                for page in (1, 2)
            ],
        ),
    ],
)
def test_a_request_has_the_published_fields(make: Make, server: type[SearchServer], expected: list[Any]) -> None:
    arguments = {} if make is tavily else {"language": "en"} | ({} if make is searxng else {"country": "gb"})
    with server() as service:
        pages(make(service, **arguments), 'the "green" kit')
        assert [(call.method, call.path, call.params, call.body) for call in service.calls] == expected


def test_long_queries_are_cut_at_a_word_to_what_a_service_takes() -> None:
    query = "a long query about the kit of a club " * 20
    with BraveServer() as service:
        assert pages(brave(service), query)
        sent = service.calls[0].params["q"]
    assert len(sent) <= 400 and len(sent.split()) == 50 and query.startswith(sent)
    with TavilyServer() as service:
        assert pages(tavily(service), query)
        sent = service.calls[0].body["query"]
    assert 390 < len(sent) <= 400 and query.startswith(f"{sent} ")


@pytest.mark.parametrize(
    ("server", "make", "form", "row"),
    [
        (SerperServer, serper, forms.SERPER_PAGES, "organic"),
        (TavilyServer, tavily, forms.TAVILY, "results"),
        (SearxngServer, searxng, forms.SEARXNG_PAGES, "results"),
    ],
)
def test_rows_of_another_kind_are_left_out(
    server: type[SearchServer], make: Make, form: Mapping[str, Any], row: str
) -> None:
    data = copy.deepcopy(dict(form))
    link = "link" if row == "organic" else "url"
    broken = [{**form[row][0], link: value} for value in (None, 7, "javascript:alert(1)", "data:text/html,x", "")]
    data[row] = ["text", None, *broken, {**form[row][0], "title": None, "snippet": 3, "content": 3}]
    with server() as service:
        service.next(data)
        assert pages(make(service), k=1) == [Hit(title="", url=PAGE.url, date=pages_date(make))]


def pages_date(make: Make) -> str:
    return {serper: "Mar 3, 2026", tavily: "", searxng: "2026-03-03"}[make]


@pytest.mark.parametrize(
    ("server", "make", "form"),
    [
        (SerperServer, serper, {**forms.SERPER_PAGES, "organic": []}),
        (TavilyServer, tavily, {**forms.TAVILY, "results": []}),
        (BraveServer, brave, {key: value for key, value in forms.BRAVE_PAGES.items() if key != "web"}),
        (SearxngServer, searxng, {**forms.SEARXNG_PAGES, "results": []}),
    ],
)
def test_nothing_found_is_an_empty_list(server: type[SearchServer], make: Make, form: Mapping[str, Any]) -> None:
    with server() as service:
        service.next(form)
        assert pages(make(service)) == []


def test_searxng_stops_where_the_server_has_no_more_results() -> None:
    with SearxngServer(per_page=4, pages=2) as service:
        assert len(pages(searxng(service), k=50)) == 8
        assert [call.params["pageno"] for call in service.calls] == ["1", "2", "3"]


def test_images_of_a_searxng_server_on_this_machine_are_downloaded() -> None:
    async def ask(service: SearchServer) -> list[Any]:
        backend = searxng(service)
        try:
            return await backend.image_search("harrow union", 2)
        finally:
            await backend.close()

    with SearxngServer() as service:
        form = copy.deepcopy(forms.SEARXNG_IMAGES)
        form["results"] = [
            {**form["results"][0], "title": f"Kit {number}", "img_src": f"{service.address}/kit{number}.jpg"}
            for number in range(12)
        ]
        service.next(form)
        hits = asyncio.run(ask(service))
    assert hits[0].title == "Kit 0" and hits[0].image is not None and hits[0].image.width == 640


def test_a_query_is_asked_once_a_day() -> None:
    async def ask(service: SearchServer) -> list[list[Hit]]:
        backend = serper(service)
        found = [await backend.search("harrow union", 5) for _ in range(3)]
        await backend.close()
        other = serper(service, language="de")
        found.append(await other.search("harrow union", 5))
        await other.close()
        return found

    with SerperServer() as service:
        found = asyncio.run(ask(service))
        assert len(service.calls) == 2  # another language is another question
    assert found[0] == found[1] == found[2] and len(found[0]) == 5


def test_jina_opens_the_pages_of_any_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(service: SearchServer) -> Any:
        backend = serper(service, pages="jina")
        try:
            return await backend.open("https://example.org/harrow")
        finally:
            await backend.close()

    with SerperServer() as service, JinaServer() as reader:
        monkeypatch.setattr("knowgen.search.services.jina.URL", reader.address)
        page = asyncio.run(ask(service))
    assert page.title == "Harrow Union" and "The club plays in green." in page.text
    assert [(link.text, link.url) for link in page.links] == [("The kit", "https://example.org/harrow/kit")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Serper(pages="curl"), "search backend serper: pages='curl' is unknown; write fetch or jina"),
        (lambda: Serper(timeout=0), "search backend serper: timeout must be a number > 0, got 0; give seconds"),
        (
            lambda: Brave(country=False),  # type: ignore[arg-type]
            "search backend brave: country must be text, got False; put it in quotes: country='…'",
        ),
        (lambda: Brave(concurrency=0), "search backend brave: concurrency must be an integer >= 1, got 0"),
        (lambda: Brave(price=-1.0), "price must be a number >= 0, got -1.0; give US dollars per query"),
        (lambda: Tavily(depth="deep"), "search backend tavily: depth='deep' is unknown; write basic or advanced"),
        (lambda: Searxng(), "search backend searxng: no URL is given; write searxng:http://127.0.0.1:8888"),
        (
            lambda: Searxng("127.0.0.1:8888"),
            "search backend searxng: '127.0.0.1:8888' is not an http address; write searxng:http://127.0.0.1:8888",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        make()
    assert str(raised.value) == message
