"""The base of web backends: a query costs once a day, images are downloaded, and leaks are marked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import ClassVar, TypeVar

import pytest

from knowgen.core.errors import MissingDependencyError, TransientError
from knowgen.core.leaks import current_leak_guard
from knowgen.core.metering import paid_call, reuse_replies, spending
from knowgen.search.contract import BlockReason, Hit, Page, PageBlockedError, SearchBackend
from knowgen.search.web import backend as backend_module
from knowgen.search.web import query_cache
from knowgen.search.web.backend import WebSearch
from knowgen.search.web.images import RawImageHit
from tests.helpers.fake_web import FakeWeb, image_bytes, sends, sends_image

T = TypeVar("T")


class Service(WebSearch):
    """A service that finds numbered pages and images, and costs a cent a query."""

    provider: ClassVar[str] = "service"

    def __init__(self, web: FakeWeb, region: str = "", images: int = 100) -> None:
        super().__init__(fetcher=web.fetcher())
        self.region, self.images = region, images
        self.asked: list[tuple[str, int]] = []
        self.failing = 0

    def settings(self) -> str:
        return self.region

    async def find_pages(self, query: str, k: int) -> list[Hit]:
        async with paid_call(0.01, "service") as reservation:
            await asyncio.sleep(0)
            self.asked.append((query, k))
            reservation.settle(0.01)
            if self.failing:
                self.failing -= 1
                raise TransientError("answered 503")
        return [
            Hit(title=f"{n}", url=f"http://{host}.example/{n}", snippet="words")
            for n, host in enumerate(("site", "answers", "site"))
        ]

    async def find_images(self, query: str, n: int) -> list[RawImageHit]:
        self.asked.append((query, n))
        return [RawImageHit(title="", url=f"http://img.example/{i}") for i in range(min(n, self.images))]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    web = FakeWeb({"http://site.example/0": sends(b"<p>Words of the page.</p>")})
    with web.server:
        web.use(monkeypatch)
        yield web


def run(backend: WebSearch, main: Callable[[SearchBackend], Awaitable[T]]) -> T:
    async def closing() -> T:
        try:
            return await main(backend)
        finally:
            await backend.close()

    return asyncio.run(closing())


def test_a_query_is_paid_once_a_day_for_each_number_of_results_and_region(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Service(web), Service(web, "de")

    async def five(backend: SearchBackend) -> list[list[Hit]]:
        return list(await asyncio.gather(*(backend.search("boats", 2) for _ in range(5))))

    with spending() as spent:
        assert [len(hits) for hits in run(one, five)] == [2] * 5
        run(one, lambda backend: backend.search("boats", 2))
        assert spent.calls == 1
        run(one, lambda backend: backend.search("boats", 3))
        run(other, lambda backend: backend.search("boats", 2))
        assert spent.calls == 3 and spent.cost == pytest.approx(0.03)
        token = reuse_replies.set(False)
        try:
            run(one, lambda backend: backend.search("boats", 2))
        finally:
            reuse_replies.reset(token)
        assert spent.calls == 4
        monkeypatch.setattr(query_cache, "day_of", lambda seconds: "the next day")
        run(one, lambda backend: backend.search("boats", 2))
        assert spent.calls == 5


def test_a_package_that_is_missing_is_named_before_anything_is_asked(
    web: FakeWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_PACKAGES", ("protego", "no_such_package"))
    with pytest.raises(MissingDependencyError, match=r"'no_such_package'.*pip install 'knowgen\[search\]'"):
        Service(web)


def test_a_query_that_failed_is_asked_again(web: FakeWeb) -> None:
    service = Service(web)
    service.failing = 1
    with pytest.raises(TransientError):
        run(service, lambda backend: backend.search("boats"))
    assert run(service, lambda backend: backend.search("boats"))
    assert len(service.asked) == 2


def test_more_images_are_asked_for_only_where_too_few_could_be_downloaded(web: FakeWeb) -> None:
    for number in (0, 3, 12, 14):
        web.answers[f"http://img.example/{number}"] = sends_image(image_bytes("red", (64 + number, 48)))
    service = Service(web)
    hits = run(service, lambda backend: backend.image_search("boats", 2))
    assert [hit.url[-2:] for hit in hits if hit.image] == ["/0", "/3"] and service.asked == [("boats", 10)]
    hits = run(service, lambda backend: backend.image_search("boats", 4))
    assert [hit.url[-2:] for hit in hits if hit.image] == ["/0", "/3", "12", "14"]
    assert service.asked[1:] == [("boats", 20)]
    few = Service(web, images=9)
    few.region = "few"
    hits = run(few, lambda backend: backend.image_search("boats", 4))
    assert [hit.url[-2:] for hit in hits if hit.image] == ["/0", "/3"] and few.asked == [("boats", 10)]


class Guard:
    """A leak guard that blocks one site."""

    def blocked_url(self, url: str) -> str:
        return "it is the benchmark's own data" if "answers.example" in url else ""

    def blocked_image(self, image: object) -> str:
        return ""


def test_a_page_that_the_leak_guard_blocks_is_a_hit_without_its_text_and_is_not_opened(web: FakeWeb) -> None:
    service = Service(web)
    run(service, lambda backend: backend.search("boats"))
    token = current_leak_guard.set(Guard())
    try:
        hits = run(service, lambda backend: backend.search("boats"))
        assert [(hit.snippet, hit.blocked) for hit in hits] == [
            ("words", None),
            ("", BlockReason.LEAK),
            ("words", None),
        ]
        with pytest.raises(PageBlockedError):
            run(service, lambda backend: backend.open("http://answers.example/1"))
    finally:
        current_leak_guard.reset(token)
    assert web.seen == []


def test_a_page_is_opened_by_fetching_it(web: FakeWeb) -> None:
    page = run(Service(web), lambda backend: backend.open("http://site.example/0"))
    assert page == Page(url="http://site.example/0", title="", text="Words of the page.")
