"""Entities, people and places of one shard, generated from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from knowgen.core.records import POP, group_of
from knowgen.worlds.content.categories import THEMES, Theme
from knowgen.worlds.content.difficulty import BYSTANDERS, DIFFICULTIES, EARLY_WORK_CHANCE, Difficulty
from knowgen.worlds.content.names import GIVEN_NAMES, shard_names
from knowgen.worlds.content.seeds import WorldSeed, random_stream
from knowgen.worlds.rendering.appearance import Appearance, make_distractor, random_appearance

TOWNS = 8
"""Number of towns in a shard; all categories share them."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST_WORDS = _words(
    "Quiet Silver Northern Seventh Hollow Paper Crimson Wandering Second Golden Winter Distant Broken Patient Hidden "
    "Velvet Copper Silent Bright Early Amber Gentle Secret Restless Morning Evening Frozen Painted Scarlet Humble"
)
_SECOND_WORDS = _words(
    "Lantern Orchard Harbour Mirror Compass Garden Meridian River Feather Bridge Thunder Kite Letter Anthem Window "
    "Voyage Tide Signal Crown Clock Meadow Trumpet Needle Ember Cradle Summit Pebble Journey Banner Whisper"
)
_PRIZES = ("Medal", "Prize", "Laurel", "Ribbon", "Trophy")
_YEARS, _MODERN_YEARS = (1868, 1985), (1948, 1990)
"""Ranges of the first year of a prize: in general, and for pop culture."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Prize:
    """A prize of one trade.

    Attributes:
        name: Such as "Korund Medal".
        years: Years in which it was awarded, in ascending order.
        counted: Whether its page numbers the winners instead of giving years.
    """

    name: str
    years: tuple[int, ...]
    counted: bool


@dataclass(frozen=True)
class Maker:
    """The maker of an entity.

    Attributes:
        name: Given name and a family name that nobody else has.
        birthplace: A village that nobody else was born in.
        prize: Prize that the maker received.
        turn: Position among the winners of the prize, from 0.
    """

    name: str
    birthplace: str
    prize: Prize
    turn: int

    @property
    def prize_year(self) -> int:
        """Year in which the maker received the prize."""
        return self.prize.years[self.turn]


@dataclass(frozen=True)
class Distractor:
    """An entity that is easily mistaken for a subject.

    Attributes:
        name: Name of the distractor.
        maker: Name of its maker; the subject's own maker for an early work.
        early: Whether it is an early work of the subject's maker.
        appearance: Its appearance, similar to that of the subject.
    """

    name: str
    maker: str
    early: bool
    appearance: Appearance


@dataclass(frozen=True)
class Entity:
    """An entity that a prompt can ask for.

    Attributes:
        name: Name of the entity.
        theme: The vocabulary of its category.
        noun: Common noun for it.
        appearance: Its appearance.
        maker: Its maker.
        year: Year in which it was made.
        figure: Its characteristic number.
        label: Its motto, title or similar quoted words.
        former_label: A rejected label that pages may mention.
        town: Its town.
        difficulty: Difficulty of its pages.
        distractor: Its distractor; None for a bystander, which no prompt shows.
    """

    name: str
    theme: Theme
    noun: str
    appearance: Appearance
    maker: Maker
    year: int
    figure: int
    label: str
    former_label: str
    town: str
    difficulty: Difficulty
    distractor: Distractor | None

    @property
    def amount(self) -> str:
        """The figure with its unit."""
        return f"{self.figure} {self.theme.unit}"


@dataclass(frozen=True)
class CategoryEntities:
    """The entities of one category in a shard.

    Attributes:
        theme: Vocabulary of the category.
        subjects: Entities that its sample shows, from left to right.
        bystanders: Further entities, which no sample shows.
    """

    theme: Theme
    subjects: tuple[Entity, ...]
    bystanders: tuple[Entity, ...]

    @property
    def all_entities(self) -> tuple[Entity, ...]:
        """Subjects and bystanders in the order of their makers' prizes."""
        return tuple(sorted((*self.subjects, *self.bystanders), key=lambda entity: entity.maker.turn))


