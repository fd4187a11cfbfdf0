"""What judging would cost and how long it would take, before anything is sent.

Tokens of a text are about a quarter of its bytes. Tokens of a picture follow the endpoint: at OpenAI's the picture is
scaled to fit 2048 pixels, then its shorter side to 768, and each tile of 512 pixels counts 170, with 85 for the whole
(source: OpenAI's guide to images as input, for gpt-4.1 and gpt-4o); elsewhere each area of 32 by 32 pixels counts one,
as in Qwen3-VL. Replies are taken at 350 tokens and calls at 8 seconds until a run knows better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowgen.clients.chat.image_encoding import MAX_SIDE
from knowgen.clients.pricing import ChatPrice
from knowgen.core.records import Attempt, GroundTruth, Sample

REPLY_TOKENS = 350
CALL_SECONDS = 8.0
ASSUMED_SIZE = (1024, 1024)
"""What is assumed of a picture that is not drawn yet."""

_BYTES = 4
_AREA = 32


@dataclass(frozen=True)
class Estimate:
    """One judgement on average.

    Attributes:
        input_tokens: Tokens that are sent.
        output_tokens: Tokens of the replies.
        cost: US dollars, None where the price is not known.
        seconds: Of its calls.
        known_from: Judgements it was learned from; 0 where it was only reckoned.
    """

    input_tokens: float
    output_tokens: float
    cost: float | None
    seconds: float
    known_from: int = 0


def image_tokens(width: int, height: int, tiles: bool, max_side: int = MAX_SIDE) -> int:
    """Returns about how many tokens a picture takes.

    Args:
        width: Pixels.
        height: Pixels.
        tiles: Does the endpoint count tiles, as OpenAI's does?
        longest: Pixels of the longest side when it is sent.
    """
    scale = min(1.0, max_side / max(width, height))
    wide, high = width * scale, height * scale
    if not tiles:
        return math.ceil(wide / _AREA) * math.ceil(high / _AREA)
    fit = min(1.0, 2048 / max(wide, high))
    wide, high = wide * fit, high * fit
    fit = min(1.0, 768 / min(wide, high))
    return 85 + 170 * math.ceil(wide * fit / 512) * math.ceil(high * fit / 512)


def estimate_cost(
    items: Iterable[tuple[Sample, GroundTruth]], words: Sequence[str], price: ChatPrice, *, tiles: bool, max_side: int
) -> Estimate | None:
    """Reckons one judgement from prompts and ground truths; None without any.

    Args:
        items: Some of the samples.
        words: What every call says besides, such as the rubric.
        price: Of the endpoint.
        tiles: See `image_tokens`.
        longest: See `image_tokens`.
    """
    fixed = sum(len(text.encode()) for text in words) / _BYTES + image_tokens(*ASSUMED_SIZE, tiles, max_side)
    totals = [
        fixed
        + len(sample.prompt.encode()) / _BYTES
        + (image_tokens(truth.image.width, truth.image.height, tiles, max_side) if truth.image is not None else 0)
        for sample, truth in items
    ]
    if not totals:
        return None
    tokens = sum(totals) / len(totals)
    return Estimate(tokens, REPLY_TOKENS, price.of(round(tokens), REPLY_TOKENS), CALL_SECONDS)


def learn(judgements: Sequence[Sequence[Attempt]]) -> Estimate | None:
    """Returns what judgements took that were made already; None where no call says.

    Args:
        judgements: The attempts of each.
    """
    called = [[one for one in attempts if not one.cached and one.usage.input_tokens] for attempts in judgements]
    called = [attempts for attempts in called if attempts]
    if not called:
        return None
    every = [one for attempts in called for one in attempts]
    costs = [one.usage.cost for one in every]
    known = [cost for cost in costs if cost is not None]
    return Estimate(
        sum(one.usage.input_tokens for one in every) / len(called),
        sum(one.usage.output_tokens for one in every) / len(called),
        sum(known) / len(called) if len(known) == len(costs) else None,
        sum(one.seconds for one in every) / len(called),
        known_from=len(called),
    )


def words_of(estimate: Estimate, judgements: int, at_once: int) -> str:
    """Says in one line what so many judgements would take."""
    if not judgements:
        return "nothing to ask"
    cost = "price unknown (-s price_in=… -s price_out=…)"
    if estimate.cost is not None:
        cost = f"about ${estimate.cost * judgements:.2f}" if estimate.cost else "free"
    seconds = estimate.seconds * math.ceil(judgements / at_once)
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    basis = f"as {estimate.known_from} judgements took" if estimate.known_from else "reckoned"
    return (
        f"{cost}, {estimate.input_tokens * judgements / 1e6:.2f} M tokens in and "
        f"{estimate.output_tokens * judgements / 1e6:.2f} M out, "
        f"{time} at {estimate.seconds:.1f} s a judgement and {at_once} at once ({basis})"
    )
