"""The things, people and places of one shard, invented from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from knowgen.core.records import POP, group_of
from knowgen.worlds import dials
from knowgen.worlds.categories import THEMES, Theme
from knowgen.worlds.dials import Difficulty
from knowgen.worlds.drawing.looks import Look, look_alike, random_look
from knowgen.worlds.names import GIVEN_NAMES, shard_names

TOWNS = 8
"""Towns of a shard; things of all categories share them."""


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
"""When a prize was first given: in general, and in the trades of pop culture."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Prize:
    """A prize of one trade.

    Attributes:
        name: Such as "Korund Medal".
        years: Years it was given in, rising.
        counted: Does its page number the winners, instead of dating them?
    """

    name: str
    years: tuple[int, ...]
    counted: bool


@dataclass(frozen=True)
class Maker:
    """Who made a thing.

    Attributes:
        name: Given name and a family name that nobody else has.
        birthplace: A village that nobody else was born in.
        prize: What the maker won.
        turn: Position among the winners, from 0.
    """

    name: str
    birthplace: str
    prize: Prize
    turn: int

    @property
    def prize_year(self) -> int:
        """Returns the year the prize was won in."""
        return self.prize.years[self.turn]


@dataclass(frozen=True)
class Twin:
    """The thing a subject is confused with.

    Attributes:
        name: Its name.
        maker: Who made it; the subject's own maker when it is an early work.
        early: Is it an early work of the subject's maker?
        look: What it looks like: much like the subject.
    """

    name: str
    maker: str
    early: bool
    look: Look


@dataclass(frozen=True)
class Entity:
    """A thing that prompts ask for.

    Attributes:
        name: Its name.
        theme: The vocabulary of its category.
        noun: What it is.
        look: What it looks like.
        maker: Who made it.
        year: When it was made.
        figure: The number told of it.
        label: The words told of it.
        former_label: Words that were turned down.
        town: Where it belongs.
        difficulty: How hard its pages are to read.
        twin: What it is confused with; None for a bystander, which no prompt shows.
    """

    name: str
    theme: Theme
    noun: str
    look: Look
    maker: Maker
    year: int
    figure: int
    label: str
    former_label: str
    town: str
    difficulty: Difficulty
    twin: Twin | None

    @property
    def amount(self) -> str:
        """Returns the figure with its unit."""
        return f"{self.figure} {self.theme.unit}"


@dataclass(frozen=True)
class Cast:
    """The things of one category in a shard.

    Attributes:
        theme: The category.
        subjects: The things its sample shows, from left to right.
        bystanders: Further things.
    """

    theme: Theme
    subjects: tuple[Entity, ...]
    bystanders: tuple[Entity, ...]

    @property
    def everything(self) -> tuple[Entity, ...]:
        """Returns subjects and bystanders in the order of their makers' prizes."""
        return tuple(sorted((*self.subjects, *self.bystanders), key=lambda entity: entity.maker.turn))


def article(words: str) -> str:
    """Returns the words with a or an before them."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def stream(seed: int, shard: int, *purpose: Any) -> random.Random:
    """Returns the random stream of one purpose, so that a change in one leaves the others as they were."""
    return random.Random("/".join(map(str, ("world", dials.VERSION, seed, shard, *purpose))))


def difficulty_of(theme_index: int, shard: int) -> Difficulty:
    """Deals difficulties so that each takes a third of a shard and wanders over the categories."""
    return dials.DIFFICULTIES[(theme_index + shard) % len(dials.DIFFICULTIES)]


class Inventor:
    """Invents one shard: one cast a category.

    Args:
        seed: Of the world.
        shard: From 0.
    """

    def __init__(self, seed: int, shard: int) -> None:
        self._seed, self._shard = seed, shard
        self._names = shard_names(seed, shard)
        self.towns = tuple(next(self._names) for _ in range(TOWNS))

    def casts(self) -> Iterator[Cast]:
        """Yields the casts in the order of `THEMES`."""
        for index, theme in enumerate(THEMES):
            rng = stream(self._seed, self._shard, theme.category)
            yield self._cast(theme, difficulty_of(index, self._shard), rng)

    def _cast(self, theme: Theme, difficulty: Difficulty, rng: random.Random) -> Cast:
        count = rng.choice((2, 2, 3)) if theme.multi else 1
        total = count + dials.BYSTANDERS
        first = rng.randrange(*(_MODERN_YEARS if group_of(theme.category) == POP else _YEARS))
        years = tuple(first + 4 * turn + rng.randrange(3) for turn in range(total))
        prize = Prize(f"{next(self._names)} {rng.choice(_PRIZES)}", years, counted=rng.random() < 0.5)
        kind_nouns = [rng.choice(theme.things)] * total if theme.multi else rng.choices(theme.things, k=total)
        turns = rng.sample(range(total), total)
        looks: list[Look] = []
        for kind, _ in kind_nouns:
            looks.append(_unlike(kind, looks, rng))
        entities = [
            self._entity(theme, noun, look, prize, turn, difficulty, rng, twin=position < count)
            for position, ((_, noun), look, turn) in enumerate(zip(kind_nouns, looks, turns, strict=True))
        ]
        return Cast(theme, tuple(entities[:count]), tuple(entities[count:]))

    def _entity(
        self,
        theme: Theme,
        noun: str,
        look: Look,
        prize: Prize,
        turn: int,
        difficulty: Difficulty,
        rng: random.Random,
        *,
        twin: bool,
    ) -> Entity:
        name = next(self._names)
        maker = Maker(self._person(rng), next(self._names), prize, turn)
        label, former = _two_labels(rng)
        return Entity(
            name=name,
            theme=theme,
            noun=noun,
            look=look,
            maker=maker,
            year=maker.prize_year - rng.randrange(1, 16),
            figure=rng.randrange(theme.low, theme.high),
            label=label,
            former_label=former,
            town=rng.choice(self.towns),
            difficulty=difficulty,
            twin=self._twin(look, maker, rng) if twin else None,
        )

    def _twin(self, look: Look, maker: Maker, rng: random.Random) -> Twin:
        early = rng.random() < dials.EARLY_WORK
        name = next(self._names)
        return Twin(name, maker.name if early else self._person(rng), early, look_alike(look, rng))

    def _person(self, rng: random.Random) -> str:
        return f"{rng.choice(GIVEN_NAMES)} {next(self._names)}"


def _unlike(kind: str, others: list[Look], rng: random.Random) -> Look:
    """Draws a look whose palette and pattern none of the others of its kind have."""
    while True:
        look = random_look(kind, rng)
        same_kind = [other for other in others if other.kind == kind]
        if all(other.palette != look.palette and other.pattern != look.pattern for other in same_kind):
            return look


def _two_labels(rng: random.Random) -> tuple[str, str]:
    """Returns two pairs of words that share neither word."""
    first, second = (rng.sample(words, 2) for words in (_FIRST_WORDS, _SECOND_WORDS))
    return f"{first[0]} {second[0]}", f"{first[1]} {second[1]}"