def article(words: str) -> str:
    """Return the words with an indefinite article.

    Example:
        >>> article("airship")
        'an airship'
    """
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def shard_difficulty(theme_index: int, shard: int) -> Difficulty:
    """Return the difficulty of a theme in a shard: each level is a third of a shard and rotates over the categories."""
    return DIFFICULTIES[(theme_index + shard) % len(DIFFICULTIES)]


class EntityGenerator:
    """Generates the entities of one shard.

    Args:
        seed: World seed.
        shard: Index of the shard, from 0.
    """

    def __init__(self, seed: WorldSeed, shard: int) -> None:
        self._seed, self._shard = seed, shard
        self._names = shard_names(seed, shard)
        self.towns = tuple(next(self._names) for _ in range(TOWNS))

    def categories(self) -> Iterator[CategoryEntities]:
        """Yield the entities of each category, in the order of `THEMES`."""
        for index, theme in enumerate(THEMES):
            rng = random_stream(self._seed, self._shard, theme.category)
            yield self._category(theme, shard_difficulty(index, self._shard), rng)

    def _category(self, theme: Theme, difficulty: Difficulty, rng: random.Random) -> CategoryEntities:
        count = rng.choice((2, 2, 3)) if theme.multi else 1
        total = count + BYSTANDERS
        first = rng.randrange(*(_MODERN_YEARS if group_of(theme.category) == POP else _YEARS))
        years = tuple(first + 4 * turn + rng.randrange(3) for turn in range(total))
        prize = Prize(f"{next(self._names)} {rng.choice(_PRIZES)}", years, counted=rng.random() < 0.5)
        kind_nouns = [rng.choice(theme.things)] * total if theme.multi else rng.choices(theme.things, k=total)
        turns = rng.sample(range(total), total)
        appearances: list[Appearance] = []
        for kind, _ in kind_nouns:
            appearances.append(_distinct_appearance(kind, appearances, rng))
        entities = [
            self._entity(theme, noun, appearance, prize, turn, difficulty, rng, distractor=position < count)
            for position, ((_, noun), appearance, turn) in enumerate(zip(kind_nouns, appearances, turns, strict=True))
        ]
        return CategoryEntities(theme, tuple(entities[:count]), tuple(entities[count:]))

    def _entity(
        self,
        theme: Theme,
        noun: str,
        appearance: Appearance,
        prize: Prize,
        turn: int,
        difficulty: Difficulty,
        rng: random.Random,
        *,
        distractor: bool,
    ) -> Entity:
        name = next(self._names)
        maker = Maker(self._person(rng), next(self._names), prize, turn)
        label, former = _two_labels(rng)
        return Entity(
            name=name,
            theme=theme,
            noun=noun,
            appearance=appearance,
            maker=maker,
            year=maker.prize_year - rng.randrange(1, 16),
            figure=rng.randrange(theme.low, theme.high),
            label=label,
            former_label=former,
            town=rng.choice(self.towns),
            difficulty=difficulty,
            distractor=self._distractor(appearance, maker, rng) if distractor else None,
        )

    def _distractor(self, appearance: Appearance, maker: Maker, rng: random.Random) -> Distractor:
        early = rng.random() < EARLY_WORK_CHANCE
        name = next(self._names)
        return Distractor(name, maker.name if early else self._person(rng), early, make_distractor(appearance, rng))

    def _person(self, rng: random.Random) -> str:
        return f"{rng.choice(GIVEN_NAMES)} {next(self._names)}"


def _distinct_appearance(kind: str, others: list[Appearance], rng: random.Random) -> Appearance:
    """Return a random appearance whose palette and pattern differ from those of the others of its kind."""
    while True:
        appearance = random_appearance(kind, rng)
        same_kind = [other for other in others if other.kind == kind]
        if all(other.palette != appearance.palette and other.pattern != appearance.pattern for other in same_kind):
            return appearance


def _two_labels(rng: random.Random) -> tuple[str, str]:
    """Return two labels of two words that have no word in common."""
    first, second = (rng.sample(words, 2) for words in (_FIRST_WORDS, _SECOND_WORDS))
    return f"{first[0]} {second[0]}", f"{first[1]} {second[1]}"
