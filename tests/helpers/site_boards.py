"""Boards as folders of files for the tests of the site, made from a seed, of any size and with any texts."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from knowgen.core.records import DIMENSIONS, GROUPS

CATEGORIES = tuple(category for members in GROUPS.values() for category in members)
TASK, VERSION, SCORER, SCORER_VERSION = "knowgen", "1-0123456789ab", "vlm:gpt-4.1", "knowgen-rubric-1"
_SPEC_SCORER = {"name": SCORER, "version": SCORER_VERSION, "dimensions": list(DIMENSIONS)}

JUDGE = "gpt-4.1-2025-04-14"
PUBLISHED = "system,kind,k_score\nSome Model,closed,34.19\nOther Model,open,9.50\n"


@dataclass
class BoardMaker:
    """Writes the folder of a board.

    Attributes:
        root: Folder of the boards.
        name: Name of the board.
        samples: Number of samples.
        prompts: Texts of the prompts, in turn; a made-up one without any.
        categories: Categories in turn.
        rationale: Rationale of every score; a made-up one if empty.
        images: Whether submissions have thumbnails.
        title: Title of the board.
    """

    root: Path
    name: str = "main"
    samples: int = 24
    prompts: Sequence[str] = ()
    categories: Sequence[str] = CATEGORIES
    rationale: str = ""
    images: bool = True
    title: str = "Main board"
    hardness: list[float] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of the board."""
        return self.root / self.name

    def write(self, **fields: Any) -> Path:
        """Write board.yaml and samples.jsonl; `fields` replace those of the board."""
        self.folder.mkdir(parents=True, exist_ok=True)
        board = {
            "title": self.title,
            "description": "A board that was made for tests.",
            "task": {"name": TASK, "version": VERSION},
            "scorer": {
                "name": SCORER, "versions": [SCORER_VERSION], "judges": [JUDGE], "dimensions": list(DIMENSIONS),
            },
            "protocol": "strict",
            "protocol_version": "2",
            **fields,
        }  # fmt: skip
        (self.folder / "board.yaml").write_text(yaml.safe_dump(board, sort_keys=False), encoding="utf-8")
        rng = random.Random(7)
        self.hardness = [rng.random() for _ in range(self.samples)]
        lines = [
            {
                "id": self.sample_id(place),
                "prompt": self.prompt(place),
                "category": self.categories[place % len(self.categories)],
                "difficulty": ("easy", "medium", "hard")[place % 3],
                "text_required": place % 2 == 0,
            }
            for place in range(self.samples)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / "samples.jsonl").write_text(text, encoding="utf-8")
        return self.folder

    def prompt(self, place: int) -> str:
        """Return the prompt of a sample."""
        if self.prompts:
            return self.prompts[place % len(self.prompts)]
        return f"Sample {place}: the observatory of the astronomer who named comet {place * 37 % 101}, at dawn."

    def sample_id(self, place: int) -> str:
        """Return the id of a sample."""
        return hashlib.sha256(f"{self.name} {place}".encode()).hexdigest()[:16]

    def publish(self, text: str = PUBLISHED, url: str = "") -> None:
        """Add published rows."""
        (self.folder / "published.csv").write_text(text, encoding="utf-8")
        path = self.folder / "board.yaml"
        board = yaml.safe_load(path.read_text(encoding="utf-8"))
        board["published"] = {"file": "published.csv", "source": "the paper, table 2", "url": url}
        path.write_text(yaml.safe_dump(board, sort_keys=False), encoding="utf-8")

    def add(
        self,
        slug: str,
        strength: float,
        *,
        revision: str = "1",
        day: int = 1,
        failed: Sequence[int] = (),
        unjudged: Sequence[int] = (),
        cost: float | None = 0.04,
        withdrawn: str = "",
        **fields: Any,
    ) -> Path:
        """Add a submission.

        Args:
            slug: Name of its folder.
            strength: Share of values that are right, from 0 to 1.
            revision: Name of the revision.
            day: Day of January on which the run was created.
            failed: Places of the samples without an image.
            unjudged: Places of the samples whose score failed.
            cost: Cost of an image.
            withdrawn: Reason of a withdrawal.
            fields: Fields of `system.yaml`.
        """
        folder = self.folder / slug / revision
        (folder / "images").mkdir(parents=True, exist_ok=True)
        system = {
            "name": slug.replace("-", " ").title(),
            "revision": revision,
            "kind": "image_model",
            "authors": ["Ada", "Grace"],
            "links": [{"title": "paper", "url": "https://example.org/paper"}],
            "licence": "Apache-2.0",
            "open_weights": True,
            "search": False,
            "parameters": "20B",
            "training_data": "undisclosed",
            "contact": "mail@example.org",
            "adapter": {"generator": "diffusers:Qwen/Qwen-Image", "arguments": {"steps": 20, "prefix": "a photo of"}},
            **fields,
        }
        (folder / "system.yaml").write_text(yaml.safe_dump(system, sort_keys=False), encoding="utf-8")
        if withdrawn:
            text = yaml.safe_dump({"date": "2026-01-31", "reason": withdrawn})
            (folder / "withdrawn.yaml").write_text(text, encoding="utf-8")
        (folder / "result.json").write_text(
            self._result(slug, strength, day, failed, unjudged, cost, folder), encoding="utf-8"
        )
        return folder

    def _result(
        self,
        slug: str,
        strength: float,
        day: int,
        failed: Sequence[int],
        unjudged: Sequence[int],
        cost: float | None,
        folder: Path,
    ) -> str:
        rng = random.Random(f"{slug} {self.name}")
        thumbnails = [self._thumbnail(folder, slug, shade) for shade in range(6)] if self.images else [""]
        samples = []
        for place in range(self.samples):
            values = {
                name: self._value(rng, strength, place)
                for name in DIMENSIONS
                if name != "text_accuracy" or place % 2 == 0
            }
            strict: dict[str, Any] = {
                "status": "ok",
                "values": values,
                "rationale": self.rationale or f"{slug} on sample {place}: the comet is right, the year is not.",
            }
            generation: dict[str, Any] = {
                "status": "ok",
                "image": self._image(slug, place, thumbnails[place % len(thumbnails)]),
                "seconds": round(4 + rng.random(), 3),
                "cost": cost,
            }
            if "text_accuracy" not in values:
                strict["na"] = ["text_accuracy"]
            if place in failed:
                strict = {"status": "not_run"}
                generation = {"status": "failed", "reason": "out of memory", "cause": "system", "seconds": 1.0}
            if place in unjudged:
                strict = {"status": "failed", "reason": "the reply was cut"}
            score = {"strict": strict, "judge": JUDGE}
            samples.append({"id": self.sample_id(place), "generations": [{**generation, "scores": [score]}]})
        spec = {
            "task": TASK,
            "task_version": VERSION,
            "selection": {"kind": "all", "n": self.samples},
            "generator": {"name": slug},
            "scorers": [_SPEC_SCORER],
        }
        head = {
            "format": 1,
            "knowgen": "0.2.0",
            "created": f"2026-01-{day:02d}T10:00:00+00:00",
            "spec": spec,
            "scorer": _SPEC_SCORER,
            "protocol": "strict",
            "protocol_version": "2",
            "judges": {JUDGE: self.samples - len(failed)},
            "claimed": {"overall": strength},
            "coverage": {"expected": self.samples, "scored": self.samples - len(failed) - len(unjudged)},
            "cost": {"total": None if cost is None else cost * self.samples},
            "seconds": 600.0,
            "samples": samples,
        }
        return json.dumps(head)

    def _value(self, rng: random.Random, strength: float, place: int) -> float:
        draw = 0.6 * rng.random() + 0.4 * self.hardness[place]
        return 1.0 if draw < strength - 0.15 else 0.5 if draw < strength + 0.15 else 0.0

    def _image(self, slug: str, place: int, thumbnail: str) -> dict[str, Any]:
        digest = hashlib.sha256(f"{slug} {place}".encode()).hexdigest()
        return {"sha256": digest, "width": 96, "height": 64, "format": "PNG", "thumbnail": thumbnail}

    def _thumbnail(self, folder: Path, slug: str, shade: int) -> str:
        from PIL import Image

        colour = tuple(hashlib.sha256(f"{slug} {shade}".encode()).digest()[:3])
        buffer = io.BytesIO()
        Image.new("RGB", (96, 64), colour).save(buffer, "JPEG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder / "images" / f"{digest}.jpg").write_bytes(buffer.getvalue())
        return digest
