"""Each client gets its own image, even if the served generator reuses its canvas, file and result object."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.serving import served

REUSES = """
import asyncio, hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from knowgen.generators.contract import GeneratedImage

SIZE = (480, 320)


class Reuses:
    revision = "1"
    batch_size = 4
    concurrency = 1

    def __init__(self):
        self.calls = 0
        self.canvas = Image.new("RGB", SIZE)
        self.pixels = np.full((SIZE[1], SIZE[0], 4), 255, dtype=np.uint8)
        self.file = Path("out.png").absolute()
        self.result = GeneratedImage()

    def answer(self, prompt, name=""):
        colour = tuple(hashlib.sha256(prompt.encode()).digest()[:3])
        kind = self.calls % 4
        self.calls += 1
        if kind == 0:
            self.canvas.paste(colour, (0, 0, *SIZE))
            image = self.canvas
        elif kind == 1:
            self.pixels[..., :3] = colour
            image = Image.frombuffer("RGBA", SIZE, self.pixels, "raw", "RGBA", 0, 1)
        else:
            Image.new("RGB", SIZE, colour).save(self.file)
            image = self.file if kind == 2 else Image.open(self.file)
        self.result.image, self.result.request_id, self.result.used_prompt = image, name, prompt.upper()
        return self.result


class Synchronous(Reuses):
    def draw(self, prompt, references, seed):
        return self.answer(prompt)


class Generates(Reuses):
    concurrency = 8

    async def generate(self, request):
        await asyncio.sleep(0)
        return self.answer(request.prompt)


class Batches(Reuses):
    def generate_batch(self, requests):
        for request in requests:
            yield self.answer(request.prompt, request.id)
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [("Synchronous", ()), ("Generates", ()), ("Batches", ()), ("Synchronous", ("--workers", "1"))],
)
def test_every_client_gets_the_image_of_its_own_prompt(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    (tmp_path / "reuses.py").write_text(REUSES)
    prompts = [f"lamp number {number}" for number in range(32)]
    with served(tmp_path, f"reuses.py:{name}", "--queue", "64", *words) as server, ThreadPoolExecutor(12) as clients:
        answers = dict(zip(prompts, clients.map(server.generate, prompts), strict=True))
    colours = {prompt: tuple(hashlib.sha256(prompt.encode()).digest()[:3]) for prompt in prompts}
    assert [prompt for prompt, answer in answers.items() if answer.pixel != colours[prompt]] == []
    assert [prompt for prompt, answer in answers.items() if answer.body["used_prompt"] != prompt.upper()] == []
