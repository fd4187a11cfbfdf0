"""One shard of a world: 24 samples, one a category, with the pages and pictures they can be answered from."""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.search.contract import Page
from knowgen.worlds.content.categories import THEMES
from knowgen.worlds.content.difficulty import TEXTLESS
from knowgen.worlds.content.entities import Inventor, stream
from knowgen.worlds.content.pages import cast_pages, town_page
from knowgen.worlds.content.samples import Planned, plan_sample
from knowgen.worlds.content.search_images import Picture, cast_pictures

SHARD_SIZE = len(THEMES)
"""Samples in a full shard."""


@dataclass(frozen=True)
class Shard:
    """What a shard holds; shards share nothing, so they can be made in any order.

    Attributes:
        number: From 0.
        samples: One a category, in the order of the categories.
        pages: In an order that tells nothing.
        pictures: Those of one thing follow each other, so that its look is drawn once.
    """

    number: int
    samples: tuple[Planned, ...]
    pages: tuple[Page, ...]
    pictures: tuple[Picture, ...]


def make_shard(seed: int, number: int) -> Shard:
    """Makes a shard of the world of a seed; the same arguments give the same shard in every process."""
    inventor = Inventor(seed, number)
    casts = list(inventor.casts())
    dealt = stream(seed, number, "textless").sample(range(SHARD_SIZE), TEXTLESS[number % 2])
    pages: list[Page] = []
    pictures: list[Picture] = []
    samples: list[Planned] = []
    for position, cast in enumerate(casts):
        category = cast.theme.category
        pages.extend(cast_pages(cast, stream(seed, number, category, "pages")))
        pictures.extend(cast_pictures(cast, seed, number, stream(seed, number, category, "pictures")))
        rng = stream(seed, number, category, "sample")
        samples.append(plan_sample(cast, seed, number, textless=position in dealt, rng=rng))
    things = [entity for cast in casts for entity in (*cast.subjects, *cast.bystanders)]
    pages.extend(town_page(town, [thing for thing in things if thing.town == town]) for town in inventor.towns)
    stream(seed, number, "order").shuffle(pages)
    return Shard(number, tuple(samples), tuple(pages), tuple(pictures))
