"""What images cost, worked out by hand from the published prices."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowgen.clients.pricing import IMAGE_PRICES, ImagePrice, TokenCounts, image_price, price_list
from knowgen.generators.hosted.ark import ArkImages
from knowgen.generators.hosted.gemini import GeminiImages
from knowgen.generators.hosted.openai import OpenAiImages
from tests.helpers.image_servers import gemini_answer, openai_answer

OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com"
CHINA = "https://ark.cn-beijing.volces.com/api/v3"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, "sk-any")


def test_the_list_says_when_it_was_read_off_and_holds_nothing_odd() -> None:
    listed = price_list(IMAGE_PRICES)
    assert datetime.date.fromisoformat(f"{listed['as_of']}-01") > datetime.date(2025, 1, 1)
    for models in listed["hosts"].values():
        for prices in models.values():
            price = ImagePrice(**prices)
            assert price.known and (price.worst("", 0) or 0) > 0


@pytest.mark.parametrize(
    ("quality", "size", "dollars"),
    [
        ("low", "1024x1024", 0.011), ("low", "1024x1536", 0.016), ("low", "1536x1024", 0.016),
        ("medium", "1024x1024", 0.042), ("medium", "1024x1536", 0.063), ("medium", "1536x1024", 0.063),
        ("high", "1024x1024", 0.167), ("high", "1024x1536", 0.25), ("high", "1536x1024", 0.25),
    ],
)  # fmt: skip
def test_tokens_of_gpt_image_come_to_the_published_price_per_image(quality: str, size: str, dollars: float) -> None:
    price = image_price("gpt-image-1", OPENAI)
    assert price.cost(TokenCounts(image_out=price.image_tokens(quality, size)), 1) == pytest.approx(
        dollars, rel=0.03
    )  # as rounded there


def test_gpt_image_by_what_the_answer_counts() -> None:
    painter = OpenAiImages("gpt-image-1")
    usage = painter.usage(openai_answer())  # 50 of text and 150 of images in, 4160 out
    assert usage.cost == pytest.approx((50 * 5 + 150 * 10 + 4160 * 40) / 1e6)
    assert (usage.input_tokens, usage.output_tokens) == (200, 4160)


def test_gpt_image_without_counts_by_quality_and_size() -> None:
    answer: dict[str, Any] = {**openai_answer(), "quality": "low", "size": "1536x1024"}
    del answer["usage"]
    assert OpenAiImages("gpt-image-1").usage(answer).cost == pytest.approx(400 * 40 / 1e6)
    del answer["quality"], answer["size"]  # then as asked
    assert OpenAiImages("gpt-image-1", quality="medium", size="1024x1024").usage(answer).cost == pytest.approx(
        1056 * 40 / 1e6
    )
    assert OpenAiImages("gpt-image-1").usage(answer).cost == pytest.approx(6240 * 40 / 1e6)  # auto: the most


def test_the_worst_case_of_gpt_image() -> None:
    painter = OpenAiImages("gpt-image-1", quality="high", size="1024x1024")
    worst = painter.prices.worst("ab", 2, *painter.traits())
    assert worst == pytest.approx(((2 + 256) * 5 + 2 * 2000 * 10 + 4160 * 40) / 1e6)
    auto = OpenAiImages("gpt-image-1")
    assert auto.prices.worst("", 0, *auto.traits()) == pytest.approx((256 * 5 + 6240 * 40) / 1e6)


def test_gemini_by_what_the_answer_counts() -> None:
    painter = GeminiImages("gemini-3-pro-image-preview")
    # 300 in; 200 of thoughts, 1130 out of which 1120 are the image
    usage = painter.usage(gemini_answer())
    assert usage.cost == pytest.approx((300 * 2 + (200 + 10) * 12 + 1120 * 120) / 1e6)
    assert (usage.input_tokens, usage.output_tokens) == (300, 1330)
    uncounted = {**gemini_answer(), "usageMetadata": {}}
    assert painter.usage(uncounted).cost == pytest.approx(1120 * 120 / 1e6)


def test_gemini_images_of_4k_cost_more() -> None:
    worst = [GeminiImages("gemini-3-pro-image-preview", size=size) for size in ("", "2K", "4K")]
    costs = [painter.prices.worst("", 0, *painter.traits()) for painter in worst]
    told = [(256 * 2 + (32768 - drawn) * 12 + drawn * 120) / 1e6 for drawn in (1120, 1120, 2000)]
    assert costs == pytest.approx(told)


def test_ark_by_the_image() -> None:
    painter = ArkImages("doubao-seedream-4-5-251128")
    answer = {"data": [{"url": "https://x"}], "usage": {"generated_images": 1, "output_tokens": 16384}}
    assert painter.usage(answer).cost == painter.prices.worst("long " * 100, 14) == pytest.approx(0.25 / 7, abs=0.001)
    assert painter.usage({"data": [{"error": {"code": "x"}}]}).cost == 0


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gpt-image-1", "https://proxy.example/v1"),
        ("gpt-image-99", OPENAI),
        ("any", CHINA),
        ("any", "http://127.0.0.1:1/v1"),
    ],
)
def test_an_unknown_price_is_none(model: str, url: str) -> None:
    price = image_price(model, url)
    assert not price.known and price.worst("a", 1) is None and price.cost(TokenCounts(1, 1, 1, 1), 1) is None


def test_what_the_user_says_stands_above_the_list() -> None:
    price = image_price("gpt-image-1", OPENAI, 0.5)
    assert price.worst("a" * 1000, 16, "high") == 0.5 and price.cost(TokenCounts(10, 10, 10, 10), 1) == 0.5
    assert image_price("gpt-image-1", OPENAI, 0).worst("a", 0) == 0.0


@given(
    st.text(max_size=200),
    st.integers(0, 16),
    st.sampled_from(["low", "medium", "high", "auto", ""]),
    st.sampled_from(["1024x1024", "1024x1536", "1536x1024", "auto", ""]),
    st.data(),
)
def test_no_call_costs_more_than_its_worst_case(
    prompt: str, references: int, quality: str, size: str, data: Any
) -> None:
    price = image_price("gpt-image-1", OPENAI)
    worst = price.worst(prompt, references, quality, size)
    counted = TokenCounts(
        data.draw(st.integers(0, len(prompt.encode()))),
        data.draw(st.integers(0, references * price.reference)),
        0,
        data.draw(st.integers(0, price.image_tokens(quality, size))),
    )
    cost = price.cost(counted, 1)
    assert worst is not None and (cost is None or cost <= worst)
