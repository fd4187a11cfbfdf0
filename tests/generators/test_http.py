"""`http:` against a small server of the published `/generate` format, written here with the standard library alone."""

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


def coloured(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (seed % 256, 7, 9)).save(buffer, kind)
    return buffer.getvalue()


def drawn(call: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "image": b64(coloured(call["seed"]))}


def _always_set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Upstream:
    """A server of the format: strict about the fields, one answer a call, with faults as a test wants them.

    Attributes:
        answer: Gives the body of an answer, (status, body), (status, body, headers), or None to break the connection.
        gpus: As `/health` says.
        disabled: As `/health` says.
        seconds: A generation takes.
        health: `/health` answers once this is set.
        has_health: Is there a `/health`?
        token: Asked for when not empty.
    """

    answer: Callable[[dict[str, Any]], Any] = drawn
    gpus: int = 1
    disabled: tuple[int, ...] = ()
    seconds: float = 0.0
    health: threading.Event = field(default_factory=_always_set)
    has_health: bool = True
    token: str = ""
    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    looks: int = 0
    max_concurrent: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, call: dict[str, Any]) -> Any:
        with self._lock:
            self.calls.append(call)
            self._now += 1
            self.max_concurrent = max(self.max_concurrent, self._now)
        time.sleep(self.seconds)
        try:
            assert isinstance(call["image_urls"], list) and isinstance(call["prompt"], str)
            return self.answer(call)
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def running(server: Upstream, port: int = 0) -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.looks += 1
            server.health.wait(60)
            if not server.has_health:
                self.say(404, {"detail": "Not Found"})
                return
            self.say(200, {"status": "healthy", "num_gpus": server.gpus, "disabled_gpus": list(server.disabled)})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                self.say(401, {"detail": "who are you?"})
                return
            given = server.generate(body)
            if given is None:
                self.close_connection = True
                self.connection.close()
            elif isinstance(given, tuple):
                self.say(*given)
            else:
                self.say(200, given)

        def say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            pass  # a client that leaves is part of the tests

    http = Quiet(("127.0.0.1", port), Handler)
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


def paint(model: str, *requests: GenerationRequest, **arguments: Any) -> list[Any]:
    """Gives requests to a painter all at once; returns a generation or an error for each."""

    async def all_of_them() -> list[Any]:
        painter = HttpGenerator(model, **{"first_pause": 0.05, **arguments})
        try:
            return await asyncio.gather(*(painter.generate(one) for one in requests), return_exceptions=True)
        finally:
            await painter.close()

    return asyncio.run(all_of_them())


def one(server: Upstream, **arguments: Any) -> Any:
    with running(server):
        return paint(server.url, request(5), **arguments)[0]


def pixel(drawing: GeneratedImage) -> tuple[int, ...]:
    assert isinstance(drawing.image, bytes)
    value = Image.open(io.BytesIO(drawing.image)).convert("RGB").getpixel((1, 1))
    assert isinstance(value, tuple)
    return value


def test_it_declares_what_the_engine_wants_to_know() -> None:
    traits = capabilities_of(HttpGenerator)
    assert (traits.shape, traits.references, traits.privileged, traits.revision) == ("generate", True, False, "1")


def test_a_request_has_the_published_fields_and_defaults() -> None:
    server = Upstream()
    drawing = one(server)
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
    assert pixel(drawing) == (5, 7, 9)
    assert drawing.used_prompt == "" and drawing.settings["num_inference_steps"] == 40
    assert drawing.settings["server"] == server.url


def test_settings_and_suffix_are_sent_and_recorded() -> None:
    server = Upstream()
    drawing = one(server, steps=8, true_cfg_scale=2.5, guidance_scale=3, negative_prompt="blur", suffix=", 4K.")
    call = server.calls[0]
    assert (call["num_inference_steps"], call["true_cfg_scale"], call["guidance_scale"]) == (8, 2.5, 3)
    assert (call["prompt"], call["negative_prompt"]) == ("Draw number 5., 4K.", "blur")
    assert drawing.used_prompt == "Draw number 5., 4K."
    assert drawing.settings["true_cfg_scale"] == 2.5


def test_references_are_sent_byte_for_byte_and_no_more_than_three(tmp_path: Path) -> None:
    references = []
    for number, kind in enumerate(["PNG", "JPEG", "WEBP", "PNG"]):
        path = tmp_path / f"reference{number}"
        path.write_bytes(coloured(number, kind))
        references.append(ImageRef(sha256="0" * 64, width=32, height=24, format=kind, path=path))
    server = Upstream()
    with running(server):
        paint(server.url, request(1, tuple(references)))
    urls = server.calls[0]["image_urls"]
    assert [url.partition(",")[0] for url in urls] == [
        "data:image/png;base64", "data:image/jpeg;base64", "data:image/webp;base64",
    ]  # fmt: skip
    assert [base64.b64decode(url.partition(",")[2]) for url in urls] == [
        coloured(number, kind) for number, kind in enumerate(["PNG", "JPEG", "WEBP"])
    ]


