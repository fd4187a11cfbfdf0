"""The reply cache: which changes cause another call, counted by a real server."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen import api
from knowgen.clients.chat.image_encoding import EncodedImageFile
from knowgen.clients.chat.request import ChatRequest
from knowgen.core.cache import Cache, FileCache
from knowgen.core.errors import KnowgenError
from knowgen.core.records import ScoreStatus
from knowgen.scorers.vlm import official_prompt as upstream
from tests.helpers.judge_server import JudgeServer, Step, good

SYSTEM = 'You are the "official" judge.\nBe just.'
USER = "Sample id: {sample_id}\n\nTask:\n{prompt}\n\nGo."


def results(folder: Path, count: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        Image.new("RGB", (40, 30), (number * 9, 10, 20)).save(folder / f"out{number}.png")
        Image.new("RGB", (60, 30), (9, number * 9, 20)).save(folder / f"gt{number}.png")
        rows.append(
            {
                "id": number, "success": True, "prompt": f"Draw {number}.", "meta": {"category": "sports"},
                "output_path": f"out{number}.png", "gt_image": f"gt{number}.png",
            }
        )  # fmt: skip
    path = folder / "results.json"
    path.write_text(json.dumps(rows))
    return path


class RepeatedScoring:
    """Score a results file repeatedly, each time in a new run directory, and list the samples of the calls."""

    def __init__(self, server: JudgeServer, source: Path) -> None:
        self._server, self._source = server, source
        self._runs = 0

    def __call__(self, judge_repeats: int = 1, base: str = "", **args: Any) -> list[str]:
        before = len(self._server.calls)
        self._runs += 1
        run = api.score(
            self._source,
            "vlm:any",
            out=self._source.parent / f"run{self._runs}",
            scorer_args={"base_url": base or self._server.url, "price_call": 0, "cache": True, **args},
            judge_repeats=judge_repeats,
        )
        assert run.outcome is not None and run.outcome.score_failed == 0
        self.run = run
        return sorted(call.sample_id for call in self._server.calls[before:])


@pytest.fixture
def upstream_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout in the layout of the published one, with another prompt."""
    file = tmp_path / "checkout" / upstream.JUDGE_FILE
    file.parent.mkdir(parents=True)
    file.write_text(
        f"SYSTEM_PROMPT = r{SYSTEM!r}\n"
        "def _build_user_message(sample_id, prompt, gen, gt):\n"
        '    text = (f"Sample id: {sample_id}\\n\\n" f"Task:\\n{prompt}\\n\\n" "Go.")\n'
        "    raise RuntimeError('must not be run')\n"
    )
    file.write_text(file.read_text().replace(f"r{SYSTEM!r}", repr(SYSTEM)))
    words = {"SYSTEM_PROMPT": SYSTEM, "_build_user_message": USER}
    monkeypatch.setattr(
        upstream, "HASHES", {name: hashlib.sha256(text.encode()).hexdigest() for name, text in words.items()}
    )
    upstream.official_call.cache_clear()
    return tmp_path / "checkout"


def test_only_what_affects_a_reply_causes_another_call(tmp_path: Path, upstream_dir: Path) -> None:
    source = results(tmp_path / "theirs")
    everything = ["0", "1", "2", "3"]
    with JudgeServer() as server, JudgeServer() as elsewhere:
        called = RepeatedScoring(server, source)
        assert called() == everything
        assert called() == []  # nothing changed
        assert called(price_call=0.5, concurrency=2, timeout=9.0) == []  # none of these affects a reply
        assert {score.attempts[0].cached for _, score in scores_of(called.run.path)} == {True}
        assert called.run.cost == 0
        assert called(temperature=0.5) == everything
        assert called(max_side=32) == everything
        assert called(quality=60) == everything
        assert called(max_tokens=100) == everything
        assert called(rubric="upstream", upstream_dir=str(upstream_dir)) == everything
        assert called(rubric="upstream", upstream_dir=str(shutil.copytree(upstream_dir, tmp_path / "moved"))) == []
        assert called(schema="off") == everything  # without a schema the request is another
        assert elsewhere.calls == []
        called(base=elsewhere.url)
        assert len(elsewhere.calls) == 4
        assert called(judge_repeats=2) == everything  # the second score is another call, the first is not
        assert called(judge_repeats=2) == []
        Image.new("RGB", (60, 30), "white").save(source.parent / "gt2.png")
        assert called() == ["2"]  # the truth's bytes under the same path
        Image.new("RGB", (40, 30), "white").save(source.parent / "out0.png")
        assert called() == ["0"]
        assert called(cache=False) == everything


