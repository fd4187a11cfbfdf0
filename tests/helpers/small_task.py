"""A small task, generator and scorer, as files that users would write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image

GENERATOR = '''
from PIL import Image

def draw(prompt, seed):
    return Image.new("RGB", (64, 48), (seed % 256, len(prompt) % 256, 9))

class Picky:
    """Fails for prompts with the word three."""
    revision = "1"
    def __init__(self, size=64):
        self.size = size
    def draw(self, prompt, references, seed):
        if "three" in prompt:
            raise ValueError("cannot draw three")
        return Image.new("RGB", (self.size, 48), (len(prompt), 1, 2))
'''

SCORER = '''
from knowgen.core.records import DIMENSIONS, ParsedScore, Score, ScoreStatus

class Half:
    """Gives every image the same value, and records its calls in a file."""
    needs = frozenset({"image"})
    version = "1"
    note = "a scorer of the tests"
    def __init__(self, value=0.5):
        self.value = value
    async def score(self, sample, truth, generation):
        with open("calls.txt", "a") as file:
            file.write(sample.id + "\\n")
        values = ParsedScore(status=ScoreStatus.OK, values={name: self.value for name in DIMENSIONS}, rationale="half")
        place = {"sample_id": sample.id, "repeat": generation.repeat}
        return Score(**place, scorer="half", status=ScoreStatus.OK, strict=values)
'''

CATEGORIES = ("art", "film", "sports", "news", "history", "game")


def make_task(folder: Path, prompts: list[str]) -> Path:
    """Write a task folder with a ground-truth image of one colour per sample."""
    (folder / "truth").mkdir(parents=True)
    samples, truths = [], []
    for number, prompt in enumerate(prompts):
        category, name = CATEGORIES[number % len(CATEGORIES)], f"s{number}"
        group = "science_and_knowledge" if category in {"art", "sports", "history"} else "pop_culture_and_news"
        path = folder / "truth" / f"{name}.png"
        Image.new("RGB", (64, 48), (number, 0, 0)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        image = {"sha256": digest, "width": 64, "height": 48, "format": "PNG"}
        samples.append({"id": name, "prompt": prompt, "category": category, "group": group, "text_required": True})
        truths.append(
            {
                "sample_id": name,
                "image": image,
                "image_file": f"truth/{name}.png",
                "required_text": ["x"],
                "text_required": True,
            }
        )
    (folder / "task.yaml").write_text("name: small\ndefault_scorers: ['my_scorer:Half']\n")
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truths))
    return folder
