"""Services that echo the key in errors, replies, names and headers: no file may contain it afterwards."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowgen
from knowgen.cli.main import run
from knowgen.clients.chat.response import ResponseReader
from knowgen.clients.pricing import ChatPrice
from knowgen.clients.service_errors import read_error
from knowgen.generators.http.responses import read_health, read_response
from knowgen.store.run import RunStore

KEY = "quite-plain/words+0042"
"""A key of no known form, which only its value identifies; two of its characters are escaped in URLs."""

Reaction = Callable[[str], tuple[int, Any]]
"""A function from the received key to the status and body of the answer, JSON unless it is bytes."""


def image() -> str:
    """Return a small image in base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def echoing(react: Reaction) -> Iterator[tuple[str, list[str]]]:
    """Run a server; yield its URL and the list of received keys."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            self._answer(404, {"message": "no health here"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = self.headers.get("Authorization") or self.headers.get("x-goog-api-key") or ""
            received.append(sent.removeprefix("Bearer "))
            self._answer(*react(received[-1]))

        def _answer(self, status: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if received:
                self.send_header("X-Key", received[-1])
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(words: str, **fields: Any) -> dict[str, Any]:
    """Return an answer in the chat format."""
    choice = {"message": {"role": "assistant", "content": words}, "finish_reason": fields.pop("finish", "stop")}
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}, **fields}


def verdict(words: str) -> str:
    """Return a reply that meets the judge's contract."""
    names = ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics")
    return json.dumps({"rationale": words, **dict.fromkeys(names, 1), "text_accuracy_na": False})


def padded(key: str) -> bytes:
    """Return an error text in which the key crosses the positions where texts are cut."""
    return b" ".join([b"x" * 590, key.encode(), b" " * 1750, key.encode(), key.encode()])


JUDGE: dict[str, Reaction] = {
    "error": lambda key: (401, {"error": {"message": f"Incorrect API key: {key}", "code": key, "type": key}}),
    "error_object": lambda key: (400, {"error": {"message": {"headers": {key: f"Bearer {key}"}}}}),
    "error_text": lambda key: (400, f"<b>{key}</b> {key}".encode()),
    "error_cut": lambda key: (400, padded(key)),
    "reply": lambda key: (200, chat(verdict(f"I was sent {key}."))),
    "unreadable_reply": lambda key: (200, chat(f"Authorization: Bearer {key}")),
    "names": lambda key: (200, chat(verdict("fine"), model=key, finish=key, system_fingerprint=key)),
    "refusal": lambda key: (200, {**chat(""), "choices": [{"message": {"refusal": f"no, {key}"}}]}),
}
HOSTED: dict[str, Reaction] = {
    "error": lambda key: (401, {"error": {"message": f"Incorrect API key: {key}", "code": key, "status": key}}),
    "error_text": lambda key: (400, f"<b>{key}</b>".encode()),
    "error_cut": lambda key: (400, padded(key)),
    "refusal": lambda key: (400, {"error": {"message": f"safety system: {key}", "code": "moderation_blocked"}}),
}
OPENAI: dict[str, Reaction] = {
    **HOSTED,
    "image": lambda key: (200, {"data": [{"b64_json": image(), "revised_prompt": key}], "size": key, "quality": key}),
    "no_image": lambda key: (200, {"data": [{"error": {"message": key}}], "size": key}),
    "broken_image": lambda key: (200, {"data": [{"b64_json": key}]}),
}
GEMINI: dict[str, Reaction] = {
    **HOSTED,
    "words": lambda key: (200, {"candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": key}]}}]}),
    "blocked": lambda key: (200, {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": key}}),
    "image": lambda key: (
        200,
        {
            "modelVersion": key,
            "candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": image()}}]}}],
        },
    ),
}
SERVER: dict[str, Reaction] = {
    "denied": lambda key: (401, {"detail": f"wrong token {key}"}),
    "absent": lambda key: (404, f"no such page, {key}".encode()),
    "failed": lambda key: (200, {"success": False, "message": f"could not, {key}"}),
    "refused": lambda key: (200, {"success": False, "status": "refused", "reason": key}),
    "cut": lambda key: (400, b"y" * 490 + b" " + key.encode()),
    "image": lambda key: (
        200,
        {
            "success": True,
            "image": image(),
            "generator": key,
            "revision": f"r {key}",
            "settings": {"headers": {key: f"Bearer {key}"}},
            "used_prompt": f"{key} and a tower",
            "trajectory": [{"tool": "search", "result": [key]}],
            "evidence": [{"title": key}],
            "unused": [key],
        },
    ),
}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the key in a variable whose name does not look like one of a secret."""
    monkeypatch.setenv("KNOWGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("THE_WORDS", KEY)
    monkeypatch.setattr("knowgen.core.secrets._in_use", set())
    monkeypatch.chdir(tmp_path)


def assert_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that no file and no output contains the key or a part of it."""
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    parts = [KEY.encode(), KEY[:12].encode(), KEY[-12:].encode()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert not [part for part in parts if part in data], path


@pytest.mark.parametrize("what", JUDGE)
def test_a_key_echoed_by_a_judge_is_stored_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    with echoing(JUDGE[what]) as (url, received):
        words = ["run", "--task", "knowgen_mini", "--generator", "oracle", "--scorer", "vlm:m", "--limit", "1"]
        code = run([*words, "--out", "out", "-s", f"base_url={url}", "-s", "key_env=THE_WORDS"])
    assert code in (0, 3, 6) and set(received) == {KEY}
    assert_nowhere(tmp_path, capsys)


@pytest.mark.parametrize(
    ("generator", "what"),
    [*(("openai:gpt-image-1", what) for what in OPENAI), *(("gemini:gemini-2.5-flash-image", what) for what in GEMINI)],
)
def test_a_key_echoed_by_a_hosted_generator_is_stored_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], generator: str, what: str
) -> None:
    (tmp_path / "half.py").write_text(SCORER)
    with echoing((OPENAI if generator.startswith("openai") else GEMINI)[what]) as (url, received):
        words = ["run", "--task", "knowgen_mini", "--generator", generator, "--scorer", "half.py:Half", "--limit", "1"]
        code = run([*words, "--out", "out", "-g", f"base_url={url}", "-g", "key_env=THE_WORDS", "-g", "price=0.01"])
    assert code in (0, 3, 6) and set(received) == {KEY}
    assert_nowhere(tmp_path, capsys)


