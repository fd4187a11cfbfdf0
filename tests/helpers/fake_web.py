"""A web of many sites on one loopback server, which is reached as an http proxy: each request is a whole URL."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from PIL import Image

from knowgen.clients.safe_fetch import Fetcher
from tests.helpers.local_server import LocalServer, QuietHandler

PUBLIC = "93.184.216.34"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Names(AbstractResolver):
    """A resolver by table; several answers of a host are given in turn. Other hosts are public.

    Args:
        table: Addresses by host.
    """

    def __init__(self, table: Mapping[str, list[str]] | None = None) -> None:
        self.table = {host: list(addresses) for host, addresses in (table or {}).items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return one address."""
        answers = self.table.get(host, [PUBLIC])
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class FakeWeb:
    """Sites by URL.

    Attributes:
        answers: What each URL answers. A URL that is missing answers 404.
        seen: Every URL that was requested, in order.
        most: Largest number of requests at a time, by host.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the server."""
        web = self
        lock = threading.Lock()
        now: dict[str, int] = {}

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                host = self.headers["Host"]
                target = self.path.partition("://")[2]
                url = f"http://{host}/{target.partition('/')[2]}"
                with lock:
                    web.seen.append(url)
                    now[host] = now.get(host, 0) + 1
                    web.most[host] = max(web.most.get(host, 0), now[host])
                try:
                    web.answers.get(url, sends(b"", 404))(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with lock:
                        now[host] -= 1

        self.server = LocalServer(Handler)

    def fetcher(self, table: Mapping[str, list[str]] | None = None, **options: Any) -> Fetcher:
        """Return a fetcher for which every host is public, but those of a table."""
        return Fetcher(resolver=Names(table), **options)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Name this web as the proxy of the environment."""
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("http_proxy", self.server.address)


def sends(body: bytes, status: int = 200, content_type: str = "text/html", **headers: str) -> Answer:
    """Return an answer with a body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Type": content_type, "Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirects(target: str, status: int = 302) -> Answer:
    """Return an answer that redirects."""
    return sends(b"", status, Location=target)


def in_turn(*answers: Answer) -> Answer:
    """Return an answer that is another one at each request; the last stays."""
    left = list(answers)
    lock = threading.Lock()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            one = left.pop(0) if len(left) > 1 else left[0]
        one(handler)

    return answer


def image_bytes(colour: str, size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    """Return an image file of one colour with some noise, so that it has more than 1,024 bytes."""
    noise = Image.effect_noise((max(size[0], 40), max(size[1], 40)), 60).resize(size).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(noise, Image.new("RGB", size, colour), 0.5).save(buffer, form)
    return buffer.getvalue()


def sends_image(data: bytes, content_type: str = "image/png", **headers: str) -> Answer:
    """Return an answer with an image."""
    return sends(data, 200, content_type, **headers)
