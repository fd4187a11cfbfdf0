"""The generator `http:`, tested against a small server of the `/generate` API."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen.core.errors import ConfigError, TransientError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.contract import GeneratedImage, capabilities_of
from knowgen.generators.http.generator import HttpGenerator
from tests.helpers.image_servers import b64
from tests.helpers.processes import wait_until


def colored_image(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (seed % 256, 7, 9)).save(buffer, kind)
    return buffer.getvalue()


def image_response(call: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "image": b64(colored_image(call["seed"]))}


def _always_set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class FakeServer:
    """A server of the API that checks the fields of requests and responds as a test sets.

    Attributes:
        respond: Returns a body, (status, body), (status, body, headers), or None to break the connection.
        gpus: Number of GPUs that `/health` reports.
        disabled: Disabled GPUs that `/health` reports.
        seconds: Seconds that a generation takes.
        health: `/health` responds once this is set.
        has_health: Whether there is a `/health`.
        token: Required bearer token; empty for none.
    """

    respond: Callable[[dict[str, Any]], Any] = image_response
    gpus: int = 1
    disabled: tuple[int, ...] = ()
    seconds: float = 0.0
    health: threading.Event = field(default_factory=_always_set)
    has_health: bool = True
    token: str = ""
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    health_checks: int = 0
    max_concurrent: int = 0
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, call: dict[str, Any]) -> Any:
        with self._lock:
            self.calls.append(call)
            self._in_flight += 1
            self.max_concurrent = max(self.max_concurrent, self._in_flight)
        time.sleep(self.seconds)
        try:
            assert isinstance(call["image_urls"], list) and isinstance(call["prompt"], str)
            return self.respond(call)
        finally:
            with self._lock:
                self._in_flight -= 1


@contextmanager
def running(server: FakeServer, port: int = 0) -> Iterator[FakeServer]:
    """Run a server on this machine while the block runs; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.health_checks += 1
            server.health.wait(60)
            if not server.has_health:
                self.send(404, {"detail": "Not Found"})
                return
            self.send(200, {"status": "healthy", "num_gpus": server.gpus, "disabled_gpus": list(server.disabled)})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                self.send(401, {"detail": "unknown token"})
                return
            response = server.generate(body)
            if response is None:
                self.close_connection = True
                self.connection.close()
            elif isinstance(response, tuple):
                self.send(*response)
            else:
                self.send(200, response)

        def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class QuietServer(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            pass  # tests disconnect clients

    http = QuietServer(("127.0.0.1", port), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=lambda: http.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def request(number: int = 0, references: tuple[ImageRef, ...] = ()) -> GenerationRequest:
    return GenerationRequest(id=f"q{number}", prompt=f"Draw number {number}.", seed=number, references=references)


def generate_all(model: str, *requests: GenerationRequest, **arguments: Any) -> list[Any]:
    """Give requests to a generator at the same time; return a result or an error for each."""

    async def generate() -> list[Any]:
        generator = HttpGenerator(model, **{"first_pause": 0.05, **arguments})
        try:
            return await asyncio.gather(*(generator.generate(request) for request in requests), return_exceptions=True)
        finally:
            await generator.close()

    return asyncio.run(generate())


def generate_one(server: FakeServer, **arguments: Any) -> Any:
    with running(server):
        return generate_all(server.url, request(5), **arguments)[0]


def pixel(result: GeneratedImage) -> tuple[int, ...]:
    assert isinstance(result.image, bytes)
    value = Image.open(io.BytesIO(result.image)).convert("RGB").getpixel((1, 1))
    assert isinstance(value, tuple)
    return value


def test_the_declared_capabilities() -> None:
    capabilities = capabilities_of(HttpGenerator)
    assert (capabilities.shape, capabilities.references, capabilities.privileged, capabilities.revision) == (
        "generate",
        True,
        False,
        "1",
    )


def test_a_request_has_the_published_fields_and_defaults() -> None:
    server = FakeServer()
    result = generate_one(server)
    assert server.calls == [
        {
            "image_urls": [],
            "prompt": "Draw number 5.",
            "seed": 5,
            "true_cfg_scale": 4.0,
            "negative_prompt": " ",
            "num_inference_steps": 40,
            "guidance_scale": 1.0,
            "num_images_per_prompt": 1,
        }
    ]
    assert pixel(result) == (5, 7, 9)
    assert result.used_prompt == "" and result.settings["num_inference_steps"] == 40
    assert result.settings["server"] == server.url


def test_settings_and_suffix_are_sent_and_recorded() -> None:
    server = FakeServer()
    result = generate_one(server, steps=8, true_cfg_scale=2.5, guidance_scale=3, negative_prompt="blur", suffix=", 4K.")
    call = server.calls[0]
    assert (call["num_inference_steps"], call["true_cfg_scale"], call["guidance_scale"]) == (8, 2.5, 3)
    assert (call["prompt"], call["negative_prompt"]) == ("Draw number 5., 4K.", "blur")
    assert result.used_prompt == "Draw number 5., 4K."
    assert result.settings["true_cfg_scale"] == 2.5


def test_the_first_three_references_are_sent_byte_for_byte(tmp_path: Path) -> None:
    references = []
    for number, kind in enumerate(["PNG", "JPEG", "WEBP", "PNG"]):
        path = tmp_path / f"reference{number}"
        path.write_bytes(colored_image(number, kind))
        references.append(ImageRef(sha256="0" * 64, width=32, height=24, format=kind, path=path))
    server = FakeServer()
    with running(server):
        generate_all(server.url, request(1, tuple(references)))
    urls = server.calls[0]["image_urls"]
    assert [url.partition(",")[0] for url in urls] == [
        "data:image/png;base64", "data:image/jpeg;base64", "data:image/webp;base64",
    ]  # fmt: skip
    assert [base64.b64decode(url.partition(",")[2]) for url in urls] == [
        colored_image(number, kind) for number, kind in enumerate(["PNG", "JPEG", "WEBP"])
    ]


@pytest.mark.parametrize(
    "encode",
    [
        lambda data: b64(data),
        lambda data: "data:image/jpeg;base64," + b64(data),
        lambda data: "data:;base64," + b64(data),
        lambda data: "\n".join(b64(data)[at : at + 76] for at in range(0, len(b64(data)), 76)) + "\n",
        lambda data: b64(data).rstrip("="),
    ],
    ids=["plain", "png labelled jpeg", "empty label", "in lines", "no padding"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_base64_spelling_of_an_image_is_read(encode: Callable[[bytes], str], kind: str) -> None:
    data = colored_image(3, kind)
    result = generate_one(FakeServer(respond=lambda call: {"success": True, "image": encode(data)}))
    assert result.image == data and result.status is GenerationStatus.OK


def test_a_failure_with_status_200_keeps_its_message_and_is_not_retried() -> None:
    traceback = "Inference failed: prompt is too long\nTraceback (most recent call last):\n  File x\n"
    server = FakeServer(respond=lambda call: {"success": False, "message": traceback})
    result = generate_one(server)
    assert (result.status, result.reason) == (GenerationStatus.FAILED, "Inference failed: prompt is too long")
    assert len(server.calls) == 1


def test_a_refusal_is_distinguished_from_a_failure() -> None:
    result = generate_one(
        FakeServer(respond=lambda call: {"success": False, "status": "refused", "message": "not this prompt"})
    )
    assert (result.status, result.reason) == (GenerationStatus.REFUSED, "not this prompt")


def test_a_rejected_request_is_a_failed_generation() -> None:
    server = FakeServer(respond=lambda call: (422, {"detail": [{"msg": "seed must be small"}]}))
    result = generate_one(server)
    assert result.status is GenerationStatus.FAILED
    assert "seed must be small" in result.reason and "422" in result.reason
    assert len(server.calls) == 1


def first_then_image(first: Any) -> Callable[[dict[str, Any]], Any]:
    """Return `first` to the first call, and an image to later ones."""
    calls: list[int] = []

    def respond(call: dict[str, Any]) -> Any:
        calls.append(1)
        return first if len(calls) == 1 else image_response(call)

    return respond


def constant(response: Any) -> Callable[[dict[str, Any]], Any]:
    """Return the same response to every call."""
    return lambda call: response


@pytest.mark.parametrize(
    "first",
    [
        {"success": False, "message": "All GPUs are busy"},
        {"success": False, "message": "no free GPU at the moment"},
        {"success": False, "message": "Inference failed: CUDA error: an illegal memory access"},
        (503, {"detail": "All GPUs are busy (wait timeout)"}, {"Retry-After": "0"}),
        (429, {"detail": "slow down"}, {"Retry-After": "0"}),
        (500, b"Internal Server Error"),
        (502, b"<html>Bad gateway</html>"),
        (200, b"not json"),
        (200, b"[1]"),
        {"success": True},
        {"success": True, "image": "@@@"},
        {"success": True, "image": b64(b"not an image")},
        None,
    ],
)
def test_a_transient_failure_is_retried(first: Any) -> None:
    server = FakeServer(respond=first_then_image(first))
    result = generate_one(server)
    assert isinstance(result, GeneratedImage), result
    assert pixel(result) == (5, 7, 9) and len(server.calls) == 2


def test_a_server_that_keeps_failing_is_a_transient_error() -> None:
    server = FakeServer(respond=lambda call: (500, {"detail": "out of order"}))
    error = generate_one(server)
    assert isinstance(error, TransientError) and "out of order" in str(error)
    assert len(server.calls) == 2  # one more than there are servers; the engine decides on further retries


def test_waiting_for_a_busy_server_is_limited_by_patience() -> None:
    server = FakeServer(respond=lambda call: (503, {"detail": "busy"}, {"Retry-After": "0.25"}))
    error = generate_one(server, patience=2.0)
    assert isinstance(error, TransientError) and "busy" in str(error) and error.retry_after == 0.25
    assert 2 <= len(server.calls) <= 9  # once at the start and at most once every quarter of a second


def test_concurrent_calls_are_limited_to_the_enabled_gpus() -> None:
    server = FakeServer(gpus=4, disabled=(2,), seconds=0.05)
    with running(server):
        results = generate_all(server.url, *map(request, range(12)))
    assert [pixel(result)[0] for result in results] == list(range(12))
    assert server.max_concurrent == 3


def test_per_server_overrides_the_reported_capacity() -> None:
    server = FakeServer(gpus=8, seconds=0.05)
    with running(server):
        generate_all(server.url, *map(request, range(6)), per_server=2)
    assert server.max_concurrent == 2


def test_calls_go_to_the_least_loaded_server() -> None:
    with running(FakeServer(gpus=1, seconds=0.1)) as small, running(FakeServer(gpus=3, seconds=0.1)) as large:
        generate_all(f"{small.url},{large.url}", *map(request, range(16)))
    assert (len(small.calls), len(large.calls)) == (4, 12)
    assert (small.max_concurrent, large.max_concurrent) == (1, 3)


def test_a_missing_or_redirected_endpoint_is_a_configuration_error() -> None:
    responses: list[tuple[Any, ...]] = [(404, {"detail": "Not Found"}), (302, b"", {"Location": "http://127.0.0.1:1/"})]
    for response in responses:
        error = generate_one(FakeServer(respond=constant(response)))
        assert isinstance(error, ConfigError) and "/generate does not exist" in str(error)


def test_a_slow_health_check_does_not_block_the_other_server() -> None:
    with running(FakeServer(health=threading.Event())) as slow, running(FakeServer()) as fast:
        results = generate_all(f"{slow.url},{fast.url}", *map(request, range(4)), health_timeout=60)
        slow.health.set()
    assert all(isinstance(result, GeneratedImage) for result in results)
    assert len(fast.calls) == 4 and not slow.calls


def test_a_server_whose_health_check_times_out_is_still_used() -> None:
    server = FakeServer(health=threading.Event())
    assert pixel(generate_one(server, health_timeout=0.2)) == (5, 7, 9)
    server.health.set()


def test_a_server_without_a_health_endpoint_is_used() -> None:
    server = FakeServer(has_health=False)
    with running(server):
        result = generate_all(f"{server.url}/generate", request(5))[0]  # the full URL is accepted, too
    assert pixel(result) == (5, 7, 9)


def test_calls_move_from_a_dead_server_to_the_other_and_back_once_it_restarts() -> None:
    async def scenario() -> None:
        stable, failing = FakeServer(seconds=0.02), FakeServer(seconds=0.02)
        with running(stable):
            with running(failing):
                port = int(failing.url.rpartition(":")[2])
                generator = HttpGenerator(f"{failing.url},{stable.url}", health_every=0.1, first_pause=0.05)
                first = await asyncio.gather(*(generator.generate(request(number)) for number in range(6)))
                failing.respond = lambda call: None  # breaks every connection from now on
                broken = await asyncio.gather(*(generator.generate(request(number)) for number in range(6)))
            # the server is stopped
            alone = await asyncio.gather(*(generator.generate(request(number)) for number in range(6)))
            restarted = FakeServer(seconds=0.02)
            with running(restarted, port):
                async with asyncio.timeout(20):
                    while not restarted.calls:
                        await asyncio.gather(*(generator.generate(request(number)) for number in range(4)))
                await generator.close()
        for results in (first, broken, alone):
            assert [pixel(result)[0] for result in results] == list(range(6))
        assert len(failing.calls) >= 2 and len(stable.calls) >= 14

    asyncio.run(scenario())


def test_unreachable_servers_are_a_configuration_error() -> None:
    with running(FakeServer()) as server:
        url = server.url
    error = generate_all(url, request())[0]
    assert isinstance(error, ConfigError)
    assert url in str(error) and "knowgen serve" in str(error)


def test_a_server_that_is_still_loading_is_awaited() -> None:
    server = FakeServer(gpus=0)  # none of its GPUs is ready

    def finish_loading() -> None:
        wait_until(lambda: server.health_checks >= 3)
        server.gpus = 1

    with running(server):
        threading.Thread(target=finish_loading, daemon=True).start()
        result = generate_all(server.url, request(5), health_every=0.1)[0]
    assert pixel(result) == (5, 7, 9)


def test_the_token_is_read_from_the_environment_and_a_wrong_one_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "open sesame")
    assert pixel(generate_one(FakeServer(token="open sesame"), key_env="SERVER_TOKEN")) == (5, 7, 9)
    error = generate_one(FakeServer(token="another"), key_env="SERVER_TOKEN")
    assert isinstance(error, ConfigError) and "open sesame" not in str(error)
    with pytest.raises(ConfigError, match="not set"):
        HttpGenerator("http://127.0.0.1:1", key_env="NOT_SET_ANYWHERE")


def test_the_metadata_of_the_server_is_recorded() -> None:
    response = {
        "success": True,
        "image": b64(colored_image(5)),
        "settings": {"steps": 9},
        "generator": "diffusers:some/model",
        "revision": "abc",
        "used_prompt": "another prompt",
        "references": [{"title": "a page"}],
        "evidence": "of the wrong type",
        "unused": ["num_inference_steps"],
    }
    result = generate_one(FakeServer(respond=lambda call: response))
    assert result.settings["served"] == {"steps": 9, "generator": "diffusers:some/model", "revision": "abc"}
    assert "num_inference_steps" not in result.settings  # it was sent, but not followed
    assert result.used_prompt == "another prompt" and result.references == ({"title": "a page"},)
    assert result.evidence == ()


def test_a_call_that_takes_too_long_is_a_transient_error() -> None:
    error = generate_one(FakeServer(seconds=1.5), timeout=0.2, patience=0.1)
    assert isinstance(error, TransientError) and "0.2 s" in str(error)


def test_the_name_of_the_system_replaces_the_urls() -> None:
    two = "http://b:8001/, http://a:8001"
    assert HttpGenerator.display_name(two) == "http:http://a:8001,http://b:8001"
    assert HttpGenerator.display_name("http://a:8001,http://b:8001") == HttpGenerator.display_name(two)
    assert HttpGenerator.display_name(two, system="qwen", steps=4) == "http:qwen"


@pytest.mark.parametrize("model", ["", ",", "ftp://a", "localhost:8001", "http://"])
def test_an_invalid_url_is_an_error(model: str) -> None:
    with pytest.raises(UsageError):
        HttpGenerator(model)


def test_a_url_with_a_secret_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        HttpGenerator("http://user:hush@a:8001")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"timeout": -1}, {"patience": "long"}, {"per_server": -1}])
def test_invalid_numbers_are_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HttpGenerator("http://a:8001", **arguments)
