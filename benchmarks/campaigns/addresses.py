"""Try to make the guarded fetch reach this machine or its network.

    python -m benchmarks.campaigns.addresses [--unguarded]

Each address is one way to write, resolve or redirect to an address that is not of the public internet. A web server on
this machine plays the internal service. An address counts as

    fetched    a body was returned;
    reached    a connection was tried to any address but the public one of the campaign, whatever came of it;
    crashed    an error other than that of a blocked or failed fetch was raised;
    refused    blocked or failed, with a reason of one line.

Prints the number of each and every address that is not refused. The exit code is 1 unless all are refused. Connections
to public addresses are not made: they end as if nobody had answered. `--unguarded` fetches without the guard, which
shows that the campaign finds what it looks for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch
from knowgen.core.errors import TransientError

SECRET = b"internal data"
PUBLIC = "93.184.215.14"
"""An address of the public internet, to which no connection is made."""


@dataclass(frozen=True)
class Trick:
    """One way to reach an internal address.

    Attributes:
        name: What is tried.
        url: The address; `PORT` stands for the port of the internal service.
        names: Addresses that host names resolve to, for each lookup in turn; the last is repeated.
        redirect: Where the endpoint that the user configured redirects to; `url` is at that endpoint then.
        environment: Environment variables.
    """

    name: str
    url: str
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    redirect: str = ""
    environment: dict[str, str] = field(default_factory=dict)


WRITTEN = {
    "loopback": "http://127.0.0.1:PORT/",
    "loopback, other": "http://127.8.9.10:PORT/",
    "decimal": "http://2130706433:PORT/",
    "octal": "http://0177.0.0.1:PORT/",
    "octal, padded": "http://0000177.0000.0000.01:PORT/",
    "hexadecimal": "http://0x7f000001:PORT/",
    "hexadecimal parts": "http://0x7f.0x0.0x0.0x1:PORT/",
    "two parts": "http://127.1:PORT/",
    "three parts": "http://127.0.1:PORT/",
    "mixed bases": "http://0x7f.1:PORT/",
    "overflow": "http://4294967297:PORT/",
    "zero": "http://0:PORT/",
    "unspecified": "http://0.0.0.0:PORT/",
    "unspecified, v6": "http://[::]:PORT/",
    "loopback, v6": "http://[::1]:PORT/",
    "loopback, v6 in full": "http://[0:0:0:0:0:0:0:1]:PORT/",
    "v4-mapped": "http://[::ffff:127.0.0.1]:PORT/",
    "v4-mapped, hexadecimal": "http://[::ffff:7f00:1]:PORT/",
    "v4-compatible": "http://[::127.0.0.1]:PORT/",
    "v4-translated": "http://[::ffff:0:127.0.0.1]:PORT/",
    "NAT64": "http://[64:ff9b::7f00:1]:PORT/",
    "NAT64, local use": "http://[64:ff9b:1::7f00:1]:PORT/",
    "6to4": "http://[2002:7f00:1::]:PORT/",
    "Teredo": "http://[2001:0:7f00:1::]:PORT/",
    "ISATAP": "http://[fe80::5efe:7f00:1]:PORT/",
    "ISATAP, global prefix": "http://[2620:fe::5efe:7f00:1]:PORT/",
    "zone": "http://[fe80::1%25lo]:PORT/",
    "zone of loopback": "http://[::1%25lo]:PORT/",
    "zone of a public address": "http://[2606:4700::1111%25lo]:PORT/",
    "link-local": "http://169.254.1.1:PORT/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata, decimal": "http://2852039166/latest/meta-data/",
    "metadata, v6": "http://[fd00:ec2::254]/latest/meta-data/",
    "metadata, shared space": "http://100.100.100.200/latest/meta-data/",
    "metadata, mapped": "http://[::ffff:169.254.169.254]/",
    "private 10": "http://10.0.0.1:PORT/",
    "private 172": "http://172.16.0.1:PORT/",
    "private 192": "http://192.168.1.1:PORT/",
    "shared": "http://100.64.0.1:PORT/",
    "benchmarking": "http://198.18.0.1:PORT/",
    "multicast": "http://224.0.0.1:PORT/",
    "multicast, v6": "http://[ff02::1]:PORT/",
    "broadcast": "http://255.255.255.255:PORT/",
    "unique local": "http://[fd12:3456::1]:PORT/",
    "site-local": "http://[fec0::1]:PORT/",
    "name": "http://localhost:PORT/",
    "name, upper case": "http://LOCALHOST:PORT/",
    "name, trailing dot": "http://localhost.:PORT/",
    "name, sub-domain": "http://a.localhost:PORT/",
    "trailing dot": "http://127.0.0.1.:PORT/",
    "full-width digits": "http://\uff11\uff12\uff17.0.0.1:PORT/",
    "circled digits": "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:PORT/",
    "ideographic dots": "http://127\u30020\u30020\u30021:PORT/",
    "full-width dots": "http://127\uff0e0\uff0e0\uff0e1:PORT/",
    "full-width name": "http://\uff4cocalhost:PORT/",
    "soft hyphen": "http://local\u00adhost:PORT/",
    "zero width": "http://local\u200bhost:PORT/",
    "arabic digits": "http://\u0661\u0662\u0667.0.0.1:PORT/",
    "percent": "http://%31%32%37.0.0.1:PORT/",
    "percent, name": "http://%6cocalhost:PORT/",
    "percent, dot": "http://127%2e0%2e0%2e1:PORT/",
    "punycode": "http://xn--127-0-0-1-:PORT/",
    "punycode, broken": "http://xn--\u00ff:PORT/",
    "user": f"http://{PUBLIC}@127.0.0.1:PORT/",
    "user and password": "http://user:word@127.0.0.1:PORT/",
    "two at signs": f"http://a@127.0.0.1:PORT@{PUBLIC}/",
    "backslash": f"http://127.0.0.1:PORT\\@{PUBLIC}/",
    "backslash, swapped": f"http://{PUBLIC}\\@127.0.0.1:PORT/",
    "fragment": f"http://127.0.0.1:PORT#@{PUBLIC}/",
    "query": f"http://127.0.0.1:PORT?@{PUBLIC}/",
    "one slash": "http:/127.0.0.1:PORT/",
    "no slash": "http:127.0.0.1:PORT/",
    "three slashes": "http:///127.0.0.1:PORT/",
    "no scheme": "//127.0.0.1:PORT/",
    "bare": "127.0.0.1:PORT",
    "white space": " http://127.0.0.1:PORT/ ",
    "tab in the scheme": "ht\ttp://127.0.0.1:PORT/",
    "line break in the host": "http://127.0.0.1\r\n:PORT/",
    "NUL in the host": "http://127.0.0.1\0.example.org:PORT/",
    "NUL in a name": "http://a\0b.example.org/",
    "long label": f"http://{'a' * 64}.example.org/",
    "long name": f"http://{'a.' * 200}org/",
    "empty label": "http://a..example.org/",
    "only dots": "http://.../",
    "surrogate": "http://\ud800.example.org/",
    "line break in the path": "http://127.0.0.1:PORT/%0d%0aHost:%20x",
    "port of another service": "http://127.0.0.1:22/",
    "port zero": "http://127.0.0.1:0/",
    "port too large": "http://127.0.0.1:99999/",
    "port in words": "http://127.0.0.1:http/",
    "file": "file:///etc/passwd",
    "file on a host": "file://127.0.0.1/etc/passwd",
    "gopher": "gopher://127.0.0.1:PORT/_GET%20/",
    "dict": "dict://127.0.0.1:PORT/x",
    "ftp": "ftp://127.0.0.1:PORT/x",
    "data": "data:text/plain,x",
    "unix socket": "http+unix://%2Frun%2Fdocker.sock/info",
    "websocket": "ws://127.0.0.1:PORT/",
    "javascript": "javascript:alert(1)",
    "blob": "blob:http://127.0.0.1:PORT/x",
    "nested": "view-source:http://127.0.0.1:PORT/",
    "brackets without end": "http://[::1:PORT/",
    "v4 in brackets": "http://[127.0.0.1]:PORT/",
    "future address": "http://[v1.127.0.0.1]:PORT/",
    "empty": "",
    "empty host": "http://:PORT/",
}  # fmt: skip

NAMED: dict[str, list[list[str]]] = {
    "resolves to loopback": [["127.0.0.1"]],
    "resolves to loopback, v6": [["::1"]],
    "resolves to a private address": [["10.0.0.1"]],
    "resolves to metadata": [["169.254.169.254"]],
    "resolves to a mapped address": [["::ffff:127.0.0.1"]],
    "resolves to unspecified": [["0.0.0.0"]],
    "resolves to a zone": [["fe80::1%lo"]],
    "resolves to ISATAP": [["2620:fe::5efe:7f00:1"]],
    "resolves to NAT64": [["64:ff9b::7f00:1"]],
    "resolves to public and private": [[PUBLIC, "127.0.0.1"]],
    "resolves to private and public": [["127.0.0.1", PUBLIC]],
    "rebinds on the second lookup": [[PUBLIC], ["127.0.0.1"]],
    "resolves to nothing": [[]],
    "resolves to no address": [["not an address"]],
}

REDIRECTS = {
    "loopback": "http://127.0.0.1:PORT/",
    "name": "http://localhost:PORT/",
    "decimal": "http://2130706433:PORT/",
    "mapped": "http://[::ffff:127.0.0.1]:PORT/",
    "no scheme": "//127.0.0.1:PORT/",
    "backslashes": "\\\\127.0.0.1:PORT\\",
    "name that resolves to loopback": "http://inside.example:PORT/",
    "metadata": "http://169.254.169.254/",
    "file": "file:///etc/passwd",
    "data": "data:text/plain,x",
    "gopher": "gopher://127.0.0.1:PORT/",
    "user": "http://user:word@127.0.0.1:PORT/",
    "NUL": "http://a%00b:PORT/",
    "invalid": "http://[::1",
    "long label": f"http://{'a' * 64}.example.org/",
}

BEHIND_A_PROXY = {
    "address": ("http://10.0.0.1:PORT/", ""),
    "name that resolves to loopback": ("http://inside.example:PORT/", ""),
    "redirect": ("ENDPOINT/r", "http://inside.example:PORT/"),
}
"""Address, and what it redirects to."""

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY")


def tricks() -> list[Trick]:
    """Return all tricks."""
    found = [Trick(f"written: {name}", url) for name, url in WRITTEN.items()]
    found += [
        Trick(f"name that {what}", "http://inside.example:PORT/", {"inside.example": addresses})
        for what, addresses in NAMED.items()
    ]
    inside: dict[str, list[list[str]]] = {"inside.example": [["127.0.0.1"]]}
    found += [Trick(f"redirect: {name}", "ENDPOINT/r", inside, target) for name, target in REDIRECTS.items()]
    found += [
        Trick(f"{what}, proxy in {variable}", url, inside, target, {variable: "http://PROXY"})
        for variable in PROXIES
        for what, (url, target) in BEHIND_A_PROXY.items()
    ]
    return found


class Resolver(AbstractResolver):
    """Resolves the names of a trick; all others do not exist."""

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self._names = {name: list(answers) for name, answers in names.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the next addresses of a host.

        Raises:
            OSError: The host does not exist.
        """
        answers = self._names.get(host)
        if answers is None:
            raise OSError(f"no such host: {host}")
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in now
        ]

    async def close(self) -> None:
        """Do nothing."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Connections:
    """Records where connections lead, and makes none that leaves this machine."""

    def __init__(self) -> None:
        self.allowed: int | None = None
        self.reached: list[str] = []
        self._on = False
        sys.addaudithook(self._hook)

    @contextmanager
    def watched(self, allowed: int) -> Iterator[None]:
        """Record connections during the block; those to the port `allowed` on this machine are expected."""
        self.allowed, self.reached, self._on = allowed, [], True
        try:
            yield
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not self._on or not isinstance(arguments[1], tuple):
            return
        host, port = arguments[1][0], arguments[1][1]
        if host == "127.0.0.1" and port == self.allowed:
            return
        if host != PUBLIC:
            self.reached.append(f"{host}:{port}")
        if not str(host).startswith(("127.", "::1")):
            raise ConnectionRefusedError("no connection is made to the outside")


@contextmanager
def website(redirects: dict[str, str]) -> Iterator[int]:
    """Serve on a free port of this machine: a secret, or the redirects."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = redirects.get(self.path)
            self.send_response(302 if target else 404 if redirects else 200)
            if target:
                self.send_header("Location", target)
            self.end_headers()
            self.wfile.write(SECRET)

        do_CONNECT = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


