"""The changes, each with the dimensions that must fall and those that may fall with it.

All others must stay. What must fall follows from what the KnowGen rubric asks of each dimension: faithfulness that the
prompt's things and place are there, visual correctness that the subjects look like those of the ground truth, text
accuracy that every required text is there and right, aesthetics how polished the picture is beside the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

from knowgen.records import DIMENSIONS, TEXT

REVISION = "1"
"""Raised when any change would give another picture."""

FAITHFULNESS, VISUAL, _, AESTHETICS = DIMENSIONS


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A known change to a ground-truth picture.

    Attributes:
        name: Its name.
        words: What is done, for readers.
        must_fall: Dimensions that a judge must mark down.
        may_fall: Dimensions that may fall with them; how a judge moves them says nothing about it.
        may_fall_reason: Why they may.
    """

    name: str
    description: str
    must_fall: tuple[str, ...] = ()
    may_fall: tuple[str, ...] = ()
    may_fall_reason: str = ""


UNCHANGED = Perturbation("nothing", "the ground truth itself, its pixels encoded anew")
DIGIT = Perturbation("digit", "one digit of a required text is another", must_fall=(TEXT,))
NAME = Perturbation("name", "a name on the sign is another", must_fall=(TEXT,))
SWAPPED = Perturbation("swapped subject", "a subject is drawn as its look-alike", must_fall=(VISUAL,))
MISSING = Perturbation(
    "missing subject",
    "a subject is left out",
    must_fall=(FAITHFULNESS, VISUAL),
    may_fall=(AESTHETICS,),
    may_fall_reason="a picture with a hole in its middle is less well composed",
)
BLUR = Perturbation(
    "blur",
    "the whole picture is blurred",
    must_fall=(AESTHETICS,),
    may_fall=(VISUAL, TEXT),
    may_fall_reason="marks and letters that cannot be made out cannot be confirmed",
)
COLOUR = Perturbation(
    "colour shift",
    "the hue of the whole picture is turned by a third of the colour circle",
    must_fall=(VISUAL,),
    may_fall=(FAITHFULNESS, AESTHETICS),
    may_fall_reason="a place in foreign colours can pass for another place, and for an ugly one",
)
LAYOUT = Perturbation("layout", "the same place, subjects and texts, arranged otherwise")

PERTURBATIONS: tuple[Perturbation, ...] = (UNCHANGED, DIGIT, NAME, SWAPPED, MISSING, BLUR, COLOUR, LAYOUT)
"""All changes, `nothing` first: a judge's reading of it is what the others are compared with."""
