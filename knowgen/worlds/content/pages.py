"""Pages of a shard: article, notes, outdated copy, maker and distractor of each entity, places and prizes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from knowgen.search.contract import Link, Page
from knowgen.worlds.content import fact_phrasing
from knowgen.worlds.content.entities import ORDINALS, CategoryEntities, Entity, article
from knowgen.worlds.content.page_templates import address, capital, listing, write_page

ATLAS, LIBRARY, ARCHIVE, PEOPLE, GAZETTEER, HONOURS = "atlas", "library", "oldweb", "people", "gazetteer", "honours"
"""Hosts of the pages; `.example` is a reserved top-level domain."""

_NOTES = ("Notes on {}", "{} in detail", "The story of {}", "{}: a companion for readers")
_REMARKS = (
    "Readers often compare {it} with {twin}, which is another {noun} altogether.",
    "Careless guides confuse {it} with the {noun} {twin}.",
    "{It} is sometimes mistaken for {twin}, another {noun}.",
)


def notes_title(entity: Entity) -> str:
    """Return the title of the notes on an entity."""
    return _NOTES[(entity.figure + entity.year) % len(_NOTES)].format(entity.name)


def article_url(entity: Entity) -> str:
    """Return the URL of the article on an entity."""
    return address(ATLAS, entity.name)


def notes_url(entity: Entity) -> str:
    """Return the URL of the notes on an entity."""
    return address(LIBRARY, notes_title(entity))


def maker_url(entity: Entity) -> str:
    """Return the URL of the page on an entity's maker."""
    return address(PEOPLE, entity.maker.name)


def birthplace_url(entity: Entity) -> str:
    """Return the URL of the page on the maker's birthplace."""
    return address(GAZETTEER, entity.maker.birthplace)


def prize_url(entity: Entity) -> str:
    """Return the URL of the page on the maker's prize."""
    return address(HONOURS, entity.maker.prize.name)


def distractor_url(entity: Entity) -> str:
    """Return the URL of the page on an entity's distractor; for a bystander, of its own article."""
    return address(ATLAS, entity.distractor.name if entity.distractor else entity.name)


def town_url(town: str) -> str:
    """Return the URL of the page on a town."""
    return address(GAZETTEER, town)


def _links(entity: Entity) -> dict[str, str | Link]:
    """Return the template fields of an entity; names are links."""
    distractor = entity.distractor.name if entity.distractor else entity.name
    return {
        "name": Link(text=entity.name, url=article_url(entity)),
        "notes": Link(text=notes_title(entity), url=notes_url(entity)),
        "maker": Link(text=entity.maker.name, url=maker_url(entity)),
        "birthplace": Link(text=entity.maker.birthplace, url=birthplace_url(entity)),
        "prize": Link(text=entity.maker.prize.name, url=prize_url(entity)),
        "twin": Link(text=distractor, url=distractor_url(entity)),
        "town": Link(text=entity.town, url=town_url(entity.town)),
        "noun": entity.noun,
        "it": {"it": "it", "she": "her", "he": "him"}[entity.theme.pronoun],
        "It": fact_phrasing.capital_pronoun(entity),
    }


def article_page(entity: Entity, rng: random.Random) -> Page:
    """Return the article: what it is, when and by whom it was made, its figure, its distractor."""
    a_noun, home = article(entity.noun), entity.theme.home
    who = "that" if entity.theme.pronoun == "it" else "who"
    lead = rng.choice(
        (
            f"{entity.name} is {a_noun} {who} {home} {{town}}.",
            f"{entity.name}, {a_noun}, {home} {{town}}.",
        )
    )
    paragraphs = [
        f"{lead} {fact_phrasing.year_sentence(entity, rng)}",
        capital(fact_phrasing.figure_sentence(entity, rng)),
        rng.choice(("More is told in {notes}.", "See also {notes}.", "Further reading: {notes}.")),
    ]
    if entity.distractor:
        paragraphs[1] += " " + rng.choice(_REMARKS)
    return write_page(ATLAS, entity.name, paragraphs, _links(entity))


def notes_page(entity: Entity, rng: random.Random) -> Page:
    """Return the notes, which quote the label."""
    paragraphs = [
        rng.choice(
            (
                "These notes on {name} were gathered by the library of {town}.",
                "The library of {town} keeps a shelf of papers on {name}; this page sums them up.",
            )
        ),
        capital(fact_phrasing.label_sentence(entity, rng))
        + rng.choice((" Every schoolbook prints it.", " Old and young know it by heart.", "")),
    ]
    return write_page(LIBRARY, notes_title(entity), paragraphs, _links(entity))


