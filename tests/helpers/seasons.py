"""A small private season with a fixed secret, and what tests do with it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image

from knowgen.core.run_config import RunConfig
from knowgen.leaderboards.season import SECRET_FILE, SeasonSecret, write_secret
from knowgen.seasons.publish import SeasonPlaces
from knowgen.seasons.scoring import ScoredSubmission, score
from knowgen.tasks.folder import FolderTask
from knowgen.worlds.content.difficulty import RECIPE_VERSION

NAME, SAMPLES = "spring", 3


def fixed(text: str) -> str:
    """Return 64 hex digits that are the same in every test."""
    return hashlib.sha256(text.encode()).hexdigest()


SECRET = SeasonSecret(name=NAME, samples=SAMPLES, world=RECIPE_VERSION, seed=fixed("seed"), nonce=fixed("nonce"))


@dataclass(frozen=True)
class Season:
    """The folders of a published season."""

    places: SeasonPlaces

    @property
    def truths(self) -> FolderTask:
        """The task with its ground truths."""
        return FolderTask(self.places.private / "world")

    @property
    def public(self) -> FolderTask:
        """The task as published."""
        return FolderTask(self.places.public)

    def copied_to(self, root: Path) -> Season:
        """Return a copy that a test may change."""
        places = places_in(root)
        for source, target in ((self.places.public, places.public), (self.places.board, places.board)):
            shutil.copytree(source, target)
        shutil.copytree(self.places.private, places.private)
        return Season(places)

    def send(self, root: Path, name: str = "half right") -> tuple[Path, Path]:
        """Write a folder of images, the first of them right and the others of one colour, and its system.yaml."""
        images = root / "images"
        images.mkdir(exist_ok=True)
        for number, sample in enumerate(self.public.samples()):
            image = self.truths.truth(sample.id).image
            assert image is not None
            right = image.open()
            made = right if number == 0 else Image.new("RGB", (96, 64), (number, 99, 99))
            made.save(images / f"{sample.id}.png")
        return images, system_file(root, name)

    def score(self, source: Path, system: Path) -> ScoredSubmission:
        """Score what was sent, in this process."""
        return score(source, self.places.board, self.places.private, system, config=RunConfig(workers=0))


def places_in(root: Path) -> SeasonPlaces:
    """Return the folders of a season below a folder."""
    return SeasonPlaces(root / "public", root / "board", root / "private")


def private_folder(places: SeasonPlaces, secret: SeasonSecret = SECRET) -> None:
    """Write a private folder with a secret that is not random."""
    places.private.mkdir(mode=0o700)
    write_secret(places.private / SECRET_FILE, secret)


def system_file(root: Path, name: str, revision: str = "1") -> Path:
    """Write a submitter's system.yaml."""
    path = root / f"system-{revision}.yaml"
    fields = {
        "name": name,
        "revision": revision,
        "kind": "baseline",
        "authors": ["knowgen"],
        "licence": "Apache-2.0",
        "open_weights": True,
        "search": False,
        "parameters": "none",
        "training_data": "none",
        "contact": "https://example.org",
        "adapter": {"generator": "closed_book"},
    }
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path