@pytest.mark.parametrize(
    "written",
    [
        lambda data: b64(data),
        lambda data: "data:image/jpeg;base64," + b64(data),
        lambda data: "data:;base64," + b64(data),
        lambda data: "\n".join(b64(data)[at : at + 76] for at in range(0, len(b64(data)), 76)) + "\n",
        lambda data: b64(data).rstrip("="),
    ],
    ids=["plain", "png called jpeg", "empty label", "in lines", "no padding"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_read_however_it_is_written(written: Callable[[bytes], str], kind: str) -> None:
    data = coloured(3, kind)
    drawing = one(Upstream(answer=lambda call: {"success": True, "image": written(data)}))
    assert drawing.image == data and drawing.status is GenerationStatus.OK


def test_a_failure_with_status_200_keeps_its_words_and_is_not_asked_again() -> None:
    traceback = "Inference failed: prompt is too long\nTraceback (most recent call last):\n  File x\n"
    server = Upstream(answer=lambda call: {"success": False, "message": traceback})
    drawing = one(server)
    assert (drawing.status, drawing.reason) == (GenerationStatus.FAILED, "Inference failed: prompt is too long")
    assert len(server.calls) == 1


def test_a_refusal_is_distinguished_from_a_failure() -> None:
    drawing = one(Upstream(answer=lambda call: {"success": False, "status": "refused", "message": "not this one"}))
    assert (drawing.status, drawing.reason) == (GenerationStatus.REFUSED, "not this one")


def test_a_rejected_request_is_a_failed_generation() -> None:
    server = Upstream(answer=lambda call: (422, {"detail": [{"msg": "seed must be small"}]}))
    drawing = one(server)
    assert drawing.status is GenerationStatus.FAILED
    assert "seed must be small" in drawing.reason and "422" in drawing.reason
    assert len(server.calls) == 1


def later(first: Any) -> Callable[[dict[str, Any]], Any]:
    """Answers the first call with something else, and generates from then on."""
    asked: list[int] = []

    def answer(call: dict[str, Any]) -> Any:
        asked.append(1)
        return first if len(asked) == 1 else drawn(call)

    return answer


def always(given: Any) -> Callable[[dict[str, Any]], Any]:
    """Answers every call alike."""
    return lambda call: given


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
        {"success": True, "image": b64(b"no picture at all")},
        None,
    ],
)
def test_what_may_pass_is_asked_again(first: Any) -> None:
    server = Upstream(answer=later(first))
    drawing = one(server)
    assert isinstance(drawing, GeneratedImage), drawing
    assert pixel(drawing) == (5, 7, 9) and len(server.calls) == 2


def test_a_fault_that_stays_is_handed_to_the_engine_as_one_that_may_pass() -> None:
    server = Upstream(answer=lambda call: (500, {"detail": "out of order"}))
    error = one(server)
    assert isinstance(error, TransientError) and "out of order" in str(error)
    assert len(server.calls) == 2  # one more than there are servers; the engine decides on the rest


def test_a_busy_server_is_waited_for_no_longer_than_patience() -> None:
    server = Upstream(answer=lambda call: (503, {"detail": "busy"}, {"Retry-After": "0.25"}))
    error = one(server, patience=2.0)
    assert isinstance(error, TransientError) and "busy" in str(error) and error.retry_after == 0.25
    assert 2 <= len(server.calls) <= 9  # once at the start and at most once every quarter of a second


def test_no_more_calls_at_once_than_the_server_has_gpus() -> None:
    server = Upstream(gpus=4, disabled=(2,), seconds=0.05)
    with running(server):
        drawings = paint(server.url, *map(request, range(12)))
    assert [pixel(drawing)[0] for drawing in drawings] == list(range(12))
    assert server.max_concurrent == 3


def test_per_server_overrides_what_the_server_says() -> None:
    server = Upstream(gpus=8, seconds=0.05)
    with running(server):
        paint(server.url, *map(request, range(6)), per_server=2)
    assert server.max_concurrent == 2


def test_the_least_busy_server_is_asked_first() -> None:
    with running(Upstream(gpus=1, seconds=0.1)) as small, running(Upstream(gpus=3, seconds=0.1)) as large:
        paint(f"{small.url},{large.url}", *map(request, range(16)))
    assert (len(small.calls), len(large.calls)) == (4, 12)
    assert (small.max_concurrent, large.max_concurrent) == (1, 3)


def test_what_leads_elsewhere_or_nowhere_ends_the_run_with_one_line() -> None:
    answers: list[tuple[Any, ...]] = [(404, {"detail": "Not Found"}), (302, b"", {"Location": "http://127.0.0.1:1/"})]
    for answer in answers:
        error = one(Upstream(answer=always(answer)))
        assert isinstance(error, ConfigError) and "/generate is not there" in str(error)


def test_a_slow_health_does_not_hold_up_the_other_server() -> None:
    with running(Upstream(health=threading.Event())) as slow, running(Upstream()) as quick:
        drawings = paint(f"{slow.url},{quick.url}", *map(request, range(4)), health_timeout=60)
        slow.health.set()
    assert all(isinstance(drawing, GeneratedImage) for drawing in drawings)
    assert len(quick.calls) == 4 and not slow.calls


