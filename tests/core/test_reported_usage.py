"""Calls with invalid token counts are charged their reservation, or their known cost if that is higher."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.clients.chat.response import ResponseReader
from knowgen.clients.pricing import ChatPrice
from knowgen.core.metering import MAX_TOKENS, ReportedUsage, Reservation, UsageReader, current_meter, paid_call
from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages

PRICE = ChatPrice(2.0, 8.0)
MISSING, WHOLE = object(), object()
MEANINGLESS: list[Any] = [
    MISSING,
    None,
    -1,
    -3.5,
    "",
    "many",
    "-7",
    True,
    False,
    [],
    {},
    math.nan,
    math.inf,
    -math.inf,
]


@pytest.mark.parametrize("value", [0, 1, 7.0, 10**12])
def test_whole_numbers_are_read(value: float) -> None:
    counts = UsageReader({"n": value})
    assert counts.required("n") == value and counts.complete


@pytest.mark.parametrize(
    ("value", "least"),
    [(None, 0), ("12", 12), (" 12 ", 12), ("3.2", 4), (2.5, 3), (-1, 0), (True, 0), (10**400, MAX_TOKENS), ([], 0)],
)
def test_an_invalid_count_is_the_smallest_it_can_mean_and_makes_the_usage_incomplete(value: Any, least: int) -> None:
    counts = UsageReader({"n": value})
    assert counts.required("n") == least and not counts.complete


def test_only_a_missing_required_count_makes_the_usage_incomplete() -> None:
    counts = UsageReader({"details": None})
    assert counts.optional("n") is None and counts.optional("details", "n") is None and counts.complete
    assert counts.required("n") == 0 and not counts.complete


@pytest.mark.parametrize("usage", ["12", [1, 2], 3, True])
def test_a_usage_that_is_not_an_object_is_incomplete(usage: Any) -> None:
    counts = UsageReader(usage)
    assert counts.optional("n") is None and not counts.complete


@pytest.mark.parametrize(
    ("reported", "worst", "charge"),
    [
        (ReportedUsage(1, 1, 0.2, complete=True), 0.5, 0.2),
        (ReportedUsage(1, 1, 0.9, complete=True), 0.5, 0.9),
        (ReportedUsage(1, 1, 0.2, complete=False), 0.5, 0.5),
        (ReportedUsage(1, 1, 0.9, complete=False), 0.5, 0.9),
        (ReportedUsage(1, 1, None, complete=True), 0.5, 0.5),
        (ReportedUsage(1, 1, 0.2, complete=False), None, 0.2),
        (ReportedUsage(1, 1, None, complete=False), None, None),
    ],
)
def test_a_call_is_charged_by_its_reported_usage_or_its_reservation(
    reported: ReportedUsage, worst: float | None, charge: float | None
) -> None:
    assert reported.charge(worst) == charge


@pytest.mark.parametrize("cost", [-0.1, math.nan, math.inf])
def test_an_invalid_cost_keeps_the_reservation(cost: float) -> None:
    class Meter:
        settled: float | None = 0.0

        async def reserve(self, worst_case: float | None, caller: str) -> int:
            return 7

        async def settle(self, number: int, cost: float | None) -> None:
            self.settled = cost

    async def go(meter: Meter) -> None:
        current_meter.set(meter)
        async with paid_call(0.5, "test") as reservation:
            assert isinstance(reservation, Reservation)
            reservation.settle(cost)

    meter = Meter()
    asyncio.run(go(meter))
    assert meter.settled is None


def chat(usage: Any, worst: float | None, price: ChatPrice = PRICE) -> tuple[float | None, float | None]:
    """Return the recorded cost of a reply with this usage, and what its reservation is settled to."""
    choice = {"message": {"content": "{}"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], **({} if usage is MISSING else {"usage": usage})}).encode()
    answer = ResponseReader("", price).read(200, {}, body, worst)
    return answer.attempt.usage.cost, answer.billed


def without_missing(counts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in counts.items() if value is not MISSING}


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("value", MEANINGLESS)
def test_a_chat_reply_with_a_meaningless_count_is_charged_its_reservation(name: str, value: Any) -> None:
    usage = without_missing({"prompt_tokens": 100, "completion_tokens": 10, name: value})
    recorded, billed = chat(usage, 0.5)
    assert recorded == 0.5 and billed is None


def test_a_chat_reply_above_its_reservation_is_charged_in_full() -> None:
    assert chat({"prompt_tokens": 1_000_000, "completion_tokens": 0}, 0.5) == (2.0, 2.0)
    assert chat({"prompt_tokens": 1_000_000, "completion_tokens": None}, 0.5) == (2.0, 2.0)
    assert chat({"prompt_tokens": "1000000"}, 0.5) == (2.0, 2.0)
    assert chat({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 1_000_100}, 0.5)[0] == pytest.approx(
        (100 * 2 + 1_000_000 * 8) / 1e6  # thoughts that the completion leaves out
    )


@pytest.mark.parametrize("usage", [MISSING, None, "none", [], {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_a_chat_reply_without_usage_is_charged_its_reservation(usage: Any) -> None:
    assert chat(usage, 0.5) == (0.5, None)
    assert chat(usage, None, ChatPrice())[0] is None


TOKENS = st.one_of(st.integers(1, 5000), st.integers(1, 10_000_000))
NOT_WHOLE = st.sampled_from([*MEANINGLESS, "string", "fraction"])


def invalid(value: int, how: Any) -> Any:
    """Return a count as a service with an error might write it."""
    if how == "string":
        return str(value)
    return value - 0.5 if how == "fraction" else how


@given(read=TOKENS, written=TOKENS, how=st.tuples(*[st.just(WHOLE) | NOT_WHOLE] * 2), worst=st.floats(0, 50))
def test_no_chat_usage_is_recorded_below_the_bill_or_the_reservation(
    read: int, written: int, how: tuple[Any, Any], worst: float
) -> None:
    names = ("prompt_tokens", "completion_tokens")
    whole = dict(zip(names, (read, written), strict=True))
    errors = {name: one for name, one in zip(names, how, strict=True) if one is not WHOLE}
    usage = without_missing({name: invalid(n, errors[name]) if name in errors else n for name, n in whole.items()})
    recorded, billed = chat(usage, worst)
    assert recorded is not None
    known = {name: n for name, n in whole.items() if name not in errors or errors[name] in ("string", "fraction")}
    bill = (2.0 * known.get("prompt_tokens", 0) + 8.0 * known.get("completion_tokens", 0)) / 1e6
    if errors:
        assert recorded == pytest.approx(max(worst, bill))
        assert (worst if billed is None else billed) == pytest.approx(recorded)
    else:
        assert recorded == billed == pytest.approx(bill)


IMAGE = "iVBORw0KGgo="
WORST = 0.75


def openai_reply(usage: Any) -> tuple[ReportedUsage, dict[str, Any]]:
    answer = {"data": [{"b64_json": IMAGE}], "quality": "high", "size": "1024x1024", "usage": usage}
    return OpenAiImages("gpt-image-1.5").usage(answer, {}), answer


def gemini_reply(usage: Any) -> tuple[ReportedUsage, dict[str, Any]]:
    parts = [{"inlineData": {"mimeType": "image/png", "data": IMAGE}}]
    answer = {"candidates": [{"content": {"parts": parts}}], "usageMetadata": usage}
    return GeminiImages("gemini-3-pro-image-preview").usage(answer, {}), answer


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, "sk-test-0123456789abcdef")


HOSTED = {
    "openai": (openai_reply, ("input_tokens", "output_tokens"), (5.0, 32.0)),
    "gemini": (gemini_reply, ("promptTokenCount", "candidatesTokenCount"), (2.0, 12.0)),
}
"""Reply with a usage, its two counts, and the lowest price of each in US dollars per million tokens."""


@pytest.mark.parametrize("service", list(HOSTED))
@given(read=TOKENS, written=st.integers(1200, 9_000_000), which=st.integers(0, 1), how=NOT_WHOLE)
def test_no_image_usage_is_recorded_below_the_bill_or_the_reservation(
    service: str, read: int, written: int, which: int, how: Any
) -> None:
    reply, names, prices = HOSTED[service]
    true = dict(zip(names, (read, written), strict=True))
    reported, _ = reply(without_missing(true | {names[which]: invalid(true[names[which]], how)}))
    charged = reported.charge(WORST)
    assert not reported.complete and charged is not None
    known = [1 if how in ("string", "fraction") or position != which else 0 for position in (0, 1)]
    bill = sum(k * n * price for k, n, price in zip(known, true.values(), prices, strict=True)) / 1e6
    assert charged >= WORST and charged >= bill - 1e-9


@pytest.mark.parametrize("service", list(HOSTED))
@given(read=TOKENS, written=st.integers(1200, 9_000_000))
def test_complete_image_usage_is_recorded_also_above_the_reservation(service: str, read: int, written: int) -> None:
    reply, names, prices = HOSTED[service]
    reported, _ = reply(dict(zip(names, (read, written), strict=True)))
    charged = reported.charge(WORST)
    assert reported.complete and charged == reported.cost and charged is not None
    assert charged >= (read * prices[0] + written * prices[1]) / 1e6 - 1e-9


@pytest.mark.parametrize("service", list(HOSTED))
@pytest.mark.parametrize("usage", [None, {}, [], "none"])
def test_an_image_without_usage_is_charged_its_reservation(service: str, usage: Any) -> None:
    assert HOSTED[service][0](usage)[0].charge(WORST) == WORST


@pytest.mark.parametrize(
    ("usage", "images"),
    [
        ({"input_tokens_details": {"image_tokens": "150"}}, False),
        ({"input_tokens_details": {"image_tokens": None}}, False),
        ({"input_tokens_details": {"image_tokens": 201}}, False),
        ({"output_tokens_details": {"text_tokens": 0.5}}, False),
        ({"input_tokens_details": {"image_tokens": 150}, "output_tokens_details": None}, True),
    ],
)
def test_an_invalid_split_of_tokens_is_charged_the_reservation(usage: dict[str, Any], images: bool) -> None:
    reported, _ = openai_reply({"input_tokens": 200, "output_tokens": 4160, **usage})
    assert reported.complete is images
    assert reported.charge(WORST) == (reported.cost if images else WORST)


def test_a_missing_split_is_charged_at_the_higher_price() -> None:
    reported, _ = openai_reply({"input_tokens": 200, "output_tokens": 4160})
    assert reported.complete and reported.cost == pytest.approx((200 * 8 + 4160 * 32) / 1e6)


def test_images_with_a_price_each_need_no_tokens_but_a_valid_number_of_images() -> None:
    ark = ArkImages("doubao-seedream-4-5-251128")
    image = {"b64_json": IMAGE}
    for usage in (None, {"output_tokens": "x"}, {"generated_images": 1}):
        reported = ark.usage({"data": [image], "usage": usage}, {})
        assert reported.complete and reported.cost == ark.prices.per_image
    for count in ("1", None, -1, 0.5, True):
        reported = ark.usage({"data": [image], "usage": {"generated_images": count}}, {})
        assert not reported.complete and reported.charge(WORST) == WORST
    assert ark.usage({"data": [image], "usage": {"generated_images": 3}}, {}).cost == pytest.approx(3 * 0.036)
    assert ark.usage({}, {}).charge(WORST) == WORST
