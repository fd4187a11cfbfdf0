"""A generator that collects everything instead of answering, and the K-Score of a set of images, computed by hand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from knowgen.core.records import GROUPS, Generation, GenerationStatus, ImageRef
from knowgen.search.contract import Page, SearchBackend
from knowgen.worlds.baselines.painter import cut_out, paint
from knowgen.worlds.checker import WorldCheck
from knowgen.worlds.rendering.scenes import SCENE_WORDS, draw_scene
from tests.helpers.built_world import BuiltWorld

Manner = Literal["tiles", "sign", "page"]
FACTS = re.compile(r'"[^"]+"|\b\d{4}\b|\b\d+ [a-z]+\b|[A-Z][a-z]+ [A-Z][a-z]+|[A-Z][a-z]{3,}')
NAMES = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*")


class Sprayer:
    """Searches every name of a prompt, opens the hits and their links, and puts everything into the image.

    Args:
        search: Search backend.
        manner: `tiles` pastes images over the scene and writes between them; `sign` gives everything to the painter;
            `page` writes everything in small type on a blank page beside the images.
    """

    def __init__(self, search: SearchBackend, manner: Manner) -> None:
        self.search, self.manner = search, manner

    async def collect(self, prompt: str) -> tuple[list[str], list[Image.Image]]:
        pages: dict[str, Page] = {}
        for name in dict.fromkeys(NAMES.findall(prompt)):
            for hit in await self.search.search(name, 4):
                pages[hit.url] = await self.search.open(hit.url)
        for page in list(pages.values()):
            for link in page.links:
                pages.setdefault(link.url, await self.search.open(link.url))
        texts = dict.fromkeys(re.findall(r'"([^"]+)"', prompt))
        images: dict[str, Image.Image] = {}
        for page in pages.values():
            texts |= dict.fromkeys(fact.strip('"') for fact in FACTS.findall(f"{page.title}\n{page.text}"))
            for image_hit in await self.search.image_search(page.title, 3):
                if len(images) < 24 and image_hit.image is not None:
                    images.setdefault(image_hit.url, image_hit.image.open())
        return list(texts), list(images.values())

    async def draw(self, prompt: str) -> Image.Image:
        texts, images = await self.collect(prompt)
        if self.manner == "sign":
            return paint(prompt, images[:4], texts[:6], 0)
        scene = next((name for name, words in SCENE_WORDS.items() if words in prompt), "museum")
        canvas = draw_scene(scene, prompt) if self.manner == "tiles" else Image.new("RGB", (768, 512), "white")
        return self._fill(canvas, texts, images)

    def _fill(self, canvas: Image.Image, texts: list[str], images: list[Image.Image]) -> Image.Image:
        side = 128
        for at, image in enumerate(images[:18]):
            tile = (cut_out(image) if self.manner == "tiles" else None) or image.convert("RGBA")
            tile.thumbnail((side - 8, side - 8))
            canvas.paste(tile, (at % 6 * side + 4, 512 - (at // 6 + 1) * side + 4), tile)
        draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
        x, y = 6, 4
        for text in texts:
            width = int(font.getlength(text)) + 14
            if x + width > 768:
                x, y = 6, y + 20
            if y > 120:
                break
            draw.rectangle((x - 3, y, x + width - 8, y + 18), fill="white")
            draw.text((x, y), text, fill="black", font=font)
            x += width
        return canvas


def k_score(world: BuiltWorld, images: Mapping[str, object], folder: Path) -> float:
    """Score images by sample id with the world check and return the mean of the two groups' weighted dimensions."""
    folder.mkdir()
    check, values = WorldCheck(), []
    for sample in world.task.samples():
        if sample.id not in images:
            continue
        image, path = images[sample.id], folder / f"{sample.id}.png"
        assert isinstance(image, Image.Image)
        image.convert("RGB").save(path, compress_level=1)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        ref = ImageRef(sha256=digest, width=image.width, height=image.height, format="PNG", path=path)
        generation = Generation(sample_id=sample.id, status=GenerationStatus.OK, image=ref)
        (score,) = check.score_batch([(sample, world.task.truth(sample.id), generation)])
        assert score.status == "ok", score.strict.reason
        values.append((sample.group, score.strict.values))
    weights = {"faithfulness": 0.1, "visual_correctness": 0.4, "text_accuracy": 0.4, "aesthetics": 0.1}
    groups = [[scores for group, scores in values if group == name] for name in GROUPS]
    return fmean(
        sum(weight * fmean(scores[name] for scores in group if name in scores) for name, weight in weights.items())
        for group in groups
    )
