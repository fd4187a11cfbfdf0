"""Samples and their ground truths: the subjects, the clues that lead to them, and the required text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowgen.core.records import Sample, group_of
from knowgen.worlds.content.difficulty import ASKS, HEADING_CHANCE, HOPS, NAME_ASKED_CHANCE, RECIPE_VERSION
from knowgen.worlds.content.entities import CategoryEntities, Entity
from knowgen.worlds.content.facts import Clue, Fact, entity_clues, entity_facts
from knowgen.worlds.content.prompts import HEADINGS, PromptBrief, write_prompt
from knowgen.worlds.content.seeds import WorldSeed, layout_key
from knowgen.worlds.rendering.signs import SURFACES

_ARTICLE_FACTS = ("year", "maker", "figure", "label", "town")
_MAKER_FACTS = ("birthplace", "prize year")
"""Facts on the maker's page."""

_SHARED_FACTS = ("name", "year", "town")
"""Facts that can be asked of several subjects at once."""


@dataclass(frozen=True)
class PlannedSample:
    """A sample with the data of its ground truth.

    Attributes:
        sample: The public sample.
        subjects: Entities shown, from left to right.
        required_text: Strings that must be readable, in the order of the lines.
        lines: Lines of the sign in the ground-truth image.
        scene: Name of the scene.
        surface: Name of the sign's surface.
        evidence: URLs of all pages that lead to the subjects or state the facts.
        hops: Number of pages to each subject.
        layout: What the layout of the ground-truth image is drawn from.
    """

    sample: Sample
    subjects: tuple[Entity, ...]
    required_text: tuple[str, ...]
    lines: tuple[str, ...]
    scene: str
    surface: str
    evidence: tuple[str, ...]
    hops: tuple[int, ...]
    layout: str


@dataclass(frozen=True)
class _SignContent:
    questions: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()


def sample_id(seed: WorldSeed, shard: int, category: str) -> str:
    """Return an opaque id of 16 hex digits."""
    text = f"sample\0{RECIPE_VERSION}\0{seed}\0{shard}\0{category}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_sample(
    group: CategoryEntities, seed: WorldSeed, shard: int, *, textless: bool, rng: random.Random
) -> PlannedSample:
    """Plan the sample of a category in a shard."""
    theme, subjects = group.theme, group.subjects
    difficulty = subjects[0].difficulty
    clues = [rng.choice(entity_clues(entity, rng.choice(HOPS[difficulty]))) for entity in subjects]
    if textless:
        content = _SignContent()
    elif theme.multi:
        content = _shared_content(subjects, clues, rng)
    else:
        content = _single_subject_content(subjects[0], clues[0], rng)
    heading = rng.choice(HEADINGS) if content.questions and rng.random() < HEADING_CHANCE else ""
    scene, surface = rng.choice(theme.scenes), rng.choice(SURFACES)
    brief = PromptBrief(
        subjects=[clue.words for clue in clues],
        floating=all(entity.appearance.floats for entity in subjects),
        pronoun=theme.pronoun,
        questions=content.questions,
        heading=heading,
        scene=scene,
        surface=surface,
    )
    heading_lines = (heading,) if heading else ()
    sample = Sample(
        id=sample_id(seed, shard, theme.category),
        prompt=write_prompt(brief, rng),
        category=theme.category,
        group=group_of(theme.category),
        difficulty=difficulty,
        text_required=bool(content.questions),
    )
    return PlannedSample(
        sample=sample,
        subjects=subjects,
        required_text=heading_lines + content.values,
        lines=heading_lines + content.lines,
        scene=scene,
        surface=surface,
        evidence=_unique((*(page for clue in clues for page in clue.pages), *content.pages)),
        hops=tuple(clue.hops for clue in clues),
        layout=layout_key(seed, sample.id),
    )


def _single_subject_content(entity: Entity, clue: Clue, rng: random.Random) -> _SignContent:
    """Choose the facts on the sign for one subject; facts that the clue states are left out."""
    facts = entity_facts(entity)
    pool = _ARTICLE_FACTS if entity.difficulty == "easy" else _ARTICLE_FACTS + _MAKER_FACTS
    keys = [key for key in pool if key not in clue.gives]
    selected_keys = rng.sample(keys, rng.choice(ASKS[entity.difficulty]))
    if "name" not in clue.gives and rng.random() < NAME_ASKED_CHANCE:
        selected_keys.insert(0, "name")
    selection = [facts[key] for key in selected_keys]
    return _SignContent(
        questions=tuple(fact.question for fact in selection),
        values=tuple(fact.value for fact in selection),
        lines=tuple(fact.line for fact in selection),
        pages=tuple(page for fact in selection for page in fact.pages),
    )


def _shared_content(entities: Sequence[Entity], clues: Sequence[Clue], rng: random.Random) -> _SignContent:
    """Choose the facts on the sign for several subjects: one line per subject, from left to right."""
    stated_keys = frozenset().union(*(clue.gives for clue in clues))
    keys = [key for key in _SHARED_FACTS if key not in stated_keys]
    count = 2 if entities[0].difficulty == "hard" and len(keys) > 1 else 1
    selection = set(rng.sample(keys, count))
    selected_keys = [key for key in keys if key in selection]
    theme = entities[0].theme
    questions = {
        "name": "the name of each of them",
        "year": f"the year in which each of them was {theme.verb}",
        "town": f"the town that each of them {theme.home}",
    }
    rows: list[list[Fact]] = [[entity_facts(entity)[key] for key in selected_keys] for entity in entities]
    return _SignContent(
        questions=(" with ".join(questions[key] for key in selected_keys) + ", from left to right",),
        values=_unique(fact.value for row in rows for fact in row),
        lines=tuple(", ".join(fact.line for fact in row) for row in rows),
        pages=tuple(page for row in rows for fact in row for page in fact.pages),
    )


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    """Return the items in order, without duplicates."""
    return tuple(dict.fromkeys(items))
