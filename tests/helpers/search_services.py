"""Search services on this machine: HTTP servers that speak the format of each, its checks, errors and quotas included.

    with SerperServer() as server:
        backend = Serper(base_url=server.address, key_env="SERPER_API_KEY")

`server.next(...)` queues responses that are sent instead of the regular ones, one a request.
"""

from __future__ import annotations

import copy
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.helpers import search_forms as forms
from tests.helpers.image_servers import image_bytes
from tests.helpers.local_server import LocalServer, QuietHandler

KEY = "search-test-key-0123456789"
CUT = "cut"
"""A response whose connection is reset before anything is sent."""


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        body: Its JSON, or its bytes.
        status: HTTP status.
        headers: Further headers.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request as the server received it."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


class SearchServer(LocalServer):
    """A server with the format of one service.

    Attributes:
        calls: Every call, in order of arrival.
        max_concurrent: Maximum number of concurrent calls so far.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.max_concurrent = 0
        self.delay = 0.0
        self._in_flight = 0
        self._queued: deque[Answer | str] = deque()
        self._lock = threading.Lock()
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                server._serve(self)

            def do_POST(self) -> None:
                server._serve(self)

        super().__init__(Handler)

    def next(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Queue a response; `CUT` resets the connection, and a pair is an error of `search_forms`."""
        if isinstance(body, tuple):
            status, body = body
        self._queued.append(CUT if body == CUT else Answer(body, status, headers or {}))

    def answer(self, call: Call) -> Answer:
        """Return the regular response to a call."""
        raise NotImplementedError

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        data = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = json.loads(data) if data else {}
        call = Call(handler.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body)
        with self._lock:
            self.calls.append(call)
            queued = self._queued.popleft() if self._queued else None
            self._in_flight += 1
            self.max_concurrent = max(self.max_concurrent, self._in_flight)
        self.closing.wait(self.delay)
        with self._lock:
            self._in_flight -= 1
        if queued == CUT:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        self._send(handler, queued if isinstance(queued, Answer) else self.answer(call))

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        kind = "application/json" if not isinstance(answer.body, bytes) else _kind(body)
        handler.send_response(answer.status)
        for name, value in {"Content-Type": kind, **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _kind(body: bytes) -> str:
    if body.startswith(b"\xff\xd8"):
        return "image/jpeg"
    if body.startswith(b"\x89PNG"):
        return "image/png"
    return "text/html; charset=utf-8" if body.lstrip().startswith(b"<") else "text/plain"


def _error(form: tuple[int, Any]) -> Answer:
    return Answer(form[1], form[0])


def _several(form: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    """Return copies of a row, each with a place of its own in its addresses."""
    rows = []
    for index in range(number):
        text = json.dumps(form).replace("/harrow", f"/{index}/harrow").replace("kit.jpg", f"kit{index}.jpg")
        rows.append(json.loads(text))
    return rows


class SerperServer(SearchServer):
    """Serper: a query for more than ten results costs two credits."""

    def answer(self, call: Call) -> Answer:
        if call.headers.get("x-api-key") != KEY:
            return _error(forms.SERPER_WRONG_KEY)
        if (call.method, call.path) == ("GET", "/account"):
            return Answer(forms.SERPER_ACCOUNT)
        form, name = {
            "/search": (forms.SERPER_PAGES, "organic"),
            "/images": (forms.SERPER_IMAGES, "images"),
        }[call.path]
        number = call.body.get("num", 10)
        parameters = {**form["searchParameters"], "q": call.body["q"], "num": number}
        found = _several(form[name][0], min(number, 12))
        return Answer({**form, "searchParameters": parameters, name: found, "credits": 1 if number <= 10 else 2})


class TavilyServer(SearchServer):
    """Tavily."""

    def answer(self, call: Call) -> Answer:
        if call.headers.get("authorization") != f"Bearer {KEY}":
            return _error(forms.TAVILY_WRONG_KEY)
        if (call.method, call.path) == ("GET", "/usage"):
            return Answer(forms.TAVILY_USAGE)
        if len(call.body["query"]) > 400:
            return _error(forms.TAVILY_TOO_LONG)
        credits = {"basic": 1, "advanced": 2}[call.body.get("search_depth", "basic")]
        results = _several(forms.TAVILY["results"][0], call.body.get("max_results", 5))
        images = forms.TAVILY["images"] if call.body.get("include_images") else []
        return Answer({**forms.TAVILY, "results": results, "images": images, "usage": {"credits": credits}})


class BraveServer(SearchServer):
    """Brave: the key is checked before the parameters."""

    def answer(self, call: Call) -> Answer:
        if call.headers.get("x-subscription-token") != KEY:
            return _error(forms.BRAVE_WRONG_KEY)
        web = call.path == "/res/v1/web/search"
        query, count = call.params.get("q", ""), int(call.params.get("count", 20))
        if not 1 <= len(query) <= 400 or len(query.split()) > 50 or not 1 <= count <= (20 if web else 200):
            return _error(forms.BRAVE_INVALID)
        if web:
            found = _several(forms.BRAVE_PAGES["web"]["results"][0], count)
            return Answer({**forms.BRAVE_PAGES, "web": {**forms.BRAVE_PAGES["web"], "results": found}})
        found = _several(forms.BRAVE_IMAGES["results"][0], min(count, 12))
        return Answer({**forms.BRAVE_IMAGES, "results": found})


class SearxngServer(SearchServer):
    """A SearXNG server.

    Args:
        formats: What `search.formats` of its settings lists.
        per_page: Number of results on a result page.
        pages: Number of result pages.
    """

    def __init__(self, formats: tuple[str, ...] = ("html", "json"), per_page: int = 4, pages: int = 2) -> None:
        super().__init__()
        self.formats, self.per_page, self.pages = formats, per_page, pages

    def answer(self, call: Call) -> Answer:
        if call.path.endswith(".jpg"):
            number = int("".join(filter(str.isdigit, call.path)) or 0)
            return Answer(image_bytes("green", "JPEG", (640, 400 + number)))
        if call.params.get("format", "html") not in self.formats:
            return _error(forms.SEARXNG_NO_JSON)
        form = forms.SEARXNG_IMAGES if call.params.get("categories") == "images" else forms.SEARXNG_PAGES
        number = int(call.params.get("pageno", 1))
        first = (number - 1) * self.per_page
        rows = _several(form["results"][0], number * self.per_page)[first:] if number <= self.pages else []
        return Answer({**form, "query": call.params["q"], "results": rows})


def _matches(query: str, text: str) -> bool:
    """Return whether a text has all words of a query, or one of those with `OR` between them."""
    words = [word.casefold() in text.casefold() for word in query.split() if word != "OR"]
    return any(words) if " OR " in query else all(words)


class WikimediaServer(SearchServer):
    """A wiki with articles and files, which turns away clients without a contact in their user agent.

    Args:
        articles: Text of each article by its title; an empty text has no extract.
        files: Titles of image files.
    """

    def __init__(self, articles: Mapping[str, str] | None = None, files: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.articles = dict(articles or {"Harrow Union": forms.WIKI_EXTRACT["query"]["pages"][0]["extract"]})
        self.files = files or ("Harrow Union kit 2026.jpg",)

    @property
    def api(self) -> str:
        return f"{self.address}/w/api.php"

    def answer(self, call: Call) -> Answer:
        agent = call.headers.get("user-agent", "")
        if not agent.startswith("knowgen/") or "(" not in agent:
            return _error(forms.WIKI_NO_AGENT)
        if call.path.endswith((".jpg", ".png")):
            number = next((n for n, name in enumerate(self.files) if name.replace(" ", "_") in call.path), 0)
            colour = ("green", "red", "blue", "orange")[number % 4]
            return Answer(image_bytes(colour, "JPEG", (960 - number, 600)))
        if call.path.startswith("/wiki/"):
            title = call.path.removeprefix("/wiki/").replace("_", " ")
            text = f"<p>The page of {title}, fetched as a page of the web, with its table.</p>" * 8
            return Answer(f"<!doctype html><html><title>{title}</title><body>{text}</body></html>".encode())
        if call.path == "/robots.txt":
            return Answer(b"User-agent: *\nDisallow: /w/\n")
        return self._query(call.params)

    def _query(self, params: Mapping[str, str]) -> Answer:
        assert params["action"] == "query" and params["format"] == "json" and params["formatversion"] == "2", params
        if params.get("meta") == "siteinfo":
            return Answer({"batchcomplete": True, "query": {"general": {"sitename": "Wikipedia"}}})
        if params.get("list") == "search":
            return Answer(self._pages(params))
        if params.get("generator") == "search":
            return Answer(self._images(params))
        return Answer(self._extract(params))

    def _pages(self, params: Mapping[str, str]) -> dict[str, Any]:
        row = forms.WIKI_SEARCH["query"]["search"][0]
        found = [
            {**row, "title": title, "pageid": number}
            for number, (title, text) in enumerate(self.articles.items(), 1)
            if _matches(params["srsearch"], f"{title} {text}")
        ]
        return {"batchcomplete": True, "query": {"search": found[: int(params["srlimit"])]}}

    def _images(self, params: Mapping[str, str]) -> dict[str, Any]:
        assert params["gsrnamespace"] == "6" and params["iiurlwidth"], params
        query = params["gsrsearch"].removeprefix("filetype:bitmap|drawing ")
        pages: list[dict[str, Any]] = []
        for name in self.files:
            if not _matches(query, name):
                continue
            page = copy.deepcopy(forms.WIKI_IMAGES["query"]["pages"][0])
            file = name.replace(" ", "_")
            page |= {"title": f"File:{name}", "pageid": 100 + len(pages), "index": len(pages) + 1}
            page["imageinfo"][0] |= {
                "thumburl": f"{self.address}/thumb/{file}/{params['iiurlwidth']}px-{file}",
                "url": f"{self.address}/{file}",
                "descriptionurl": f"{self.address}/wiki/File:{file}",
            }
            pages.append(page)
        if not pages:
            return {"batchcomplete": True}
        pages = pages[: int(params["gsrlimit"])]
        return {"batchcomplete": True, "query": {"pages": pages[::-1]}}  # sorted by page, not by rank

    def _extract(self, params: Mapping[str, str]) -> dict[str, Any]:
        title = params["titles"]
        if title not in self.articles:
            return {"batchcomplete": True, "query": {"pages": [{**forms.WIKI_MISSING, "title": title}]}}
        page = {
            **forms.WIKI_EXTRACT["query"]["pages"][0],
            "title": title,
            "extract": self.articles[title],
            "fullurl": f"{self.address}/wiki/{title.replace(' ', '_')}",
        }
        return {"batchcomplete": True, "query": {"pages": [page]}}


class JinaServer(SearchServer):
    """Jina's reader, with and without a key."""

    def answer(self, call: Call) -> Answer:
        if call.headers.get("authorization") not in (None, f"Bearer {KEY}"):
            return _error(forms.JINA_WRONG_KEY)
        return Answer({**forms.JINA, "data": {**forms.JINA["data"], "url": call.body["url"]}})
