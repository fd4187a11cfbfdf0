"""Costs of images, checked against values worked out by hand from the published prices."""

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
from tests.helpers.image_servers import gemini_response, openai_response

OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com"
CHINA = "https://ark.cn-beijing.volces.com/api/v3"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, "sk-any")


def test_the_price_list_has_a_date_and_valid_prices() -> None:
    listed = price_list(IMAGE_PRICES)
    assert datetime.date.fromisoformat(f"{listed['as_of']}-01") > datetime.date(2025, 1, 1)
    for models in listed["hosts"].values():
        for prices in models.values():
            price = ImagePrice(**prices)
            assert price.known and (price.worst("", 0) or 0) > 0


@pytest.mark.parametrize(
    ("quality", "size", "dollars"),
    [
        ("low", "1024x1024", 0.005), ("low", "1024x1536", 0.006), ("low", "1536x1024", 0.006),
        ("medium", "1024x1024", 0.011), ("medium", "1024x1536", 0.015), ("medium", "1536x1024", 0.015),
        ("high", "1024x1024", 0.036), ("high", "1024x1536", 0.052), ("high", "1536x1024", 0.052),
    ],
)  # fmt: skip
def test_tokens_of_gpt_image_come_to_the_published_price_per_image(quality: str, size: str, dollars: float) -> None:
    price = image_price("gpt-image-1-mini", OPENAI)
    assert price.cost(TokenCounts(image_out=price.image_tokens(quality, size)), 1) == pytest.approx(
        dollars, rel=0.03
    )  # as rounded there


def test_gpt_image_is_charged_by_the_reported_tokens() -> None:
    generator = OpenAiImages("gpt-image-1.5")
    usage = generator.usage(openai_response(), {})  # 50 of text and 150 of images in, 4160 out
    assert usage.cost == pytest.approx((50 * 5 + 150 * 8 + 4160 * 32) / 1e6)
    assert (usage.input_tokens, usage.output_tokens) == (200, 4160)


def test_gpt_image_without_usage_is_charged_by_quality_and_size() -> None:
    response: dict[str, Any] = {**openai_response(), "quality": "low", "size": "1536x1024"}
    del response["usage"]
    assert OpenAiImages("gpt-image-1.5").usage(response, {}).cost == pytest.approx(400 * 32 / 1e6)
    del response["quality"], response["size"]  # then as requested
    assert OpenAiImages("gpt-image-1.5", quality="medium", size="1024x1024").usage(response, {}).cost == pytest.approx(
        1056 * 32 / 1e6
    )
    assert OpenAiImages("gpt-image-1.5").usage(response, {}).cost == pytest.approx(6240 * 32 / 1e6)  # auto: the most


def test_the_worst_case_of_gpt_image_follows_size_and_references() -> None:
    generator = OpenAiImages("gpt-image-1.5", quality="high", size="1024x1024")
    worst = generator.prices.worst("ab", 2, *generator.price_options())
    assert worst == pytest.approx(((2 + 256) * 5 + 2 * 2000 * 8 + 4160 * 32 + (8192 - 4160) * 10) / 1e6)
    auto = OpenAiImages("gpt-image-1.5")
    assert auto.prices.worst("", 0, *auto.price_options()) == pytest.approx(
        (256 * 5 + 6240 * 32 + (8192 - 6240) * 10) / 1e6
    )


def test_the_worst_case_of_gpt_image_2_is_known_for_the_sizes_that_are_published() -> None:
    for quality, dollars in (("low", 0.006), ("medium", 0.053), ("high", 0.211)):
        generator = OpenAiImages("gpt-image-2", quality=quality, size="1024x1024")
        image = generator.prices.image_tokens(*generator.price_options())
        assert generator.prices.cost(TokenCounts(image_out=image), 1) == pytest.approx(dollars, rel=0.01)
        assert (generator.prices.worst("", 0, *generator.price_options()) or 0) >= dollars
    other = OpenAiImages("gpt-image-2", size="3840x2160")
    assert other.prices.worst("", 0, *other.price_options()) is None  # so that a budget asks for a price


def test_gemini_is_charged_by_the_reported_tokens() -> None:
    generator = GeminiImages("gemini-3-pro-image-preview")
    # 300 in; 200 of thoughts, 1130 out of which 1120 are the image
    usage = generator.usage(gemini_response(), {})
    assert usage.cost == pytest.approx((300 * 2 + (200 + 10) * 12 + 1120 * 120) / 1e6)
    assert (usage.input_tokens, usage.output_tokens) == (300, 1330)
    without_counts = {**gemini_response(), "usageMetadata": {}}
    assert generator.usage(without_counts, {}).cost == pytest.approx(1120 * 120 / 1e6)


def test_gemini_images_of_4k_cost_more() -> None:
    generators = [GeminiImages("gemini-3-pro-image-preview", size=size) for size in ("", "2K", "4K")]
    costs = [generator.prices.worst("", 0, *generator.price_options()) for generator in generators]
    expected = [(256 * 2 + (32768 - image) * 12 + image * 120) / 1e6 for image in (1120, 1120, 2000)]
    assert costs == pytest.approx(expected)


def test_ark_is_charged_by_the_image() -> None:
    generator = ArkImages("doubao-seedream-4-5-251128")
    response = {"data": [{"url": "https://x"}], "usage": {"generated_images": 1, "output_tokens": 16384}}
    assert (
        generator.usage(response, {}).cost
        == generator.prices.worst("long " * 100, 14)
        == pytest.approx(0.25 / 7, abs=0.001)
    )
    assert generator.usage({"data": [{"error": {"code": "x"}}]}, {}).cost == 0


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


def test_the_users_price_overrides_the_list() -> None:
    price = image_price("gpt-image-1.5", OPENAI, 0.5)
    assert price.worst("a" * 1000, 16, "high") == 0.5 and price.cost(TokenCounts(10, 10, 10, 10), 1) == 0.5
    assert image_price("gpt-image-1.5", OPENAI, 0).worst("a", 0) == 0.0


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
    price = image_price("gpt-image-1.5", OPENAI)
    worst = price.worst(prompt, references, quality, size)
    tokens = TokenCounts(
        data.draw(st.integers(0, len(prompt.encode()))),
        data.draw(st.integers(0, references * price.reference)),
        0,
        data.draw(st.integers(0, price.image_tokens(quality, size))),
    )
    cost = price.cost(tokens, 1)
    assert worst is not None and (cost is None or cost <= worst)
