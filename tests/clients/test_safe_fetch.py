"""Untrusted URLs are fetched from the public internet only, in any notation and after any redirect."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from knowgen.clients.proxy import environment_proxy
from knowgen.clients.safe_fetch import (
    BlockedError,
    FetchError,
    FetchResult,
    PublicResolver,
    check_url,
    fetch,
    is_public,
)
from knowgen.core.errors import TransientError

PRIVATE = [
    "127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1",
    "::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2001:0:808:808:0:0:80ff:fffe",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_internet_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_other_text_is_not_public() -> None:
    assert not is_public("example.com") and not is_public("")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_classified_alike_in_every_notation(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    dresses = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    assert {is_public(dress) for dress in dresses} == {is_public(ip)}


HOSTS_INSIDE = [
    "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1]", "10.1.2.3", "169.254.169.254", "0.0.0.0",
    "2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "127.0.0.01", "0",
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1.", "\uff11\uff12\uff17.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS_INSIDE)
def test_private_hosts_are_blocked_in_every_notation(host: str) -> None:
    with pytest.raises(BlockedError):
        check_url(f"http://{host}/image.png")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.com/a", "gopher://example.com", "data:image/png;base64,AAAA", "//host/a",
        "example.com/a", "http://", "http:///a", "http://user:secret@example.com/", "http://[::1", "", "http://a:99999/",
    ],
)  # fmt: skip
def test_only_http_urls_without_credentials_are_allowed(url: str) -> None:
    with pytest.raises(BlockedError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.png?x=1", "http://8.8.8.8/a", "http://[2606:4700:4700::1111]:8080/", "https://1e100.net"],
)
def test_public_urls_are_allowed(url: str) -> None:
    assert str(check_url(url)).startswith(url)


class Names(AbstractResolver):
    """A resolver with given addresses by host; several lists are returned in turn."""

    def __init__(self, table: dict[str, list[list[str]]]) -> None:
        self.table = table
        self.looked_up: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.looked_up.append(host)
        answers = self.table[host]
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in now
        ]

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("addresses", [[one] for one in PRIVATE] + [["8.8.8.8", "127.0.0.1"]])
def test_hosts_with_private_addresses_are_blocked(addresses: list[str]) -> None:
    names = Names({"images.example": [addresses]})
    with pytest.raises(BlockedError, match=r"images\.example leads to"):
        asyncio.run(fetch("https://images.example/a.png", resolver=names))
    assert names.looked_up == ["images.example"]


def test_every_dns_lookup_is_checked() -> None:
    resolver = PublicResolver(Names({"images.example": [["8.8.8.8"], ["127.0.0.1"]]}))

    async def twice() -> None:
        assert [one["host"] for one in await resolver.resolve("images.example", 443)] == ["8.8.8.8"]
        with pytest.raises(BlockedError):
            await resolver.resolve("images.example", 443)

    asyncio.run(twice())


Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server on this machine that records its requests."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.tunnels: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answers[self.path](self)

            def do_CONNECT(self) -> None:
                site.tunnels.append(self.path)
                self.send_error(403)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[Site]:
    site = Site(answers)
    thread = threading.Thread(target=site.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.http.shutdown()
        site.http.server_close()
        thread.join()


def sends(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def stalls(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(1)


def got(url: str, **settings: Any) -> FetchResult:
    return asyncio.run(fetch(url, **settings))


def test_only_the_trusted_endpoint_on_this_machine_is_allowed() -> None:
    with serving({"/a.png": sends(b"image", Content_Type="IMAGE/PNG; x=y")}) as site:
        fetched = got(f"{site.url}/a.png", trusted=f"{site.url}/v1")
        assert (fetched.data, fetched.content_type) == (b"image", "image/png")
        for trusted in (
            "",
            f"http://127.0.0.1:{site.port + 1}",
            "https://api.example.com",
            f"http://10.0.0.1:{site.port}",
        ):
            with pytest.raises(BlockedError):
                got(f"{site.url}/a.png", trusted=trusted)
        with pytest.raises(BlockedError):  # another name of the same machine is another origin
            got(f"http://localhost:{site.port}/a.png", trusted=site.url)
        assert len(site.seen) == 1


def test_an_endpoint_may_be_trusted_by_its_name() -> None:
    with serving({"/a": sends(b"image")}) as site:
        here = f"http://localhost:{site.port}"
        assert got(f"{here}/a", trusted=f"{here}/v1").data == b"image"
        with pytest.raises(BlockedError):
            got(f"http://localhost:{site.port + 1}/a", trusted=here)


def test_no_credentials_or_cookies_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answers = {
        "/a": sends(b"", 302, Location="/b", Set_Cookie="session=1"),
        "/b": sends(b"image"),
    }
    with serving(answers) as site:
        assert got(f"{site.url}/a", trusted=site.url).data == b"image"
        assert [path for path, _ in site.seen] == ["/a", "/b"]
        for _, headers in site.seen:
            assert not {"authorization", "cookie", "x-goog-api-key"} & headers.keys()


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/a", "http://localhost/", "//169.254.169.254/latest", "file:///etc/passwd", "http://[::1"],
)
def test_a_redirect_to_a_private_address_is_blocked(target: str) -> None:
    with serving({"/a": sends(b"", 302, Location=target)}) as site, pytest.raises(BlockedError):
        got(f"{site.url}/a", trusted=site.url)


def test_a_redirect_to_a_host_with_a_private_address_is_blocked() -> None:
    with serving({"/a": sends(b"", 307, Location="http://inside.example/")}) as site:
        names = Names({"inside.example": [["10.0.0.1"]]})
        with pytest.raises(BlockedError, match=r"10\.0\.0\.1"):
            got(f"{site.url}/a", trusted=site.url, resolver=names)


def test_the_number_of_redirects_is_limited() -> None:
    with serving({"/a": sends(b"", 302, Location="/a")}) as site:
        with pytest.raises(FetchError, match="redirects more than"):
            got(f"{site.url}/a", trusted=site.url)
        assert len(site.seen) == 6


@pytest.mark.parametrize(
    "answer",
    [
        sends(b"x" * 2000, Content_Length="2000"),
        sends(b"x" * 2000),
        sends(gzip.compress(b"x" * 200_000), Content_Encoding="gzip"),
    ],
    ids=["named", "not named", "packed"],
)
def test_the_size_of_a_body_is_limited(answer: Answer) -> None:
    with serving({"/a": answer}) as site:
        with pytest.raises(FetchError, match="1999"):
            got(f"{site.url}/a", trusted=site.url, max_bytes=1999)
        with pytest.raises(FetchError, match="10"):
            got(f"{site.url}/a", trusted=site.url, max_bytes=10)


def test_permanent_errors_are_distinguished_from_transient_ones() -> None:
    answers = {
        "/gone": sends(b"", 404),
        "/busy": sends(b"", 429, Retry_After="7"),
        "/broken": sends(b"", 503),
        "/slow": stalls,
    }
    with serving(answers) as site:
        with pytest.raises(FetchError, match="404"):
            got(f"{site.url}/gone", trusted=site.url)
        with pytest.raises(TransientError, match="429") as caught:
            got(f"{site.url}/busy", trusted=site.url)
        assert caught.value.retry_after == 7
        with pytest.raises(TransientError, match="503"):
            got(f"{site.url}/broken", trusted=site.url)
        with pytest.raises(TransientError, match=r"within 0\.2 s"):
            got(f"{site.url}/slow", trusted=site.url, timeout=0.2)
    with pytest.raises(TransientError, match="cannot be fetched"):
        got(f"{site.url}/gone?signature=secret", trusted=site.url)


def test_messages_contain_neither_path_nor_query() -> None:
    with serving({"/a?signature=secret": sends(b"", 404)}) as site:
        with pytest.raises(FetchError) as caught:
            got(f"{site.url}/a?signature=secret", trusted=site.url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["2620:fe::5efe:7f00:1", "2620:fe::200:5efe:a00:1", "::ffff:0:7f00:1", "2620:fe::1%lo"]
)
def test_further_ways_to_embed_an_ipv4_address_or_to_name_an_interface_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("2620:fe::1") and is_public("2620:fe::5efe:808:808")


@pytest.mark.parametrize("host", ["a\0b.example", f"{'a' * 64}.example", "a." * 127 + "example", "...", "a..b", "a b"])
def test_a_host_that_dns_cannot_have_is_blocked(host: str) -> None:
    with pytest.raises(BlockedError, match="not a valid address"):
        got(f"http://{host}/a.png", resolver=Names({}))


def test_a_host_that_resolves_to_no_address_is_unreachable() -> None:
    with pytest.raises(TransientError, match="cannot be fetched"):
        got("http://images.example/a.png", resolver=Names({"images.example": [[]]}))


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve a proxy that answers for everybody, and name it in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving({"http://8.8.8.8/a": sends(b"image"), "http://8.8.8.8/r": sends(b"", 302, Location="/a")}) as site:
        monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{site.port}")
        yield site


def test_a_proxy_is_asked_for_the_checked_address_and_not_for_the_name(proxy: Site) -> None:
    names = Names({"images.example": [["8.8.8.8"]]})
    fetched = got("http://images.example/r", resolver=names)
    assert (fetched.data, fetched.url) == (b"image", "http://images.example/a")
    assert [path for path, _ in proxy.seen] == ["http://8.8.8.8/r", "http://8.8.8.8/a"]
    for _, headers in proxy.seen:
        assert headers["host"] == "images.example"
        assert headers["proxy-authorization"] == "Basic bWU6d29yZA=="


def test_a_proxy_asks_for_nothing_that_is_not_public(proxy: Site) -> None:
    names = Names({"inside.example": [["10.0.0.1"]], "images.example": [["8.8.8.8"], ["127.0.0.1"]]})
    for url in ("http://inside.example/a", "http://10.0.0.1/a", "http://localhost/a"):
        with pytest.raises(BlockedError):
            got(url, resolver=names)
    assert proxy.seen == []


def test_an_endpoint_on_this_machine_and_hosts_in_no_proxy_are_fetched_without_a_proxy(
    proxy: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/a": sends(b"own")}) as site:
        assert got(f"{site.url}/a", trusted=site.url).data == b"own"
    monkeypatch.setenv("no_proxy", "images.example")
    assert environment_proxy("http://images.example/a") is None
    assert environment_proxy("http://other.example/a") is not None
    assert proxy.seen == []


def test_an_https_address_is_reached_through_a_tunnel_to_the_checked_address(
    proxy: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(TransientError):  # this proxy makes no tunnels
        got("https://images.example/a", resolver=Names({"images.example": [["8.8.8.8"]]}))
    assert proxy.tunnels == ["8.8.8.8:443"]


def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(FetchError, match="of the kind 'socks5', and only http proxies are supported"):
        got("https://images.example/a", resolver=Names({"images.example": [["8.8.8.8"]]}))
