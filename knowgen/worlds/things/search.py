"""The search backend `things:SEED`: a picture of the thing whose name is the query."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from knowgen.core.errors import DataError
from knowgen.search.contract import Hit, ImageHit, Page
from knowgen.tasks.things_words import PICTURE_URL
from knowgen.worlds.things.pictures import PictureFiles
from knowgen.worlds.things.task import NAME, read_seed, search_version
from knowgen.worlds.things.world import RECIPE_VERSION, draw_thing, things_of

TITLE = "picture"
"""Title of every picture, which says nothing about it."""

PICTURES = 256
"""Number of different pictures of a thing; after the last the first is shown again."""


class ThingsSearch:
    """The search backend `things:SEED`: one picture for a name of that seed, nothing for another query, no pages.

    Each search of a name draws a new picture: other shape, place and shades. The first, second, … search of a name give
    the same pictures in every process.

    Args:
        model: The seed.

    Raises:
        UsageError: It is not a seed.
    """

    def __init__(self, model: str = "0") -> None:
        self._seed, _ = read_seed(model, f"search backend {NAME}", 1)
        self._things = things_of(self._seed)
        self._searches: Counter[str] = Counter()
        self._files = PictureFiles()

    @classmethod
    def query_price(cls, **_arguments: Any) -> float:
        """Return the cost of a query in US dollars: nothing."""
        return 0.0

    @property
    def version(self) -> str:
        """Identity of the content, equal to the task's `search_version`."""
        return search_version(self._seed)

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Return no page: no text says what a thing looks like."""
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Return a new picture of the thing that the query names; an empty list where no thing has that name.

        Raises:
            ConfigError: The picture cannot be written.
        """
        name = " ".join(query.casefold().split())
        colour = self._things.get(name)
        if colour is None or k < 1:
            return []
        number = self._searches[name] % PICTURES
        self._searches[name] += 1
        rng = random.Random(f"things/{RECIPE_VERSION}/{self._seed}/{name}/{number}")
        return [ImageHit(title=TITLE, url=PICTURE_URL, image=self._files.add(draw_thing(colour, rng)))]

    async def open(self, url: str) -> Page:
        """Raise `DataError`: there are no pages."""
        raise DataError("page not found", where=url)

    async def titles(self) -> list[str]:
        """Return the names of all things, which are queries that find something."""
        return list(self._things)

    async def close(self) -> None:
        """Remove the files of the pictures."""
        self._files.close()
