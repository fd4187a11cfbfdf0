"""`knowgen serve` as seen by a client of the published HTTP format: images, failures, limits, shutdown."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from PIL import Image

from knowgen.serving import server as server_module
from tests.helpers.processes import wait_until
from tests.helpers.serving import Answer, Served, served, start

SETTINGS = {
    "true_cfg_scale": 4.0,
    "negative_prompt": " ",
    "num_inference_steps": 40,
    "guidance_scale": 1.0,
    "num_images_per_prompt": 1,
}


def expected(prompt: str, seed: int, references: tuple[tuple[int, int, int], ...] = ()) -> tuple[int, ...]:
    """Return the colour that the tests' generators give, computed independently."""
    fields = json.dumps([prompt, seed, [list(one) for one in references]])
    return tuple(hashlib.sha256(fields.encode()).digest()[:3])


def png(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with served(folder, "makers.py:Synchronous", "--max-body", "1", "--max-pixels", "0.01", "--timeout", "20") as one:
        yield one


def test_health_has_the_fields_of_the_format(server: Served) -> None:
    body = server.ask("/health").body
    assert (body["status"], body["num_gpus"], body["disabled_gpus"]) == ("healthy", 1, [])


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_prompt_and_seed_decide_the_image(server: Served, seed: int) -> None:
    answer = server.generate("a lamp", seed, **SETTINGS)
    assert answer.status == 200 and answer.body["status"] == "ok"
    assert answer.pixel == expected("a lamp", seed)
    assert answer.body["unused"] == ["guidance_scale", "negative_prompt", "num_inference_steps", "true_cfg_scale"]


def test_a_missing_seed_is_0_and_missing_images_are_none(server: Served) -> None:
    assert server.ask("/generate", {"prompt": "a lamp"}).pixel == expected("a lamp", 0)
    assert server.ask("/generate", {"prompt": "a lamp", "seed": None, "image_urls": []}).pixel == expected("a lamp", 0)


def test_references_reach_the_generator_whatever_format_they_declare(server: Served) -> None:
    urls = [f"data:image/jpeg;base64,{png((200, 1, 2))}", f"data:image/png;base64,{png((3, 4, 250))}"]
    assert server.generate("two", 1, image_urls=urls).pixel == expected("two", 1, ((200, 1, 2), (3, 4, 250)))


@pytest.mark.parametrize(
    ("prompt", "status", "words"),
    [
        ("refuse this", "refused", "not this one"),
        ("break this", "failed", "ValueError: cannot draw that"),
        ("give nothing", "failed", "None"),
    ],
)
def test_failed_and_refused_generations_have_status_200_and_a_reason(
    server: Served, prompt: str, status: str, words: str
) -> None:
    answer = server.generate(prompt)
    assert answer.status == 200
    assert (answer.body["success"], answer.body["status"]) == (False, status)
    assert words in answer.body["message"]


def test_a_transient_error_is_503_with_the_requested_wait(server: Served) -> None:
    answer = server.generate("later please")
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    assert "the service behind me is full" in answer.body["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not json", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"seed": 1}', "prompt"),
        (b'{"prompt": ""}', "prompt"),
        (b'{"prompt": 3}', "prompt"),
        (b'{"prompt": "a", "seed": -1}', "seed"),
        (b'{"prompt": "a", "seed": 2147483648}', "seed"),
        (b'{"prompt": "a", "image_urls": "x"}', "image_urls"),
        (b'{"prompt": "a", "image_urls": ["data:image/png;base64,@@@"]}', "base64"),
        (b'{"prompt": "a", "image_urls": ["data:image/png;base64,aGVsbG8="]}', "does not open"),
        (b'{"prompt": "a", "image_urls": ["file:///etc/passwd"]}', "not a data URL"),
        (b'{"prompt": "a", "image_urls": ["/etc/passwd"]}', "not a data URL"),
        (b'{"prompt": "a", "image_urls": ["http://127.0.0.1:1/x.png"]}', "data URLs only"),
        (json.dumps({"prompt": "a", "image_urls": [f"data:;base64,{png((1, 2, 3), (200, 200))}"]}).encode(), "pixels"),
        (json.dumps({"prompt": "a", "image_urls": ["x"] * 17}).encode(), "image_urls"),
        (b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
    ],
)
def test_an_invalid_request_is_400_and_names_the_field(server: Served, body: bytes, words: str) -> None:
    before = len(server.log())
    answer = server.ask("/generate", body)
    assert answer.status == 400, answer
    assert answer.body["success"] is False and words in answer.body["message"]
    assert len(server.log()) == before  # the generator was not bothered


def test_a_body_that_is_not_json_is_not_read(server: Served) -> None:
    answer = server.ask("/generate", b'{"prompt": "a"}', {"Content-Type": "text/plain"})
    assert answer.status == 415


