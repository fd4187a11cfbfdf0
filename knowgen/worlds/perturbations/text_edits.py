"""Wrong digits and wrong names for a sign, chosen so that nothing but the letters themselves moves.

A sign grows with its text, and what stands beside it makes room. So a substitute counts only when every layout would
set the changed lines in the same sizes on a sign of the same size.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from knowgen.worlds.content.names import GIVEN_NAMES, fold, is_fit, spell
from knowgen.worlds.content.prompts import HEADINGS
from knowgen.worlds.perturbations.originals import OriginalSample
from knowgen.worlds.rendering.layouts import TRUTH_LAYOUTS
from knowgen.worlds.rendering.signs import sign_size, text_space
from knowgen.worlds.rendering.typeset import fit_text, text_width, tidy_lines

_NAMES_MADE, _NAMES_TRIED = 240, 60
_MEASURED_SIZE = 40

_Setting = tuple[tuple[int, ...], tuple[int, int]]


@dataclass(frozen=True)
class TextEdit:
    """What a sign says instead.

    Attributes:
        right: The required text.
        wrong: What stands in its place.
        lines: All lines of the changed sign.
    """

    right: str
    wrong: str
    lines: tuple[str, ...]


def wrong_digit(original: OriginalSample, rng: random.Random) -> TextEdit | None:
    """Changes one digit of one required text; None where no required text holds a digit."""
    texts = [text for text in _once_on_sign(original) if any(map(str.isdigit, text))]
    rng.shuffle(texts)
    for text in texts:
        for wrong in _other_digits(text, rng):
            if edit := _edited(original, text, wrong):
                return edit
    return None


def wrong_name(original: OriginalSample, rng: random.Random) -> TextEdit | None:
    """Exchanges the last word of a required name for a made-up one.

    A subject's name comes first, then a person's, then a place's or a title. None where the sign shows no name, or no
    made-up one fits in its place. Headings are no names.
    """
    texts = [text for text in _once_on_sign(original) if text[0].isalpha() and text not in HEADINGS]
    rng.shuffle(texts)
    texts.sort(key=lambda text: (text not in original.names, text.split()[0] not in GIVEN_NAMES))
    for text in texts:
        first, last = text.rpartition(" ")[0], text.rpartition(" ")[2]
        for name in _other_names(last, rng):
            if edit := _edited(original, text, f"{first} {name}".strip()):
                return edit
    return None


def _once_on_sign(original: OriginalSample) -> list[str]:
    """Returns the required texts that stand on the sign exactly once, so that one change makes each of them wrong."""
    written = " \n ".join(original.lines)
    return [text for text in original.truth.required_text if text and len(_places(text).findall(written)) == 1]


def _places(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _other_digits(text: str, rng: random.Random) -> Iterator[str]:
    """Yields the text with one digit exchanged, in random order; a number does not come to begin with 0."""
    swaps = [
        (place, digit)
        for place, letter in enumerate(text)
        if letter.isdigit()
        for digit in "0123456789"
        if digit != letter and not (digit == "0" and not text[:place][-1:].isdigit())
    ]
    rng.shuffle(swaps)
    for place, digit in swaps:
        yield f"{text[:place]}{digit}{text[place + 1 :]}"


def _other_names(name: str, rng: random.Random) -> list[str]:
    """Returns made-up names, those nearest in width first."""
    start = rng.randrange(1 << 20)
    seed = rng.randrange(1 << 30)
    candidates = [
        name_candidate for number in range(start, start + _NAMES_MADE) if is_fit(name_candidate := spell(number, seed))
    ]
    target_width = text_width(name, _MEASURED_SIZE)
    unlike = [name_candidate for name_candidate in candidates if fold(name_candidate)[:2] != fold(name)[:2]]
    return sorted(unlike, key=lambda name_candidate: abs(text_width(name_candidate, _MEASURED_SIZE) - target_width))[
        :_NAMES_TRIED
    ]


def _edited(original: OriginalSample, right: str, wrong: str) -> TextEdit | None:
    """Writes the wrong text in place of the right one; None where that would move things, or be right after all."""
    written = " \n ".join(original.lines)
    if any(_places(wrong).search(text) for text in (written, *original.truth.required_text)):
        return None
    lines = tuple(_places(right).sub(lambda _match: wrong, line) for line in original.lines)
    return TextEdit(right, wrong, lines) if _set_alike(original, lines) else None


def _set_alike(original: OriginalSample, lines: tuple[str, ...]) -> bool:
    """Tells whether every layout would set the lines like the original's, on a sign of the same size."""
    count = len(original.appearances)
    return _settings(original.lines, original.surface, count) == _settings(lines, original.surface, count)


@lru_cache(maxsize=256)
def _settings(lines: tuple[str, ...], surface: str, count: int) -> tuple[_Setting | None, ...]:
    """Returns, for each layout, the sizes of the rows and of the sign; None where the lines do not fit."""
    settings: list[_Setting | None] = []
    for layout in TRUTH_LAYOUTS:
        block = fit_text(tidy_lines(lines), *text_space(surface, layout.limit(count)))
        sizes = None if block is None else tuple(row.size for row in block.rows)
        settings.append(None if block is None or sizes is None else (sizes, sign_size(surface, block)))
    return tuple(settings)
