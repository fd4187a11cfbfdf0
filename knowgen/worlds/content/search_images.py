"""Images to search: views of entities and distractors, with titles that may be misleading."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from knowgen.worlds.content import pages
from knowgen.worlds.content.difficulty import MISLEADING_TITLE_CHANCE, RECIPE_VERSION
from knowgen.worlds.content.entities import CategoryEntities, Entity
from knowgen.worlds.content.seeds import WorldSeed
from knowgen.worlds.rendering.appearance import Appearance, draw_appearance, plain_backdrop
from knowgen.worlds.rendering.scenes import draw_scene

if TYPE_CHECKING:
    from PIL.Image import Image

ImageView = Literal["plain", "turned", "scene"]
SIZE = 256
"""Width and height of a search image in pixels."""

_SUBJECT_SIZE = 216
_SUBJECT_SIZE_IN_SCENE = 170


@dataclass(frozen=True)
class SearchImage:
    """An image that image search can return.

    Attributes:
        id: Opaque id; the stem of its file.
        title: Caption; it may name another entity than the one shown.
        page_url: URL of the page with the image.
        appearance: Appearance that is shown.
        view: Way in which it is shown.
        scene: Scene of the background, for the view `scene`.
    """

    id: str
    title: str
    page_url: str
    appearance: Appearance
    view: ImageView
    scene: str

    @property
    def url(self) -> str:
        """URL of the image."""
        return f"https://pictures.example/{self.id}.webp"


def category_images(group: CategoryEntities, seed: WorldSeed, shard: int, rng: random.Random) -> Iterator[SearchImage]:
    """Yield the images of one category; those of one entity are adjacent."""
    for entity in (*group.subjects, *group.bystanders):
        views = [
            (title, view, pages.article_url(entity), entity.appearance) for title, view in _own_titles(entity, rng)
        ]
        if entity.distractor:
            place = rng.choice((pages.distractor_url(entity), pages.article_url(entity)))
            views += [
                (title, view, place, entity.distractor.appearance) for title, view in _distractor_titles(entity, rng)
            ]
        for position, (title, view, page_url, appearance) in enumerate(views):
            digest = hashlib.sha256(f"picture\0{RECIPE_VERSION}\0{seed}\0{shard}\0{entity.name}\0{position}".encode())
            yield SearchImage(
                digest.hexdigest()[:16], title, page_url, appearance, view, rng.choice(group.theme.scenes)
            )


def _own_titles(entity: Entity, rng: random.Random) -> list[tuple[str, ImageView]]:
    """Return titles and views of an entity's own images: plain, turned, in a scene; bystanders have one."""
    name, noun, town = entity.name, entity.noun, entity.town
    plain = rng.choice((f"{name}, {noun}", f"{name}, {noun} from {town}", f"The pride of {town}"))
    if entity.distractor is None:
        return [(plain, "plain")]
    turned = rng.choice((f"{name} seen from the other side", f"{name}, another view", f"{name} as visitors see it"))
    return [(plain, "plain"), (turned, "turned"), (rng.choice((f"{name} on show", f"{name} on a fine day")), "scene")]


def _distractor_titles(entity: Entity, rng: random.Random) -> list[tuple[str, ImageView]]:
    """Return titles and views of a distractor's images; some titles name the subject."""
    if entity.distractor is None:
        raise ValueError(f"{entity.name} has no distractor")
    distractor, name, noun = entity.distractor.name, entity.name, entity.noun
    accurate = [f"{distractor}, {noun}", f"{distractor}, another view"]
    misleading = [
        rng.choice((f"{distractor}, often taken for {name}", f"{distractor}, the other {name}")),
        rng.choice((f"{name}? No, {distractor}", f"Not {name} but {distractor}")),
    ]
    titles = misleading if rng.random() < MISLEADING_TITLE_CHANCE[entity.difficulty] else accurate
    return [(titles[0], "plain"), (titles[1], "turned")]


@lru_cache(maxsize=4)
def _subject_image(appearance: Appearance) -> Image:
    """Draw an appearance once for all its views, which are adjacent; callers must not modify the image."""
    return draw_appearance(appearance, _SUBJECT_SIZE)


def render_search_image(search_image: SearchImage) -> Image:
    """Render a search image.

    Returns:
        An RGB image of `SIZE` by `SIZE` pixels, identical in every process.
    """
    from PIL import Image

    rng = random.Random(f"picture/{search_image.id}")
    subject = _subject_image(search_image.appearance)
    if search_image.view == "scene":
        backdrop = draw_scene(search_image.scene, search_image.id)
        left = (backdrop.width - backdrop.height) // 2
        square = backdrop.crop((left, 0, left + backdrop.height, backdrop.height))
        canvas = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        subject = subject.resize((_SUBJECT_SIZE_IN_SCENE, _SUBJECT_SIZE_IN_SCENE), Image.Resampling.LANCZOS)
        margin = 8
    else:
        canvas = Image.new("RGB", (SIZE, SIZE), plain_backdrop(search_image.appearance, rng))
        margin = (SIZE - _SUBJECT_SIZE) // 2
    if search_image.view == "turned":
        flipped = subject.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        subject = flipped.rotate(rng.choice((-7, 6)), Image.Resampling.BICUBIC)
    canvas.paste(subject, ((SIZE - subject.width) // 2, SIZE - subject.height - margin), subject)
    return canvas
