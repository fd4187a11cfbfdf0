"""Four reference systems on one painter, from no knowledge to all of it: noise, closed_book, open_book, oracle.

They differ in what they know, not in how they paint, so a scorer that works puts them in this order.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowgen.core import registry
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import GenerationRequest, GroundTruth
from knowgen.generators.contract import GeneratedImage
from knowgen.search.contract import SearchBackend

if TYPE_CHECKING:
    from PIL.Image import Image

REVISION = "1"
"""Raised when any of the four would draw another picture."""

WIDTH, HEIGHT = 768, 512


def _mixed(prompt: str, seed: int) -> int:
    """Returns a seed in 0 <= seed < 2**31 of a prompt and a seed, so that prompts get layouts of their own."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()[:4], "big") >> 1


def _paint(prompt: str, references: Sequence[Image], texts: Sequence[str], seed: int) -> Image:
    from knowgen.worlds.painter import paint

    return paint(prompt, references, texts, _mixed(prompt, seed))


def paint_from_prompt(prompt: str, seed: int) -> Image:
    """Draws what a prompt alone gives: stand-ins for its things, and its quoted words and names on the sign."""
    from knowgen.worlds.drawing.looks import KIND_NOUNS
    from knowgen.worlds.reading import read_prompt

    reading = read_prompt(prompt, KIND_NOUNS)
    texts = [] if reading.wordless else [*reading.quoted, *reading.names[:2]]
    return _paint(prompt, [], texts, seed)


class Noise:
    """Draws noise: the floor."""

    revision = REVISION

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Returns random pixels that depend on prompt and seed."""
        import numpy as np
        from PIL import Image

        generator = np.random.default_rng(_mixed(prompt, seed))
        return Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


class ClosedBook:
    """Draws from the prompt alone and looks nothing up."""

    revision = REVISION
    concurrency = 2

    def draw(self, prompt: str, references: Sequence[Image], seed: int) -> Image:
        """Draws what the prompt gives."""
        return paint_from_prompt(prompt, seed)


class OpenBook:
    """Looks things up by simple rules, follows links, and paints from the pictures and facts it finds.

    Args:
        search: Name of a search backend, such as `world:DIR`, or a backend.

    Raises:
        UsageError: Nobody knows the backend.
    """

    revision = REVISION
    wants_search = True
    concurrency = 4

    def __init__(self, search: str | SearchBackend) -> None:
        self._search: SearchBackend = (
            registry.create(registry.resolve("search", search), {}) if isinstance(search, str) else search
        )

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Looks up what the prompt describes and draws it; with nothing found it draws as `ClosedBook` does."""
        from knowgen.worlds.lookup import Lookup

        lookup = Lookup(self._search)
        findings = await lookup.look_up(request.prompt)
        if findings is None:
            image = await asyncio.to_thread(paint_from_prompt, request.prompt, request.seed)
        else:
            image = await asyncio.to_thread(_paint, request.prompt, findings.pictures, findings.texts, request.seed)
        return GeneratedImage(
            image=image,
            request_id=request.id,
            references=tuple(lookup.references),
            evidence=tuple(lookup.evidence),
            trajectory=tuple(lookup.steps),
        )


class Oracle:
    """Paints the true facts and looks: the ceiling of this painter. It sees the ground truth, so boards refuse it."""

    revision = REVISION
    privileged = True
    concurrency = 2

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draws the truth of the sample in the painter's own layout.

        Raises:
            ConfigError: The request carries no truth.
            UsageError: The truth is not that of a world.
        """
        if request.truth is None:
            raise ConfigError("the request carries no ground truth", where="oracle", fix="declare it privileged")
        image = await asyncio.to_thread(_paint_truth, request.prompt, request.truth, request.seed)
        return GeneratedImage(image=image, request_id=request.id)


def _paint_truth(prompt: str, truth: GroundTruth, seed: int) -> Image:
    from knowgen.worlds.drawing.looks import Look
    from knowgen.worlds.pictures import Picture, draw_picture

    if "lines" not in truth.extra or not all("look" in subject for subject in truth.subjects):
        raise UsageError("its truth holds no looks and lines", where="oracle", fix="use a task made by `world build`")
    pictures = []
    for position, subject in enumerate(truth.subjects):
        look, name = Look.from_dict(subject["look"]), f"oracle-{position}-{_mixed(prompt, seed)}"
        pictures.append(draw_picture(Picture(name, "", "", look, "plain", "")))
    return _paint(prompt, pictures, [str(line) for line in truth.extra["lines"]], seed)
