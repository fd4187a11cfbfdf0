"""Vocabulary of each category: its entities, who makes them, and the facts that prompts ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pronoun = Literal["it", "she", "he"]
_POSSESSIVES: dict[Pronoun, str] = {"it": "its", "she": "her", "he": "his"}


@dataclass(frozen=True)
class Theme:
    """The vocabulary of a category.

    Attributes:
        category: Category name, as in `records.GROUPS`.
        things: Pairs of an appearance kind and its noun.
        verb: What the maker did, as a past participle.
        role: The maker's trade.
        measure: Phrase with which a prompt asks for the figure.
        statement: Clause that states the figure; `{n}` is the figure with its unit.
        unit: Unit of the figure, in the plural.
        low: Smallest figure.
        high: Upper limit of the figure, exclusive.
        home: Clause that relates it to its town, before the name of the town.
        label: Noun for the quoted words, after a possessive.
        scenes: Names of the scenes it is shown in, from `scenes.SCENES`.
        pronoun: Pronoun for one of the things.
    """

    category: str
    things: tuple[tuple[str, str], ...]
    verb: str
    role: str
    measure: str
    statement: str
    unit: str
    low: int
    high: int
    home: str
    label: str
    scenes: tuple[str, ...]
    pronoun: Pronoun = "it"

    @property
    def possessive(self) -> str:
        """The possessive of the pronoun: its, her or his."""
        return _POSSESSIVES[self.pronoun]

    @property
    def multi(self) -> bool:
        """Return whether prompts of this category show several subjects."""
        return self.category.startswith("multi-")


def _theme(
    category: str, things: str, maker: str, figure: str, home: str, label: str, scenes: str, pronoun: Pronoun = "it"
) -> Theme:
    """Parse `kind noun; kind noun`, `verb | role` and `measure | statement | unit | low | high`."""
    pairs = (thing.strip().split(" ", 1) for thing in things.split(";"))
    verb, role = maker.split(" | ")
    measure, statement, unit, low, high = figure.split(" | ")
    possessive = _POSSESSIVES[pronoun]
    return Theme(
        category=category,
        things=tuple((kind, noun) for kind, noun in pairs),
        verb=verb,
        role=role,
        measure=measure.format(its=possessive),
        statement=statement,
        unit=unit,
        low=int(low),
        high=int(high),
        home=home,
        label=label,
        scenes=tuple(scenes.split()),
        pronoun=pronoun,
    )


THEMES: tuple[Theme, ...] = (
    _theme("astronomy", "planet giant planet; planet desert planet", "discovered | astronomer",
           "{its} orbital period in days | one orbit takes {n} | days | 90 | 980",
           "was first seen from", "nickname", "observatory museum"),
    _theme("biology", "creature forest animal; creature marsh animal", "first described | naturalist",
           "{its} greatest recorded weight in kg | the heaviest one on record weighed {n} | kg | 12 | 480",
           "lives near", "common name", "garden snowfield desert"),
    _theme("chemistry", "crystal mineral", "first isolated | chemist",
           "{its} melting point in degrees | the melting point lies at {n} | degrees | 310 | 2900",
           "is mined near", "trade name", "laboratory museum"),
    _theme("physics", "device instrument; device measuring instrument", "invented | physicist",
           "{its} highest reading in volts | the highest reading ever taken was {n} | volts | 120 | 9800",
           "is kept in", "workshop name", "laboratory workshop"),
    _theme("engineering", "airship mail airship; airship survey airship", "engineered | engineer",
           "{its} length in metres | from end to end the length is {n} | metres | 64 | 290",
           "is moored in", "slogan", "harbour snowfield desert"),
    _theme("medicine", "plant healing plant", "catalogued | physician",
           "{its} usual dose in drops | the usual dose is {n} | drops | 12 | 90",
           "grows around", "folk name", "garden laboratory"),
    _theme("industry", "robot factory robot; robot welding robot", "manufactured | industrialist",
           "{its} lifting capacity in kg | the lifting capacity is {n} | kg | 150 | 4200",
           "works in", "advertising line", "workshop street"),
    _theme("architecture", "building tower; building bell tower", "built | architect",
           "{its} height in metres | the height is {n} | metres | 41 | 380",
           "stands in", "inscription", "street harbour garden"),
    _theme("history", "ship sailing ship; ship merchant ship", "commissioned | admiral",
           "the number of sailors in {its} first crew | the first crew counted {n} | sailors | 18 | 260",
           "sailed from", "battle cry", "harbour museum"),
    _theme("geography", "island mountain island; island volcanic island", "charted | explorer",
           "the height of {its} summit in metres | the summit has a height of {n} | metres | 420 | 4900",
           "lies near", "old chart name", "harbour snowfield"),
    _theme("religion", "shrine temple; shrine hill temple", "consecrated | abbot",
           "the number of {its} steps | the stairway has {n} | steps | 24 | 390",
           "stands above", "opening hymn", "garden snowfield"),
    _theme("politics", "flag flag; flag parliament flag", "adopted | chancellor",
           "the number of articles in {its} charter | the charter it flew over had {n} | articles | 11 | 140",
           "flies over", "motto", "street library"),
    _theme("culture", "mask festival mask; mask theatre mask", "carved | mask maker",
           "the number of {its} dancers | the troupe that wears it has {n} | dancers | 12 | 120",
           "belongs to", "song", "stage museum"),
    _theme("art", "vase porcelain vase; vase glazed vase", "painted | painter",
           "{its} auction price in crowns | the price at auction was {n} | crowns | 900 | 9900",
           "is shown in", "title", "museum library"),
    _theme("sports", "crest club crest; flag club flag", "designed | captain",
           "the number of seats in the home ground | the home ground has {n} | seats | 4100 | 9900",
           "belongs to", "club motto", "stadium street"),
    _theme("anime", "person anime heroine", "created | animator",
           "the number of {its} episodes | the series runs to {n} | episodes | 12 | 240",
           "comes from", "catchphrase", "street garden", "she"),
    _theme("game", "creature game mascot; robot game robot", "created | game designer",
           "{its} record score in points | the record score stands at {n} | points | 1200 | 9900",
           "comes from", "tagline", "stage workshop"),
    _theme("film", "robot film robot; creature film monster", "brought to the screen | director",
           "the length of {its} first film in minutes | the first film has a length of {n} | minutes | 81 | 190",
           "was filmed in", "tagline", "desert stage"),
    _theme("celebrities", "person singer", "first signed | producer",
           "the number of concerts on {its} longest tour | the longest tour had {n} | concerts | 21 | 490",
           "comes from", "biggest hit", "stage street", "she"),
    _theme("posters", "creature carnival mascot; mask carnival mask", "drawn | illustrator",
           "the number of prints of the first poster | the first poster came out in {n} | prints | 120 | 950",
           "belongs to", "headline", "street stage"),
    _theme("multi-subject-anime", "person anime hero", "created | animator",
           "the number of {its} episodes | the series runs to {n} | episodes | 12 | 240",
           "comes from", "catchphrase", "garden snowfield", "he"),
    _theme("multi-subject-celebrities", "person actress", "first cast | director",
           "the number of {its} films | the screen career counts {n} | films | 12 | 70",
           "comes from", "best-known role", "stage library", "she"),
    _theme("multi-subject-game", "creature arcade monster; robot arcade robot", "created | game designer",
           "{its} power level in points | the power level is {n} | points | 110 | 990",
           "is at home in", "battle cry", "desert stadium"),
    _theme("news", "airship rescue airship; robot rescue robot", "put into service | mayor",
           "the number of passengers in {its} largest rescue | the largest rescue saved {n} | passengers | 14 | 240",
           "is stationed in", "front-page headline", "harbour street"),
)  # fmt: skip
"""One theme per category, in the order of `records.GROUPS`; samples of a shard follow this order."""
