"""The changes, each with the dimensions that must fall and those that may fall with it.

All others must stay. What must fall follows from what the KnowGen rubric asks of each dimension: faithfulness that the
prompt's things and place are there, visual correctness that the subjects look like those of the ground truth, text
accuracy that every required text is there and right, aesthetics how polished the picture is beside the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.core.records import DIMENSIONS, TEXT

REVISION = "1"
"""Raised when any change would give another picture."""

FAITHFULNESS, VISUAL, _, AESTHETICS = DIMENSIONS


@dataclass(frozen=True, slots=True)
class Change:
    """A known change to a ground-truth picture.

    Attributes:
        name: Its name.
        words: What is done, for readers.
        falls: Dimensions that a judge must mark down.
        may: Dimensions that may fall with them; how a judge moves them says nothing about it.
        why_may: Why they may.
    """

    name: str
    words: str
    falls: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    why_may: str = ""


NOTHING = Change("nothing", "the ground truth itself, its pixels encoded anew")
DIGIT = Change("digit", "one digit of a required text is another", falls=(TEXT,))
NAME = Change("name", "a name on the sign is another", falls=(TEXT,))
SWAPPED = Change("swapped subject", "a subject is drawn as its look-alike", falls=(VISUAL,))
MISSING = Change(
    "missing subject",
    "a subject is left out",
    falls=(FAITHFULNESS, VISUAL),
    may=(AESTHETICS,),
    why_may="a picture with a hole in its middle is less well composed",
)
BLUR = Change(
    "blur",
    "the whole picture is blurred",
    falls=(AESTHETICS,),
    may=(VISUAL, TEXT),
    why_may="marks and letters that cannot be made out cannot be confirmed",
)
COLOUR = Change(
    "colour shift",
    "the hue of the whole picture is turned by a third of the colour circle",
    falls=(VISUAL,),
    may=(FAITHFULNESS, AESTHETICS),
    why_may="a place in foreign colours can pass for another place, and for an ugly one",
)
LAYOUT = Change("layout", "the same place, subjects and texts, arranged otherwise")

CHANGES: tuple[Change, ...] = (NOTHING, DIGIT, NAME, SWAPPED, MISSING, BLUR, COLOUR, LAYOUT)
"""All changes, `nothing` first: a judge's reading of it is what the others are compared with."""
