"""Responses of the hosted services become an image, a refusal, a transient error or a failure with its reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from knowgen.clients.pricing import ImagePrice
from knowgen.core.errors import AccountError, RefusalError, ServiceUnavailableError, TransientError
from knowgen.core.metering import current_meter
from knowgen.core.records import GenerationRequest, GenerationStatus
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.base import HostedImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from tests.helpers.image_servers import (
    ARK,
    GEMINI,
    KEY,
    OPENAI,
    ImageServer,
    ServiceProfile,
    Step,
    ark_response,
    b64,
    gemini_response,
    image_bytes,
    openai_response,
)

SERVICES: dict[str, tuple[Any, str, Any]] = {
    "openai": (OpenAiImages, "gpt-image-1", openai_response),
    "gemini": (GeminiImages, "gemini-3-pro-image-preview", gemini_response),
    "ark": (ArkImages, "doubao-seedream-4-5-251128", ark_response),
}
MISSING = object()
PROFILES = {"openai": OPENAI, "gemini": GEMINI, "ark": ARK}
PRICE = 0.25

for_every_service = pytest.mark.parametrize("name", list(SERVICES))


class RecordingMeter:
    """A budget meter that records every reservation and its settlement."""

    def __init__(self) -> None:
        self.reserved: list[float | None] = []
        self.settled: list[float | None] = []

    async def reserve(self, worst_case: float | None, who: str) -> int:
        self.reserved.append(worst_case)
        return len(self.reserved) - 1

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled.append(cost)


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def make_generator(name: str, server: ImageServer, **args: Any) -> HostedImages:
    kind, model, _ = SERVICES[name]
    generator: HostedImages = kind(model, base_url=server.base, **{"key_env": "MY_KEY", "price": PRICE, **args})
    return generator


def generate(generator: HostedImages, meter: RecordingMeter | None = None) -> GeneratedImage:
    async def once() -> GeneratedImage:
        current_meter.set(meter)
        try:
            return await generator.generate(GenerationRequest(id="r", prompt="A red boat"))
        finally:
            await generator.close()

    return asyncio.run(once())


def error_step(name: str, status: int, code: str, message: str, **step: Any) -> Step:
    profile: ServiceProfile = PROFILES[name]
    return Step(status=status, error=profile.error(status, code, message), **step)


@for_every_service
def test_an_image_is_returned_and_its_cost_recorded(name: str) -> None:
    meter = RecordingMeter()
    with ImageServer(PROFILES[name]) as server:
        result = generate(make_generator(name, server), meter)
    assert result.status is GenerationStatus.OK and isinstance(result.image, bytes)
    assert (meter.reserved, meter.settled) == ([PRICE], [PRICE])
    assert result.usage.cost == PRICE
    assert result.settings["model"] == SERVICES[name][1] and result.settings["endpoint"] == server.base


REFUSALS = {
    "openai moderation": ("openai", "moderation_blocked", 400),
    "openai policy": ("openai", "content_policy_violation", 400),
    "ark prompt": ("ark", "InputTextSensitiveContentDetected", 400),
    "ark image": ("ark", "OutputImageSensitiveContentDetected.PolicyViolation", 400),
    "ark risk": ("ark", "InputTextRiskDetection", 400),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_a_refusal_by_status_keeps_the_services_message_and_costs_nothing(case: str) -> None:
    name, code, status = REFUSALS[case]
    meter = RecordingMeter()
    with (
        ImageServer(PROFILES[name], [error_step(name, status, code, "Not this one, says the house.")]) as server,
        pytest.raises(RefusalError, match="declined: Not this one, says the house") as caught,
    ):
        generate(make_generator(name, server), meter)
    assert KEY not in str(caught.value)
    assert meter.settled == [0.0]


GEMINI_REFUSALS: dict[str, dict[str, Any]] = {
    "prompt": {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}},
    "unnamed": {"promptFeedback": {"blockReason": "OTHER", "safetyRatings": []}},
    "safety": {"candidates": [{"finishReason": "SAFETY", "index": 0}]},
    "image": {"candidates": [{"content": {}, "finishReason": "IMAGE_SAFETY", "finishMessage": "Unsafe, it says."}]},
    "prohibited": {
        "candidates": [{"content": {"parts": [{"text": "I will not."}]}, "finishReason": "PROHIBITED_CONTENT"}]
    },
    "recited": {"candidates": [{"finishReason": "IMAGE_RECITATION"}]},
}


@pytest.mark.parametrize("case", list(GEMINI_REFUSALS))
def test_a_block_or_finish_reason_of_gemini_is_a_refusal(case: str) -> None:
    response = GEMINI_REFUSALS[case]
    meter = RecordingMeter()
    with (
        ImageServer(GEMINI, [Step(response=response)]) as server,
        pytest.raises(RefusalError, match="declined: ") as caught,
    ):
        generate(make_generator("gemini", server), meter)
    expected = {"prompt": "PROHIBITED_CONTENT", "unnamed": "OTHER", "safety": "SAFETY", "image": "Unsafe, it says.",
            "prohibited": "I will not.", "recited": "IMAGE_RECITATION"}[case]  # fmt: skip
    assert expected in str(caught.value)
    assert meter.settled == [0.0]  # without an image the price per image is not charged


def test_a_refusal_of_openai_is_recognised_by_its_message_alone() -> None:
    step = error_step("openai", 400, "", "Your request was rejected as a result of our safety system.")
    with ImageServer(OPENAI, [step]) as server, pytest.raises(RefusalError, match="safety system"):
        generate(make_generator("openai", server))


def test_ark_may_refuse_in_the_entry_of_an_image() -> None:
    entry_error = {"code": "OutputImageSensitiveContentDetected", "message": "The image may hold sensitive things."}
    response = {
        **ark_response(error=entry_error),
        "usage": {"generated_images": 0, "output_tokens": 0, "total_tokens": 0},
    }
    with ImageServer(ARK, [Step(response=response)]) as server, pytest.raises(RefusalError, match="may hold sensitive"):
        generate(make_generator("ark", server))
    broken = {**response, "data": [{"error": {"code": "InternalServiceError", "message": "oops"}}]}
    with ImageServer(ARK, [Step(response=broken)]) as server, pytest.raises(TransientError, match="oops"):
        generate(make_generator("ark", server))


def candidate(finish: str, **content: Any) -> dict[str, Any]:
    return {"candidates": [{"finishReason": finish, "index": 0, **content}], "usageMetadata": {"promptTokenCount": 9}}


WITHOUT_IMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no image": (candidate("NO_IMAGE", content={"parts": [{"text": "Hm."}]}), "NO_IMAGE Hm"),
    "text only": (candidate("STOP", content={"parts": [{"text": "A boat is a vessel."}]}), "A boat is a vessel"),
    "no parts": (candidate("STOP", content={"role": "model"}), "STOP"),
    "filtered after drawing": (candidate("IMAGE_OTHER", finishMessage="Try another prompt."), "Try another prompt"),
    "thoughts used all tokens": (candidate("MAX_TOKENS"), "MAX_TOKENS"),
    "a tool instead": (candidate("MALFORMED_FUNCTION_CALL"), "MALFORMED_FUNCTION_CALL"),
    "no candidate": ({"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}}, "no candidate"),
    "null candidates": ({"candidates": None}, "no candidate"),
}


@pytest.mark.parametrize("case", list(WITHOUT_IMAGE))
def test_a_response_of_gemini_without_an_image_may_have_one_next_time(case: str) -> None:
    response, words = WITHOUT_IMAGE[case]
    with ImageServer(GEMINI, [Step(response=response)]) as server, pytest.raises(TransientError, match=words) as caught:
        generate(make_generator("gemini", server))
    assert type(caught.value) is TransientError  # the service works, so waiting for it would not help


def test_an_unsupported_language_is_not_requested_again() -> None:
    with ImageServer(GEMINI, [Step(response=candidate("LANGUAGE"))]) as server:
        assert generate(make_generator("gemini", server)).status is GenerationStatus.FAILED


TRANSIENT: dict[str, tuple[Step, float | None, str]] = {
    "429": (Step(status=429, body=b"{}", headers={"Retry-After": "7"}), 0.0, "answered 429"),
    "500": (Step(status=500, body=b'{"error": {"message": "oops"}}'), 0.0, "answered 500: oops"),
    "503 page": (Step(status=503, body=b"<html>no backend</html>"), 0.0, "no backend"),
    "504": (Step(status=504, body=b""), None, "answered 504"),
    "closed": (Step(close=True), None, "was lost"),
    "cut": (Step(cut=True), None, "was lost"),
    "slow": (Step(delay=3.0), None, "no response within 0.3 s"),
    "page": (Step(body=b"<html>"), None, "without a JSON object"),
    "list": (Step(body=b"[]"), None, "without a JSON object"),
}


@for_every_service
@pytest.mark.parametrize("case", list(TRANSIENT))
def test_a_transient_error_is_charged_what_the_call_may_have_cost(name: str, case: str) -> None:
    step, cost, message = TRANSIENT[case]
    meter = RecordingMeter()
    timeout = 0.3 if case == "slow" else 20.0
    with ImageServer(PROFILES[name], [step]) as server, pytest.raises(TransientError, match=message) as caught:
        generate(make_generator(name, server, timeout=timeout), meter)
    assert meter.reserved == [PRICE]
    assert meter.settled == [cost]  # None keeps the worst case
    assert caught.value.retry_after == (7 if case == "429" else None)
    assert KEY not in str(caught.value)


@for_every_service
def test_an_unreachable_service_costs_nothing(name: str) -> None:
    meter = RecordingMeter()
    with ImageServer(PROFILES[name]) as server:
        generator = make_generator(name, server)
    with pytest.raises(TransientError, match="cannot be reached"):
        generate(generator, meter)
    assert [cost for cost in meter.settled if cost] == [] and len(meter.settled) == len(meter.reserved)


def test_the_retry_delay_in_geminis_error_details_is_read() -> None:
    details = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota.", "details": [
        {"@type": "type.googleapis.com/google.rpc.Help"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
    ]}  # fmt: skip
    with (
        ImageServer(GEMINI, [Step(status=429, error={"error": details})]) as server,
        pytest.raises(TransientError) as caught,
    ):
        generate(make_generator("gemini", server))
    assert caught.value.retry_after == 34.5


def test_an_exhausted_quota_is_not_retried() -> None:
    step = error_step("openai", 429, "insufficient_quota", "You exceeded your current quota.")
    with ImageServer(OPENAI, [step]) as server, pytest.raises(AccountError, match="exceeded your current quota"):
        generate(make_generator("openai", server))


@for_every_service
@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_account_that_is_turned_away_is_not_a_failed_image(name: str, status: int) -> None:
    meter = RecordingMeter()
    step = error_step(name, status, "denied", f"No entry for {KEY}.")
    with (
        ImageServer(PROFILES[name], [step]) as server,
        pytest.raises(AccountError, match=f"answered {status}") as caught,
    ):
        generate(make_generator(name, server), meter)
    assert KEY not in str(caught.value) and "[key]" in str(caught.value)
    assert meter.settled == [0.0]


@for_every_service
@pytest.mark.parametrize("status", [400, 422])
def test_other_rejections_fail_with_their_reason(name: str, status: int) -> None:
    meter = RecordingMeter()
    with ImageServer(PROFILES[name], [error_step(name, status, "invalid_value", f"Bad size; key {KEY}.")]) as server:
        result = generate(make_generator(name, server), meter)
    assert result.status is GenerationStatus.FAILED
    assert f"answered {status}" in result.reason and "Bad size; key [key]." in result.reason
    assert KEY not in json.dumps([result.settings, result.reason])
    assert meter.settled == [0.0]


@for_every_service
def test_a_redirect_is_not_followed(name: str) -> None:
    with ImageServer(PROFILES[name]) as other:
        away = Step(status=307, body=b"", headers={"Location": f"{other.url}/v1/images/generations"})
        with ImageServer(PROFILES[name], [away]) as server, pytest.raises(AccountError, match="307, a redirect"):
            generate(make_generator(name, server))
        assert not other.calls and not other.fetched


BROKEN = {
    "not an image": (b"<html>nothing</html>", "it is a web page"),
    "cut": (image_bytes("red", size=(200, 200))[:-40], "does not open"),
}


@for_every_service
@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_image_fails_with_its_reason_and_its_cost(name: str, case: str) -> None:
    data, reason = BROKEN[case]
    response = SERVICES[name][2](data)
    meter = RecordingMeter()
    with ImageServer(PROFILES[name], [Step(response=response)]) as server:
        result = generate(make_generator(name, server), meter)
    assert result.status is GenerationStatus.FAILED and reason in result.reason
    assert result.usage.cost == PRICE and meter.settled == [PRICE]


@for_every_service
def test_an_image_in_invalid_base64_fails_with_its_reason(name: str) -> None:
    text = json.dumps(SERVICES[name][2](b"marker")).replace(b64(b"marker"), "%%%")
    with ImageServer(PROFILES[name], [Step(response=json.loads(text))]) as server:
        result = generate(make_generator(name, server))
    assert result.status is GenerationStatus.FAILED and "not valid base64" in result.reason


@for_every_service
@pytest.mark.parametrize(
    "body", [{}, {"data": []}, {"data": [None]}, {"data": [{}]}, {"candidates": []}, {"candidates": [7]}]
)
def test_responses_without_an_image_may_have_one_next_time(name: str, body: dict[str, Any]) -> None:
    with ImageServer(PROFILES[name], [Step(response=body)]) as server, pytest.raises(TransientError, match="no image"):
        generate(make_generator(name, server))


@for_every_service
def test_an_error_inside_a_successful_response_is_read_like_its_status(name: str) -> None:
    busy = Step(response={"error": {"code": 429, "message": "Slow down, try again in 12 s"}})
    with ImageServer(PROFILES[name], [busy]) as server, pytest.raises(ServiceUnavailableError) as caught:
        generate(make_generator(name, server))
    assert caught.value.busy and caught.value.retry_after == 12


DRESSES: dict[str, Callable[[str], str]] = {
    "line ends": lambda text: "\r\n".join(text[place : place + 76] for place in range(0, len(text), 76)),
    "no padding": lambda text: text.rstrip("="),
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
    "data URL": lambda text: f"data:image/png;base64,{text}",
    "data URL with a charset": lambda text: f" data:image/png;charset=utf-8;base64,\n{text}\n",
}


@for_every_service
@pytest.mark.parametrize("dress", list(DRESSES))
def test_base64_is_read_in_every_dress(name: str, dress: str) -> None:
    data = next(image for image in (image_bytes(color, size=(61, 47)) for color in ("#fbf3ff", "#3e7fef", "#0fa"))
                if len(image) % 3 and {"+", "/"} & set(b64(image)))  # fmt: skip
    text = json.dumps(SERVICES[name][2](data)).replace(b64(data), "HERE")
    response = json.loads(text.replace("HERE", json.dumps(DRESSES[dress](b64(data)))[1:-1]))
    with ImageServer(PROFILES[name], [Step(response=response)]) as server:
        assert generate(make_generator(name, server)).image == data


@for_every_service
def test_a_response_without_usage_is_charged_the_worst_case(name: str) -> None:
    meter = RecordingMeter()
    with ImageServer(PROFILES[name], [Step(response={})]) as server, pytest.raises(TransientError):
        generate(make_generator(name, server), meter)
    assert (meter.reserved, meter.settled) == ([PRICE], [PRICE])


TOKEN_PRICE = ImagePrice(
    text_in=5.0, image_in=10.0, text_out=12.0, image_out=40.0, max_output=5000, tokens={"1K": 4000}
)


@pytest.mark.parametrize("output", ["4160", 4160.5, None, -1, MISSING])
@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_an_invalid_token_count_is_charged_the_worst_case(name: str, output: Any) -> None:
    response = SERVICES[name][2]()
    usage = response["usage" if name == "openai" else "usageMetadata"]
    if output is MISSING:
        del usage["input_tokens" if name == "openai" else "promptTokenCount"]
    else:
        usage["output_tokens" if name == "openai" else "thoughtsTokenCount"] = output
    meter = RecordingMeter()
    with ImageServer(PROFILES[name], [Step(response=response)]) as server:
        generator = make_generator(name, server)
        generator.prices = replace(TOKEN_PRICE, text_out=0.0) if name == "openai" else TOKEN_PRICE
        result = generate(generator, meter)
    assert result.status is GenerationStatus.OK
    (worst,) = meter.reserved
    assert worst is not None and meter.settled[0] == result.usage.cost
    assert meter.settled[0] is not None and meter.settled[0] >= worst


def test_a_call_that_costs_more_than_its_reservation_is_charged_in_full() -> None:
    response = {**ark_response(), "usage": {"generated_images": 3}}
    meter = RecordingMeter()
    with ImageServer(ARK, [Step(response=response)]) as server:
        result = generate(make_generator("ark", server), meter)
    assert (meter.reserved, meter.settled) == ([PRICE], [3 * PRICE]) and result.usage.cost == 3 * PRICE


def by_url(path: str) -> Step:
    return Step(response=lambda url: openai_response(url=f"{url}{path}" if path.startswith("/") else path))


def test_an_image_at_a_url_is_downloaded_without_the_key() -> None:
    data = image_bytes("purple", "WEBP")
    with ImageServer(OPENAI, [by_url("/files/a.webp?sig=1")], {"/files/a.webp?sig=1": data}) as server:
        result = generate(make_generator("openai", server))
    assert result.image == data
    (call,) = server.fetched
    assert KEY not in json.dumps(call.headers)
    assert "sig" not in json.dumps(result.settings)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a.png", "http://localhost/a.png", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a",
     "http://[::1]/a", "http://2130706433/a", "file:///etc/passwd"],
)  # fmt: skip
def test_a_url_inside_the_network_is_not_downloaded(url: str) -> None:
    with ImageServer(OPENAI, [by_url(url)]) as server:
        result = generate(make_generator("openai", server))
    assert result.status is GenerationStatus.FAILED and "URL of the image was not downloaded" in result.reason
    assert result.usage.cost == PRICE


def test_a_redirect_of_an_image_into_the_network_is_not_followed() -> None:
    with ImageServer(OPENAI, pages={"/secret": image_bytes()}) as inside:
        away = Step(status=302, body=b"", headers={"Location": f"{inside.url}/secret"})
        with ImageServer(OPENAI, [by_url("/a")], {"/a": away}) as server:
            result = generate(make_generator("openai", server))
        assert not inside.fetched
    assert result.status is GenerationStatus.FAILED and "not downloaded" in result.reason


def test_a_failed_download_is_retried_without_generating_again() -> None:
    pages: dict[str, Any] = {"/a.png": [Step(status=503, body=b""), image_bytes("pink")]}
    with ImageServer(OPENAI, [by_url("/a.png")], pages) as server:
        result = generate(make_generator("openai", server))
    assert result.image == image_bytes("pink")
    assert (len(server.calls), len(server.fetched)) == (1, 2)


def test_an_image_that_cannot_be_downloaded_fails() -> None:
    with ImageServer(OPENAI, [by_url("/a.png")], {"/a.png": Step(status=503, body=b"")}) as server:
        result = generate(make_generator("openai", server))
    assert result.status is GenerationStatus.FAILED
    assert "in 3 attempts" in result.reason and "503" in result.reason


def test_a_relative_url_is_one_of_the_service() -> None:
    data = image_bytes("gold")
    for url, path in (("/files/a.png", "/files/a.png"), ("files/a.png", "/v1/files/a.png")):
        step = Step(response=openai_response(url=url))
        with ImageServer(OPENAI, [step], {path: data}) as server:
            assert generate(make_generator("openai", server)).image == data


def test_an_image_may_be_a_data_url() -> None:
    data = image_bytes("navy")
    with ImageServer(OPENAI, [by_url(f"data:image/png;base64,{b64(data)}")]) as server:
        assert generate(make_generator("openai", server)).image == data


def test_calls_run_concurrently_up_to_the_limit() -> None:
    async def many(generator: HostedImages) -> list[GeneratedImage]:
        requests = [GenerationRequest(id=str(number), prompt="A boat") for number in range(12)]
        try:
            return await asyncio.gather(*(generator.generate(request) for request in requests))
        finally:
            await generator.close()

    with ImageServer(OPENAI, [Step(delay=0.1)]) as server:
        results = asyncio.run(many(make_generator("openai", server, concurrency=4)))
    assert all(result.status is GenerationStatus.OK for result in results)
    assert server.max_concurrent == 4


def test_a_generator_works_in_one_event_loop_after_another() -> None:
    with ImageServer(OPENAI) as server:
        generator = make_generator("openai", server)
        for _ in range(2):
            assert generate(generator).status is GenerationStatus.OK
