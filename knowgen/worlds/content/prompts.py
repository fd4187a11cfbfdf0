"""Prompts from templates: what an image must show, with the required text quoted or only described."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from knowgen.worlds.content.entities import article
from knowgen.worlds.content.page_templates import capital, listing
from knowgen.worlds.rendering.scenes import SCENE_PREPOSITIONS, SCENE_WORDS
from knowgen.worlds.rendering.signs import SURFACE_WORDS

HEADINGS = (
    "Open Until Sunset", "Please Do Not Touch", "New This Season", "On Loan", "A Grand Welcome", "Did You Know",
    "Ask Our Guides", "Meet the Star", "From the Archive", "Today Only",
)  # fmt: skip
"""Headings that a prompt may quote; they give no information."""

_WITH_SIGN = (
    "A clean flat illustration set {in_scene}: {subject} {stands} in full view, and {sign}{heading} shows {asks}. "
    "Both the appearance and every written word must be correct.",
    "{In_scene}, {sign}{heading} gives {asks}; near it {stands} {subject}, drawn with the true colours and markings.",
    "Imagine the cover of a children's encyclopedia. {Subject} {stands} {in_scene}, and {sign}{heading} states {asks}, "
    "spelled exactly.",
    "Illustrate a visit to {scene} where {subject} can be seen up close. {Sign} beside the scene{heading} presents "
    "{asks}, each on a line of its own.",
    "Design a picture-book page. The setting is {scene}. In the foreground {stands} {subject}; look up what "
    "{they_look} before drawing. {Sign}{heading} shows {asks}, without a single wrong letter or digit.",
    "For a travelling exhibition, paint {subject} {in_scene} as anybody who has seen {them} would recognise {them}. "
    "{Sign}{heading} states {asks}. Keep the lettering large and plain.",
    "A friendly poster for a school corridor: {sign}{heading} presents {asks}, and {subject} {stands} {in_scene}, true "
    "to life in shape, pattern and emblem.",
)

_TEXTLESS = (
    "A cheerful storybook illustration of {scene} where {subject} {stands} in the foreground. Draw the true look, with "
    "the right colours, pattern and emblem, and no lettering anywhere.",
    "Show {subject} {in_scene}, as a picture-book artist would draw it. Every visible mark must be as it really is; "
    "the picture carries no words.",
    "A wordless panel for a frieze: {subject} {stands} {in_scene}. Shape, pattern and colours follow the real thing, "
    "and there is no writing of any kind.",
    "Paint {scene} on a calm day. {Subject} {stands} there in full view, exactly as known from photographs; leave out "
    "all letters and numbers.",
)


@dataclass(frozen=True)
class PromptBrief:
    """Content of a prompt.

    Attributes:
        subjects: Descriptions of the subjects, from left to right.
        floating: Whether the subjects float in the air.
        pronoun: it, she or he, for a single subject.
        questions: Phrases for what the sign must show, in order; empty for an image without text.
        heading: Heading of the sign, quoted in the prompt; empty for none.
        scene: Name of the scene.
        surface: Name of the sign's surface.
    """

    subjects: Sequence[str]
    floating: bool
    pronoun: str
    questions: Sequence[str]
    heading: str
    scene: str
    surface: str


def write_prompt(brief: PromptBrief, rng: random.Random) -> str:
    """Return the prompt of a brief, from a randomly chosen template."""
    several = len(brief.subjects) > 1
    subject, scene = listing(brief.subjects), article(SCENE_WORDS[brief.scene])
    in_scene = f"{SCENE_PREPOSITIONS[brief.scene]} {scene}"
    sign = article(SURFACE_WORDS[brief.surface])
    verb = "float" if brief.floating else "stand"
    template = rng.choice(_WITH_SIGN if brief.questions else _TEXTLESS)
    singular = {"it": "it", "she": "her", "he": "him"}[brief.pronoun]
    return template.format(
        subject=subject,
        Subject=capital(subject),
        stands=f"{verb} side by side" if several else f"{verb}s",
        scene=scene,
        in_scene=in_scene,
        In_scene=capital(in_scene),
        sign=sign,
        Sign=capital(sign),
        heading=f' headed "{brief.heading}"' if brief.heading else "",
        asks=listing(brief.questions) if brief.questions else "",
        them="them" if several else singular,
        they_look="they look like" if several else f"{brief.pronoun} looks like",
    )
