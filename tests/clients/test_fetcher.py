"""Fetches share connections, wait for their turn at a host, and are checked before each request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from knowgen.clients.host_turns import HostTurns
from knowgen.clients.safe_fetch import BlockedError, Fetcher, FetchError
from knowgen.core.errors import TransientError
from knowgen.core.waiting import WaitReporter, current_reporter
from tests.helpers import virtual_time
from tests.helpers.fake_web import FakeWeb, Names, redirects, sends
from tests.helpers.local_server import LocalServer, QuietHandler


class Connections:
    """A server that counts its connections."""

    def __init__(self) -> None:
        self.opened = 0
        self.asked: list[str] = []
        outer = self

        class Handler(QuietHandler):
            def setup(self) -> None:
                outer.opened += 1
                super().setup()

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                sends(self.path.encode(), content_type="text/plain; charset=Latin-1")(self)

        self.server = LocalServer(Handler)


def test_fetches_share_connections_also_in_a_later_event_loop() -> None:
    site = Connections()
    with site.server:
        fetcher = Fetcher()

        async def fetch_some(*paths: str) -> list[bytes]:
            got = [await fetcher.fetch(f"{site.server.address}{path}", trusted=site.server.address) for path in paths]
            assert {one.charset for one in got} == {"latin-1"}
            await fetcher.close()
            return [one.data for one in got]

        assert asyncio.run(fetch_some("/a", "/b", "/c")) == [b"/a", b"/b", b"/c"]
        assert site.opened == 1
        assert asyncio.run(fetch_some("/d")) == [b"/d"] and site.opened == 2


def test_the_trust_of_one_fetch_is_not_that_of_the_next() -> None:
    site = Connections()
    with site.server:

        async def main() -> None:
            fetcher = Fetcher(resolver=Names({"own.example": ["127.0.0.1"]}))
            url = f"http://own.example:{site.server.address.rpartition(':')[2]}/a"
            assert (await fetcher.fetch(url, trusted=url)).data == b"/a"
            with pytest.raises(BlockedError):
                await fetcher.fetch(url)
            await fetcher.close()

        asyncio.run(main())
    assert site.asked == ["/a"]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    web = FakeWeb()
    with web.server:
        web.use(monkeypatch)
        yield web


def test_every_address_is_checked_before_it_is_requested(web: FakeWeb) -> None:
    web.answers = {
        "http://a.example/1": redirects("http://b.example/2"),
        "http://b.example/2": redirects("/3"),
        "http://b.example/3": sends(b"there"),
    }
    asked: list[str] = []

    async def check(url: str) -> None:
        assert url not in web.seen
        asked.append(url)
        if url.endswith("/3") and len(asked) > 3:
            raise ValueError(url)

    async def main() -> None:
        fetcher = web.fetcher()
        got = await fetcher.fetch("http://a.example/1", check=check)
        assert got.via == tuple(asked) == ("http://a.example/1", "http://b.example/2", "http://b.example/3")
        assert got.url == "http://b.example/3" and got.data == b"there"
        web.seen.clear()
        with pytest.raises(ValueError, match="/3"):
            await fetcher.fetch("http://a.example/1", check=check)
        assert web.seen == ["http://a.example/1", "http://b.example/2"]
        await fetcher.close()

    asyncio.run(main())


def test_a_body_may_be_cut_instead_of_refused(web: FakeWeb) -> None:
    web.answers["http://a.example/"] = sends(b"0123456789")

    async def main() -> None:
        fetcher = web.fetcher()
        assert (await fetcher.fetch("http://a.example/", max_bytes=4, cut=True)).data == b"0123"
        with pytest.raises(FetchError, match="at most 4 are read"):
            await fetcher.fetch("http://a.example/", max_bytes=4)
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch("http://a.example/missing")
        assert caught.value.status == 404
        await fetcher.close()

    asyncio.run(main())


def test_the_time_limit_does_not_count_waiting_for_a_turn(web: FakeWeb) -> None:
    arrived, release = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        release.wait(30)
        sends(b"late")(handler)

    web.answers = {"http://a.example/slow": slow, "http://a.example/quick": sends(b"quick")}
    web.answers["http://b.example/"] = sends(b"other")
    waits: list[bool] = []

    async def main() -> None:
        fetcher = web.fetcher(per_host=1)
        first = asyncio.create_task(fetcher.fetch("http://a.example/slow", timeout=30))
        await asyncio.to_thread(arrived.wait, 30)
        current_reporter.set(WaitReporter(waits.append))
        second = asyncio.create_task(fetcher.fetch("http://a.example/quick", timeout=5))
        await asyncio.sleep(0.05)
        assert waits == [True] and len(web.seen) == 1
        assert (await fetcher.fetch("http://b.example/", timeout=30)).data == b"other"
        release.set()
        assert (await first).data == b"late" and (await second).data == b"quick" and waits[-1] is False
        with pytest.raises(TransientError, match=r"a\.example did not answer within 0\.1 s"):
            release.clear()
            await fetcher.fetch("http://a.example/slow", timeout=0.1)
        release.set()
        await fetcher.close()

    asyncio.run(main())


def test_requests_to_a_host_start_apart_and_those_to_others_at_once() -> None:
    started: list[tuple[str, float]] = []

    async def main() -> None:
        turns = HostTurns(at_once=2, total=100)
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def one(host: str, delay: float) -> None:
            async with turns.turn(host, delay):
                started.append((host, round(loop.time() - begin, 3)))
                await asyncio.sleep(0.25)

        await asyncio.gather(*(one("a", 1.0) for _ in range(3)), *(one("b", 0.0) for _ in range(4)))

    virtual_time.run(main())
    assert [at for host, at in started if host == "a"] == [0.0, 1.0, 2.0]
    assert [at for host, at in started if host == "b"] == [0.0, 0.0, 0.25, 0.25]


def test_hosts_without_requests_are_forgotten() -> None:
    async def main() -> int:
        turns = HostTurns(at_once=2, total=3)
        for number in range(5000):
            async with turns.turn(f"host{number}"):
                assert turns.known <= 1024
        return turns.known

    assert asyncio.run(main()) < 1024
