"""A cached reply answers for the server that gave it: not for another one at the same address, nor for none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knowgen import api
from knowgen.cli.main import run
from knowgen.clients.chat.client import ChatEndpoint
from knowgen.clients.chat.response import ChatResponse
from knowgen.clients.pricing import ChatPrice
from tests.helpers.judge_server import JudgeServer

WEIGHTS_A = {"id": "any", "root": "/weights/a", "created": 1}
WEIGHTS_B = {"id": "any", "root": "/weights/b", "created": 1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = []
    for number in range(2):
        Image.new("RGB", (40, 30), (number * 9, 10, 20)).save(tmp_path / f"{number}.png")
        image = f"{number}.png"
        rows.append({"id": number, "success": True, "prompt": "x", "meta": {}, "output_path": image, "gt_image": image})
    (tmp_path / "results.json").write_text(json.dumps(rows))
    return tmp_path / "results.json"


class Scoring:
    """Scores a file in a new directory each time and returns how many calls the server got."""

    def __init__(self, source: Path, server: JudgeServer) -> None:
        self.source, self.server, self.runs = source, server, 0

    def __call__(self, *, fresh: bool = False, judge: str = "vlm:any", **args: Any) -> int:
        self.runs += 1
        before = len(self.server.calls)
        arguments = {"base_url": self.server.url, "price_call": 0, **args}
        out = self.source.parent / f"run{self.runs}"
        self.run = api.score(self.source, judge, out=out, scorer_args=arguments, fresh=fresh)
        return len(self.server.calls) - before


def test_replies_of_this_machine_are_kept_only_on_request(source: Path) -> None:
    with JudgeServer() as server:
        calls = Scoring(source, server)
        assert [calls(), calls(), calls(cache=True), calls(cache=True)] == [2, 2, 2, 0]


def test_another_model_at_the_same_address_and_name_is_asked(source: Path) -> None:
    with JudgeServer(models=[WEIGHTS_A]) as server:
        calls = Scoring(source, server)
        assert [calls(cache=True), calls(cache=True)] == [2, 0]
        server.models = [WEIGHTS_A | {"created": 2, "permission": [{"id": "random"}]}]
        assert calls(cache=True) == 0, "the same model, listed at another time"
        server.models = [WEIGHTS_B]
        assert calls(cache=True) == 2
        server.models = None
        assert calls(cache=True) == 2, "nothing says which model it is"


def test_a_stated_identity_is_part_of_all_keys(source: Path) -> None:
    with JudgeServer(models=[WEIGHTS_A]) as server:
        calls = Scoring(source, server)
        assert [calls(cache=True, endpoint_id="a"), calls(cache=True, endpoint_id="a")] == [2, 0]
        assert calls(cache=True, endpoint_id="b") == 2
        server.models = [WEIGHTS_B]
        assert calls(cache=True, endpoint_id="b") == 0, "the user says that it is the same"
        assert calls.run.spec.scorers[0].args["endpoint_id"] == "b"


def test_without_a_server_no_cached_reply_answers(source: Path) -> None:
    with JudgeServer(models=[WEIGHTS_A]) as server:
        assert Scoring(source, server)(cache=True) == 2
        address = server.url

    async def asked() -> ChatResponse:
        endpoint = ChatEndpoint.of("any", address, "", "scorer vlm", price=ChatPrice(0, 0))
        try:
            stored = [{"role": "user", "content": "x"}]
            endpoint.cache_replies([await endpoint.ask(stored, "vlm:any")])
            return await endpoint.ask(stored, "vlm:any")
        finally:
            await endpoint.close()

    response = asyncio.run(asked())
    assert not response.attempt.cached and "cannot be reached" in response.attempt.error and not response.key


def test_fresh_asks_again_and_cached_replies_are_counted(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JudgeServer() as server:
        calls = Scoring(source, server)
        assert calls(cache=True) == 2
        note = "2 of 2 replies of the judge come from the reply cache"
        assert not any("reply cache" in each for each in calls.run.summary.notes)
        assert calls(cache=True) == 0
        assert any(note in each for each in calls.run.summary.notes)
        assert note in (calls.run.path / "report" / "index.html").read_text(encoding="utf-8")
        assert calls(cache=True, fresh=True) == 2
        words = ["score", str(source), "--scorer", "vlm:any", "-s", f"base_url={server.url}", "-s", "price_call=0"]
        assert run([*words, "-s", "cache=on", "--out", str(source.parent / "shown")]) == 0
        assert note in capsys.readouterr().out


def test_fresh_asks_a_judge_again_that_runs_in_a_worker(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    Path("own_judge.py").write_text(
        "from knowgen.scorers.vlm.judge import VlmJudge\n\n\nclass Own(VlmJudge):\n    pass\n"
    )
    with JudgeServer() as server:
        calls = Scoring(source, server)
        own: dict[str, Any] = {"judge": "own_judge.py:Own", "model": "any", "cache": True}
        assert [calls(**own), calls(**own), calls(**own, fresh=True)] == [2, 0, 2]
