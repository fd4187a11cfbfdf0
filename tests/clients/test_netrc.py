"""A password that `~/.netrc` has for the host of a service is not sent to it, and is in no record."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.core.errors import KnowgenError, ServiceUnavailableError
from knowgen.core.python_source import parse_python
from knowgen.core.records import (
    Generation,
    GenerationRequest,
    GenerationStatus,
    GroundTruth,
    Sample,
    Score,
    ScoreStatus,
)
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from knowgen.generators.http.generator import HttpGenerator
from knowgen.scorers.vlm.judge import VlmJudge
from tests.helpers.image_servers import GEMINI, OPENAI, ImageServer, ServiceProfile
from tests.helpers.images import save_image
from tests.helpers.judge_server import JudgeServer, Step

PASSWORD, BASIC = "netrc-password", "Basic"
NETRC = f"machine service.example login me password {PASSWORD}\ndefault login other password {PASSWORD}\n"
HOST = "http://service.example"


@pytest.fixture(autouse=True)
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the user a `.netrc`, and reach the service through a proxy, because it is not on this machine."""
    path = tmp_path / ".netrc"
    path.write_text(NETRC)
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SERVICE_KEY", "k-12345678")
    monkeypatch.setenv("KNOWGEN_CACHE", "off")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def scored(judge: VlmJudge, folder: Path) -> Score:
    picture = save_image(folder / "a.png", (20, 20), "red")
    truth = GroundTruth(sample_id="one", image=picture)
    generation = Generation(sample_id="one", repeat=0, status=GenerationStatus.OK, image=picture)
    sample = Sample(id="one", prompt="A lamp", category="sports", text_required=True)
    try:
        assert not await judge.check_service()
        return await judge.score(sample, truth, generation)
    finally:
        await judge.close()


@pytest.mark.parametrize("base_url", [f"{HOST}/v1", "http://name.openai.azure.com/openai/deployments/d?api-version=1"])
def test_a_judge_is_sent_its_key_and_nothing_from_netrc(
    base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JudgeServer([Step()]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        score = asyncio.run(scored(VlmJudge("any", base_url=base_url, key_env="SERVICE_KEY"), tmp_path))
        assert score.status is ScoreStatus.OK
        sent = [call.headers for call in proxy.calls] + [dict(headers) for _, headers in proxy.fetched]
    assert len(sent) >= 2
    for each in sent:
        headers = {name.lower(): value for name, value in each.items()}
        assert headers.get("authorization", headers.get("api-key")) in ("Bearer k-12345678", "k-12345678")
        assert "proxy-authorization" not in headers
        assert BASIC not in str(headers)
    assert PASSWORD not in score.model_dump_json()


@pytest.mark.parametrize(
    ("profile", "generator"),
    [
        (OPENAI, lambda: OpenAiImages("gpt-image-1", base_url=f"{HOST}/v1", key_env="SERVICE_KEY")),
        (GEMINI, lambda: GeminiImages("gemini-3-pro-image", base_url=HOST, key_env="SERVICE_KEY")),
        (OPENAI, lambda: HttpGenerator(HOST, health_every=60.0)),
    ],
    ids=["openai", "gemini", "http"],
)
def test_an_image_service_is_sent_nothing_from_netrc(
    profile: ServiceProfile, generator: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def generate() -> None:
        service = generator()
        try:
            with contextlib.suppress(KnowgenError):  # what the service answers is not the point
                await service.generate(GenerationRequest(id="x", prompt="A lamp"))
        finally:
            await service.close()

    with ImageServer(profile) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        asyncio.run(generate())
        sent = [call.headers for call in (*proxy.calls, *proxy.fetched)]
    assert sent and not any(BASIC in str(headers) for headers in sent)


def test_the_password_of_a_proxy_comes_from_its_url_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer([Step()]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address.replace("://", "://me:a%40b@"))
        asyncio.run(scored(VlmJudge("any", base_url=f"{HOST}/v1", key_env="SERVICE_KEY"), tmp_path))
        assert proxy.calls[0].headers["proxy-authorization"] == "Basic bWU6YUBi"
        assert proxy.calls[0].headers["authorization"] == "Bearer k-12345678"


def test_a_key_for_an_https_service_is_not_sent_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of https is asked to connect to the host; what it is sent before is not encrypted."""
    received = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            nonlocal received
            connection, _ = listener.accept()
            with connection:
                received = connection.recv(65536)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")

        async def check() -> None:
            judge = VlmJudge("any", base_url=HOST.replace("http", "https") + "/v1", key_env="SERVICE_KEY")
            try:
                with pytest.raises(ServiceUnavailableError):
                    await judge.check_service()
            finally:
                await judge.close()

        asyncio.run(check())
        thread.join()
    assert received.startswith(b"CONNECT service.example:443")
    assert b"k-12345678" not in received and b"uthorization" not in received


def test_no_client_takes_settings_from_the_environment_by_itself() -> None:
    """With `trust_env`, aiohttp sends passwords of `~/.netrc`; `HttpClient` finds proxies instead."""
    clients = 0
    for path in (Path(__file__).parents[2] / "knowgen").rglob("*.py"):
        for node in ast.walk(parse_python(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ClientSession"):
                clients += 1
                trusted = [ast.unparse(each.value) for each in node.keywords if each.arg == "trust_env"]
                assert trusted in ([], ["False"]), f"{path}:{node.lineno}"
    assert clients >= 2
