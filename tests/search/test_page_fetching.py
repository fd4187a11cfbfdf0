"""Pages are fetched by the rules of their sites, read as text with links, and cached for a day."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, TypeVar

import pytest

from knowgen.clients.safe_fetch import FetchResult
from knowgen.core.cache import Cache
from knowgen.core.errors import DataError, KnowgenError, TransientError
from knowgen.core.leaks import current_leak_guard
from knowgen.search.contract import BlockReason, Link, Page, PageBlockedError
from knowgen.search.web import pages
from knowgen.search.web.html_text import read_page
from knowgen.search.web.pages import PageFetcher
from knowgen.search.web.reading import PageReading
from knowgen.search.web.robots import MAX_DELAY, Robots
from tests.helpers.fake_web import FakeWeb, in_turn, redirects, sends

T = TypeVar("T")

ARTICLE = b"""<!doctype html><html><head><title>The  Serene &amp; others</title><base href="/boats/"></head><body>
<nav><a href="/home">Home</a><a href="/about">About us</a></nav><article><h1>The Serene</h1>
<p>The boat <a href="one.html">Serene</a> was built in 1911 by the yard of Harrow and sailed for many years along the
coast, carrying coal and timber between the ports of the north.</p>
<p>It has a blue hull, white rails and a red stripe; see <a href="http://other.example/x?a=1">the drawing</a>.</p>
<ul><li>Length 12 m</li><li>Beam 3 m</li></ul></article><footer>Imprint</footer></body></html>"""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    web = FakeWeb({"http://site.example/a": sends(ARTICLE)})
    with web.server:
        web.use(monkeypatch)
        yield web


class SharedReading(PageReading):
    """Worker processes that all tests share."""

    async def close(self) -> None:
        """Keep the processes."""


READING = SharedReading(1)


@pytest.fixture(scope="module", autouse=True)
def reading() -> Iterator[None]:
    yield
    asyncio.run(PageReading.close(READING))


def run(
    web: FakeWeb, main: Callable[[PageFetcher], Awaitable[T]], table: dict[str, list[str]] | None = None, **options: Any
) -> T:
    """Run a coroutine function with a page fetcher, and close it."""

    async def closing() -> T:
        fetcher = web.fetcher(table)
        reader = PageFetcher(fetcher, reading=READING, **options)
        try:
            return await main(reader)
        finally:
            await reader.close()
            await fetcher.close()

    return asyncio.run(closing())


def opened(web: FakeWeb, url: str, table: dict[str, list[str]] | None = None, **options: Any) -> Page:
    return run(web, lambda reader: reader.open(url), table, **options)


def test_a_page_is_its_text_and_its_links(web: FakeWeb) -> None:
    page = opened(web, "http://site.example/a#part")
    assert page.title == "The Serene & others"
    first, *others = page.text.split("\n\n")
    assert first == "The Serene" and others[-1] == "- Length 12 m\n- Beam 3 m"
    assert "The boat Serene was built in 1911" in page.text and "Imprint" not in page.text and "Home" not in page.text
    assert page.links == (
        Link(text="Serene", url="http://site.example/boats/one.html"),
        Link(text="the drawing", url="http://other.example/x?a=1"),
    )


def test_a_page_of_links_alone_keeps_them() -> None:
    page = read_page(
        b"<ul><li><a href='/x'>one</a></li><li><a href='/y'>two</a></li></ul>", "text/html", "", "http://s/"
    )
    assert [link.url for link in page.links] == ["http://s/x", "http://s/y"]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a &#1; b &#x8; c &#xd800; d &eacute; &#233;</p>", "a b c d é é"),
        ("<a title='&#1;' href='/&#2;x'>a link</a>", "a link"),
        ("<p>a \x01 b \x00 c</p>", "a b c"),
        ("<a href='/one'>one page</a>", "one page"),
    ],
)
def test_characters_that_xml_does_not_allow_are_left_out(html: str, text: str) -> None:
    page = read_page(f"<html><body>{html}</body></html>".encode(), "text/html", "", "http://s.example/a")
    assert " ".join(page.text.split()) == text


@pytest.mark.parametrize("base", ["http://[::1", "::", "", "http://other.example/b/"])
def test_broken_addresses_on_a_page_do_no_harm(base: str) -> None:
    html = (
        f"<html><head><base href='{base}'></head><body><p>Some <a href='http://[::1'>broken</a> and <a href='/x'>good"
    )
    page = read_page(f"{html}</a> words.</p></body></html>".encode(), "text/html", "", "http://s.example/a")
    host = "other.example" if "other" in base else "s.example"
    if base != "::":  # which is a relative path
        assert page.links == (Link(text="good", url=f"http://{host}/x"),)
    assert page.text == "Some broken and good words."


def test_a_page_is_fetched_once_a_day(web: FakeWeb) -> None:
    day = [86400.0 * 20000]

    async def many(reader: PageFetcher) -> list[Page]:
        return list(await asyncio.gather(*(reader.open("http://site.example/a") for _ in range(4))))

    async def days(reader: PageFetcher) -> None:
        assert len({page.text for page in await many(reader)}) == 1
        day[0] += 86399
        await reader.open("http://site.example/a")
        assert web.seen == ["http://site.example/robots.txt", "http://site.example/a"]
        day[0] += 1
        await reader.open("http://site.example/a")
        assert len(web.seen) == 4

    run(web, days, clock=lambda: day[0])


def test_a_page_that_robots_txt_excludes_is_not_requested(web: FakeWeb) -> None:
    rules = b"\xef\xbb\xbfUser-agent: *\nDisallow: /private\n\nUser-agent: knowgen\nDisallow: /a\nAllow: /a/open\n"
    web.answers["http://site.example/robots.txt"] = sends(rules, content_type="text/plain")
    web.answers["http://site.example/a/open"] = sends(ARTICLE)
    web.answers["http://site.example/private"] = sends(ARTICLE)

    async def three(reader: PageFetcher) -> None:
        with pytest.raises(PageBlockedError) as caught:
            await reader.open("http://site.example/a")
        assert caught.value.reason is BlockReason.ROBOTS and caught.value.where == "http://site.example/a"
        await reader.open("http://site.example/a/open")
        await reader.open("http://site.example/private")

    run(web, three)
    assert web.seen == [f"http://site.example/{name}" for name in ("robots.txt", "a/open", "private")]


def test_a_site_says_how_far_apart_requests_start_up_to_a_bound(web: FakeWeb) -> None:
    web.answers["http://site.example/robots.txt"] = sends(b"User-agent: *\nCrawl-delay: 2.5\n")
    web.answers["http://slow.example/robots.txt"] = sends(b"User-agent: *\nCrawl-delay: 86400\n")

    async def delays() -> list[float]:
        fetcher = web.fetcher()
        robots = Robots(fetcher, Cache("web"))
        got = [await robots.check(f"http://{host}.example/a") for host in ("site", "slow", "free")]
        await fetcher.close()
        return got

    assert asyncio.run(delays()) == [2.5, MAX_DELAY, 0.0]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_site_whose_robots_txt_is_refused_excludes_nothing(web: FakeWeb, status: int) -> None:
    web.answers["http://site.example/robots.txt"] = sends(b"User-agent: *\nDisallow: /", status)
    assert opened(web, "http://site.example/a").title


def test_pages_of_a_site_whose_robots_txt_fails_cannot_be_fetched_now(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ATTEMPTS", 1)
    web.answers["http://site.example/robots.txt"] = in_turn(sends(b"", 503), sends(b"User-agent: *\nAllow: /"))

    async def twice(reader: PageFetcher) -> Page:
        with pytest.raises(TransientError, match=r"the robots\.txt of site\.example cannot be read now"):
            await reader.open("http://site.example/a")
        assert web.seen == ["http://site.example/robots.txt"]
        return await reader.open("http://site.example/a")

    assert run(web, twice).title


def test_redirects_are_asked_of_the_site_that_they_lead_to(web: FakeWeb) -> None:
    web.answers["http://site.example/moved"] = redirects("http://other.example/there")
    web.answers["http://other.example/there"] = sends(ARTICLE)
    assert opened(web, "http://site.example/moved").url == "http://other.example/there"
    web.answers["http://strict.example/robots.txt"] = sends(b"User-agent: *\nDisallow: /")
    web.answers["http://site.example/strict"] = redirects("http://strict.example/there")
    with pytest.raises(PageBlockedError, match=r"robots\.txt"):
        opened(web, "http://site.example/strict")
    assert "http://strict.example/there" not in web.seen


class Guard:
    """A leak guard that blocks what contains a word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def blocked_url(self, url: str) -> str:
        return "it is the benchmark's own data" if self.word in url else ""

    def blocked_image(self, image: object) -> str:
        return ""


