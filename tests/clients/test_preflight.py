"""One free call before a run finds a wrong key, a dead address, one without /v1, and a model that is not listed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from knowgen.core.errors import AccountError, ServiceUnavailableError
from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from knowgen.scorers.vlm.answer import AnswerJudge
from knowgen.scorers.vlm.judge import VlmJudge
from tests.helpers.image_servers import ARK, GEMINI, OPENAI, ImageServer
from tests.helpers.image_servers import Step as ImageStep
from tests.helpers.judge_server import JudgeServer, Step

PAGE = Step(body=b"<!doctype html><html><body>Hello</body></html>", headers={"Content-Type": "text/html"})


def models(*names: str, **fields: Any) -> Step:
    entries = [{"id": name, "object": "model"} for name in names]
    return Step(body=json.dumps({"object": "list", "data": entries, **fields}).encode())


def denied(status: int, message: str, code: str | None = None) -> Step:
    return Step(status=status, error=message, code=code)


def checked(judge: Any) -> str:
    async def go() -> str:
        try:
            warning: str = await judge.check_service()
            return warning
        finally:
            await judge.close()

    return asyncio.run(go())


def check(pages: Mapping[str, Step], path: str = "/v1", model: str = "qwen3-vl", kind: Any = VlmJudge) -> str:
    with JudgeServer(pages=pages) as server:
        warning = checked(kind(model, base_url=f"{server.address}{path}"))
        assert not server.calls  # nothing that could cost
        assert len(server.fetched) <= 2
    return warning


@pytest.mark.parametrize("kind", [VlmJudge, AnswerJudge])
def test_a_listed_model_passes_without_a_word(kind: Any) -> None:
    assert check({"/v1/models": models("qwen3-vl", "other")}, kind=kind) == ""


def test_a_model_that_is_not_listed_is_a_warning_with_similar_names() -> None:
    warning = check({"/v1/models": models("qwen3-vl-8b", "whisper")})
    assert warning == "the endpoint does not list the model qwen3-vl; it lists qwen3-vl-8b"


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("gemini-2.5-pro", "models/gemini-2.5-pro"),
        ("acme/eye:free", "acme/eye"),
        ("qwen3-vl", "Qwen/Qwen3-VL"),
        ("a", ""),
    ],
)
def test_other_spellings_of_a_model_are_no_warning(model: str, listed: str) -> None:
    assert check({"/v1/models": models(*([listed] if listed else []))}, model=model) == ""


def test_a_list_in_pages_gives_no_warning() -> None:
    assert check({"/v1/models": models("other", has_more=True)}) == ""


@pytest.mark.parametrize(
    "step",
    [
        denied(401, "Incorrect API key provided", "invalid_api_key"),
        denied(403, "Country, region, or territory not supported"),
        denied(402, "Insufficient credits"),
        denied(400, "API key not valid. Please pass a valid API key."),
        denied(429, "You exceeded your current quota.", "insufficient_quota"),
    ],
)
def test_a_wrong_key_and_an_account_without_credit_are_errors(step: Step) -> None:
    with pytest.raises(AccountError, match=step.error) as caught:
        check({"/v1/models": step})
    assert str(caught.value).startswith("vlm:qwen3-vl: the service answered ")


@pytest.mark.parametrize(
    "step",
    [
        denied(404, "Not Found"),
        denied(405, "Method Not Allowed"),
        denied(501, "Not Implemented"),
        denied(403, "You have insufficient permissions for this operation. Missing scopes: api.model.read."),
        denied(500, "oops"),
        Step(body=b"not JSON"),
        Step(body=b'{"data": 7}'),
    ],
)
def test_a_service_that_has_no_list_or_hides_it_passes(step: Step) -> None:
    assert check({"/v1/models": step}) == ""


@pytest.mark.parametrize("other", [denied(404, "Not Found"), PAGE])
def test_an_address_without_v1_is_an_error_that_says_so(other: Step) -> None:
    with pytest.raises(AccountError, match="lacks /v1") as caught:
        check({"/models": other, "/v1/models": models("qwen3-vl")}, path="")
    assert caught.value.fix.startswith("write base_url=http://127.0.0.1:") and caught.value.fix.endswith("/v1")


def test_a_web_page_is_not_the_api() -> None:
    with pytest.raises(AccountError, match="web page"):
        check({"/models": PAGE}, path="")


@pytest.mark.parametrize(
    ("step", "wait"),
    [
        (Step(status=503, headers={"Retry-After": "20"}), 20),
        (Step(status=429, headers={"Retry-After": "3"}), 3),
        (Step(status=502), None),
        (Step(close=True), None),
    ],
)
def test_a_busy_service_is_waited_for(step: Step, wait: float | None) -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        check({"/v1/models": step})
    error = caught.value
    assert error.busy and error.service == "vlm:qwen3-vl" and error.retry_after == wait


def test_a_dead_address_is_waited_for() -> None:
    with JudgeServer() as server:
        url = server.url
    with pytest.raises(ServiceUnavailableError, match="cannot be reached") as caught:
        checked(VlmJudge("any", base_url=url))
    assert caught.value.busy


def test_an_azure_list_stands_beside_the_deployments() -> None:
    from knowgen.clients.preflight import _list_url

    url = "https://name.openai.azure.com/openai/deployments/judge?api-version=2024-10-21"
    assert _list_url(url) == "https://name.openai.azure.com/openai/models?api-version=2024-10-21"


# ------------------------------------------------------------------------------------------------------ image services


def image_check(profile: Any, kind: Any, model: str, pages: Mapping[str, ImageStep]) -> str:
    with ImageServer(profile, pages=pages) as server:
        warning = checked(kind(model, base_url=server.base))
        assert not server.calls
    return warning


def body(status: int, data: Any) -> ImageStep:
    return ImageStep(status=status, body=json.dumps(data).encode())


def test_the_key_and_model_of_an_image_service_are_checked() -> None:
    listed = {"/v1/models": body(200, {"data": [{"id": "flux-2"}]})}
    assert image_check(OPENAI, OpenAiImages, "flux-2", listed) == ""
    assert "flux-2" in image_check(OPENAI, OpenAiImages, "flux-3", listed)
    error = OPENAI.error(401, "invalid_api_key", "Incorrect API key provided")
    with pytest.raises(AccountError, match="Incorrect API key"):
        image_check(OPENAI, OpenAiImages, "flux-2", {"/v1/models": body(401, error)})


def test_a_model_of_gemini_is_looked_up_by_name() -> None:
    path = "/v1beta/models/gemini-3-pro-image"
    assert image_check(GEMINI, GeminiImages, "gemini-3-pro-image", {path: body(200, {"name": "models/x"})}) == ""
    gone = GEMINI.error(404, "NOT_FOUND", "models/gemini-3-pro-image is not found for API version v1beta")
    with pytest.raises(AccountError, match="does not exist"):
        image_check(GEMINI, GeminiImages, "gemini-3-pro-image", {path: body(404, gone)})
    key = GEMINI.error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
    with pytest.raises(AccountError, match="API key not valid"):
        image_check(GEMINI, GeminiImages, "gemini-3-pro-image", {path: body(400, key)})


def test_a_service_without_a_free_call_is_not_called() -> None:
    assert image_check(ARK, ArkImages, "doubao-seedream-4-5", {}) == ""
