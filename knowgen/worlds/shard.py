"""One shard of a world: 24 samples, one per category, with the pages and images that answer them."""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.search.contract import Page
from knowgen.worlds.content.categories import THEMES
from knowgen.worlds.content.difficulty import TEXTLESS
from knowgen.worlds.content.entities import EntityGenerator
from knowgen.worlds.content.pages import category_pages, town_page
from knowgen.worlds.content.samples import PlannedSample, plan_sample
from knowgen.worlds.content.search_images import SearchImage, category_images
from knowgen.worlds.content.seeds import WorldSeed, random_stream

SHARD_SIZE = len(THEMES)
"""Number of samples in a full shard."""


@dataclass(frozen=True)
class WorldShard:
    """Content of a shard. Shards share nothing, so they can be built in any order.

    Attributes:
        number: Index of the shard, from 0.
        samples: One per category, in the order of the categories.
        pages: Pages in random order.
        images: Images; those of one entity are adjacent, so that its appearance is drawn once.
    """

    number: int
    samples: tuple[PlannedSample, ...]
    pages: tuple[Page, ...]
    images: tuple[SearchImage, ...]


def make_shard(seed: WorldSeed, number: int) -> WorldShard:
    """Return a shard of a world; the same arguments give the same shard in every process."""
    inventor = EntityGenerator(seed, number)
    categories = list(inventor.categories())
    textless_positions = random_stream(seed, number, "textless").sample(range(SHARD_SIZE), TEXTLESS[number % 2])
    pages: list[Page] = []
    images: list[SearchImage] = []
    samples: list[PlannedSample] = []
    for position, group in enumerate(categories):
        category = group.theme.category
        pages.extend(category_pages(group, random_stream(seed, number, category, "pages")))
        images.extend(category_images(group, seed, number, random_stream(seed, number, category, "pictures")))
        rng = random_stream(seed, number, category, "sample")
        samples.append(plan_sample(group, seed, number, textless=position in textless_positions, rng=rng))
    things = [entity for group in categories for entity in (*group.subjects, *group.bystanders)]
    pages.extend(town_page(town, [thing for thing in things if thing.town == town]) for town in inventor.towns)
    random_stream(seed, number, "order").shuffle(pages)
    return WorldShard(number, tuple(samples), tuple(pages), tuple(images))
