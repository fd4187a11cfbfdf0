"""Samples and their truths: which things a prompt shows, how it leads to them, and what it wants written."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knowgen.core.records import Sample, group_of
from knowgen.worlds import dials
from knowgen.worlds.drawing.signs import SURFACES
from knowgen.worlds.entities import Cast, Entity
from knowgen.worlds.facts import Clue, Fact, clues_to, facts_of
from knowgen.worlds.prompts import HEADINGS, Brief, write_prompt

_NEAR_FACTS = ("year", "maker", "figure", "label", "town")
_FAR_FACTS = ("birthplace", "prize year")
"""Facts that stand on the maker's page."""

_SHARED_FACTS = ("name", "year", "town")
"""Facts asked of several subjects at once."""


@dataclass(frozen=True)
class Planned:
    """A sample with all that its truth is made of.

    Attributes:
        sample: What is public.
        subjects: The things shown, from left to right.
        required_text: Strings that must be readable, in the order of the lines.
        lines: Lines of the sign as the ground truth writes them.
        scene: Name of the scene.
        surface: Name of the sign's surface.
        evidence: Addresses of all pages on the way to the subjects and of those that tell the facts.
        hops: Pages to each subject.
    """

    sample: Sample
    subjects: tuple[Entity, ...]
    required_text: tuple[str, ...]
    lines: tuple[str, ...]
    scene: str
    surface: str
    evidence: tuple[str, ...]
    hops: tuple[int, ...]


@dataclass(frozen=True)
class _Writing:
    asks: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()


def sample_id(seed: int, shard: int, category: str) -> str:
    """Returns an opaque id of 16 hex digits."""
    text = f"sample\0{dials.VERSION}\0{seed}\0{shard}\0{category}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_sample(cast: Cast, seed: int, shard: int, *, textless: bool, rng: random.Random) -> Planned:
    """Plans the sample of a category in a shard."""
    theme, subjects = cast.theme, cast.subjects
    difficulty = subjects[0].difficulty
    clues = [rng.choice(clues_to(entity, rng.choice(dials.HOPS[difficulty]))) for entity in subjects]
    if textless:
        writing = _Writing()
    elif theme.multi:
        writing = _write_shared(subjects, clues, rng)
    else:
        writing = _write_single(subjects[0], clues[0], rng)
    heading = rng.choice(HEADINGS) if writing.asks and rng.random() < dials.HEADING else ""
    scene, surface = rng.choice(theme.scenes), rng.choice(SURFACES)
    brief = Brief(
        subjects=[clue.words for clue in clues],
        floating=all(entity.look.floats for entity in subjects),
        pronoun=theme.pronoun,
        asks=writing.asks,
        heading=heading,
        scene=scene,
        surface=surface,
    )
    headed = (heading,) if heading else ()
    sample = Sample(
        id=sample_id(seed, shard, theme.category),
        prompt=write_prompt(brief, rng),
        category=theme.category,
        group=group_of(theme.category),
        difficulty=difficulty,
        text_required=bool(writing.asks),
    )
    return Planned(
        sample=sample,
        subjects=subjects,
        required_text=headed + writing.values,
        lines=headed + writing.lines,
        scene=scene,
        surface=surface,
        evidence=_once((*(page for clue in clues for page in clue.pages), *writing.pages)),
        hops=tuple(clue.hops for clue in clues),
    )


def _write_single(entity: Entity, clue: Clue, rng: random.Random) -> _Writing:
    """Chooses what the sign tells of one subject; facts that the clue gives away are left out."""
    facts = facts_of(entity)
    pool = _NEAR_FACTS if entity.difficulty == "easy" else _NEAR_FACTS + _FAR_FACTS
    keys = [key for key in pool if key not in clue.gives]
    chosen = rng.sample(keys, rng.choice(dials.ASKS[entity.difficulty]))
    if "name" not in clue.gives and rng.random() < dials.NAME_ASKED:
        chosen.insert(0, "name")
    picked = [facts[key] for key in chosen]
    return _Writing(
        asks=tuple(fact.ask for fact in picked),
        values=tuple(fact.value for fact in picked),
        lines=tuple(fact.line for fact in picked),
        pages=tuple(page for fact in picked for page in fact.pages),
    )


def _write_shared(entities: Sequence[Entity], clues: Sequence[Clue], rng: random.Random) -> _Writing:
    """Chooses what the sign tells of each of several subjects: one line a subject, from left to right."""
    given = frozenset().union(*(clue.gives for clue in clues))
    keys = [key for key in _SHARED_FACTS if key not in given]
    count = 2 if entities[0].difficulty == "hard" and len(keys) > 1 else 1
    picked = set(rng.sample(keys, count))
    chosen = [key for key in keys if key in picked]
    theme = entities[0].theme
    asks = {
        "name": "the name of each of them",
        "year": f"the year in which each of them was {theme.verb}",
        "town": f"the town that each of them {theme.home}",
    }
    rows: list[list[Fact]] = [[facts_of(entity)[key] for key in chosen] for entity in entities]
    return _Writing(
        asks=(" with ".join(asks[key] for key in chosen) + ", from left to right",),
        values=_once(fact.value for row in rows for fact in row),
        lines=tuple(", ".join(fact.line for fact in row) for row in rows),
        pages=tuple(page for row in rows for fact in row for page in fact.pages),
    )


def _once(items: Iterable[str]) -> tuple[str, ...]:
    """Returns the items in order, each once."""
    return tuple(dict.fromkeys(items))
