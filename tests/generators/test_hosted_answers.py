"""What becomes of answers: an image, a refusal in its own words, a transient error, a failure with its reason."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from knowgen.clients.pricing import ImagePrice
from knowgen.core.errors import RefusalError, TransientError
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
    Dialect,
    ImageServer,
    Step,
    ark_answer,
    b64,
    gemini_answer,
    image_bytes,
    openai_answer,
)

KINDS: dict[str, tuple[Any, str, Any]] = {
    "openai": (OpenAiImages, "gpt-image-1", openai_answer),
    "gemini": (GeminiImages, "gemini-3-pro-image-preview", gemini_answer),
    "ark": (ArkImages, "doubao-seedream-4-5-251128", ark_answer),
}
MISSING = object()
DIALECTS = {"openai": OPENAI, "gemini": GEMINI, "ark": ARK}
PRICE = 0.25

everywhere = pytest.mark.parametrize("name", list(KINDS))


class BudgetMeter:
    """A meter that keeps what was set aside and what it came to."""

    def __init__(self) -> None:
        self.reserved: list[float | None] = []
        self.settled: list[float | None] = []

    async def reserve(self, worst_case: float | None, who: str) -> int:
        self.reserved.append(worst_case)
        return len(self.reserved) - 1

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled.append(cost)


@pytest.fixture(autouse=True)
def the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def painter_of(name: str, server: ImageServer, **args: Any) -> HostedImages:
    kind, model, _ = KINDS[name]
    painter: HostedImages = kind(model, base_url=server.base, **{"key_env": "MY_KEY", "price": PRICE, **args})
    return painter


def draw(painter: HostedImages, books: BudgetMeter | None = None) -> GeneratedImage:
    async def once() -> GeneratedImage:
        current_meter.set(books)
        try:
            return await painter.generate(GenerationRequest(id="r", prompt="A red boat"))
        finally:
            await painter.close()

    return asyncio.run(once())


def error(name: str, status: int, code: str, words: str, **step: Any) -> Step:
    dialect: Dialect = DIALECTS[name]
    return Step(status=status, error=dialect.error(status, code, words), **step)


@everywhere
def test_an_image_comes_back_and_is_paid_for(name: str) -> None:
    books = BudgetMeter()
    with ImageServer(DIALECTS[name]) as server:
        drawing = draw(painter_of(name, server), books)
    assert drawing.status is GenerationStatus.OK and isinstance(drawing.image, bytes)
    assert (books.reserved, books.settled) == ([PRICE], [PRICE])
    assert drawing.usage.cost == PRICE
    assert drawing.settings["model"] == KINDS[name][1] and drawing.settings["endpoint"] == server.base


REFUSALS = {
    "openai moderation": ("openai", "moderation_blocked", 400),
    "openai policy": ("openai", "content_policy_violation", 400),
    "ark prompt": ("ark", "InputTextSensitiveContentDetected", 400),
    "ark picture": ("ark", "OutputImageSensitiveContentDetected.PolicyViolation", 400),
    "ark risk": ("ark", "InputTextRiskDetection", 400),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_a_refusal_by_status_keeps_the_services_words_and_costs_nothing(case: str) -> None:
    name, code, status = REFUSALS[case]
    books = BudgetMeter()
    with (
        ImageServer(DIALECTS[name], [error(name, status, code, "Not this one, says the house.")]) as server,
        pytest.raises(RefusalError, match="declined: Not this one, says the house") as caught,
    ):
        draw(painter_of(name, server), books)
    assert KEY not in str(caught.value)
    assert books.settled == [0.0]


GEMINI_REFUSALS: dict[str, dict[str, Any]] = {
    "prompt": {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}},
    "unnamed": {"promptFeedback": {"blockReason": "OTHER", "safetyRatings": []}},
    "safety": {"candidates": [{"finishReason": "SAFETY", "index": 0}]},
    "picture": {"candidates": [{"content": {}, "finishReason": "IMAGE_SAFETY", "finishMessage": "Unsafe, it says."}]},
    "prohibited": {
        "candidates": [{"content": {"parts": [{"text": "I will not."}]}, "finishReason": "PROHIBITED_CONTENT"}]
    },
    "recited": {"candidates": [{"finishReason": "IMAGE_RECITATION"}]},
}


@pytest.mark.parametrize("case", list(GEMINI_REFUSALS))
def test_a_refusal_inside_an_answer_of_gemini_is_one(case: str) -> None:
    answer = GEMINI_REFUSALS[case]
    books = BudgetMeter()
    with (
        ImageServer(GEMINI, [Step(answer=answer)]) as server,
        pytest.raises(RefusalError, match="declined: ") as caught,
    ):
        draw(painter_of("gemini", server), books)
    said = {"prompt": "PROHIBITED_CONTENT", "unnamed": "OTHER", "safety": "SAFETY", "picture": "Unsafe, it says.",
            "prohibited": "I will not.", "recited": "IMAGE_RECITATION"}[case]  # fmt: skip
    assert said in str(caught.value)
    assert books.settled == [0.0]  # no image, no price of an image


def test_a_refusal_of_openai_is_known_by_its_words_alone() -> None:
    step = error("openai", 400, "", "Your request was rejected as a result of our safety system.")
    with ImageServer(OPENAI, [step]) as server, pytest.raises(RefusalError, match="safety system"):
        draw(painter_of("openai", server))


def test_ark_may_refuse_in_the_place_of_an_image() -> None:
    said = {"code": "OutputImageSensitiveContentDetected", "message": "The picture may hold sensitive things."}
    answer = {**ark_answer(error=said), "usage": {"generated_images": 0, "output_tokens": 0, "total_tokens": 0}}
    with ImageServer(ARK, [Step(answer=answer)]) as server, pytest.raises(RefusalError, match="may hold sensitive"):
        draw(painter_of("ark", server))
    broken = {**answer, "data": [{"error": {"code": "InternalServiceError", "message": "oops"}}]}
    with ImageServer(ARK, [Step(answer=broken)]) as server:
        assert "oops" in draw(painter_of("ark", server)).reason


def test_gemini_that_returned_no_image_is_asked_again() -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "Hm."}]}, "finishReason": "NO_IMAGE"}]}
    with ImageServer(GEMINI, [Step(answer=answer)]) as server, pytest.raises(TransientError, match="NO_IMAGE Hm"):
        draw(painter_of("gemini", server))


def test_gemini_that_only_talks_fails_with_what_it_said() -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "A boat is a vessel."}]}, "finishReason": "STOP"}]}
    with ImageServer(GEMINI, [Step(answer=answer)]) as server:
        drawing = draw(painter_of("gemini", server))
    assert drawing.status is GenerationStatus.FAILED and "A boat is a vessel." in drawing.reason


PASSING: dict[str, tuple[Step, float | None, str]] = {
    "429": (Step(status=429, body=b"{}", headers={"Retry-After": "7"}), 0.0, "answered 429"),
    "500": (Step(status=500, body=b'{"error": {"message": "oops"}}'), 0.0, "answered 500: oops"),
    "503 page": (Step(status=503, body=b"<html>no backend</html>"), 0.0, "no backend"),
    "504": (Step(status=504, body=b""), None, "answered 504"),
    "closed": (Step(close=True), None, "was lost"),
    "cut": (Step(cut=True), None, "was lost"),
    "slow": (Step(delay=3.0), None, "no answer within 0.3 s"),
    "page": (Step(body=b"<html>"), None, "no JSON object"),
    "list": (Step(body=b"[]"), None, "no JSON object"),
}


@everywhere
@pytest.mark.parametrize("case", list(PASSING))
def test_faults_that_may_pass_count_at_what_they_may_have_cost(name: str, case: str) -> None:
    step, cost, words = PASSING[case]
    books = BudgetMeter()
    timeout = 0.3 if case == "slow" else 20.0
    with ImageServer(DIALECTS[name], [step]) as server, pytest.raises(TransientError, match=words) as caught:
        draw(painter_of(name, server, timeout=timeout), books)
    assert books.reserved == [PRICE]
    assert books.settled == [cost]  # None keeps the worst case
    assert caught.value.retry_after == (7 if case == "429" else None)
    assert KEY not in str(caught.value)


@everywhere
def test_a_service_that_is_not_there_costs_nothing(name: str) -> None:
    books = BudgetMeter()
    with ImageServer(DIALECTS[name]) as server:
        painter = painter_of(name, server)
    with pytest.raises(TransientError, match="cannot be reached"):
        draw(painter, books)
    assert books.settled == [0.0]


def test_gemini_says_in_its_details_how_long_to_wait() -> None:
    said = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota.", "details": [
        {"@type": "type.googleapis.com/google.rpc.Help"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
    ]}  # fmt: skip
    with (
        ImageServer(GEMINI, [Step(status=429, error={"error": said})]) as server,
        pytest.raises(TransientError) as caught,
    ):
        draw(painter_of("gemini", server))
    assert caught.value.retry_after == 34.5


def test_a_quota_that_is_used_up_is_not_asked_again() -> None:
    step = error("openai", 429, "insufficient_quota", "You exceeded your current quota.")
    with ImageServer(OPENAI, [step]) as server:
        drawing = draw(painter_of("openai", server))
    assert drawing.status is GenerationStatus.FAILED and "exceeded your current quota" in drawing.reason


@everywhere
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_other_rejections_fail_with_their_reason(name: str, status: int) -> None:
    books = BudgetMeter()
    with ImageServer(DIALECTS[name], [error(name, status, "invalid_value", f"Bad size; key {KEY}.")]) as server:
        drawing = draw(painter_of(name, server), books)
    assert drawing.status is GenerationStatus.FAILED
    assert f"answered {status}" in drawing.reason and "Bad size; key [key]." in drawing.reason
    assert KEY not in json.dumps([drawing.settings, drawing.reason])
    assert books.settled == [0.0]


@everywhere
def test_a_key_never_follows_a_redirect(name: str) -> None:
    with ImageServer(DIALECTS[name]) as other:
        away = Step(status=307, body=b"", headers={"Location": f"{other.url}/v1/images/generations"})
        with ImageServer(DIALECTS[name], [away]) as server:
            drawing = draw(painter_of(name, server))
        assert not other.calls and not other.fetched
    assert drawing.status is GenerationStatus.FAILED and "307, a redirect" in drawing.reason


BROKEN = {
    "no picture": (b"<html>nothing</html>", "unknown image format"),
    "cut": (image_bytes("red", size=(200, 200))[:-40], "does not open"),
    "empty": (b"", "picture"),
}


@everywhere
@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_image_fails_with_its_reason_and_its_cost(name: str, case: str) -> None:
    data, words = BROKEN[case]
    answer = KINDS[name][2](data)
    books = BudgetMeter()
    with ImageServer(DIALECTS[name], [Step(answer=answer)]) as server:
        drawing = draw(painter_of(name, server), books)
    assert drawing.status is GenerationStatus.FAILED and words in drawing.reason
    if data:
        assert drawing.usage.cost == PRICE and books.settled == [PRICE]


@everywhere
def test_an_image_in_no_base64_fails_with_its_reason(name: str) -> None:
    text = json.dumps(KINDS[name][2](b"marker")).replace(b64(b"marker"), "%%%")
    with ImageServer(DIALECTS[name], [Step(answer=json.loads(text))]) as server:
        drawing = draw(painter_of(name, server))
    assert drawing.status is GenerationStatus.FAILED and "no valid base64" in drawing.reason


@everywhere
@pytest.mark.parametrize(
    "body", [{}, {"data": []}, {"data": [None]}, {"data": [{}]}, {"candidates": []}, {"candidates": [7]}]
)
def test_answers_without_an_image_fail_and_break_nothing(name: str, body: dict[str, Any]) -> None:
    with ImageServer(DIALECTS[name], [Step(answer=body)]) as server:
        drawing = draw(painter_of(name, server))
    assert drawing.status is GenerationStatus.FAILED and "holds no picture" in drawing.reason


@everywhere
def test_an_answer_that_says_nothing_of_its_cost_counts_at_the_worst_case(name: str) -> None:
    books = BudgetMeter()
    with ImageServer(DIALECTS[name], [Step(answer={})]) as server:
        drawing = draw(painter_of(name, server), books)
    assert (books.reserved, books.settled) == ([PRICE], [PRICE])
    assert drawing.usage.cost == PRICE


TOKEN_PRICE = ImagePrice(
    text_in=5.0, image_in=10.0, text_out=12.0, image_out=40.0, max_output=5000, tokens={"1K": 4000}
)


@pytest.mark.parametrize("output", ["4160", 4160.5, None, -1, MISSING])
@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_a_count_that_is_not_whole_leaves_the_reservation_spent(name: str, output: Any) -> None:
    answer = KINDS[name][2]()
    usage = answer["usage" if name == "openai" else "usageMetadata"]
    if output is MISSING:
        del usage["input_tokens" if name == "openai" else "promptTokenCount"]
    else:
        usage["output_tokens" if name == "openai" else "thoughtsTokenCount"] = output
    books = BudgetMeter()
    with ImageServer(DIALECTS[name], [Step(answer=answer)]) as server:
        painter = painter_of(name, server)
        painter.prices = replace(TOKEN_PRICE, text_out=0.0) if name == "openai" else TOKEN_PRICE
        drawing = draw(painter, books)
    assert drawing.status is GenerationStatus.OK
    (worst,) = books.reserved
    assert worst is not None and books.settled[0] == drawing.usage.cost
    assert books.settled[0] is not None and books.settled[0] >= worst


def test_a_call_that_costs_more_than_its_reservation_counts_in_full() -> None:
    answer = {**ark_answer(), "usage": {"generated_images": 3}}
    books = BudgetMeter()
    with ImageServer(ARK, [Step(answer=answer)]) as server:
        drawing = draw(painter_of("ark", server), books)
    assert (books.reserved, books.settled) == ([PRICE], [3 * PRICE]) and drawing.usage.cost == 3 * PRICE


def by_url(path: str) -> Step:
    return Step(answer=lambda url: openai_answer(url=f"{url}{path}" if path.startswith("/") else path))


def test_an_image_that_comes_as_an_address_is_fetched_without_the_key() -> None:
    data = image_bytes("purple", "WEBP")
    with ImageServer(OPENAI, [by_url("/files/a.webp?sig=1")], {"/files/a.webp?sig=1": data}) as server:
        drawing = draw(painter_of("openai", server))
    assert drawing.image == data
    (call,) = server.fetched
    assert KEY not in json.dumps(call.headers)
    assert "sig" not in json.dumps(drawing.settings)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/a.png", "http://localhost/a.png", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a",
     "http://[::1]/a", "http://2130706433/a", "file:///etc/passwd"],
)  # fmt: skip
def test_an_address_inside_is_not_fetched(address: str) -> None:
    with ImageServer(OPENAI, [by_url(address)]) as server:
        drawing = draw(painter_of("openai", server))
    assert drawing.status is GenerationStatus.FAILED and "address was not fetched" in drawing.reason
    assert drawing.usage.cost == PRICE


def test_a_redirect_of_an_image_inside_is_not_followed() -> None:
    with ImageServer(OPENAI, pages={"/secret": image_bytes()}) as inside:
        away = Step(status=302, body=b"", headers={"Location": f"{inside.url}/secret"})
        with ImageServer(OPENAI, [by_url("/a")], {"/a": away}) as server:
            drawing = draw(painter_of("openai", server))
        assert not inside.fetched
    assert drawing.status is GenerationStatus.FAILED and "not fetched" in drawing.reason


def test_an_image_that_is_not_there_at_once_is_fetched_again_and_not_generated_again() -> None:
    pages: dict[str, Any] = {"/a.png": [Step(status=503, body=b""), image_bytes("pink")]}
    with ImageServer(OPENAI, [by_url("/a.png")], pages) as server:
        drawing = draw(painter_of("openai", server))
    assert drawing.image == image_bytes("pink")
    assert (len(server.calls), len(server.fetched)) == (1, 2)


def test_an_image_that_never_comes_fails() -> None:
    with ImageServer(OPENAI, [by_url("/a.png")], {"/a.png": Step(status=503, body=b"")}) as server:
        drawing = draw(painter_of("openai", server))
    assert drawing.status is GenerationStatus.FAILED
    assert "in 3 tries" in drawing.reason and "503" in drawing.reason


def test_an_image_may_come_as_a_data_address() -> None:
    data = image_bytes("navy")
    with ImageServer(OPENAI, [by_url(f"data:image/png;base64,{b64(data)}")]) as server:
        assert draw(painter_of("openai", server)).image == data


def test_calls_go_out_together_and_no_more_than_are_allowed() -> None:
    async def many(painter: HostedImages) -> list[GeneratedImage]:
        requests = [GenerationRequest(id=str(number), prompt="A boat") for number in range(12)]
        try:
            return await asyncio.gather(*(painter.generate(request) for request in requests))
        finally:
            await painter.close()

    with ImageServer(OPENAI, [Step(delay=0.1)]) as server:
        drawings = asyncio.run(many(painter_of("openai", server, concurrency=4)))
    assert all(drawing.status is GenerationStatus.OK for drawing in drawings)
    assert server.most_at_once == 4


def test_an_object_serves_one_event_loop_after_another() -> None:
    with ImageServer(OPENAI) as server:
        painter = painter_of("openai", server)
        for _ in range(2):
            assert draw(painter).status is GenerationStatus.OK
