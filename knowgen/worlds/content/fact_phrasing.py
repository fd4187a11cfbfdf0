"""Sentences that state facts: directly, or indirectly next to a wrong value."""

from __future__ import annotations

import random

from knowgen.worlds.content.difficulty import INDIRECT_FACT_CHANCE
from knowgen.worlds.content.entities import Entity

_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def year_sentence(entity: Entity, rng: random.Random) -> str:
    """Return a sentence on when and by whom an entity was made; the field `{maker}` is left to the page."""
    theme, year = entity.theme, entity.year
    they, by = capital_pronoun(entity), f"by the {theme.role} {{maker}}"
    if rng.random() >= INDIRECT_FACT_CHANCE[entity.difficulty]:
        return rng.choice(
            (
                f"{they} was {theme.verb} in {year} {by}.",
                f"In {year} {theme.pronoun} was {theme.verb} {by}.",
                f"{they} was {theme.verb} {by} in {year}.",
            )
        )
    earlier, wrong, gap = year - rng.randrange(2, 7), year + rng.choice((-8, -5, 4, 6)), rng.randrange(2, 9)
    return rng.choice(
        (
            f"{they} was announced in {earlier}, but only {theme.verb} in {year}, {by}.",
            f"{they} was {theme.verb} in {year}, although plans had been announced in {earlier}, {by}.",
            f"Guidebooks say that {theme.pronoun} was {theme.verb} in {wrong}; the town register corrects this to "
            f"{year}. {they} was {theme.verb} {by}.",
            f"The great fair of {{town}} took place in {year - gap}; {_COUNTS[gap]} years later {theme.pronoun} was "
            f"{theme.verb} {by}.",
        )
    )


def figure_sentence(entity: Entity, rng: random.Random) -> str:
    """Return a sentence that states the figure of an entity."""
    statement, amount = entity.theme.statement, entity.amount
    if rng.random() >= INDIRECT_FACT_CHANCE[entity.difficulty]:
        return rng.choice(
            (
                f"{statement.format(n=amount)}.",
                f"according to the last survey, {statement.format(n=amount)}.",
                f"as every schoolchild in {{town}} knows, {statement.format(n=amount)}.",
            )
        )
    wrong = f"{_other_figure(entity, rng)} {entity.theme.unit}"
    return rng.choice(
        (
            f"an old almanac gives {wrong}, yet by the last survey {statement.format(n=amount)}.",
            f"by the last survey {statement.format(n=amount)}; the old almanac still gives {wrong}.",
            f"it was long believed that {statement.format(n=wrong)}, until a survey found {amount}.",
        )
    )


def label_sentence(entity: Entity, rng: random.Random) -> str:
    """Return a sentence that quotes the label of an entity."""
    its = f"{entity.theme.possessive} {entity.theme.label}"
    if rng.random() >= INDIRECT_FACT_CHANCE[entity.difficulty]:
        return rng.choice(
            (
                f'{its} is "{entity.label}".',
                f'everybody knows {its}: "{entity.label}".',
                f'"{entity.label}" is {its}.',
            )
        )
    return rng.choice(
        (
            f'early papers carry the rejected "{entity.former_label}"; since then {its} has been "{entity.label}".',
            f'{its} is "{entity.label}", after an earlier "{entity.former_label}" had been turned down.',
            f'"{entity.former_label}" was only a working idea; {its} became "{entity.label}".',
        )
    )


def wrong_year(entity: Entity, rng: random.Random) -> int:
    """Return a wrong year close to the right one."""
    return entity.year + rng.choice((-9, -7, -3, 3, 7, 9))


def wrong_amount(entity: Entity, rng: random.Random) -> str:
    """Return a wrong figure close to the right one, with its unit."""
    return f"{_other_figure(entity, rng)} {entity.theme.unit}"


def capital_pronoun(entity: Entity) -> str:
    """Return the capitalised pronoun: It, She or He."""
    return entity.theme.pronoun.capitalize()


def _other_figure(entity: Entity, rng: random.Random) -> int:
    step = max(3, entity.figure // 20)
    return entity.figure + rng.choice((-1, 1)) * rng.randrange(1, 3) * step + rng.choice((0, 1))
