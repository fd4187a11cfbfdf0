"""The words of the synthetic task `things`: syllables of names, colours, and the prompt.

They stand here because two parts read them that do not know each other: the task, and the small model for training on a
CPU, whose vocabulary has them.
"""

from __future__ import annotations

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeo"

SYLLABLES = tuple(consonant + vowel for consonant in CONSONANTS for vowel in VOWELS)
"""Syllables of names; a name has two, such as "ko ra"."""

COLOURS = {
    "red": (205, 45, 45),
    "blue": (45, 65, 210),
    "green": (40, 165, 65),
    "gold": (225, 185, 40),
    "pink": (235, 120, 195),
    "gray": (125, 125, 125),
}
"""Colours that a thing can have, as RGB values 0-255."""

PROMPT = "draw a "
"""What comes before the name in a prompt."""

PICTURE_URL = "https://things.example/picture.png"
"""Address of every picture: one that differed would say something about the picture."""
