"""Colours: palettes for appearances and scenes, skin and hair tones, mixing."""

from __future__ import annotations

from typing import NamedTuple

Colour = tuple[int, int, int]
"""Red, green and blue, each 0-255."""


def rgb(digits: str) -> Colour:
    """Return the colour of six hexadecimal digits.

    Example:
        >>> rgb("e4572e")
        (228, 87, 46)
    """
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def mix(start: Colour, end: Colour, share: float) -> Colour:
    """Return the linear mix of two colours, `start` for a share of 0 and `end` for 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Return the perceived lightness of a colour, 0-255 (weights of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


class Palette(NamedTuple):
    """Five matching colours; the rotation of an appearance permutes the roles of the first three."""

    main: Colour
    second: Colour
    accent: Colour
    light: Colour
    ink: Colour


def _palette(digits: str) -> Palette:
    return Palette(*(rgb(code) for code in digits.split()))


PALETTES: tuple[Palette, ...] = tuple(
    _palette(digits)
    for digits in (
        "e4572e f3a712 29335c fff1d0 1d1f3a",
        "2a9d8f e9c46a e76f51 fdf6e3 16323a",
        "3d5a80 98c1d9 ee6c4d e0fbfc 1c2740",
        "6a4c93 c8a2ff ffca3a fbf3ff 2b1b42",
        "d81e5b f0b7a4 3a3335 fff0ec 33101e",
        "588157 a3b18a e09f3e f1f3e4 22331f",
        "0f7173 66d7c8 f05d5e e7ecef 102b30",
        "f28482 f6bd60 84a59d fff7ee 4a2a33",
        "264653 8ab17d f4a261 fefae0 0f1f26",
        "7b2d26 d7a86e 0b7a75 f7ecd9 2e120f",
        "4361ee 4cc9f0 f72585 eef6ff 141a4a",
        "bc6c25 dda15e 283618 fefae0 38210d",
        "ff6b6b ffe66d 4ecdc4 fffbe8 3b2a3f",
        "5f0f40 fb8b24 9a031e ffeedb 240618",
        "70c1b3 f7fff7 ff6f59 ffe9a8 1f3b4d",
        "8d99ae edf2f4 ef233c ffffff 2b2d42",
        "9b5de5 f15bb5 fee440 fdf0ff 331a52",
        "386641 a7c957 bc4749 f2e8cf 17301a",
        "c9ada7 f2e9e4 22577a fff8f3 33304a",
        "ffb4a2 e5989b 6d6875 ffefe6 3d3247",
        "006d77 83c5be e29578 edf6f9 06282c",
        "f4d35e ee964b 0d3b66 faf0ca 2a2440",
    )
)

SKIN_TONES: tuple[Colour, ...] = tuple(map(rgb, ("ffdcc2", "f2bd95", "c98a5e", "8d5a3a", "ffe8d6")))
HAIR_TONES: tuple[Colour, ...] = tuple(
    map(
        rgb,
        ("2b1d2e", "7a3b1e", "e0b04a", "c0392b", "4a69bd", "8e44ad", "2aa198", "f0f0f5", "f48fb1", "3c6e3c"),
    )
)
WHITE: Colour = (255, 255, 255)
GOLD: Colour = rgb("f2c14e")
LAMPLIGHT: Colour = rgb("ffe08a")