def test_a_body_that_is_too_long_is_rejected_with_or_without_content_length(server: Served) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), 10) as line:
        line.sendall(f"{head}Content-Length: {2 << 20}\r\n\r\n".encode())
        assert b" 413 " in line.recv(4096)  # before any of it was sent
    with socket.create_connection((host, int(port)), 10) as line:
        line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(64):  # 4 MiB where 1 is allowed
                line.sendall(chunk)
        except OSError:
            pass  # it has closed the line already
        else:
            assert b" 413 " in line.recv(4096)
    assert server.generate("still there", 2).pixel == expected("still there", 2)


def test_unknown_paths_and_methods_are_404_and_405(server: Served) -> None:
    assert server.ask("/").status == 404
    assert server.ask("/docs").status == 404
    assert server.ask("/generate").status == 405


def test_metrics_count_outcomes_batches_and_times(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous") as own:
        for prompt in ("one", "two", "break", "refuse"):
            own.generate(prompt)
        own.ask("/generate", b"?")
        assert own.metric('knowgen_requests_total{outcome="ok"}') == 2
        assert own.metric('knowgen_requests_total{outcome="failed"}') == 1
        assert own.metric('knowgen_requests_total{outcome="refused"}') == 1
        assert own.metric('knowgen_requests_total{outcome="invalid"}') == 1
        assert own.metric("knowgen_batch_size_sum") == 4
        assert own.metric("knowgen_generation_seconds_count") == 2
        assert own.metric("knowgen_waiting") == own.metric("knowgen_in_progress") == 0


def together(server: Served, prompts: list[str]) -> list[Answer]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda pair: server.generate(pair[1], pair[0]), enumerate(prompts)))


