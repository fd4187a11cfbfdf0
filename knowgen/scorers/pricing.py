"""What a call to a judge costs, and the most it can cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.clients.chat.image_encoding import EncodedImageFile
from knowgen.core.errors import UsageError

MILLION = 1_000_000
PATCH = 28
"""Pixels a side of the area that one token of a picture covers; endpoints use 28 or more, or a few thousand tokens a
picture at most, which `PICTURE_TOKENS` allows for besides."""

PICTURE_TOKENS = 3000
TEMPLATE_TOKENS = 256
"""Tokens a chat template may add around the messages."""


@dataclass(frozen=True)
class Price:
    """Prices of an endpoint.

    Attributes:
        per_input: US dollars per million input tokens, None when unknown.
        per_output: US dollars per million output tokens, None when unknown.
        per_call: US dollars per call, None when there is no such charge.
    """

    per_input: float | None = None
    per_output: float | None = None
    per_call: float | None = None

    def __post_init__(self) -> None:
        """Checks the prices.

        Raises:
            UsageError: A price is negative or no number, or only one of the two token prices is given.
        """
        for name, price in (
            ("price_in", self.per_input),
            ("price_out", self.per_output),
            ("price_call", self.per_call),
        ):
            if price is not None and not _is_price(price):
                raise UsageError(f"{name}={price} is no price", fix="give US dollars, 0 or more")
        if (self.per_input is None) != (self.per_output is None):
            raise UsageError("price_in and price_out belong together", fix="give both, in US$ per million tokens")

    @property
    def known(self) -> bool:
        """Tells whether anything is known of the price."""
        return self.per_call is not None or self.per_input is not None

    def of(self, input_tokens: int, output_tokens: int) -> float | None:
        """Returns the price of one call in US dollars, None when it is not known."""
        if not self.known:
            return None
        tokens = (self.per_input or 0.0) * input_tokens + (self.per_output or 0.0) * output_tokens
        return tokens / MILLION + (self.per_call or 0.0)


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def most_input_tokens(texts: Sequence[str], pictures: Sequence[EncodedImageFile]) -> int:
    """Returns an upper bound of the input tokens of a request.

    A token of a byte-level vocabulary covers at least one byte, so the bytes of the text bound its tokens.
    """
    words = sum(len(text.encode()) for text in texts)
    patches = sum(math.ceil(picture.width / PATCH) * math.ceil(picture.height / PATCH) for picture in pictures)
    return words + patches + PICTURE_TOKENS * len(pictures) + TEMPLATE_TOKENS
