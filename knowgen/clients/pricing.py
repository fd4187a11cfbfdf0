"""The cost of a call and its upper bound, from published prices or the user's.

Published prices are JSON files beside this module: the month they were read, and for each host the prices of its
models. A price applies to its host only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from knowgen.clients.endpoint_url import OPENAI_URL
from knowgen.core.errors import UsageError

CHAT_PRICES = "chat_prices.json"
"""Per model: US dollars per million input tokens, and per million output tokens."""

IMAGE_PRICES = "image_prices.json"
"""Per model: the fields of an `ImagePrice`."""

SEARCH_PRICES = "search_prices.json"
"""For `search`: the fields of a `SearchPrice`."""

MILLION = 1_000_000
TEMPLATE_TOKENS = 256
"""Upper bound of the tokens that a service adds around messages or a prompt."""

PATCH = 28
"""Side in pixels of the square that one image token covers; endpoints use 28 or more."""

IMAGE_TOKENS = 3000
"""Tokens added per image to the upper bound, for endpoints that count a fixed number per image instead."""

_SIZE = re.compile(r"\d+x\d+", re.ASCII)
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|preview(-[\d-]+)?|latest)\Z")


@cache
def price_list(file: str) -> dict[str, Any]:
    """Return a data file, `CHAT_PRICES`, `IMAGE_PRICES` or `SEARCH_PRICES`: `as_of` (year and month) and `hosts`."""
    data: dict[str, Any] = json.loads((files("knowgen.clients") / file).read_text(encoding="utf-8"))
    return data


def _listed(file: str, model: str, url: str) -> Any:
    """Return the published price of a model on a host, None where there is none.

    A date at the end of the model name is ignored where the name with it is not listed.
    """
    try:
        host = urlsplit(url.strip()).hostname or ""
    except ValueError:  # a malformed URL is reported where it is checked
        return None
    models = price_list(file)["hosts"].get(host, {})
    return next((models[name] for name in (model, _DATED.sub("", model)) if name in models), None)


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


@dataclass(frozen=True)
class ChatPrice:
    """Prices of a chat model.

    Attributes:
        per_input: US dollars per million input tokens, None when unknown.
        per_output: US dollars per million output tokens, None when unknown.
        per_call: US dollars per call, None without such a charge.
    """

    per_input: float | None = None
    per_output: float | None = None
    per_call: float | None = None

    def __post_init__(self) -> None:
        """Check the prices.

        Raises:
            UsageError: A price is negative or not a number, or only one of the two token prices is given.
        """
        for name, price in (
            ("price_in", self.per_input),
            ("price_out", self.per_output),
            ("price_call", self.per_call),
        ):
            if price is not None and not _is_price(price):
                raise UsageError(f"{name} must be a number >= 0, got {price}", fix="give US dollars")
        if (self.per_input is None) != (self.per_output is None):
            raise UsageError("price_in and price_out belong together", fix="give both, in US dollars per million")

    @property
    def known(self) -> bool:
        """Whether a price is known."""
        return self.per_call is not None or self.per_input is not None

    def of(self, input_tokens: int, output_tokens: int) -> float | None:
        """Return the cost of one call in US dollars, None when the price is unknown.

        Example:
            >>> ChatPrice(2.0, 8.0).of(input_tokens=1_000_000, output_tokens=500_000)
            6.0
        """
        if not self.known:
            return None
        tokens = (self.per_input or 0.0) * input_tokens + (self.per_output or 0.0) * output_tokens
        return tokens / MILLION + (self.per_call or 0.0)


def chat_price(
    model: str,
    base_url: str,
    price_in: float | None = None,
    price_out: float | None = None,
    price_call: float | None = None,
) -> ChatPrice:
    """Return the price of a chat model.

    Args:
        model: Model name. A date at its end is ignored where the name with it is not listed.
        base_url: URL of the endpoint, empty for OpenAI.
        price_in: User's price in US dollars per million input tokens. Any user's price replaces the published ones.
        price_out: User's price in US dollars per million output tokens.
        price_call: User's price in US dollars per call.

    Raises:
        UsageError: A price is negative or not a number, or only one of the two token prices is given.

    Example:
        >>> chat_price("gpt-4.1-2025-04-14", "")
        ChatPrice(per_input=2.0, per_output=8.0, per_call=None)
        >>> chat_price("my-model", "http://127.0.0.1:8000/v1").known
        False
    """
    if (price_in, price_out, price_call) != (None, None, None):
        return ChatPrice(price_in, price_out, price_call)
    listed = _listed(CHAT_PRICES, model, base_url.strip() or OPENAI_URL)
    return ChatPrice() if listed is None else ChatPrice(*listed)


def max_input_tokens(texts: Sequence[str], sizes: Iterable[tuple[int, int]]) -> int:
    """Return an upper bound of the input tokens of a request.

    A token of a byte-level vocabulary covers at least one byte, so the bytes of the text bound its tokens.

    Args:
        texts: Texts of the request.
        sizes: Width and height of each image, in pixels.

    Example:
        >>> max_input_tokens(["a red house"], [(280, 280)])
        3367
    """
    text = sum(len(text.encode()) for text in texts)
    images = sum(math.ceil(width / PATCH) * math.ceil(height / PATCH) + IMAGE_TOKENS for width, height in sizes)
    return text + images + TEMPLATE_TOKENS


@dataclass(frozen=True)
class TokenCounts:
    """Token counts that an image service reports for a call."""

    text_in: int = 0
    image_in: int = 0
    text_out: int = 0
    image_out: int = 0

    @property
    def any(self) -> bool:
        """Whether any count is above 0."""
        return bool(self.text_in or self.image_in or self.text_out or self.image_out)


@dataclass(frozen=True)
class ImagePrice:
    """Prices of an image model.

    Attributes:
        per_image: US dollars per image; None where the service bills tokens.
        text_in: US dollars per million tokens of the prompt, None when unknown.
        image_in: US dollars per million tokens of reference images.
        text_out: US dollars per million tokens of returned text, reasoning included.
        image_out: US dollars per million tokens of the generated image.
        reference: Maximum number of tokens of a reference image.
        max_output: Maximum number of output tokens of an answer, 0 when it contains nothing but an image.
        tokens: Number of tokens of a generated image, by quality and size.
    """

    per_image: float | None = None
    text_in: float | None = None
    image_in: float = 0.0
    text_out: float = 0.0
    image_out: float = 0.0
    reference: int = 0
    max_output: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether a price is known."""
        return self.per_image is not None or self.text_in is not None

    def image_tokens(self, *options: str) -> int:
        """Return the maximum number of tokens of an image of a quality and size; 0 where it is not known.

        Other unknown options than a size are ignored.
        """
        known = {word for row in self.tokens for word in row.split()}
        if any(_SIZE.fullmatch(option) and option not in known for option in options):
            return 0
        given = {option for option in options if option in known}
        return max((number for row, number in self.tokens.items() if given <= set(row.split())), default=0)

    def worst(self, prompt: str, references: int, *options: str) -> float | None:
        """Return the maximum cost of one call in US dollars, None when the price is unknown.

        A token of a byte-level vocabulary covers at least one byte, so the bytes of the prompt bound its tokens.

        Args:
            prompt: Text of the request.
            references: Number of reference images.
            options: Quality and size, as the price list names them.
        """
        if self.per_image is not None:
            return self.per_image
        image = self.image_tokens(*options)
        if self.text_in is None or not image:
            return None
        prompt_tokens = len(prompt.encode("utf-8", "replace")) + TEMPLATE_TOKENS
        text = max(0, self.max_output - image)
        return self._sum(TokenCounts(prompt_tokens, references * self.reference, text, image))

    def cost(self, tokens: TokenCounts, images: int) -> float | None:
        """Return the cost of a call in US dollars, None when it is unknown.

        Args:
            tokens: Token counts of the call.
            images: Number of images in the answer.
        """
        if self.per_image is not None:
            return self.per_image * images
        if self.text_in is None or (images and not tokens.any):
            return None
        return self._sum(tokens)

    def _sum(self, tokens: TokenCounts) -> float:
        total = (
            (self.text_in or 0.0) * tokens.text_in
            + self.image_in * tokens.image_in
            + self.text_out * tokens.text_out
            + self.image_out * tokens.image_out
        )
        return total / MILLION