def test_a_page_that_the_leak_guard_blocks_is_not_requested_nor_taken_from_the_cache(web: FakeWeb) -> None:
    web.answers["http://site.example/moved"] = redirects("http://answers.example/truth")
    web.answers["http://answers.example/truth"] = sends(ARTICLE)
    assert opened(web, "http://site.example/moved").title
    before = len(web.seen)
    token = current_leak_guard.set(Guard("answers.example"))
    try:
        for url in ("http://answers.example/truth", "http://site.example/moved", "http://answers.example/new"):
            with pytest.raises(PageBlockedError) as caught:
                opened(web, url)
            assert caught.value.reason is BlockReason.LEAK
        web.answers["http://site.example/again"] = redirects("http://answers.example/truth")
        with pytest.raises(PageBlockedError):
            opened(web, "http://site.example/again")
    finally:
        current_leak_guard.reset(token)
    assert web.seen[before:] == ["http://site.example/again"]


INSIDE = [
    "http://127.0.0.1/", "http://10.1.2.3/", "http://169.254.169.254/latest/meta-data", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://127.1/",
    "http://localhost/", "http://inside.example/", "file:///etc/passwd", "ftp://site.example/a", "not an address",
    "http://user:word@site.example/a",
]  # fmt: skip


@pytest.mark.parametrize("url", INSIDE)
def test_addresses_outside_the_public_internet_are_blocked_in_any_notation_and_after_redirects(
    web: FakeWeb, url: str
) -> None:
    table = {"inside.example": ["10.0.0.1"]}
    web.answers["http://site.example/out"] = redirects(url)
    for start in (url, "http://site.example/out") if "://" in url else (url,):
        with pytest.raises(PageBlockedError) as caught:
            opened(web, start, table)
        assert caught.value.reason is BlockReason.ADDRESS
    assert {seen.split("/")[2] for seen in web.seen} <= {"site.example"}