def test_queued_requests_are_generated_in_batches(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Batches", "-g", "seconds=0.3", "--batch", "4") as own:
        assert own.ask("/health").body["capacity"] == 4
        answers = together(own, [f"image {number}" for number in range(16)])
        assert own.metric("knowgen_batch_size_sum") == 16
    assert [one.pixel for one in answers] == [expected(f"image {number}", number) for number in range(16)]
    sizes = own.log()
    assert sum(sizes) == 16 and max(sizes) == 4
    assert len(sizes) <= 6
    assert Counter(one.body["settings"]["batch"] for one in answers)[4] >= 8


def test_an_async_generator_generates_as_many_at_once_as_it_declares(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Waits") as own:
        answers = together(own, [f"image {number}" for number in range(8)])
    assert [one.pixel for one in answers] == [expected(f"image {number}", number) for number in range(8)]
    assert answers[3].body["used_prompt"] == "IMAGE 3"


def test_a_full_queue_rejects_requests_immediately_with_retry_after(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "-g", "seconds=0.5", "--queue", "2") as own:
        answers = together(own, [f"image {number}" for number in range(8)])
        counts = Counter(one.status for one in answers)
        assert counts == {200: 3, 503: 5}  # one is generated, two wait
        for one in answers:
            if one.status == 503:
                assert 1 <= int(one.headers["retry-after"]) <= 60
                assert one.body["status"] == "busy" and "busy" in one.body["message"]
        assert own.metric('knowgen_requests_total{outcome="busy"}') == 5
        assert own.generate("afterwards", 1).pixel == expected("afterwards", 1)


def test_requests_without_the_token_are_rejected(tmp_path: Path) -> None:
    secret = {"SERVE_SECRET": "open sesame"}
    with served(tmp_path, "makers.py:Synchronous", "--token-env", "SERVE_SECRET", environment=secret) as own:
        assert own.generate("a lamp").status == 401
        assert own.generate("a lamp", headers={"Authorization": "Bearer wrong"}).status == 401
        assert own.generate("a lamp", headers={"Authorization": "open sesame"}).status == 401
        assert own.ask("/metrics").status == 401
        answer = own.generate("a lamp", headers={"Authorization": "Bearer open sesame"})
        assert answer.pixel == expected("a lamp", 0)
        code, out, err = own.stop()
    assert code == 0 and "open sesame" not in out + err
    assert own.log() == ["a lamp"]


def test_references_for_a_generator_without_them_are_rejected(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Plain") as own:
        answer = own.generate("a lamp", image_urls=[f"data:image/png;base64,{png((1, 2, 3))}"])
    assert answer.status == 400 and "no reference images" in answer.body["message"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_the_image_in_progress_is_finished_and_others_are_rejected(tmp_path: Path, signum: int) -> None:
    with served(tmp_path, "makers.py:Synchronous", "-g", "seconds=1") as own, ThreadPoolExecutor(3) as pool:
        first = pool.submit(own.generate, "first", 1)
        wait_until(lambda: own.log() == ["first"])
        rest = [pool.submit(own.generate, f"another {number}") for number in range(2)]
        wait_until(lambda: own.ask("/health").body["waiting"] == 2)
        code, out, _ = own.stop(signum)
        assert first.result().pixel == expected("first", 1)
        assert [one.result().status for one in rest] == [503, 503]
        assert all("retry-after" in one.result().headers for one in rest)
    assert code == 0 and out.splitlines()[-1] == "stopped"
    assert own.log() == ["first"]


def test_a_second_signal_ends_the_process(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "-g", "seconds=3600") as own, ThreadPoolExecutor(1) as pool:
        lost = pool.submit(own.generate, "first")
        wait_until(lambda: own.log() == ["first"])
        wait_until(lambda: own.process.send_signal(signal.SIGTERM), own.process)
        code, _, err = own.stop()
        with pytest.raises(OSError):
            lost.result()
    assert code == 130 and "Traceback" not in err


def test_a_repeat_of_the_first_signal_is_ignored_for_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    calls: list[object] = []
    monkeypatch.setattr(server_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(server_module, "os", SimpleNamespace(_exit=calls.append))
    server = server_module._Server(uvicorn.Config("unused"), lambda: calls.append("stop"), tmp_path / "scratch")
    for seconds in (0.0, 0.1, 1.0):
        now[0] = 100.0 + seconds
        server.handle_exit(signal.SIGTERM, None)
    assert calls == ["stop"] and server.should_exit
    now[0] = 101.1
    server.handle_exit(signal.SIGTERM, None)
    assert calls == ["stop", 130]


def test_while_the_generator_loads_requests_wait_and_health_reports_it(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Slow", "-g", "seconds=1.5", state="loading") as own:
        assert own.generate("a lamp", 3).pixel == expected("a lamp", 3)
        assert own.ask("/health").body["status"] == "healthy"


def test_a_signal_ends_a_server_that_is_loading(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Slow", "-g", "seconds=3600", state="loading") as own:
        assert own.stop()[0] == 0


def test_no_image_is_generated_for_a_client_that_disconnects_while_queued(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "-g", "seconds=1") as own:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(own.generate, "first")
            wait_until(lambda: own.log() == ["first"])
            host, _, port = own.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port)), 10) as line:
                body = b'{"prompt": "impatient"}'
                head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                wait_until(lambda: own.ask("/health").body["waiting"] == 1)
            wait_until(lambda: own.ask("/health").body["waiting"] == 0)
            assert first.result().status == 200
        own.generate("last")
        assert own.log() == ["first", "last"]
        assert own.metric('knowgen_requests_total{outcome="gone"}') == 1


def test_worker_processes_generate_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Batches", "-g", "seconds=0", "--workers", "1", "--batch", "2") as own:
        assert own.generate("a lamp", 3).pixel == expected("a lamp", 3)
        deadly = own.generate("die")
        assert deadly.status == 503 and "ended with code 9" in deadly.body["message"]
        assert own.generate("a lamp", 4).pixel == expected("a lamp", 4)


def test_a_generation_that_hangs_is_504_and_the_next_one_succeeds(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "--timeout", "0.5") as own:
        assert own.generate("hang").status == 504
        assert own.generate("a lamp", 3).pixel == expected("a lamp", 3)


def ended(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    process = start(folder, *words, environment=environment)
    _, err = process.communicate(timeout=30)
    return process.returncode, err.strip()


def test_a_generator_that_cannot_be_served_is_reported_in_one_line(tmp_path: Path) -> None:
    code, err = ended(tmp_path, "makers.py:Knows")
    assert code == 2 and "ground truth" in err and len(err.splitlines()) == 1
    code, err = ended(tmp_path, "makers.py:Unbuildable", "--port", "0")
    assert code == 3 and "the weights are not there" in err and len(err.splitlines()) == 1
    code, err = ended(tmp_path, "makers.py:Synchronous", "--batch", "4")
    assert code == 2 and "no batches" in err
    code, err = ended(tmp_path, "makers.py:Synchronous", "--token-env", "NOT_SET_ANYWHERE")
    assert code == 3 and "NOT_SET_ANYWHERE" in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, err = ended(tmp_path, "makers.py:Synchronous", "--port", str(taken.getsockname()[1]))
    assert code == 3 and "cannot listen" in err and len(err.splitlines()) == 1


def test_a_server_open_to_other_machines_without_a_token_is_warned_of(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "--host", "0.0.0.0") as own:
        _, _, err = own.stop()
    assert "warning" in err and "--token-env" in err


def test_fetch_does_not_reach_private_addresses(tmp_path: Path) -> None:
    with served(tmp_path, "makers.py:Synchronous", "--fetch") as own:
        port = own.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433"):
            answer = own.generate("peek", image_urls=[f"http://{host}:{port}/health"])
            assert answer.status == 400 and "cannot be fetched" in answer.body["message"], (host, answer)
    assert own.log() == []
