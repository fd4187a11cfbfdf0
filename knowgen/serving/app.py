"""The HTTP side of a server: `POST /generate`, `GET /health`, `GET /metrics`."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from typing import Any

from fastapi import APIRouter, Request, Response

from knowgen.core.errors import RefusalError, TransientError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.core.text import one_line
from knowgen.engine.retry import (
    CallTimeoutError,
    ContractError,
    PluginDisabledError,
    StoppedError,
    describe,
    is_passing,
)
from knowgen.generators.contract import GeneratedImage
from knowgen.serving.request_parsing import (
    GenerateRequestBody,
    InvalidRequestError,
    data_of,
    is_address,
    plain,
    read_body,
    remove,
    request_of,
)
from knowgen.serving.request_queue import STOPPING, QueueFullError, QueueResult, RequestQueue

BODY_SECONDS = 60.0
"""So long a client may take to send its request."""

_NOTED = ("used_prompt", "references", "evidence", "trajectory", "settings")
_log = logging.getLogger("knowgen.serving")


class RequestRejectedError(Exception):
    """A request that is turned away.

    Args:
        code: HTTP status.
        outcome: As counted.
        words: Why.
        headers: Further headers.
    """

    def __init__(self, code: int, outcome: str, words: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(words)
        self.code, self.outcome, self.words, self.headers = code, outcome, words, headers or {}


def make_router(desk: RequestQueue) -> APIRouter:
    """Makes the routes.

    Args:
        desk: Takes requests to the generator.
    """
    routes = APIRouter()

    @routes.post("/generate")
    async def generate(request: Request) -> Response:
        try:
            _check_token(request, desk.service.token)
            with desk.place() as name:
                return await _serve(desk, request, name)
        except QueueFullError as error:
            return _rejection(desk, RequestRejectedError(503, "busy", str(error), {"Retry-After": str(error.seconds)}))
        except InvalidRequestError as error:
            return _rejection(desk, RequestRejectedError(400, "invalid", str(error)))
        except RequestRejectedError as error:
            return _rejection(desk, error)

    @routes.get("/health")
    async def health() -> Response:
        return Response(plain(desk.health()), media_type="application/json")

    @routes.get("/metrics")
    async def metrics(request: Request) -> Response:
        try:
            _check_token(request, desk.service.token)
        except RequestRejectedError as error:
            return _rejection(desk, error)
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _check_token(request: Request, token: str) -> None:
    if not token:
        return
    sent = request.headers.get("authorization", "")
    if not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
        raise RequestRejectedError(401, "denied", "a bearer token is needed", {"WWW-Authenticate": "Bearer"})


def _rejection(desk: RequestQueue, error: RequestRejectedError) -> Response:
    desk.metrics.ended(error.outcome)
    # a body that was not read would otherwise be taken for the next request
    headers = {**error.headers, "Connection": "close"}
    return Response(_said(error.outcome, error.words), error.code, headers, "application/json")


def _said(status: str, words: str) -> bytes:
    """Returns the body of an answer without a picture; `detail` is where the format's errors have their words."""
    return plain({"success": False, "status": status, "message": words, "detail": words})