def scores_of(path: Path) -> list[Any]:
    from knowgen.store.run import RunStore

    with RunStore.read(path) as store:
        return list(store.scores())


def test_one_image_under_two_prompts_is_scored_twice(tmp_path: Path) -> None:
    source = results(tmp_path / "a", 2)
    rows = json.loads(source.read_text())
    rows[1] |= {"output_path": "out0.png", "gt_image": "gt0.png"}
    source.write_text(json.dumps(rows))
    with JudgeServer() as server:
        called = RepeatedScoring(server, source)
        assert called() == ["0", "1"]
        rows[1]["prompt"] = "Draw something else."
        source.write_text(json.dumps(rows))
        assert called() == ["1"]


def test_failed_scores_are_requested_again_and_others_are_cached(tmp_path: Path) -> None:
    source = results(tmp_path / "a")
    bad = {"1", "3"}
    with JudgeServer(lambda call: Step(reply="no" if call.sample_id in bad else good())) as server:
        args = {"base_url": server.url, "price_call": 0, "attempts": 2, "cache": True}
        first = api.score(source, "vlm:any", out=tmp_path / "run", scorer_args=args)
        assert first.outcome is not None and first.outcome.score_failed == 2
        before = len(server.calls)
        bad.clear()
        again = api.score(source, "vlm:any", out=tmp_path / "other", scorer_args=args)
        assert again.outcome is not None and again.outcome.score_failed == 0
        assert sorted(call.sample_id for call in server.calls[before:]) == ["1", "3"]
        assert {score.status for _, score in scores_of(tmp_path / "other")} == {ScoreStatus.OK}


# ---------------------------------------------------------------------------------------------- the official call


def test_the_official_call_is_sent_word_for_word(tmp_path: Path, upstream_dir: Path) -> None:
    source = results(tmp_path / "a", 1)
    script = [Step(reply="no JSON"), Step(reply=good(aesthetics=0.7)), Step()]
    with JudgeServer(script) as server:
        api.score(
            source, "vlm:any", out=tmp_path / "run",
            scorer_args={"base_url": server.url, "rubric": "upstream", "upstream_dir": str(upstream_dir)},
        )  # fmt: skip
    first, again, strict = server.calls
    for call in (first, again):  # the official evaluator repeats the request unchanged
        assert call.system == SYSTEM
        assert call.parts[0] == {"type": "text", "text": "Sample id: 0\n\nTask:\nDraw 0.\n\nGo."}
        assert [part["type"] for part in call.parts] == ["text", "image_url", "image_url"]
        assert "response_format" not in call.body
    assert first.body == again.body
    assert strict.parts[:3] == first.parts and "aesthetics" in strict.parts[3]["text"]
    ((_, score),) = scores_of(tmp_path / "run")
    assert score.details["rubric"].startswith("upstream e5078d3")
    assert score.details["rubric_hash"] == hashlib.sha256(f"{SYSTEM}\0{USER}".encode()).hexdigest()
    assert score.lenient.values["aesthetics"] == 0.7 and score.strict.values["aesthetics"] == 0.5
    with pytest.MonkeyPatch.context():
        assert SYSTEM not in (tmp_path / "run" / "run.json").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("Be just", "Be kind"), "SYSTEM_PROMPT is not that of commit"),
        (lambda text: text.replace("Go.", "Come."), "_build_user_message is not that of commit"),
        (
            lambda text: text.replace("{prompt}", "{prompt.upper()}"),
            "contains more fields than sample_id and prompt",
        ),
        (lambda text: text.replace("{prompt}", "{secret}"), "contains more fields than sample_id and prompt"),
        (lambda text: text.replace("SYSTEM_PROMPT =", "OTHER ="), "assigns no string to SYSTEM_PROMPT"),
        (lambda text: text.replace("text = (", "words = ("), "assigns no f-string"),
        (lambda text: text + "\ndef (", "not a Python file"),
    ],
)
def test_a_file_other_than_the_pinned_one_is_rejected(upstream_dir: Path, change: Any, words: str) -> None:
    file = upstream_dir / upstream.JUDGE_FILE
    file.write_text(change(file.read_text()))
    with pytest.raises(KnowgenError, match=words):
        upstream.official_call(str(upstream_dir))


