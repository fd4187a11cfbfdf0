"""Estimating tokens, cost and duration of a judge's scores before any call.

A text has about one token for four bytes. OpenAI scales an image to fit 2048 pixels and then its shorter side to 768
pixels, and counts 170 tokens for each tile of 512 x 512 pixels and 85 for the image (source: OpenAI's guide to image
inputs, for gpt-4.1 and gpt-4o). For other endpoints each area of 32 x 32 pixels is counted as one token, as in
Qwen3-VL. Replies are assumed to have 350 tokens and calls to take 8 seconds, until stored scores give better numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowgen.clients.chat.image_encoding import MAX_SIDE
from knowgen.clients.pricing import ChatPrice
from knowgen.core.records import Attempt, GroundTruth, Sample

REPLY_TOKENS = 350
"""Assumed number of tokens of a reply."""

CALL_SECONDS = 8.0
"""Assumed duration of a call, in seconds."""

ASSUMED_SIZE = (1024, 1024)
"""Assumed width and height of an image that is not generated yet, in pixels."""

_BYTES_PER_TOKEN = 4
_PIXELS_PER_TOKEN = 32
"""Side of the square that one image token covers, where the endpoint does not count tiles."""


@dataclass(frozen=True)
class Estimate:
    """Mean tokens, cost and duration of one score.

    Attributes:
        input_tokens: Number of input tokens.
        output_tokens: Number of output tokens.
        cost: Cost in US dollars, None where the price is unknown.
        seconds: Total duration of the calls, in seconds.
        known_from: Number of stored scores it was computed from, 0 where it rests on assumptions.
    """

    input_tokens: float
    output_tokens: float
    cost: float | None
    seconds: float
    known_from: int = 0


def image_tokens(width: int, height: int, tiles: bool, max_side: int = MAX_SIDE) -> int:
    """Return the approximate number of tokens of an image.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        tiles: Whether the endpoint counts tiles, as OpenAI does.
        max_side: Maximum length of the longer side in pixels; a larger image is scaled down before it is sent.

    Example:
        >>> image_tokens(1024, 1024, tiles=True), image_tokens(1024, 1024, tiles=False)
        (765, 1024)
    """
    scale = min(1.0, max_side / max(width, height))
    wide, high = width * scale, height * scale
    if not tiles:
        return math.ceil(wide / _PIXELS_PER_TOKEN) * math.ceil(high / _PIXELS_PER_TOKEN)
    fit = min(1.0, 2048 / max(wide, high))
    wide, high = wide * fit, high * fit
    fit = min(1.0, 768 / min(wide, high))
    return 85 + 170 * math.ceil(wide * fit / 512) * math.ceil(high * fit / 512)


def estimate_cost(
    items: Iterable[tuple[Sample, GroundTruth]],
    fixed_texts: Sequence[str],
    price: ChatPrice,
    *,
    tiles: bool,
    max_side: int,
) -> Estimate | None:
    """Return the estimate of one score from prompts and ground truths, None without any.

    Args:
        items: Some samples with their ground truths.
        fixed_texts: Texts that every call contains besides the prompt, such as the rubric.
        price: Price of the endpoint.
        tiles: As for `image_tokens`.
        max_side: As for `image_tokens`.
    """
    fixed_bytes = sum(len(text.encode()) for text in fixed_texts)
    fixed = fixed_bytes / _BYTES_PER_TOKEN + image_tokens(*ASSUMED_SIZE, tiles, max_side)
    totals = [
        fixed
        + len(sample.prompt.encode()) / _BYTES_PER_TOKEN
        + (image_tokens(truth.image.width, truth.image.height, tiles, max_side) if truth.image is not None else 0)
        for sample, truth in items
    ]
    if not totals:
        return None
    tokens = sum(totals) / len(totals)
    return Estimate(tokens, REPLY_TOKENS, price.of(round(tokens), REPLY_TOKENS), CALL_SECONDS)


def estimate_from_attempts(scores: Sequence[Sequence[Attempt]]) -> Estimate | None:
    """Return the estimate of one score from stored scores, None where no call reported its tokens.

    Args:
        scores: Attempts of each stored score. Cached attempts are ignored.
    """
    called = [[each for each in attempts if not each.cached and each.usage.input_tokens] for attempts in scores]
    called = [attempts for attempts in called if attempts]
    if not called:
        return None
    calls = [each for attempts in called for each in attempts]
    costs = [each.usage.cost for each in calls]
    known_costs = [cost for cost in costs if cost is not None]
    return Estimate(
        sum(each.usage.input_tokens for each in calls) / len(called),
        sum(each.usage.output_tokens for each in calls) / len(called),
        sum(known_costs) / len(called) if len(known_costs) == len(costs) else None,
        sum(each.seconds for each in calls) / len(called),
        known_from=len(called),
    )


def describe_estimate(estimate: Estimate, scores: int, concurrency: int) -> str:
    """Return one line with the total cost, tokens and duration.

    Args:
        estimate: Estimate of one score.
        scores: Number of scores.
        concurrency: Number of concurrent calls.

    Example:
        >>> describe_estimate(Estimate(2000, 350, 0.0068, 8.0), scores=100, concurrency=16)
        'about $0.68, 0.20 M tokens in and 0.04 M out, 56 s at 8.0 s per score and 16 concurrent calls (assumed)'
    """
    if not scores:
        return "nothing to score"
    cost = "price unknown (-s price_in=… -s price_out=…)"
    if estimate.cost is not None:
        cost = f"about ${estimate.cost * scores:.2f}" if estimate.cost else "free"
    seconds = estimate.seconds * math.ceil(scores / concurrency)
    duration = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    basis = f"from {estimate.known_from} stored scores" if estimate.known_from else "assumed"
    return (
        f"{cost}, {estimate.input_tokens * scores / 1e6:.2f} M tokens in and "
        f"{estimate.output_tokens * scores / 1e6:.2f} M out, "
        f"{duration} at {estimate.seconds:.1f} s per score and {concurrency} concurrent calls ({basis})"
    )