async def _serve(desk: RequestQueue, request: Request, name: str) -> Response:
    if desk.control.stopped:
        raise RequestRejectedError(503, "busy", STOPPING, {"Retry-After": "5"})
    asked = read_body(await _body(request, desk.service.max_body))
    if asked.image_urls and not desk.handle.traits.references:
        raise InvalidRequestError("this generator takes no reference images")
    service = desk.service
    pictures: list[bytes] = []
    for url in asked.image_urls or ():
        pictures.append(await _picture(desk, url, service.max_body - sum(map(len, pictures))))
    wanted, files = await desk.call(request_of, asked, name, pictures, desk.folder, service.max_pixels)
    drawing = asyncio.ensure_future(_drawn(desk, wanted))
    try:
        gone = asyncio.ensure_future(_gone(request))
        await asyncio.wait({drawing, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not drawing.done():  # nobody waits for it any more
            if not desk.started(name):
                drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
            raise RequestRejectedError(499, "gone", "the client has gone")
        drawn = drawing.result()
    finally:
        drawing.cancel()
        remove(files)
    return await _answer(desk, asked, drawn)


async def _body(request: Request, most: int) -> bytes:
    """Reads a body, never more of it than is allowed.

    Raises:
        RequestRejectedError: It is too long, too slow, or not declared as JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestRejectedError(415, "invalid", "the body must be application/json")
    too_long = RequestRejectedError(413, "invalid", f"the body is longer than {most} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_long
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > most:
                    raise too_long
    except TimeoutError as error:
        raise RequestRejectedError(408, "invalid", f"the body did not come within {BODY_SECONDS:g} s") from error
    return bytes(data)


async def _picture(desk: RequestQueue, url: str, most: int) -> bytes:
    """Returns the bytes of a reference image; of one that is fetched at most so many.

    Raises:
        InvalidRequestError: It is given by an address and those are not fetched, or cannot be had.
    """
    if not is_address(url):
        return bytes(await desk.call(data_of, url))
    if not desk.service.fetch:
        raise InvalidRequestError("a reference image is given by an address; this server takes data URLs only")
    from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch

    try:
        return (await fetch(url.strip(), max_bytes=most)).data
    except (BlockedError, FetchError, TransientError) as error:
        raise InvalidRequestError(f"a reference image cannot be fetched: {error}") from error


async def _gone(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _drawn(desk: RequestQueue, wanted: GenerationRequest) -> QueueResult:
    """Has a request drawn; a fault of the generator becomes a failed drawing with its words.

    Raises:
        RequestRejectedError: It was not drawn, and asking again or elsewhere may help.
    """
    try:
        return await desk.draw(wanted)
    except RefusalError as error:
        return QueueResult(GeneratedImage(status=GenerationStatus.REFUSED, reason=describe(error)), None, 0.0)
    except StoppedError as error:
        raise RequestRejectedError(503, "busy", STOPPING, {"Retry-After": "5"}) from error
    except CallTimeoutError as error:
        raise RequestRejectedError(504, "failed", describe(error)) from error
    except PluginDisabledError as error:
        desk.give_up(error)
        raise RequestRejectedError(503, "failed", describe(error)) from error
    except (Exception, SystemExit) as error:  # a generator may raise anything
        if is_passing(error):
            wait = max(1, round(getattr(error, "retry_after", None) or 1))
            raise RequestRejectedError(503, "failed", describe(error), {"Retry-After": str(wait)}) from error
        return QueueResult(GeneratedImage(status=GenerationStatus.FAILED, reason=describe(error)), None, 0.0)


async def _answer(desk: RequestQueue, asked: GenerateRequestBody, drawn: QueueResult) -> Response:
    try:
        status, body = await desk.call(_written, desk, asked, drawn)
    except (ContractError, TypeError, ValueError) as error:
        status, body = "failed", _said("failed", f"what the generator noted is not plain data: {describe(error)}")
    desk.metrics.ended(status)
    if status != "ok":
        _log.warning("%s: %s", status, one_line(drawn.drawing.reason, 300))
    return Response(body, media_type="application/json")


def _written(desk: RequestQueue, asked: GenerateRequestBody, drawn: QueueResult) -> tuple[str, bytes]:
    """Returns the status and the body of an answer; in a thread, for pictures are large."""
    drawing, picture = drawn.drawing, drawn.picture
    if picture is None:
        status = GenerationStatus(drawing.status)
        status = GenerationStatus.REFUSED if status is GenerationStatus.REFUSED else GenerationStatus.FAILED
        return status.value, _said(status.value, drawing.reason or "the generator gave no reason")
    answer: dict[str, Any] = {
        "success": True,
        "status": "ok",
        "image": base64.b64encode(picture.data).decode("ascii"),
        "format": picture.format,
        "seed": asked.seed or 0,
        "seconds": round(drawn.seconds, 4),
        "generator": desk.handle.spec.name,
        "revision": desk.handle.spec.revision,
    }
    answer |= {name: value for name in _NOTED if (value := getattr(drawing, name))}
    if asked.unused:
        answer["unused"] = asked.unused
    return "ok", plain(answer)