async def unguarded(url: str, resolver: AbstractResolver) -> None:
    """Fetch an address as a program without a guard does."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver), trust_env=True) as client,
            client.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response,
        ):
            await response.read()
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        raise FetchError(f"failed: {type(error).__name__}") from error


async def tried(
    trick: Trick, connections: Connections, port: int, endpoint_port: int, guarded: bool
) -> tuple[str, str]:
    """Try one address, and return its outcome and a detail."""
    endpoint = f"http://127.0.0.1:{endpoint_port}"
    url = trick.url.replace("PORT", str(port)).replace("ENDPOINT", endpoint)
    resolver = Resolver(trick.names)
    try:
        with proxies(trick.environment, port), connections.watched(endpoint_port):
            if guarded:
                await fetch(url, resolver=resolver, trusted=f"{endpoint}/v1", timeout=10)
            else:
                await unguarded(url, resolver)
    except (BlockedError, FetchError, TransientError) as error:
        reason = str(error)
        outcome = "refused" if reason and "\n" not in reason else "crashed"
    except Exception as error:  # noqa: BLE001 - any other error is what the campaign looks for
        outcome, reason = "crashed", f"{type(error).__name__}: {error}"
    else:
        outcome, reason = "fetched", ""
    if connections.reached and outcome != "fetched":
        return "reached", ", ".join(connections.reached)
    return outcome, reason


@contextmanager
def proxies(variables: dict[str, str], port: int) -> Iterator[None]:
    """Set environment variables, in which `PROXY` stands for the internal service, during the block."""
    earlier = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: value.replace("PROXY", f"127.0.0.1:{port}") for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in earlier.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


async def campaign(*, guarded: bool) -> Counter[str]:
    """Try all addresses, print those that are not refused, and return the number of each outcome."""
    counts: Counter[str] = Counter()
    connections, redirects = Connections(), {"/": ""}
    with website({}) as port, website(redirects) as endpoint_port:
        for trick in tricks():
            redirects["/r"] = trick.redirect.replace("PORT", str(port))
            outcome, detail = await tried(trick, connections, port, endpoint_port, guarded)
            counts[outcome] += 1
            if outcome != "refused":
                print(f"{outcome}  {trick.name}: {trick.url!a}  {detail!a}")
    return counts


def main() -> int:
    """Run the campaign and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--unguarded", action="store_true", help="fetch without the guard")
    counts = asyncio.run(campaign(guarded=not parser.parse_args().unguarded))
    print(f"{counts.total()} addresses: " + ", ".join(f"{counts[name]} {name}" for name in OUTCOMES))
    return 0 if counts["refused"] == counts.total() else 1


OUTCOMES = ("fetched", "reached", "crashed", "refused")

if __name__ == "__main__":
    sys.exit(main())
