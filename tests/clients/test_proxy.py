"""Endpoints are reached through the proxy that the environment names, those on this machine never."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from knowgen.clients.endpoint_url import endpoint_url
from knowgen.clients.proxy import environment_proxy
from knowgen.core.errors import ConfigError
from knowgen.core.records import Generation, GenerationStatus, GroundTruth, Sample, Score, ScoreStatus
from knowgen.scorers.vlm.judge import VlmJudge
from tests.helpers.images import save_image
from tests.helpers.judge_server import JudgeServer, Step

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.upper, NAMES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_the_proxy_of_the_scheme_is_used_with_its_credentials_apart(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://me:a%40b@proxy.example:3128")
    proxy = environment_proxy("https://judge.example/v1")
    assert proxy is not None and proxy.url == "http://proxy.example:3128"
    assert proxy.authorization == "Basic bWU6YUBi" and "bWU6" not in repr(proxy)
    assert environment_proxy("http://judge.example/v1") is None


@pytest.mark.parametrize("hosts", ["judge.example", ".example", "*", "other, judge.example:8000"])
def test_hosts_in_no_proxy_are_reached_directly(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("http_proxy", "socks5://unusable")
    monkeypatch.setenv("no_proxy", hosts)
    assert environment_proxy("http://judge.example:8000/v1") is None
    assert endpoint_url("http://judge.example:8000/v1", "vlm")


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1080", "127.0.0.1:3128", "https://proxy.example", "http://", "x y"]
)
def test_a_proxy_that_cannot_be_used_is_an_error_before_the_first_call(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError, match=r"http_proxy: the environment names a proxy .*; set HTTP_PROXY to http://"):
        endpoint_url("http://judge.example/v1", "vlm")
    for own in ("http://127.0.0.1:8000/v1", "http://localhost:8000/v1", "http://[::1]:8000/v1"):
        assert endpoint_url(own, "vlm") == own


def test_the_word_of_a_proxy_is_not_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:hidden@127.0.0.1:1080")
    with pytest.raises(ConfigError) as caught:
        endpoint_url("http://judge.example/v1", "vlm")
    assert "hidden" not in str(caught.value)


def test_a_judge_is_called_through_a_proxy_and_one_on_this_machine_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sample = Sample(id="one", prompt="A lamp", category="sports", text_required=True)
    picture = save_image(tmp_path / "a.png", (20, 20), "red")
    truth = GroundTruth(sample_id="one", image=picture)
    generation = Generation(sample_id="one", repeat=0, status=GenerationStatus.OK, image=picture)

    async def score(judge: VlmJudge) -> Score:
        try:
            return await judge.score(sample, truth, generation)
        finally:
            await judge.close()

    monkeypatch.setenv("JUDGE_KEY", "k-12345678")
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    with JudgeServer([Step()]) as proxy, JudgeServer([Step()]) as own:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        far = VlmJudge("any", base_url="http://judge.example/v1", key_env="JUDGE_KEY")
        assert asyncio.run(score(far)).status is ScoreStatus.OK
        assert [call.path for call in proxy.calls] == ["http://judge.example/v1/chat/completions"]
        assert asyncio.run(score(VlmJudge("any", base_url=own.url))).status is ScoreStatus.OK
        assert len(proxy.calls) == 1 and len(own.calls) == 1