def test_a_server_that_does_not_report_its_health_in_time_is_not_dead() -> None:
    server = Upstream(health=threading.Event())
    assert pixel(one(server, health_timeout=0.2)) == (5, 7, 9)
    server.health.set()


def test_a_server_without_health_is_asked_all_the_same() -> None:
    server = Upstream(has_health=False)
    with running(server):
        drawing = paint(f"{server.url}/generate", request(5))[0]  # the full address is understood, too
    assert pixel(drawing) == (5, 7, 9)


def test_when_one_of_two_servers_dies_the_other_takes_its_work_and_it_is_asked_again_once_it_is_back() -> None:
    async def scenario() -> None:
        survivor, mortal = Upstream(seconds=0.02), Upstream(seconds=0.02)
        with running(survivor):
            with running(mortal):
                port = int(mortal.url.rpartition(":")[2])
                painter = HttpGenerator(f"{mortal.url},{survivor.url}", health_every=0.1, first_pause=0.05)
                first = await asyncio.gather(*(painter.generate(request(number)) for number in range(6)))
                mortal.answer = lambda call: None  # it breaks every connection from now on …
                broken = await asyncio.gather(*(painter.generate(request(number)) for number in range(6)))
            # … and is gone altogether
            alone = await asyncio.gather(*(painter.generate(request(number)) for number in range(6)))
            reborn = Upstream(seconds=0.02)
            with running(reborn, port):
                async with asyncio.timeout(20):
                    while not reborn.calls:
                        await asyncio.gather(*(painter.generate(request(number)) for number in range(4)))
                await painter.close()
        for drawings in (first, broken, alone):
            assert [pixel(drawing)[0] for drawing in drawings] == list(range(6))
        assert len(mortal.calls) >= 2 and len(survivor.calls) >= 14

    asyncio.run(scenario())


def test_servers_that_are_not_there_end_the_run_with_one_line() -> None:
    with running(Upstream()) as server:
        url = server.url
    error = paint(url, request())[0]
    assert isinstance(error, ConfigError)
    assert url in str(error) and "knowgen serve" in str(error)


def test_a_server_that_is_still_loading_is_waited_for() -> None:
    server = Upstream(gpus=0)  # none of its GPUs is ready

    def wake() -> None:
        time.sleep(0.5)
        server.gpus = 1

    with running(server):
        threading.Thread(target=wake, daemon=True).start()
        drawing = paint(server.url, request(5), health_every=0.1)[0]
    assert pixel(drawing) == (5, 7, 9)


def test_a_token_comes_from_the_environment_and_a_wrong_one_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAINTER_SECRET", "open sesame")
    assert pixel(one(Upstream(token="open sesame"), key_env="PAINTER_SECRET")) == (5, 7, 9)
    error = one(Upstream(token="another"), key_env="PAINTER_SECRET")
    assert isinstance(error, ConfigError) and "open sesame" not in str(error)
    with pytest.raises(ConfigError, match="not set"):
        HttpGenerator("http://127.0.0.1:1", key_env="NOT_SET_ANYWHERE")


def test_what_the_server_says_of_itself_is_recorded() -> None:
    answer = {
        "success": True,
        "image": b64(coloured(5)),
        "settings": {"steps": 9},
        "generator": "diffusers:some/model",
        "revision": "abc",
        "used_prompt": "another prompt",
        "references": [{"title": "a page"}],
        "evidence": "of the wrong shape",
        "unused": ["num_inference_steps"],
    }
    drawing = one(Upstream(answer=lambda call: answer))
    assert drawing.settings["served"] == {"steps": 9, "generator": "diffusers:some/model", "revision": "abc"}
    assert "num_inference_steps" not in drawing.settings  # it was asked for, and not followed
    assert drawing.used_prompt == "another prompt" and drawing.references == ({"title": "a page"},)
    assert drawing.evidence == ()


def test_a_call_that_takes_too_long_is_a_fault_that_may_pass() -> None:
    error = one(Upstream(seconds=1.5), timeout=0.2, patience=0.1)
    assert isinstance(error, TransientError) and "0.2 s" in str(error)


def test_the_name_of_what_is_served_takes_the_place_of_the_addresses() -> None:
    two = "http://b:8001/, http://a:8001"
    assert HttpGenerator.display_name(two) == "http:http://a:8001,http://b:8001"
    assert HttpGenerator.display_name("http://a:8001,http://b:8001") == HttpGenerator.display_name(two)
    assert HttpGenerator.display_name(two, system="qwen", steps=4) == "http:qwen"


@pytest.mark.parametrize("model", ["", ",", "ftp://a", "localhost:8001", "http://"])
def test_what_is_not_an_address_is_refused(model: str) -> None:
    with pytest.raises(UsageError):
        HttpGenerator(model)


def test_an_address_with_a_secret_is_not_taken() -> None:
    with pytest.raises(ConfigError) as caught:
        HttpGenerator("http://user:hush@a:8001")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"timeout": -1}, {"patience": "long"}, {"per_server": -1}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HttpGenerator("http://a:8001", **wrong)
