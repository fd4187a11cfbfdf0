"""The HTTP routes of a server: `POST /generate`, `GET /health`, `GET /metrics`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from knowgen.core.errors import RefusalError, TransientError
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.core.text import one_line
from knowgen.engine.retry import (
    CallTimeoutError,
    ContractError,
    PluginDisabledError,
    StoppedError,
    describe,
    is_transient,
)
from knowgen.generators.contract import GeneratedImage
from knowgen.serving.request_parsing import (
    GenerateRequestBody,
    InvalidRequestError,
    decode_data_url,
    is_http_url,
    make_request,
    parse_body,
    pixels_of,
    remove_files,
    to_json,
)
from knowgen.serving.request_queue import STOPPING, QueueFullError, QueueResult, RequestQueue

BODY_SECONDS = 60.0
"""Seconds a client may take to send the body of its request."""

IDLE_SECONDS = 15.0
"""Seconds a client may pause while it sends the body."""

REFERENCE_SECONDS = 60.0
"""Seconds that fetching the reference images of a request may take, where that is allowed."""

_METADATA = ("used_prompt", "references", "evidence", "trajectory", "settings")
_log = logging.getLogger("knowgen.serving")


class RequestRejectedError(Exception):
    """A request that is rejected.

    Args:
        code: HTTP status.
        outcome: Outcome for the metrics.
        message: The reason.
        headers: Additional response headers.
    """

    def __init__(self, code: int, outcome: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.outcome, self.message, self.headers = code, outcome, message, headers or {}


def make_router(queue: RequestQueue) -> APIRouter:
    """Return the routes of a server.

    Args:
        queue: The queue that requests are admitted to.
    """
    routes = APIRouter()

    @routes.post("/generate")
    async def generate(request: Request) -> Response:
        try:
            _check_token(request, queue.settings.token)
            return await _generate(queue, request)
        except QueueFullError as error:
            rejected = RequestRejectedError(503, "busy", str(error), {"Retry-After": str(error.seconds)})
            return _rejection(queue, rejected)
        except InvalidRequestError as error:
            return _rejection(queue, RequestRejectedError(400, "invalid", str(error)))
        except RequestRejectedError as error:
            return _rejection(queue, error)

    @routes.get("/health")
    async def health() -> Response:
        return Response(to_json(queue.health()), media_type="application/json")

    @routes.get("/metrics")
    async def metrics(request: Request) -> Response:
        try:
            _check_token(request, queue.settings.token)
        except RequestRejectedError as error:
            return _rejection(queue, error)
        return Response(queue.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _check_token(request: Request, token: str) -> None:
    if not token:
        return
    sent = request.headers.get("authorization", "")
    if not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
        raise RequestRejectedError(401, "denied", "a bearer token is needed", {"WWW-Authenticate": "Bearer"})


def _rejection(queue: RequestQueue, error: RequestRejectedError) -> Response:
    queue.metrics.count_request(error.outcome)
    # a body that was not read would otherwise be parsed as the next request
    headers = {**error.headers, "Connection": "close"}
    return Response(_error_body(error.outcome, error.message), error.code, headers, "application/json")


def _error_body(status: str, message: str) -> bytes:
    """Return the body of a response without an image. Clients of the format read the reason from `detail`."""
    return to_json({"success": False, "status": status, "message": message, "detail": message})


async def _generate(queue: RequestQueue, request: Request) -> Response:
    """Receive a request, and admit it when it is complete: a client that stalls keeps no other one waiting."""
    if queue.state.stop_reason:
        raise RequestRejectedError(503, "busy", STOPPING, {"Retry-After": "5"})
    queue.check_room()
    with queue.pixels.holding() as add_pixels, contextlib.ExitStack() as receiving:
        body, references = await _receive(queue, request, receiving.enter_context(queue.bytes.holding()))
        await _check_pixels(queue, references, add_pixels)
        with queue.admit() as id:
            generation_request, files = await queue.run_in_thread(
                make_request, body, id, references, queue.folder, queue.settings.max_pixels
            )
            references.clear()  # they are in files from now on
            body.image_urls = None
            receiving.close()
            try:
                result = await _result_unless_disconnected(queue, request, generation_request)
            finally:
                remove_files(files)
            return await _response(queue, body, result)


async def _receive(
    queue: RequestQueue, request: Request, add_bytes: Callable[[int], None]
) -> tuple[GenerateRequestBody, list[bytes]]:
    """Return the parsed body of a request and the bytes of its reference images.

    Raises:
        RequestRejectedError, InvalidRequestError: It is too long, too slow, or invalid.
        QueueFullError: Too many bytes are being received.
    """
    max_bytes = queue.settings.max_body
    body = await queue.run_in_thread(parse_body, await _read_body(request, max_bytes, add_bytes))
    if body.image_urls and not queue.handle.capabilities.references:
        raise InvalidRequestError("this generator takes no reference images")
    references: list[bytes] = []
    try:
        async with asyncio.timeout(REFERENCE_SECONDS):
            for url in body.image_urls or ():
                references.append(await _reference(queue, url, max_bytes - sum(map(len, references))))
                add_bytes(len(references[-1]))
    except TimeoutError as error:
        message = f"the reference images could not be fetched within {REFERENCE_SECONDS:g} s"
        raise InvalidRequestError(message) from error
    return body, references


async def _check_pixels(queue: RequestQueue, references: list[bytes], add_pixels: Callable[[int], None]) -> None:
    """Check the number of pixels of all reference images of a request, before any of them is decoded.

    Raises:
        RequestRejectedError: The request has too many by itself.
        QueueFullError: It has too many beside those of other requests.
    """
    settings = queue.settings
    pixels, most = await queue.run_in_thread(pixels_of, references, settings.max_pixels), settings.max_pixels_of_request
    if pixels > most:
        message = f"the reference images have {pixels} pixels together, at most {most} are allowed"
        raise RequestRejectedError(413, "invalid", message)
    add_pixels(pixels)


async def _result_unless_disconnected(
    queue: RequestQueue, request: Request, generation_request: GenerationRequest
) -> QueueResult:
    """Return the result of a request. If its client disconnects, drop it, or wait for a generation in progress.

    Raises:
        RequestRejectedError: The client has disconnected, or see `_result`.
    """
    generation = asyncio.ensure_future(_result(queue, generation_request))
    try:
        disconnected = asyncio.ensure_future(_disconnected(request))
        await asyncio.wait({generation, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        disconnected.cancel()
        if not generation.done():
            if not queue.is_started(generation_request.id):
                generation.cancel()
            await asyncio.gather(generation, return_exceptions=True)
            raise RequestRejectedError(499, "gone", "the client has disconnected")
        return generation.result()
    finally:
        generation.cancel()


async def _disconnected(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_body(request: Request, max_bytes: int, add_bytes: Callable[[int], None]) -> bytes:
    """Return the body of a request; read no more than is allowed.

    Raises:
        RequestRejectedError: It is too long, too slow, or not declared as JSON.
        QueueFullError: Too many bytes are being received.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestRejectedError(415, "invalid", "the body must be application/json")
    too_long = RequestRejectedError(413, "invalid", f"the body is longer than {max_bytes} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_long
    data = bytearray()
    loop = asyncio.get_running_loop()
    end = loop.time() + BODY_SECONDS
    try:
        async with asyncio.timeout(IDLE_SECONDS) as limit:
            async for chunk in request.stream():
                add_bytes(len(chunk))
                data += chunk
                if len(data) > max_bytes:
                    raise too_long
                limit.reschedule(min(end, loop.time() + IDLE_SECONDS))
    except TimeoutError as error:
        message = f"the body did not arrive within {BODY_SECONDS:g} s, or paused for {IDLE_SECONDS:g} s"
        raise RequestRejectedError(408, "invalid", message) from error
    except ClientDisconnect as error:
        raise RequestRejectedError(499, "gone", "the client has disconnected") from error
    return bytes(data)


async def _reference(queue: RequestQueue, url: str, max_bytes: int) -> bytes:
    """Return the bytes of a reference image; fetch at most `max_bytes` of one given by an http URL.

    Raises:
        InvalidRequestError: It is given by an http URL that may not or cannot be fetched, or not encoded correctly.
    """
    if not is_http_url(url):
        return bytes(await queue.run_in_thread(decode_data_url, url))
    if not queue.settings.fetch:
        raise InvalidRequestError("a reference image is given by an http URL; this server takes data URLs only")
    from knowgen.clients.safe_fetch import BlockedError, FetchError, fetch

    try:
        return (await fetch(url.strip(), max_bytes=max_bytes)).data
    except (BlockedError, FetchError, TransientError) as error:
        raise InvalidRequestError(f"a reference image cannot be fetched: {error}") from error


async def _result(queue: RequestQueue, request: GenerationRequest) -> QueueResult:
    """Return the result of a request; an error of the generator becomes a failed result with its message.

    Raises:
        RequestRejectedError: No image was generated, and trying again or elsewhere may help.
    """
    try:
        return await queue.generate(request)
    except RefusalError as error:
        return QueueResult(GeneratedImage(status=GenerationStatus.REFUSED, reason=describe(error)), None, 0.0)
    except StoppedError as error:
        raise RequestRejectedError(503, "busy", STOPPING, {"Retry-After": "5"}) from error
    except CallTimeoutError as error:
        raise RequestRejectedError(504, "failed", describe(error)) from error
    except PluginDisabledError as error:
        queue.fail(error)
        raise RequestRejectedError(503, "failed", describe(error)) from error
    except (Exception, SystemExit) as error:  # a generator may raise anything
        if is_transient(error):
            wait = max(1, round(getattr(error, "retry_after", None) or 1))
            raise RequestRejectedError(503, "failed", describe(error), {"Retry-After": str(wait)}) from error
        return QueueResult(GeneratedImage(status=GenerationStatus.FAILED, reason=describe(error)), None, 0.0)


async def _response(queue: RequestQueue, body: GenerateRequestBody, result: QueueResult) -> Response:
    try:
        status, content = await queue.run_in_thread(_response_body, queue, body, result)
    except (ContractError, TypeError, ValueError) as error:
        status = "failed"
        content = _error_body(status, f"the metadata of the image is not plain data: {describe(error)}")
    queue.metrics.count_request(status)
    if status != "ok":
        _log.warning("%s: %s", status, one_line(result.generated.reason, 300))
    return Response(content, media_type="application/json")


def _response_body(queue: RequestQueue, body: GenerateRequestBody, result: QueueResult) -> tuple[str, bytes]:
    """Return the status and the body of a response. Runs in a thread, because images are large."""
    generated, image = result.generated, result.image
    if image is None:
        status = GenerationStatus(generated.status)
        status = GenerationStatus.REFUSED if status is GenerationStatus.REFUSED else GenerationStatus.FAILED
        return status.value, _error_body(status.value, generated.reason or "the generator gave no reason")
    content: dict[str, Any] = {
        "success": True,
        "status": "ok",
        "image": base64.b64encode(image.data).decode("ascii"),
        "format": image.format,
        "seed": body.seed or 0,
        "seconds": round(result.seconds, 4),
        "generator": queue.handle.spec.name,
        "revision": queue.handle.spec.revision,
    }
    content |= {name: value for name in _METADATA if (value := getattr(generated, name))}
    if body.unused:
        content["unused"] = body.unused
    return "ok", to_json(content)
