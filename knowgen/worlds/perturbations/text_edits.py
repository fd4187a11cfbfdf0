"""Wrong digits and wrong names for a sign, chosen so that nothing except the letters changes.

The size of a sign and the space beside it depend on its text. A replacement is therefore accepted only if every layout
would set the changed lines in the same font sizes on a sign of the same size.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from knowgen.worlds.content.names import GIVEN_NAMES, fold, is_usable, spell
from knowgen.worlds.content.prompts import HEADINGS
from knowgen.worlds.perturbations.originals import OriginalSample
from knowgen.worlds.rendering.layouts import TRUTH_LAYOUTS
from knowgen.worlds.rendering.signs import sign_size, text_space
from knowgen.worlds.rendering.typeset import fit_text, text_width, tidy_lines

_NAMES_GENERATED, _NAMES_TRIED = 240, 60
_MEASURED_SIZE = 40

_Setting = tuple[tuple[int, ...], tuple[int, int]]


@dataclass(frozen=True)
class TextEdit:
    """A change to the text of a sign.

    Attributes:
        right: The required text.
        wrong: Its replacement.
        lines: All lines of the changed sign.
    """

    right: str
    wrong: str
    lines: tuple[str, ...]


def wrong_digit(original: OriginalSample, rng: random.Random) -> TextEdit | None:
    """Change one digit of one required text; return None if no required text has a digit."""
    texts = [text for text in _texts_on_sign_once(original) if any(map(str.isdigit, text))]
    rng.shuffle(texts)
    for text in texts:
        for wrong in _other_digits(text, rng):
            if edit := _make_edit(original, text, wrong):
                return edit
    return None


def wrong_name(original: OriginalSample, rng: random.Random) -> TextEdit | None:
    """Replace the last word of a required name with a generated one.

    Names of subjects are preferred, then of people, then of places and titles; headings are not names. Return None if
    the sign shows no name or no generated name fits in its place.
    """
    texts = [text for text in _texts_on_sign_once(original) if text[0].isalpha() and text not in HEADINGS]
    rng.shuffle(texts)
    texts.sort(key=lambda text: (text not in original.names, text.split()[0] not in GIVEN_NAMES))
    for text in texts:
        first, last = text.rpartition(" ")[0], text.rpartition(" ")[2]
        for name in _other_names(last, rng):
            if edit := _make_edit(original, text, f"{first} {name}".strip()):
                return edit
    return None


def _texts_on_sign_once(original: OriginalSample) -> list[str]:
    """Return the required texts that appear on the sign exactly once, so that one change makes each of them wrong."""
    sign_text = " \n ".join(original.lines)
    return [text for text in original.truth.required_text if text and len(_word_pattern(text).findall(sign_text)) == 1]


def _word_pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _other_digits(text: str, rng: random.Random) -> Iterator[str]:
    """Yield the text with one digit replaced, in random order; no number begins with 0 as a result."""
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
    """Return generated names, those nearest in width first."""
    start = rng.randrange(1 << 20)
    seed = rng.randrange(1 << 30)
    generated = (spell(number, seed) for number in range(start, start + _NAMES_GENERATED))
    candidates = [other for other in generated if is_usable(other) and fold(other)[:2] != fold(name)[:2]]
    width = text_width(name, _MEASURED_SIZE)
    return sorted(candidates, key=lambda other: abs(text_width(other, _MEASURED_SIZE) - width))[:_NAMES_TRIED]


def _make_edit(original: OriginalSample, right: str, wrong: str) -> TextEdit | None:
    """Return the edit that writes `wrong` for `right`; None if it changes the layout or is a required text."""
    sign_text = " \n ".join(original.lines)
    if any(_word_pattern(wrong).search(text) for text in (sign_text, *original.truth.required_text)):
        return None
    lines = tuple(_word_pattern(right).sub(lambda _match: wrong, line) for line in original.lines)
    return TextEdit(right, wrong, lines) if _same_layout(original, lines) else None


def _same_layout(original: OriginalSample, lines: tuple[str, ...]) -> bool:
    """Return whether every layout sets the lines in the font sizes and sign size of the original."""
    count = len(original.appearances)
    return _typeset_sizes(original.lines, original.surface, count) == _typeset_sizes(lines, original.surface, count)


@lru_cache(maxsize=256)
def _typeset_sizes(lines: tuple[str, ...], surface: str, count: int) -> tuple[_Setting | None, ...]:
    """Return, for each layout, the font sizes of the rows and the size of the sign; None if the lines do not fit."""
    settings: list[_Setting | None] = []
    for layout in TRUTH_LAYOUTS:
        block = fit_text(tidy_lines(lines), *text_space(surface, layout.limit(count)))
        sizes = None if block is None else tuple(row.size for row in block.rows)
        settings.append(None if block is None or sizes is None else (sizes, sign_size(surface, block)))
    return tuple(settings)
