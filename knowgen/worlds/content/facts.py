"""Facts of an entity: how a prompt asks for them, the required text, and the pages that state them."""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.worlds.content import pages
from knowgen.worlds.content.entities import ORDINALS, Entity


@dataclass(frozen=True)
class Fact:
    """A fact that the sign can show.

    Attributes:
        key: Name of the fact.
        question: Phrase with which the prompt asks for it.
        value: Text that must be readable.
        line: Line that the ground truth shows.
        pages: URLs of the pages that state it.
    """

    key: str
    question: str
    value: str
    line: str
    pages: tuple[str, ...]


@dataclass(frozen=True)
class Clue:
    """A description that leads from a prompt to an entity.

    Attributes:
        words: The description, such as "the tower built by Ansa Korund".
        hops: Number of pages from a name in the words to the entity, counting its own page.
        pages: URLs of these pages, the entity's own last.
        gives: Keys of the facts that the words state or that finding the entity requires.
    """

    words: str
    hops: int
    pages: tuple[str, ...]
    gives: frozenset[str]


def entity_facts(entity: Entity) -> dict[str, Fact]:
    """Return the facts of an entity by key."""
    theme, maker = entity.theme, entity.maker
    own, notes, of_maker = pages.article_url(entity), pages.notes_url(entity), pages.maker_url(entity)
    year, prize_year = str(entity.year), str(maker.prize_year)
    facts = (
        Fact("name", f"the name of the {entity.noun.split()[-1]}", entity.name, entity.name, (own,)),
        Fact("year", f"the year in which {theme.pronoun} was {theme.verb}", year, year, (own,)),
        Fact("maker", f"the full name of the {theme.role}", maker.name, maker.name, (own,)),
        Fact("figure", theme.measure, str(entity.figure), entity.amount, (own,)),
        Fact("label", f"{theme.possessive} {theme.label}", entity.label, entity.label, (own, notes)),
        Fact("town", f"the town {theme.pronoun} {theme.home}", entity.town, entity.town, (own,)),
        Fact("birthplace", f"the village where the {theme.role} was born", maker.birthplace, maker.birthplace,
             (own, of_maker)),
        Fact("prize year", f"the year in which the {theme.role} received the {maker.prize.name}", prize_year,
             prize_year, (own, of_maker)),
    )  # fmt: skip
    return {fact.key: fact for fact in facts}


def entity_clues(entity: Entity, hops: int) -> tuple[Clue, ...]:
    """Return the descriptions of an entity that need a given number of pages.

    Args:
        entity: The entity.
        hops: 1 (its name), 2 (by its maker) or 3 (by its maker's birthplace or prize).
    """
    theme, maker, noun = entity.theme, entity.maker, entity.noun
    own, of_maker = pages.article_url(entity), pages.maker_url(entity)
    if hops == 1:
        return (Clue(f"the {noun} {entity.name}", 1, (own,), frozenset({"name"})),)
    by_name = frozenset({"maker"})
    best_known = Clue(f"the {noun} that the {theme.role} {maker.name} is best known for", 2, (of_maker, own), by_name)
    early = entity.distractor is not None and entity.distractor.early
    if hops == 2:
        by_maker = Clue(f"the {noun} {theme.verb} by {maker.name}", 2, (of_maker, own), by_name)
        return (best_known,) if early else (best_known, by_maker)
    relation = f"the best-known {noun} of" if early else f"the {noun} {theme.verb} by"
    birthplace, prize = pages.birthplace_url(entity), pages.prize_url(entity)
    by_prize, by_birth = frozenset({"prize year"}), frozenset({"birthplace"})
    of_prize = (
        Clue(
            f"{relation} the {theme.role} who received the {ORDINALS[maker.turn]} {maker.prize.name}",
            3,
            (prize, of_maker, own),
            by_prize,
        )
        if maker.prize.counted
        else Clue(
            f"{relation} the winner of the {maker.prize.name} of {maker.prize_year}",
            3,
            (prize, of_maker, own),
            by_prize,
        )
    )
    return (of_prize, Clue(f"{relation} the {theme.role} born in {maker.birthplace}", 3, (birthplace, of_maker, own),
                           by_birth))  # fmt: skip