def test_an_answer_of_dns_that_changes_between_check_and_use_is_checked_where_it_is_used(web: FakeWeb) -> None:
    table = {"turning.example": ["93.184.216.34", "127.0.0.1"]}
    web.answers["http://turning.example/a"] = sends(ARTICLE)
    with pytest.raises(PageBlockedError, match="127.0.0.1"):
        opened(web, "http://turning.example/a", table)  # robots.txt takes the first answer
    assert web.seen == ["http://turning.example/robots.txt"]


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Send 10 GB."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    sent = 0
    while sent < 10 << 30:
        handler.wfile.write(b"<p>endless</p>" * 5000)
        sent += 70_000
    raise AssertionError("all of it was read")


def test_a_body_of_ten_gigabytes_is_not_read(web: FakeWeb) -> None:
    web.answers["http://site.example/endless"] = endless
    with pytest.raises(DataError, match="longer than 8 MiB"):
        opened(web, "http://site.example/endless")
    web.answers["http://site.example/named"] = sends(b"x", Content_Length=str(10 << 30))
    with pytest.raises(DataError, match="at most"):
        opened(web, "http://site.example/named")


def test_a_decompression_bomb_stays_small(web: FakeWeb) -> None:
    bomb = gzip.compress(b"<p>bomb</p>" * ((64 << 20) // 11))
    assert len(bomb) < 1 << 20
    web.answers["http://site.example/bomb"] = sends(bomb, Content_Encoding="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than 8 MiB"):
            opened(web, "http://site.example/bomb")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20, "the most memory at any time"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "content_type", "match"),
    [
        (b"%PDF-1.7 " + b"x" * 100, "application/pdf", "the page is application/pdf"),
        (b"\0\1\2", "application/octet-stream", "only HTML and text are read"),
        (b"<html><body><script>draw()</script></body></html>", "text/html", "the page has no text"),
        (b"", "text/html", "the page has no text"),
    ],
)
def test_a_document_without_text_is_named(web: FakeWeb, body: bytes, content_type: str, match: str) -> None:
    web.answers["http://site.example/other"] = sends(body, content_type=content_type)
    with pytest.raises(DataError, match=match):
        opened(web, "http://site.example/other")


