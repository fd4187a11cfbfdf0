"""What a picture of a hosted model costs, and the most it can cost, from a data file of published prices."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from knowgen.core.errors import UsageError

PRICES_FILE = "image_prices.json"
MILLION = 1_000_000
TEMPLATE_TOKENS = 256
"""Tokens that a service may add around a prompt."""

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|preview(-[\d-]+)?|latest)\Z")


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a call, as its answer counts them."""

    text_in: int = 0
    image_in: int = 0
    text_out: int = 0
    image_out: int = 0

    @property
    def any(self) -> bool:
        """Tells whether anything was counted."""
        return bool(self.text_in or self.image_in or self.text_out or self.image_out)


@dataclass(frozen=True)
class ImagePrice:
    """Prices of one model.

    Attributes:
        picture: US dollars a picture, all in; None where tokens are paid for.
        text_in: US dollars a million tokens of the prompt, None when unknown.
        image_in: The same of reference images.
        text_out: The same of text that comes back, thoughts included.
        image_out: The same of the picture.
        reference: Most tokens that a reference image comes to.
        most_output: Most output tokens of an answer, 0 when it holds a picture and nothing else.
        tokens: Tokens that a picture comes to, by quality and size.
    """

    picture: float | None = None
    text_in: float | None = None
    image_in: float = 0.0
    text_out: float = 0.0
    image_out: float = 0.0
    reference: int = 0
    most_output: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Tells whether anything is known of the price."""
        return self.picture is not None or self.text_in is not None

    def picture_tokens(self, *traits: str) -> int:
        """Returns the most tokens a picture of a quality and size comes to; an unknown one says nothing."""
        known = {word for row in self.tokens for word in row.split()}
        wanted = {trait for trait in traits if trait in known}
        return max((count for row, count in self.tokens.items() if wanted <= set(row.split())), default=0)

    def worst(self, prompt: str, references: int, *traits: str) -> float | None:
        """Returns the most one call can cost in US dollars, None when the price is not known.

        A token of a byte-level vocabulary covers at least one byte, so the bytes of the prompt bound its tokens.
        """
        if self.picture is not None:
            return self.picture
        drawn = self.picture_tokens(*traits)
        if self.text_in is None or not drawn:
            return None
        read = len(prompt.encode("utf-8", "replace")) + TEMPLATE_TOKENS
        told = max(0, self.most_output - drawn)
        return self._sum(TokenCounts(read, references * self.reference, told, drawn))

    def cost(self, counted: TokenCounts, pictures: int) -> float | None:
        """Returns what a call cost in US dollars, None when that cannot be told.

        Args:
            counted: Its tokens.
            pictures: Pictures that came.
        """
        if self.picture is not None:
            return self.picture * pictures
        if self.text_in is None or (pictures and not counted.any):
            return None
        return self._sum(counted)

    def _sum(self, counted: TokenCounts) -> float:
        total = (
            (self.text_in or 0.0) * counted.text_in
            + self.image_in * counted.image_in
            + self.text_out * counted.text_out
            + self.image_out * counted.image_out
        )
        return total / MILLION


@cache
def price_list() -> dict[str, Any]:
    """Returns the data file: when it was read off, and per host the prices of models."""
    found: dict[str, Any] = json.loads((files("knowgen.generators") / PRICES_FILE).read_text(encoding="utf-8"))
    return found


def price_for(model: str, url: str, price: float | None = None) -> ImagePrice:
    """Returns what pictures of a model cost.

    Args:
        model: Model name; a date at its end is passed over where the name with it is not listed.
        url: Address of the endpoint. A listed price is that of one host alone.
        price: US dollars a picture, as the user says.

    Raises:
        UsageError: The user's price is no price.
    """
    if price is not None:
        if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
            raise UsageError(f"price={price} is no price", fix="give US dollars a picture, 0 or more")
        return ImagePrice(picture=float(price))
    listed = price_list()["hosts"].get(urlsplit(url).hostname or "", {})
    for name in (model, _DATED.sub("", model)):
        if name in listed:
            return ImagePrice(**listed[name])
    return ImagePrice()
