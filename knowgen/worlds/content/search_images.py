"""Pictures to search: views of things and of their look-alikes, with titles that do not always name what they show."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from knowgen.worlds.content import pages
from knowgen.worlds.content.difficulty import MISLEADING_TITLE_CHANCE, RECIPE_VERSION
from knowgen.worlds.content.entities import Cast, Entity
from knowgen.worlds.rendering.appearance import Look, draw_look, plain_backdrop
from knowgen.worlds.rendering.scenes import draw_scene

if TYPE_CHECKING:
    from PIL.Image import Image

View = Literal["plain", "turned", "scene"]
SIZE = 256
"""Width and height of a picture in pixels."""

_LOOK_SIZE = 216
_LOOK_SIZE_IN_SCENE = 170


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn and listed.

    Attributes:
        id: Opaque; the stem of its file.
        title: Caption; it need not name what is shown.
        page_url: Page it is found on.
        look: What is shown.
        view: How it is shown.
        scene: Scene behind it, where the view is in a scene.
    """

    id: str
    title: str
    page_url: str
    look: Look
    view: View
    scene: str

    @property
    def url(self) -> str:
        """Returns its address."""
        return f"https://pictures.example/{self.id}.webp"


def cast_pictures(cast: Cast, seed: int, shard: int, rng: random.Random) -> Iterator[Picture]:
    """Yields the pictures of one category; those of one thing follow each other."""
    for entity in (*cast.subjects, *cast.bystanders):
        listed = [(title, view, pages.article_url(entity), entity.look) for title, view in _own_titles(entity, rng)]
        if entity.twin:
            place = rng.choice((pages.twin_url(entity), pages.article_url(entity)))
            listed += [(title, view, place, entity.twin.look) for title, view in _twin_titles(entity, rng)]
        for position, (title, view, page_url, look) in enumerate(listed):
            digest = hashlib.sha256(f"picture\0{RECIPE_VERSION}\0{seed}\0{shard}\0{entity.name}\0{position}".encode())
            yield Picture(digest.hexdigest()[:16], title, page_url, look, view, rng.choice(cast.theme.scenes))


def _own_titles(entity: Entity, rng: random.Random) -> list[tuple[str, View]]:
    """Returns titles and views of a thing's own pictures: plain, turned, in a scene; bystanders have one."""
    name, noun, town = entity.name, entity.noun, entity.town
    plain = rng.choice((f"{name}, {noun}", f"{name}, {noun} from {town}", f"The pride of {town}"))
    if entity.twin is None:
        return [(plain, "plain")]
    turned = rng.choice((f"{name} seen from the other side", f"{name}, another view", f"{name} as visitors see it"))
    return [(plain, "plain"), (turned, "turned"), (rng.choice((f"{name} on show", f"{name} on a fine day")), "scene")]


def _twin_titles(entity: Entity, rng: random.Random) -> list[tuple[str, View]]:
    """Returns titles and views of a look-alike's pictures; some titles name the thing it is confused with."""
    if entity.twin is None:
        raise ValueError(f"{entity.name} has no twin")
    twin, name, noun = entity.twin.name, entity.name, entity.noun
    honest = [f"{twin}, {noun}", f"{twin}, another view"]
    tricky = [
        rng.choice((f"{twin}, often taken for {name}", f"{twin}, the other {name}")),
        rng.choice((f"{name}? No, {twin}", f"Not {name} but {twin}")),
    ]
    titles = tricky if rng.random() < MISLEADING_TITLE_CHANCE[entity.difficulty] else honest
    return [(titles[0], "plain"), (titles[1], "turned")]


@lru_cache(maxsize=4)
def _drawn(look: Look) -> Image:
    """Draws a look once for all views of it, which follow each other; nobody changes the picture."""
    return draw_look(look, _LOOK_SIZE)


def draw_picture(picture: Picture) -> Image:
    """Draws a picture.

    Returns:
        An RGB image of `SIZE` by `SIZE` pixels, the same for the same picture in every process.
    """
    from PIL import Image

    rng = random.Random(f"picture/{picture.id}")
    drawn = _drawn(picture.look)
    if picture.view == "scene":
        backdrop = draw_scene(picture.scene, picture.id)
        left = (backdrop.width - backdrop.height) // 2
        square = backdrop.crop((left, 0, left + backdrop.height, backdrop.height))
        canvas = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        drawn = drawn.resize((_LOOK_SIZE_IN_SCENE, _LOOK_SIZE_IN_SCENE), Image.Resampling.LANCZOS)
        margin = 8
    else:
        canvas = Image.new("RGB", (SIZE, SIZE), plain_backdrop(picture.look, rng))
        margin = (SIZE - _LOOK_SIZE) // 2
    if picture.view == "turned":
        mirrored = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        drawn = mirrored.rotate(rng.choice((-7, 6)), Image.Resampling.BICUBIC)
    canvas.paste(drawn, ((SIZE - drawn.width) // 2, SIZE - drawn.height - margin), drawn)
    return canvas
