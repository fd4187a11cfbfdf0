"""Images at the service's own address: the guard trusts the origin that the user configured, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from knowgen.clients import safe_fetch
from knowgen.clients.safe_fetch import BlockedError, check_url, fetch
from tests.helpers.judge_server import JudgeServer, Step


class Names(AbstractResolver):
    """Every host is this machine, which stands for an address of the local network."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]  # fmt: skip

    async def close(self) -> None:
        """Close nothing."""


class Site(JudgeServer):
    """A server in the local network, by the name `gpu.lan`."""

    def __init__(self, pages: Mapping[str, Step]) -> None:
        super().__init__(pages=pages)

    @property
    def root(self) -> str:
        return self.address.replace("127.0.0.1", "gpu.lan")


def got(url: str, trusted: str) -> bytes:
    return asyncio.run(fetch(url, trusted=trusted, resolver=Names())).data


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/a.png": Step(body=b"image")}) as server:
        yield server


def test_an_image_at_the_services_own_address_in_the_network_is_read(site: Site) -> None:
    assert got(f"{site.root}/a.png", trusted=f"{site.root}/v1") == b"image"
    lan = "http://192.168.1.5:8000"
    assert str(check_url(f"{lan}/a.png", trusted=f"{lan}/v1")) == f"{lan}/a.png"


def test_another_scheme_host_or_port_is_not_trusted(site: Site) -> None:
    port = site.address.rpartition(":")[2]
    for trusted in ("", f"http://gpu2.lan:{port}", f"https://gpu.lan:{port}", "http://gpu.lan:1"):
        with pytest.raises(BlockedError):
            got(f"{site.root}/a.png", trusted=trusted)
    with pytest.raises(BlockedError):
        check_url("http://192.168.1.5:8001/a.png", trusted="http://192.168.1.5:8000/v1")
    assert site.fetched == []


def test_a_redirect_within_the_origin_is_followed_and_one_out_of_it_is_not() -> None:
    pages = {"/a": Step(status=302, headers={"Location": "/b"}), "/b": Step(body=b"image")}
    with Site(pages) as server:
        assert got(f"{server.root}/a", trusted=server.root) == b"image"
        server.pages["/a"] = Step(status=302, headers={"Location": server.root.replace("gpu", "db") + "/b"})
        with pytest.raises(BlockedError, match=r"db\.lan leads to 127\.0\.0\.1"):
            got(f"{server.root}/a", trusted=server.root)


def test_a_redirect_back_from_elsewhere_is_not_trusted_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    public = iter([True, False])  # the host elsewhere, then the service again
    monkeypatch.setattr(safe_fetch, "is_public", lambda address: next(public))
    with Site({}) as server:
        elsewhere = server.root.replace("gpu.lan", "elsewhere.example")
        server.pages |= {
            "/a": Step(status=302, headers={"Location": f"{elsewhere}/b"}),
            "/b": Step(status=302, headers={"Location": f"{server.root}/c"}),
            "/c": Step(body=b"image"),
        }
        with pytest.raises(BlockedError, match=r"gpu\.lan leads to"):
            got(f"{server.root}/a", trusted=server.root)
        assert [path for path, _ in server.fetched] == ["/a", "/b"]
