"""Estimates of cost and duration before anything is sent, and the caches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from knowgen import api
from knowgen.cli.main import run
from knowgen.clients.pricing import CHAT_PRICES, chat_price, price_list
from knowgen.core.records import Attempt, Usage
from knowgen.scorers.vlm.cost_estimate import Estimate, describe_estimate, estimate_from_attempts, image_tokens
from tests.helpers.judge_server import JudgeServer, Step


@pytest.mark.parametrize(
    ("size", "tiles", "tokens"),
    [
        ((1024, 1024), True, 85 + 4 * 170),  # scaled to 768: two tiles each way (the guide's own example: 765)
        ((2048, 4096), True, 85 + 6 * 170),  # 1024 x 2048, then 768 x 1536: two by three (the guide's: 1105)
        ((512, 512), True, 85 + 170),
        ((64, 64), True, 85 + 170),
        ((320, 640), False, 10 * 20),
        ((33, 32), False, 2),
    ],
)
def test_the_tokens_of_an_image_follow_its_size(size: tuple[int, int], tiles: bool, tokens: int) -> None:
    assert image_tokens(*size, tiles) == tokens


def test_the_cost_of_scores_is_estimated_from_earlier_calls() -> None:
    paid = Attempt(reply="x", seconds=2.0, usage=Usage(input_tokens=1000, output_tokens=100, cost=0.01))
    again = Attempt(reply="y", seconds=1.0, usage=Usage(input_tokens=1000, output_tokens=60, cost=0.02))
    cached = Attempt(reply="z", usage=Usage(input_tokens=1000, output_tokens=100, cost=0.0), cached=True)
    estimate = estimate_from_attempts([[paid, again], [cached], [paid], [Attempt(error="429")]])
    assert estimate is not None and estimate.cost == pytest.approx(0.02)
    assert estimate == Estimate(1500.0, 130.0, estimate.cost, 2.5, known_from=2)
    assert estimate_from_attempts([[cached], []]) is None
    described = describe_estimate(estimate, 100, 10)
    assert "from 2 stored scores" in described and "$2.00" in described
    assert describe_estimate(estimate, 0, 10) == "nothing to score"


def test_prices_belong_to_one_host_and_ignore_a_models_date() -> None:
    listed = price_list(CHAT_PRICES)["hosts"]["api.openai.com"]["gpt-4.1"]
    for name in ("gpt-4.1", "gpt-4.1-2025-04-14"):
        assert chat_price(name, "").of(1_000_000, 0) == listed[0]
        assert chat_price(name, "https://api.openai.com/v1").of(0, 1_000_000) == listed[1]
    assert not chat_price("gpt-4.1", "http://127.0.0.1:8000/v1").known
    assert not chat_price("gpt-4.1-of-mine", "").known
    assert chat_price("gpt-4.1", "", 1.0, 1.0).of(1_000_000, 0) == 1.0
    assert chat_price("gpt-4.1", "", price_call=0).of(1_000_000, 5) == 0


def results(folder: Path) -> Path:
    rows = []
    for number in range(5):
        for kind in ("out", "gt"):
            Image.new("RGB", (512, 512), (number, 5, 5)).save(folder / f"{kind}{number}.png")
        rows.append(
            {
                "id": number, "success": True, "prompt": "Draw.", "meta": {"category": "art"},
                "output_path": f"out{number}.png", "gt_image": f"gt{number}.png",
            }
        )  # fmt: skip
    (folder / "results.json").write_text(json.dumps(rows))
    return folder / "results.json"


def test_a_dry_run_estimates_from_images_first_and_from_stored_scores_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # an estimate needs no API key
    source, out = results(tmp_path), tmp_path / "run"
    line = ["score", str(source), "--scorer", "vlm:gpt-4.1", "--out", str(out), "--dry-run"]
    assert run(line) == 0
    line_printed = capsys.readouterr().out.splitlines()[-1]
    assert (
        line_printed.startswith("vlm:gpt-4.1: 5 to score, about $0.0")
        and "(assumed)" in line_printed
        and not out.exists()
    )
    with JudgeServer([Step(tokens=(4000, 500))]) as server:
        args = {"base_url": server.url, "price_in": 10, "price_out": 100}
        api.score(source, "vlm:any", out=out, scorer_args=args, limit=2)
        words = [f"{name}={value}" for name, value in args.items()]
        assert run(["score", str(source), "--scorer", "vlm:any", "--out", str(out), "--dry-run", "-s", words[0], "-s",
                    words[1], "-s", words[2]]) == 0  # fmt: skip
        line_printed = capsys.readouterr().out.splitlines()[-1]
        assert line_printed.startswith(f"vlm:any: 3 to score, about ${3 * (0.04 + 0.05):.2f}")
        assert "from 2 stored scores" in line_printed
        assert len(server.calls) == 2


def test_the_cache_can_be_shown_and_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = results(tmp_path)
    with JudgeServer() as server:
        args = {"base_url": server.url, "price_call": 0, "cache": True}
        api.score(source, "vlm:any", out=tmp_path / "run", scorer_args=args)
    assert run(["cache"]) == 0
    # generated and true images are the same files here, and one content is stored once
    lines = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines == {"replies": "5", "images": "5", "embeddings": "0", "web": "0"}
    assert run(["cache", "clear", "replies"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["replies", "0"]
    assert run(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["images", "5"]
