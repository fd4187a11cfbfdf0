"""The local server of the label page: on 127.0.0.1 only, with a token, and blind to the systems."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from knowgen.core.errors import ConfigError, KnowgenError, UsageError
from knowgen.core.images import UnreadableImageError
from knowgen.core.records import TEXT, ImageRef
from knowgen.labelling.items import Item, ItemKey, LabelledImage, LabelPlan
from knowgen.labelling.label_files import NAME_LENGTH, rater_key, rater_name
from knowgen.labelling.pictures import MEDIA_TYPE, Pictures
from knowgen.labelling.questions import CHOICE_KEYS, CHOICES, PAIR_HINT, PAIR_TEXT, SKIP_REASONS, VALUES, questions
from knowgen.labelling.rater import Answer, RaterProgress
from knowgen.labelling.records import StoredLabel

HOST = "127.0.0.1"
_LOCAL_NAMES = {"127.0.0.1", "localhost"}
_MAX_BODY = 64 * 1024
_MAX_SECONDS = 86_400.0

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "knowgen",
    "X-Content-Type-Options": "nosniff",
}

_STATIC = {
    "report.css": ("knowgen.report", "text/css"),
    "theme.js": ("knowgen.report", "text/javascript"),
    "icon.svg": ("knowgen.report", "image/svg+xml"),
    "label.css": ("knowgen.labelling", "text/css"),
    "zoom.js": ("knowgen.labelling", "text/javascript"),
    "label.js": ("knowgen.labelling", "text/javascript"),
}


class _RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class _Shown:
    """An item that was sent to a page."""

    rater: str
    item: Item


def page_version() -> str:
    """Return a hash of the files that make the page."""
    parts = [_static(name)[0] for name in sorted(_STATIC)]
    template = files("knowgen.labelling").joinpath("templates", "label.html").read_bytes()
    return hashlib.sha256(b"\0".join([template, *parts])).hexdigest()[:12]


def _static(name: str) -> tuple[bytes, str]:
    package, media_type = _STATIC[name]
    return files(package).joinpath("static", name).read_bytes(), media_type


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1.

    Args:
        port: TCP port; 0 for any free one.

    Raises:
        ConfigError: The port cannot be used.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen(64)
    except OSError as error:
        sock.close()
        what = f"cannot listen on {HOST} port {port}: {error.strerror or error}"
        raise ConfigError(what, where="label", fix="give another --port, or leave it out") from error
    return sock


class LabelServer:
    """The page, its images and its answers.

    Args:
        plan: Everything that can be labelled.
        folder: Folder of the labels.
        rater: Name of the only rater; None to ask for it on the page.
        warn: Called with a line for the terminal, such as the reason why an image does not open.

    Attributes:
        token: Secret without which nothing is answered.
        raters: Progress of everybody who has used the page.
        cookie: Name of the cookie that holds the token.
    """

    def __init__(
        self, plan: LabelPlan, folder: Path, *, rater: str | None = None, warn: Callable[[str], None] = print
    ) -> None:
        self.plan, self.folder, self.warn = plan, folder, warn
        self.fixed_rater = rater_name(rater) if rater is not None else None
        self.token = secrets.token_urlsafe(24)
        self.raters: dict[str, RaterProgress] = {}
        self.cookie = f"knowgen_label_{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"
        self._page_version = page_version()
        self._pictures = Pictures(max(one.side for of in plan.samples for many in of.images.values() for one in many))
        self._shown: dict[str, _Shown] = {}
        self._ids: dict[tuple[str, ItemKey], str] = {}
        self._images: dict[str, tuple[Path, str, bool]] = {}
        self._image_ids: dict[tuple[str, str], str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._warned: set[str] = set()
        self._codes: set[str] = set()

    def browser_address(self, address: str) -> str:
        """Return an address that opens the page once.

        A browser is started with it on its command line, which other users of the machine can read.

        Args:
            address: Address of the page with the token.
        """
        code = secrets.token_urlsafe(24)
        self._codes.add(code)
        return f"{address.partition('?')[0]}?start={code}"

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY)
        app.router.add_get("/", self._page)
        app.router.add_get("/static/{name}", self._static_file)
        app.router.add_get("/image/{id}", self._image)
        app.router.add_post("/api/next", self._next)
        app.router.add_post("/api/label", self._label)
        app.router.add_post("/api/undo", self._undo)
        app.on_response_prepare.append(_add_headers)
        return app

    # -- who may ask ---------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._check(request)
            return await handler(request)
        except _RefusedError as refused:
            return _refusal(request, refused.status, refused.text)
        except web.HTTPException as error:
            return _refusal(request, error.status, error.reason)
        except KnowgenError as error:
            self.warn(str(error))
            return _refusal(request, 500, "The label could not be stored; see the terminal.")

    def _check(self, request: web.Request) -> None:
        """Refuse requests of other sites: by the host name (DNS rebinding), the token, and the origin."""
        name, _, port = request.host.partition(":")
        if name not in _LOCAL_NAMES or not (port or "80").isdecimal():
            raise _RefusedError(403, "Open the page as 127.0.0.1 or localhost.")
        given = request.cookies.get(self.cookie, "")
        if request.path == "/" and "token" in request.query:
            given = request.query["token"]
        if request.path == "/" and request.query.get("start") in self._codes:
            self._codes.discard(request.query["start"])
            return
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise _RefusedError(403, "Open the address that the terminal shows; it holds a token.")
        if request.method == "POST":
            if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
                raise _RefusedError(403, "The request comes from another site.")
            if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
                raise _RefusedError(403, "The request comes from another site.")
            if request.content_type != "application/json":
                raise _RefusedError(415, "Send JSON.")

    # -- page and files ------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        from knowgen.report.page import environment

        text = environment("knowgen.labelling").get_template("label.html").render(
            mode=self.plan.mode, rater=self.fixed_rater, name_length=NAME_LENGTH,
            choices=CHOICES, choice_keys=CHOICE_KEYS,
            skip_reasons=SKIP_REASONS, pair_text=PAIR_TEXT, pair_hint=PAIR_HINT, values=VALUES[::-1],
            questions=questions(self.plan.dimensions), text_dimension=TEXT,
        )  # fmt: skip
        response = web.Response(text=text, content_type="text/html")
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
        return response

    async def _static_file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise _RefusedError(404, "This file does not exist.")
        data, media_type = _static(name)
        return web.Response(body=data, content_type=media_type, charset="utf-8")

    async def _image(self, request: web.Request) -> web.StreamResponse:
        found = self._images.get(request.match_info["id"])
        if found is None:
            raise _RefusedError(404, "This image does not exist.")
        path, sha256, generated = found
        try:
            data = await asyncio.to_thread(self._pictures.encoded, path, sha256, generated=generated)
        except UnreadableImageError as error:
            self._warn_once(f"{path}: the image does not open: {error.what}")
            # the reason may name the file, and with it the system
            raise _RefusedError(422, "This image does not open.") from error
        return web.Response(body=data, content_type=MEDIA_TYPE)

    def _warn_once(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            self.warn(line)

    # -- labels --------------------------------------------------------------------------------------------------------

    async def _next(self, request: web.Request) -> web.StreamResponse:
        progress, lock, _ = await self._asked(request)
        async with lock:
            return await self._state(progress)

    async def _label(self, request: web.Request) -> web.StreamResponse:
        progress, lock, body = await self._asked(request)
        shown = self._shown.get(_text(body, "item"))
        if shown is None or shown.rater != rater_key(progress.name):
            raise _RefusedError(409, "The server was started again. Load the page again.")
        answer = self._answer(body, shown.item)
        async with lock:
            await asyncio.to_thread(progress.label, shown.item, answer)
            return await self._state(progress)

    async def _undo(self, request: web.Request) -> web.StreamResponse:
        progress, lock, _ = await self._asked(request)
        async with lock:
            if not await asyncio.to_thread(progress.undo):
                raise _RefusedError(409, "There is nothing to undo.")
            return await self._state(progress)

    async def _asked(self, request: web.Request) -> tuple[RaterProgress, asyncio.Lock, dict[str, Any]]:
        """Return the progress of the rater who asks, with its lock, and the body of the request."""
        try:
            body = json.loads(await request.text())
        except (ValueError, RecursionError) as error:
            raise _RefusedError(400, "The request is not JSON.") from error
        if not isinstance(body, dict):
            raise _RefusedError(400, "The request is not an object.")
        name = self.fixed_rater if self.fixed_rater is not None else _text(body, "rater")
        try:
            key = rater_key(rater_name(name))
        except UsageError as error:
            raise _RefusedError(400, f"{error}.".capitalize()) from error
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self.raters:
                made = await asyncio.to_thread(RaterProgress, self.plan, self.folder, name, self._page_version)
                for note in made.notes:
                    self._warn_once(note)
                self.raters[key] = made
        return self.raters[key], lock, body

    async def _state(self, progress: RaterProgress) -> web.StreamResponse:
        found = await asyncio.to_thread(progress.next)
        state: dict[str, Any] = {
            "rater": progress.name,
            "done": progress.done,
            "skipped": progress.skipped,
            "total": progress.total,
            "outdated": progress.outdated,
            "item": self._described(progress, *found) if found is not None else None,
        }
        return web.json_response(state)

    def _described(self, progress: RaterProgress, item: Item, earlier: StoredLabel | None) -> dict[str, Any]:
        """Return what the page shows of an item: nothing in it depends on the systems but the images themselves."""
        rater = rater_key(progress.name)
        place = (rater, item.key)
        if place not in self._ids:
            self._ids[place] = secrets.token_urlsafe(12)
        self._shown[self._ids[place]] = _Shown(rater, item)
        truth = item.of.truth
        entry: dict[str, Any] = {
            "id": self._ids[place],
            "prompt": item.of.sample.prompt,
            "text_required": item.of.sample.text_required,
            "images": [self._image_id(self._ids[place], one) for one in item.images],
            "truth": self._truth_id(self._ids[place], truth.image) if truth.image is not None else None,
            "earlier": None,
        }
        if earlier is not None:
            entry["earlier"] = {"values": earlier.values, "na": earlier.na, "choice": earlier.choice}
        return entry

    def _image_id(self, item: str, image: LabelledImage) -> str:
        return self._opaque(item, image.system, image.path, image.sha256, generated=True)

    def _truth_id(self, item: str, ref: ImageRef) -> str:
        return self._opaque(item, "", ref.path or Path(), ref.sha256, generated=False)

    def _opaque(self, item: str, which: str, path: Path, sha256: str, *, generated: bool) -> str:
        """Return an id that says nothing about the image; the same image has another one in every item."""
        key = (item, f"image\0{which}" if generated else "truth")
        if key not in self._image_ids:
            self._image_ids[key] = secrets.token_urlsafe(12)
            self._images[self._image_ids[key]] = (path, sha256, generated)
        return self._image_ids[key]

    def _answer(self, body: dict[str, Any], item: Item) -> Answer:
        """Return a checked answer."""
        seconds = body.get("seconds", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise _RefusedError(400, "The time is not a number.")
        seconds = min(max(float(seconds), 0.0), _MAX_SECONDS)
        if "skipped" in body:
            skipped = _text(body, "skipped")
            if skipped not in SKIP_REASONS:
                raise _RefusedError(400, "The reason is unknown.")
            return Answer({}, skipped=skipped, seconds=seconds)  # type: ignore[arg-type]
        if self.plan.mode == "pairs":
            choice = _text(body, "choice")
            if choice not in CHOICES:
                raise _RefusedError(400, "The choice is unknown.")
            return Answer({}, choice=choice, seconds=seconds)  # type: ignore[arg-type]
        values, na = self._values(body.get("values"), item)
        return Answer(values, na, seconds=seconds)

    def _values(self, given: object, item: Item) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return the values of all dimensions, and those that do not apply."""
        if not isinstance(given, dict) or set(given) != set(self.plan.dimensions):
            raise _RefusedError(400, "Rate every dimension.")
        values: dict[str, float] = {}
        na = []
        for name in self.plan.dimensions:
            value, required = given[name], item.of.sample.text_required if name == TEXT else True
            if value is None and required is not True:
                na.append(name)
            elif (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and value in VALUES
                and required is not False
            ):
                values[name] = float(value)
            else:
                raise _RefusedError(400, f"The value of {name} is not one of the scale.")
        return values, tuple(na)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _RefusedError(400, f"The field {name} is missing.")
    return value


def _refusal(request: web.Request, status: int, text: str) -> web.Response:
    if request.path.startswith("/api/"):
        return web.json_response({"error": text}, status=status)
    return web.Response(text=f"{text}\n", status=status)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def serve(server: LabelServer, sock: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        server: The server.
        sock: A listening socket.
        ready: Called with the address of the page, token included, once it can be opened.
    """
    asyncio.run(_serve(server, sock, ready))


async def _serve(server: LabelServer, sock: socket.socket, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=2.0, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        ready(f"http://{HOST}:{sock.getsockname()[1]}/?token={server.token}")
        await stop.wait()
    finally:
        await runner.cleanup()