def test_a_checkout_without_the_file_is_named(tmp_path: Path) -> None:
    from knowgen.core.errors import ConfigError

    with pytest.raises(ConfigError, match="name a checkout of"):
        upstream.official_call(str(tmp_path))


# ------------------------------------------------------------------------------------------------- canonical form


def request(image: EncodedImageFile, **changes: Any) -> ChatRequest:
    parts = [{"type": "text", "text": "Größe ❄ \ud800"}, {"type": "image_url", "image_url": {"url": image}}]
    fields: dict[str, Any] = {
        "url": "http://h/v1", "model": "m", "messages": [{"role": "user", "content": parts}],
        "decoding": {"temperature": 0.0},
    }  # fmt: skip
    return ChatRequest(**(fields | changes))


def test_the_body_is_the_json_that_a_plain_client_would_send(tmp_path: Path) -> None:
    import asyncio
    import base64
    import os

    data = os.urandom(1_000_001)
    (tmp_path / "x.jpg").write_bytes(data)
    image = EncodedImageFile("a" * 64, 10, 10, len(data), tmp_path / "x.jpg")

    async def sent() -> bytes:
        return b"".join([piece async for piece in request(image).body()])

    body = asyncio.run(sent())
    assert len(body) == request(image).length
    payload = json.loads(body)
    assert payload["model"] == "m" and payload["temperature"] == 0.0
    text, shown = payload["messages"][0]["content"]
    assert text["text"] == "Größe ❄ ?"
    assert shown["image_url"]["url"] == "data:image/jpeg;base64," + base64.b64encode(data).decode()


def test_a_key_depends_on_image_bytes_and_not_on_paths(tmp_path: Path) -> None:
    one = EncodedImageFile("a" * 64, 10, 10, 5, tmp_path / "x.jpg")
    keys = {
        request(one).key(0),
        request(EncodedImageFile("b" * 64, 10, 10, 5, tmp_path / "x.jpg")).key(0),
        request(one).key(1),
        request(one, attempt=1).key(0),
        request(one, model="n").key(0),
        request(one, url="http://g/v1").key(0),
        request(one, decoding={"temperature": 0.1}).key(0),
    }
    assert len(keys) == 7
    assert request(EncodedImageFile("a" * 64, 10, 10, 5, tmp_path / "y.jpg")).key(0) in keys


# ---------------------------------------------------------------------------------------------------------- caches


def test_a_full_cache_drops_the_least_recently_used_replies(tmp_path: Path) -> None:
    clock = [1000.0]
    cache = Cache("replies", tmp_path, limit=10_000, clock=lambda: clock[0])
    for number in range(9):
        clock[0] += 4000
        cache.put(f"k{number}", bytes(1000))
    clock[0] += 4000
    assert cache.get("k0") is not None  # used just now
    for number in range(9, 12):
        clock[0] += 4000
        cache.put(f"k{number}", bytes(1000))
    present = {name for name in (f"k{number}" for number in range(12)) if cache.get(name) is not None}
    assert {"k0", "k11", "k10", "k9"} <= present and "k1" not in present
    assert cache.totals()[1] <= 10_000


def test_a_damaged_cache_is_disabled_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_bytes(b"this is not a database, it is a text of some length" * 50)
    cache = Cache("replies", tmp_path)
    cache.put("k", b"v")
    cache.close()
    assert cache.get("k") is None and "replies.sqlite" in cache.error
    cache.clear()
    fresh = Cache("replies", tmp_path)
    fresh.put("k", b"v")
    assert fresh.get("k") == b"v" and fresh.error == ""


def test_files_are_dropped_oldest_first(tmp_path: Path) -> None:
    import os

    files = FileCache("images", tmp_path, limit=3000)
    for number in range(5):
        path = files.path(f"{number}" * 64, ".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
        files.added(1000)
    assert files.find("4" * 64, ".jpg") is not None and files.find("0" * 64, ".jpg") is None
    assert files.totals()[1] <= 3000
    files.clear()
    assert files.totals() == (0, 0)


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    import subprocess
    import sys

    ours = Cache("replies", tmp_path)
    ours.put("mine", b"1")
    ours.close()
    script = (
        "import sys; from pathlib import Path; from knowgen.core.cache import Cache\n"
        "cache = Cache('replies', Path(sys.argv[1]))\n"
        "print(cache.get('mine')); cache.put('yours', b'2'); cache.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b'1'" and ours.get("yours") == b"2"