@pytest.mark.parametrize("what", SERVER)
def test_a_token_echoed_by_a_generate_server_is_stored_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    (tmp_path / "half.py").write_text(SCORER)
    with echoing(SERVER[what]) as (url, received):
        words = ["run", "--task", "knowgen_mini", "--generator", f"http:{url}", "--scorer", "half.py:Half"]
        code = run([*words, "--limit", "1", "--out", "out", "-g", "key_env=THE_WORDS"])
    assert code in (0, 3, 6) and set(received) == {KEY}
    assert_nowhere(tmp_path, capsys)


SCORER = '''"""Gives a half."""


class Half:
    dimensions = ("faithfulness", "visual_correctness", "text_accuracy", "aesthetics")
    needs = ()
    version = "1"

    def score_batch(self, items):
        from knowgen.core.records import ParsedScore, Score, ScoreStatus

        strict = ParsedScore(status=ScoreStatus.OK, values=dict.fromkeys(self.dimensions, 0.5))
        return [Score(sample_id=item.sample.id, scorer="half", strict=strict) for item in items]
'''


GENERATOR = '''"""A user's own client that repeats its key in an error."""
import os


class Client:
    revision = "1"

    def draw(self, prompt, references, seed):
        raise RuntimeError("401 for " + os.environ["PAINTING_API_KEY"])
'''


def test_a_key_in_the_error_of_a_local_generator_is_stored_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAINTING_API_KEY", KEY)
    monkeypatch.delenv("THE_WORDS")
    (tmp_path / "half.py").write_text(SCORER)
    (tmp_path / "client.py").write_text(GENERATOR)
    done = knowgen.evaluate("knowgen_mini", "client.py:Client", "half.py:Half", limit=1, out="out")
    with RunStore.read(done.path) as store:
        reasons = [generation.reason for _, generation in store.generations()]
    assert reasons and all("[key]" in reason for reason in reasons)
    assert_nowhere(tmp_path, capsys)


@pytest.mark.parametrize("status", [400, 401, 408, 429, 500, 502, 503, 504])
def test_the_key_is_masked_in_errors_of_every_status(status: int) -> None:
    for body in (
        padded(KEY),
        json.dumps({"error": {"message": KEY, "code": KEY}}).encode(),
        b"[" * 2000 + KEY.encode(),
    ):
        answer = ResponseReader(KEY, ChatPrice()).read(status, {}, body, None)
        fault = read_error(status, {}, body, KEY)
        reply = read_response(status, body, None, KEY)
        for shown in (answer.attempt.model_dump_json(), repr(fault), repr(reply)):
            assert KEY not in shown and KEY[:12] not in shown
        assert answer.attempt.error and reply.reason


def test_the_health_of_a_server_does_not_contain_the_token() -> None:
    assert KEY[:12] not in read_health(200, json.dumps({"status": KEY}).encode(), KEY).reason