def test_a_page_that_does_not_exist_is_a_data_error(web: FakeWeb) -> None:
    with pytest.raises(DataError, match="404") as caught:
        opened(web, "http://site.example/missing")
    assert caught.value.where == "http://site.example/missing"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("café – naïve".encode("cp1252"), "text/plain; charset=iso-8859-1", "café – naïve"),
        ("<meta charset='windows-1251'><p>Привет, мир".encode("cp1251"), "text/html", "Привет, мир"),
        ("<p>日本語の文章です</p>".encode("shift_jis"), "text/html; charset=Shift_JIS", "日本語の文章です"),
        ("\ufeff<p>déjà vu</p>".encode("utf-16"), "text/html; charset=utf-8", "déjà vu"),
        ("<p>größer</p>".encode(), "text/html; charset=no-such-set", "größer"),
        ("<p>größer</p>".encode(), "text/html; charset=base64", "größer"),
    ],
)
def test_the_character_set_is_the_servers_or_the_documents(
    web: FakeWeb, body: bytes, content_type: str, expected: str
) -> None:
    web.answers["http://site.example/words"] = sends(body, content_type=content_type)
    assert opened(web, "http://site.example/words").text == expected


def test_a_page_that_fails_once_is_fetched_again(web: FakeWeb) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    web.answers["http://site.example/shaky"] = in_turn(sends(b"", 503, Retry_After="2"), sends(ARTICLE))
    assert opened(web, "http://site.example/shaky", sleep=sleep).title
    web.answers["http://site.example/down"] = sends(b"", 503, Retry_After="3600")
    with pytest.raises(TransientError, match="503"):
        opened(web, "http://site.example/down", sleep=sleep)
    assert waits == [2.0, 10.0]


def test_messages_do_not_contain_what_the_query_of_a_url_may_hold(web: FakeWeb) -> None:
    web.answers["http://site.example/r"] = redirects("http://user:secret@inside.example/")
    with pytest.raises(KnowgenError) as caught:
        opened(web, "http://site.example/r")
    assert "secret" not in str(caught.value)


def test_a_document_that_keeps_the_parser_busy_is_given_up_and_the_next_one_is_read() -> None:
    cells = b"<table><tr>" + b"<td>cell</td>" * 150_000 + b"</tr></table>"

    async def two() -> Page:
        reading = PageReading(1, cpu_seconds=0.5)
        try:
            with pytest.raises(DataError, match=r"more than 0\.5 s of processor time"):
                await reading.read(FetchResult("http://site.example/cells", cells, "text/html"))
            return await reading.read(FetchResult("http://site.example/a", b"plain words", "text/plain"))
        finally:
            await reading.close()

    assert asyncio.run(two()).text == "plain words"