def image_price(model: str, url: str, price: float | None = None) -> ImagePrice:
    """Return the price of an image model.

    Args:
        model: Model name. A date at its end is ignored where the name with it is not listed.
        url: URL of the endpoint.
        price: User's price in US dollars per image, which replaces the published one.

    Raises:
        UsageError: The user's price is negative or not a number.

    Example:
        >>> image_price("any", "http://127.0.0.1:8000", price=0.04).cost(TokenCounts(), images=2)
        0.08
    """
    if price is not None:
        if not _is_price(price):
            raise UsageError(f"price must be a number >= 0, got {price}", fix="give US dollars per image")
        return ImagePrice(per_image=float(price))
    return ImagePrice(**(_listed(IMAGE_PRICES, model, url) or {}))


@dataclass(frozen=True)
class SearchPrice:
    """Price of a search service.

    Attributes:
        per_credit: US dollars per credit of the service, or per query where it has none; None when unknown.
        results: Number of results that one credit pays for, 0 for any number. A query for more costs two credits.
    """

    per_credit: float | None = None
    results: int = 0

    def worst(self, results: int, credits: int = 1) -> float | None:
        """Return the maximum cost of a query in US dollars, None when the price is unknown.

        Args:
            results: Number of results that are asked for.
            credits: Credits of such a query for few results.

        Example:
            >>> SearchPrice(per_credit=0.001, results=10).worst(20)
            0.002
        """
        if self.results and results > self.results:
            credits *= 2
        return self.cost(credits)

    def cost(self, credits: float) -> float | None:
        """Return the cost of a number of credits in US dollars, None when the price is unknown."""
        return None if self.per_credit is None else self.per_credit * credits


FREE = SearchPrice(per_credit=0.0)
"""Price of a service that charges nothing."""


def search_price(url: str, price: float | None = None) -> SearchPrice:
    """Return the price of a search service.

    Args:
        url: URL of the service.
        price: User's price in US dollars per credit or query, which replaces the published one.

    Raises:
        UsageError: The user's price is negative or not a number.

    Example:
        >>> search_price("https://api.search.brave.com").worst(results=10)
        0.005
        >>> search_price("https://search.example.org").worst(results=10) is None
        True
    """
    listed = SearchPrice(**(_listed(SEARCH_PRICES, "search", url) or {}))
    if price is None:
        return listed
    if not _is_price(price):
        raise UsageError(f"price must be a number >= 0, got {price}", fix="give US dollars per query")
    return SearchPrice(float(price), listed.results)