def outdated_page(entity: Entity, rng: random.Random) -> Page:
    """Return an archived copy of the article with wrong values, which says that it is outdated."""
    theme = entity.theme
    paragraphs = [
        f"This archived copy is outdated and kept for reference only. {entity.name} is {article(entity.noun)}; "
        f"{theme.pronoun} was said to be {theme.verb} in {fact_phrasing.wrong_year(entity, rng)}.",
        f"{capital(theme.statement.format(n=fact_phrasing.wrong_amount(entity, rng)))}. "
        "The current article is {name}.",
    ]
    return write_page(ARCHIVE, f"{entity.name} (archived copy)", paragraphs, _links(entity))


def maker_page(entity: Entity, rng: random.Random) -> Page:
    """Return the page on the maker: trade, birthplace, best-known work, prize."""
    role, distractor = entity.theme.role, entity.distractor
    early = "began with the {noun} {twin}, now half forgotten, but " if distractor and distractor.early else ""
    paragraphs = [
        f"{entity.maker.name} was {article(role)} born in {{birthplace}}.",
        f"The {role} {early}is best known for the {{noun}} {{name}}, and received the {{prize}} in "
        f"{entity.maker.prize_year}.",
        rng.choice(
            (
                f"Friends remember the {role} as patient and fond of long walks.",
                f"Letters of the {role} are kept in {{town}}.",
                "A portrait hangs in the town hall of {town}.",
            )
        ),
    ]
    return write_page(PEOPLE, entity.maker.name, paragraphs, _links(entity))


def distractor_page(entity: Entity, rng: random.Random) -> Page:
    """Return the page on the distractor.

    Raises:
        ValueError: If the entity has no distractor.
    """
    distractor, theme = entity.distractor, entity.theme
    if distractor is None:
        raise ValueError(f"{entity.name} has no distractor")
    maker = "{maker}, as an early work" if distractor.early else distractor.maker
    paragraphs = [
        f"{distractor.name} is {article(entity.noun)}. {fact_phrasing.capital_pronoun(entity)} was {theme.verb} in "
        f"{fact_phrasing.wrong_year(entity, rng)} by the {theme.role} {maker}.",
        f"{capital(theme.statement.format(n=fact_phrasing.wrong_amount(entity, rng)))}. "
        f"{fact_phrasing.capital_pronoun(entity)} should not be confused with {{name}}.",
    ]
    return write_page(ATLAS, distractor.name, paragraphs, _links(entity))


def birthplace_page(entity: Entity, rng: random.Random) -> Page:
    """Return the page on the maker's birthplace."""
    text = rng.choice(
        (
            f"{entity.maker.birthplace} is a village. The {entity.theme.role} {{maker}} was born here, and a lane "
            "carries the name.",
            f"{entity.maker.birthplace} is a quiet village and the birthplace of the {entity.theme.role} {{maker}}.",
        )
    )
    return write_page(GAZETTEER, entity.maker.birthplace, [text], _links(entity))


def prize_page(group: CategoryEntities) -> Page:
    """Return the page on the prize of a trade, with its winners by number or by year."""
    entities, role = group.all_entities, group.theme.role
    prize = entities[0].maker.prize
    values: dict[str, str | Link] = {f"maker{entity.maker.turn}": _links(entity)["maker"] for entity in entities}
    rows = [
        f"The {ORDINALS[entity.maker.turn]} {prize.name} went to {{maker{entity.maker.turn}}}."
        if prize.counted
        else f"In {entity.maker.prize_year} it was given to {{maker{entity.maker.turn}}}."
        for entity in entities
    ]
    opening = f"The {prize.name} has been given to {article(role)} every few years since {prize.years[0]}."
    return write_page(HONOURS, prize.name, [opening, " ".join(rows)], values)


def town_page(town: str, entities: Sequence[Entity]) -> Page:
    """Return the page on a town, with its entities."""
    values: dict[str, str | Link] = {f"name{at}": _links(entity)["name"] for at, entity in enumerate(entities)}
    entries = [f"the {entity.noun} {{name{at}}}" for at, entity in enumerate(entities)]
    text = f"{town} is a town known for {listing(entries)}." if entries else f"{town} is a town with a weekly market."
    return write_page(GAZETTEER, town, [text], values)


def category_pages(group: CategoryEntities, rng: random.Random) -> Iterator[Page]:
    """Yield the pages of one category, except those on towns."""
    yield prize_page(group)
    for entity in (*group.subjects, *group.bystanders):
        yield article_page(entity, rng)
        yield notes_page(entity, rng)
        yield maker_page(entity, rng)
        yield birthplace_page(entity, rng)
        if entity.distractor:
            yield outdated_page(entity, rng)
            yield distractor_page(entity, rng)
