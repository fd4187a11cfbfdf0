"""Judges and image services on the command line: what is said before the first call, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knowgen import api
from knowgen.cli.main import run
from knowgen.core.run_config import RunConfig
from tests.helpers.judge_server import Call, JudgeServer, Step, good


def answers(call: Call) -> Step:
    """Answer as a model that takes no temperature, with the flag that the question states."""
    if "temperature" in call.body:
        return Step(status=400, error="Unsupported value: 'temperature' does not support 0.0 with this model.")
    text = "Required text: none" not in call.text and "no written text" not in call.text
    return Step(reply=good(text_accuracy_na=not text, text_accuracy=1 if text else None))


def test_what_an_endpoint_does_not_accept_stands_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["run", "--task", "knowgen_mini", "--generator", "open_book", "--scorer", "vlm:judge", "--limit", "2"]
    with JudgeServer(answers) as server:
        run([*command, "-s", f"base_url={server.url}", "--out", "out"])
    (summary, *_) = json.loads((tmp_path / "out" / "summary.json").read_text())["summaries"]
    assert "decoding: temperature not accepted" in summary["notes"]
    assert "decoding: temperature not accepted" in capsys.readouterr().out


UNPRICED = """
from knowgen.core.errors import AccountError


class Judge:
    revision = "1"
    dimensions = ("quality",)

    def __init__(self, key: str = "good"):
        self.key = key

    @staticmethod
    def price_known(**_):
        return False

    async def check_service(self):
        if self.key != "good":
            raise AccountError("the key is rejected")
        return ""

    async def score(self, sample, truth, generation):
        return {"quality": 1.0}
"""


@pytest.mark.parametrize("command", ["run", "score"])
def test_an_unknown_price_is_said_once_and_only_where_calls_are_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unpriced.py").write_text(UNPRICED)
    words = ["run", "--task", "knowgen_mini", "--generator", "noise", "--limit", "2", "--out", "out", "--workers", "0"]
    if command == "score":
        assert run([*words, "--scorer", "pixels"]) == 0
        words = ["score", "out", "--workers", "0"]
    capsys.readouterr()
    line = "unpriced.py:Judge: the price of its calls is unknown"
    assert run([*words, "--scorer", "unpriced.py:Judge", "-s", "key=bad"]) == 3
    error = capsys.readouterr().err
    assert "the key is rejected" in error and error.count("\n") == 1, "the error comes alone"
    assert run([*words, "--scorer", "unpriced.py:Judge"]) == 0
    assert capsys.readouterr().err.count(line) == 1
    assert run([*words, "--scorer", "unpriced.py:Judge"]) == 0
    assert line not in capsys.readouterr().err, "everything is stored, so nothing is called"


def test_a_missing_key_is_the_only_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for generator, scorer in (("noise", "vlm:gpt-99"), ("openai:gpt-image-99", "pixels")):
        assert run(["run", "--task", "knowgen_mini", "--generator", generator, "--scorer", scorer, "--out", "out"]) == 3
        error = capsys.readouterr().err
        assert "the key for api.openai.com is missing" in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("scorer", "args", "said"),
    [
        ("vlm:gpt-6.2-sol", {}, False),
        ("vlm:gpt-99", {}, True),
        ("answer:gpt-99", {}, True),
        ("vlm:gpt-99", {"price_in": 1.0, "price_out": 2.0}, False),
        ("vlm:gpt-6.2-sol", {"base_url": "https://openrouter.ai/api/v1"}, True),
        ("vlm:any", {"base_url": "http://127.0.0.1:8000/v1"}, False),
        ("world_check", {}, False),
    ],
)
def test_an_unknown_price_of_a_judge_is_said_before_the_first_call(
    scorer: str, args: dict[str, Any], said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    plan = api.plan("knowgen_mini", "open_book", [scorer], RunConfig(scorer_args=args))
    lines = api.price_warnings(plan)
    assert bool(lines) is said
    assert not said or lines == [
        f"{scorer}: the price of its calls is unknown, so costs are not counted (-s price_in=… -s price_out=…)"
    ]


@pytest.mark.parametrize(
    ("generator", "args", "said"),
    [
        ("openai:gpt-image-2", {}, False),
        ("openai:gpt-image-99", {}, True),
        ("openai:gpt-image-99", {"price": 0.1}, False),
        ("gemini:gemini-3-pro-image", {}, False),
        ("ark:doubao-seedream-9", {}, True),
        ("openai:flux", {"base_url": "http://127.0.0.1:9/v1"}, False),
    ],
)
def test_an_unknown_price_of_an_image_service_is_said_before_the_first_call(
    generator: str, args: dict[str, Any], said: bool
) -> None:
    plan = api.plan("knowgen_mini", generator, [], RunConfig(generator_args=args))
    lines = api.price_warnings(plan)
    assert bool(lines) is said and all(line.startswith(f"{generator}: the price") for line in lines)
