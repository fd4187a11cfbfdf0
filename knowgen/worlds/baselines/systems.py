"""Four baseline systems with increasing knowledge: noise, closed_book, open_book, oracle; and their painter.

All but noise have the same painter, which is an image model of its own too. They differ in what they know, not in how
they paint, so a valid scorer ranks them in this order.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import GenerationRequest, GroundTruth
from knowgen.generators.contract import GeneratedImage
from knowgen.search.contract import SearchBackend
from knowgen.worlds.baselines.scripted import VERSION, ScriptedPolicy

if TYPE_CHECKING:
    from PIL.Image import Image

REVISION = "1"
"""Revision of the four systems; raise it when any of them would give another image."""

WIDTH, HEIGHT = 768, 512


def _prompt_seed(prompt: str, seed: int) -> int:
    """Return a seed, 0 <= seed < 2**31, that depends on prompt and seed, so that each prompt has its own layout."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()[:4], "big") >> 1


def _paint(prompt: str, references: Sequence[Image], texts: Sequence[str], seed: int) -> Image:
    from knowgen.worlds.baselines.painter import paint

    return paint(prompt, references, texts, _prompt_seed(prompt, seed))


def paint_from_prompt(prompt: str, seed: int) -> Image:
    """Paint from the prompt alone: random appearances, and its quoted words and names on the sign."""
    from knowgen.worlds.baselines.text_rules import parse_prompt
    from knowgen.worlds.rendering.appearance import KIND_NOUNS

    parsed = parse_prompt(prompt, KIND_NOUNS)
    texts = [] if parsed.wordless else [*parsed.quoted, *parsed.names[:2]]
    return _paint(prompt, [], texts, seed)


class Noise:
    """Random noise: the lower bound."""

    revision = REVISION

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Return random pixels that depend on prompt and seed."""
        import numpy as np
        from PIL import Image

        generator = np.random.default_rng(_prompt_seed(prompt, seed))
        return Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


class ClosedBook:
    """Paints from the prompt alone, without search."""

    revision = REVISION
    concurrency = 2

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Return an image painted from the prompt."""
        return paint_from_prompt(prompt, seed)


class Painter:
    """The painter of the baseline systems as an image model: references are what it shows, quotes what it writes.

    Scene, surface and kinds of subject are chosen by their words in the prompt. The words in quotation marks are the
    lines of the sign, unless the prompt forbids text.
    """

    revision = REVISION
    concurrency = 2
    references = True

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Return an image painted from prompt and references."""
        from knowgen.worlds.baselines.text_rules import parse_prompt
        from knowgen.worlds.rendering.appearance import KIND_NOUNS

        parsed = parse_prompt(prompt, KIND_NOUNS)
        return _paint(prompt, references, [] if parsed.wordless else parsed.quoted, seed)


class OpenBook(GenSearcher):
    """The agent with rules in place of a model: searches, follows links, and has the painter paint what it found.

    It is `gen_searcher` with the policy `scripted` and the image model `painter`.

    Args:
        search: A search backend or the name of one, such as `world:DIR`.

    Raises:
        UsageError: If the backend is unknown.
    """

    revision = f"{GenSearcher.revision} rules-{VERSION}"
    painter = "painter"
    concurrency = 4

    def __init__(self, search: str | SearchBackend) -> None:
        super().__init__(ScriptedPolicy(), search, painter=self.painter)


class Oracle:
    """Paints the ground truth: the upper bound of this painter. It is privileged, so leaderboards refuse it."""

    revision = REVISION
    privileged = True
    concurrency = 2

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Paint the ground truth of the sample in the painter's own layout.

        Raises:
            ConfigError: If the request has no ground truth.
            UsageError: If the ground truth is not from a world.
        """
        if request.truth is None:
            raise ConfigError("the request has no ground truth", where="oracle", fix="declare it privileged")
        image = await asyncio.to_thread(_paint_truth, request.prompt, request.truth, request.seed)
        return GeneratedImage(image=image, request_id=request.id)


def _paint_truth(prompt: str, truth: GroundTruth, seed: int) -> Image:
    from knowgen.worlds.content.search_images import SearchImage, render_search_image
    from knowgen.worlds.rendering.appearance import Appearance

    if "lines" not in truth.extra or not all("look" in subject for subject in truth.subjects):
        raise UsageError(
            "the ground truth has no appearances and lines", where="oracle", fix="use a task made by `world build`"
        )
    images = []
    for position, subject in enumerate(truth.subjects):
        appearance, name = Appearance.from_dict(subject["look"]), f"oracle-{position}-{_prompt_seed(prompt, seed)}"
        images.append(render_search_image(SearchImage(name, "", "", appearance, "plain", "")))
    return _paint(prompt, images, [str(line) for line in truth.extra["lines"]], seed)
