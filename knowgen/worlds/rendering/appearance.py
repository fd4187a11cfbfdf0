"""Appearance of an entity as a few plain values, and its rendering."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.rendering import creatures, heraldry, machines, nature, people, structures
from knowgen.worlds.rendering.brush import APPEARANCE_MARGIN, APPEARANCE_SPAN, SYMBOLS, Brush
from knowgen.worlds.rendering.canvas import PATTERNS, Canvas
from knowgen.worlds.rendering.colours import PALETTES, Colour, mix

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "beings": ("person", "creature", "robot"),
        "nature": ("planet", "plant", "crystal", "island"),
        "machines": ("device", "airship", "ship"),
        "structures": ("building", "shrine"),
        "heraldry": ("crest", "flag"),
        "crafts": ("mask", "vase"),
    }
)
"""Kinds of entities by family."""

KINDS: tuple[str, ...] = tuple(kind for family in FAMILIES.values() for kind in family)
"""All kinds that can be drawn."""

FLOATING_KINDS: frozenset[str] = frozenset({"planet", "airship"})
"""Kinds that float in the air and cast no shadow."""

KIND_NOUNS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("person", "heroine", "hero", "singer", "actor", "actress", "dancer", "athlete"), "person"),
        **dict.fromkeys(("footballer", "runner", "skater", "swimmer", "juggler"), "person"),
        **dict.fromkeys(("creature", "animal", "mascot", "monster", "beast"), "creature"),
        **dict.fromkeys(("robot", "automaton"), "robot"),
        **dict.fromkeys(("planet", "moonlet"), "planet"),
        **dict.fromkeys(("plant", "flower", "blossom", "herb"), "plant"),
        **dict.fromkeys(("crystal", "mineral", "gemstone"), "crystal"),
        **dict.fromkeys(("island", "isle", "mountain", "volcano"), "island"),
        **dict.fromkeys(("device", "instrument", "apparatus", "machine"), "device"),
        **dict.fromkeys(("airship", "zeppelin"), "airship"),
        **dict.fromkeys(("ship", "boat", "vessel", "schooner"), "ship"),
        **dict.fromkeys(("building", "tower", "castle", "palace"), "building"),
        **dict.fromkeys(("shrine", "temple", "sanctuary", "pavilion"), "shrine"),
        **dict.fromkeys(("crest", "badge", "shield"), "crest"),
        **dict.fromkeys(("flag", "pennant"), "flag"),
        "mask": "mask",
        **dict.fromkeys(("vase", "urn", "amphora"), "vase"),
    }
)
"""Nouns of prompts and the kind that each names; plurals end in s."""

FEATURE_COUNT = 6
_FEATURE_SPAN = 60
"""Features are 0 to 59: 60 is divisible by all numbers of variants except 7, so variants are about equally frequent."""

_ROLES = 3
_DRAW: Mapping[str, Callable[[Brush], None]] = MappingProxyType(
    {
        "person": people.draw_person,
        "creature": creatures.draw_creature,
        "robot": creatures.draw_robot,
        "planet": nature.draw_planet,
        "plant": nature.draw_plant,
        "crystal": nature.draw_crystal,
        "island": nature.draw_island,
        "device": machines.draw_device,
        "airship": machines.draw_airship,
        "ship": machines.draw_ship,
        "building": structures.draw_building,
        "shrine": structures.draw_shrine,
        "crest": heraldry.draw_crest,
        "flag": heraldry.draw_flag,
        "mask": creatures.draw_mask,
        "vase": heraldry.draw_vase,
    }
)

DISTRACTOR_RANGE = (0.07, 0.70)
"""Minimum and maximum share of the drawn pixels in which a distractor differs."""

_SEARCH_RANGE = (0.11, 0.62)
"""Narrower than `DISTRACTOR_RANGE`, since the share varies by up to 0.08 between sizes of 96 and 216 pixels."""

_BACKDROPS: tuple[Colour, ...] = tuple(
    mix(palette.light, palette.main, share) for palette in PALETTES for share in (0.0, 0.15, 0.25)
)
_BACKDROP_APART = 24
"""Minimum difference, in at least one channel, 0-255, of a backdrop from each colour of the appearance on it."""

_MEASURED_SIZE = 110
_CLEAR_CHANGE = 40
_DISTRACTOR_TRIES = 80


@dataclass(frozen=True, slots=True)
class Appearance:
    """All values that decide how an entity is drawn.

    Attributes:
        kind: One of `KINDS`.
        palette: Index into the palettes.
        rotation: Index of the main colour among the palette's first three, 0-2.
        pattern: One of the patterns, such as `stripes`.
        symbol: One of the symbols, such as `moon`.
        features: Six integers of at least 0; each selects a variant of some part.
    """

    kind: str
    palette: int
    rotation: int
    pattern: str
    symbol: str
    features: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_name("kind", self.kind, KINDS)
        _require_name("pattern", self.pattern, PATTERNS)
        _require_name("symbol", self.symbol, SYMBOLS)
        _require_index("palette", self.palette, len(PALETTES))
        _require_index("rotation", self.rotation, _ROLES)
        valid = all(type(feature) is int and feature >= 0 for feature in self.features)
        if len(self.features) != FEATURE_COUNT or not valid:
            raise DataError(
                f"features are {list(self.features)!r}",
                where="look.features",
                fix=f"give {FEATURE_COUNT} whole numbers of at least 0",
            )

    def to_dict(self) -> dict[str, object]:
        """Return the appearance as JSON data."""
        return {
            "kind": self.kind,
            "palette": self.palette,
            "rotation": self.rotation,
            "pattern": self.pattern,
            "symbol": self.symbol,
            "features": list(self.features),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Appearance:
        """Return the appearance from the data of `to_dict`.

        Raises:
            DataError: If a field is missing, unknown or out of range.
        """
        names = ("kind", "palette", "rotation", "pattern", "symbol", "features")
        if set(data) != set(names):
            wrong = sorted(set(names) ^ {str(name) for name in data})
            what = f"missing or unknown fields: {', '.join(wrong)}"
            raise DataError(what, where="look", fix="give " + ", ".join(names))
        features = data["features"]
        if not isinstance(features, list | tuple):
            raise DataError(f"features are {features!r}", where="look.features", fix="give a list of whole numbers")
        kind, pattern, symbol = (_require_text(name, data[name]) for name in ("kind", "pattern", "symbol"))
        palette, rotation = (_require_whole(name, data[name]) for name in ("palette", "rotation"))
        return cls(kind, palette, rotation, pattern, symbol, tuple(features))

    @property
    def floats(self) -> bool:
        """Whether it floats in the air instead of standing on the ground."""
        return self.kind in FLOATING_KINDS


def _require_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} is {value!r}", where=f"look.{name}", fix="give a name")
    return value


def _require_whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{name} is {value!r}", where=f"look.{name}", fix="give a whole number")
    return value


def _require_name(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"unknown {field} {value!r}", where=f"look.{field}", fix="use one of " + ", ".join(choices))


def _require_index(field: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise DataError(f"{field} is {value}", where=f"look.{field}", fix=f"use 0 to {count - 1}")


def random_appearance(kind: str, rng: random.Random) -> Appearance:
    """Return an appearance of a kind with random values.

    Raises:
        DataError: If the kind is unknown.
    """
    return Appearance(
        kind=kind,
        palette=rng.randrange(len(PALETTES)),
        rotation=rng.randrange(_ROLES),
        pattern=rng.choice(PATTERNS),
        symbol=rng.choice(SYMBOLS),
        features=tuple(rng.randrange(_FEATURE_SPAN) for _ in range(FEATURE_COUNT)),
    )


def draw_appearance(appearance: Appearance, size: int) -> Image.Image:
    """Draw an appearance on a transparent background.

    Args:
        appearance: Appearance to draw.
        size: Width and height in pixels, at least 1.

    Returns:
        An RGBA image with identical pixels in every process.

    Example:
        >>> vase = Appearance("vase", palette=3, rotation=0, pattern="dots", symbol="moon", features=(0, 1, 2, 0, 1, 0))
        >>> draw_appearance(vase, 64).size
        (64, 64)
    """
    palette = PALETTES[appearance.palette]
    roles = [palette[(role + appearance.rotation) % _ROLES] for role in range(_ROLES)]
    canvas = Canvas((size, size), size / APPEARANCE_SPAN, margin=APPEARANCE_MARGIN)
    brush = Brush(
        canvas,
        main=roles[0],
        second=roles[1],
        accent=roles[2],
        light=palette.light,
        ink=palette.ink,
        pattern=appearance.pattern,
        symbol=appearance.symbol,
        features=appearance.features,
    )
    _DRAW[appearance.kind](brush)
    return canvas.finish()


def visible_difference(first: Appearance, second: Appearance, size: int = _MEASURED_SIZE) -> float:
    """Return the share (0-1) of drawn pixels that differ clearly between two appearances.

    A pixel is drawn if either appearance covers more than half of it, and differs clearly if any of its four channels
    differs by more than 40 of 255.
    """
    return _changed_share(_channels(first, size), _channels(second, size))


def _channels(appearance: Appearance, size: int) -> NDArray[np.int16]:
    return np.asarray(draw_appearance(appearance, size)).astype(np.int16)


def _changed_share(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    drawn = (one[..., 3] > 128) | (other[..., 3] > 128)
    changed = (np.abs(one - other).max(axis=2) > _CLEAR_CHANGE) & drawn
    return float(changed.sum() / max(1, drawn.sum()))


def make_distractor(appearance: Appearance, rng: random.Random) -> Appearance:
    """Return an appearance that is easily mistaken for a given one: same kind and palette, with visible changes.

    Two of five properties change: the roles of the colours, the pattern, the symbol, and one or two features. The
    result differs in 7 to 70 % of the drawn pixels (`visible_difference`) at 96 pixels and more.

    Raises:
        DataError: If no such appearance is found, which would be an error in the drawing of that kind.
    """
    drawn = _channels(appearance, _MEASURED_SIZE)
    for _ in range(_DISTRACTOR_TRIES):
        candidate = _random_variation(appearance, rng)
        share = _changed_share(drawn, _channels(candidate, _MEASURED_SIZE))
        if _SEARCH_RANGE[0] <= share <= _SEARCH_RANGE[1]:
            return candidate
    raise DataError(f"no distractor found for {appearance}", where="make_distractor", fix="use another appearance")


def _random_variation(appearance: Appearance, rng: random.Random) -> Appearance:
    changes = rng.sample(("rotation", "pattern", "symbol", "feature", "other feature"), 2)
    features = list(appearance.features)
    for change in changes:
        if "feature" in change:
            features[rng.randrange(FEATURE_COUNT)] += 1
    varied = replace(appearance, features=tuple(features))
    if "rotation" in changes:
        varied = replace(varied, rotation=(appearance.rotation + rng.randrange(1, _ROLES)) % _ROLES)
    if "pattern" in changes:
        varied = replace(varied, pattern=rng.choice([name for name in PATTERNS if name != appearance.pattern]))
    if "symbol" in changes:
        varied = replace(varied, symbol=rng.choice([name for name in SYMBOLS if name != appearance.symbol]))
    return varied


def plain_backdrop(appearance: Appearance, rng: random.Random) -> Colour:
    """Return a pale backdrop colour that differs clearly from every colour of the appearance's palette.

    The appearance can be cut out of such a backdrop, since no pale part of it matches the backdrop.
    """
    own = PALETTES[appearance.palette]
    fitting = [
        backdrop
        for backdrop in _BACKDROPS
        if all(max(abs(a - b) for a, b in zip(backdrop, colour, strict=True)) > _BACKDROP_APART for colour in own)
    ]
    return rng.choice(fitting)
