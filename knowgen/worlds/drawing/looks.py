"""What a made-up thing looks like, as a few plain values, and how to draw it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from knowgen.core.errors import DataError
from knowgen.worlds.drawing import beings, heraldry, machines, nature, people, structures
from knowgen.worlds.drawing.brush import LOOK_MARGIN, LOOK_SPAN, SYMBOLS, Brush
from knowgen.worlds.drawing.colours import PALETTES, Colour, mix
from knowgen.worlds.drawing.pen import PATTERNS, Pen

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
"""Kinds by family."""

KINDS: tuple[str, ...] = tuple(kind for family in FAMILIES.values() for kind in family)
"""All kinds that can be drawn."""

FLOATING_KINDS: frozenset[str] = frozenset({"planet", "airship"})
"""Kinds that hang in the air: they cast no shadow on the ground."""

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
"""Nouns a prompt may use, and the kind each one names; plurals end in s."""

FEATURE_COUNT = 6
_FEATURE_SPAN = 60
"""Features are 0..59: 60 is divided by every number of variants but 7, so variants are all but equally frequent."""

_ROLES = 3
_DRAW: Mapping[str, Callable[[Brush], None]] = MappingProxyType(
    {
        "person": people.draw_person,
        "creature": beings.draw_creature,
        "robot": beings.draw_robot,
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
        "mask": beings.draw_mask,
        "vase": heraldry.draw_vase,
    }
)

LOOK_ALIKE_RANGE = (0.07, 0.70)
"""A look-alike changes at least and at most this share of the drawn pixels."""

_SEARCH_RANGE = (0.11, 0.62)
"""Narrower than `LOOK_ALIKE_RANGE`: the share moves with the drawing's size, by up to 0.08 from 96 to 216 pixels."""

_BACKDROPS: tuple[Colour, ...] = tuple(
    mix(palette.light, palette.main, share) for palette in PALETTES for share in (0.0, 0.15, 0.25)
)
_BACKDROP_APART = 24
"""Least difference, in some channel of 255, between a backdrop and each colour of the look on it."""

_MEASURED_SIZE = 110
_CLEAR_CHANGE = 40
_LOOK_ALIKE_TRIES = 80


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that decides how a thing is drawn.

    Attributes:
        kind: One of `KINDS`.
        palette: Index into the palettes.
        rotation: Which of the palette's first three colours is the main one, 0..2.
        pattern: One of the patterns, such as `stripes`.
        symbol: One of the symbols, such as `moon`.
        features: Six whole numbers of at least 0; each chooses among the variants of some part.
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
        sound = all(type(feature) is int and feature >= 0 for feature in self.features)
        if len(self.features) != FEATURE_COUNT or not sound:
            raise DataError(
                f"features are {list(self.features)!r}",
                where="look.features",
                fix=f"give {FEATURE_COUNT} whole numbers of at least 0",
            )

    def to_dict(self) -> dict[str, object]:
        """Returns the look as plain values, fit for JSON."""
        return {
            "kind": self.kind,
            "palette": self.palette,
            "rotation": self.rotation,
            "pattern": self.pattern,
            "symbol": self.symbol,
            "features": list(self.features),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Look:
        """Reads what `to_dict` wrote.

        Raises:
            DataError: A field is missing, unknown or out of range.
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
        """Whether it hangs in the air rather than stands on the ground."""
        return self.kind in FLOATING_KINDS


def _require_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} is {value!r}", where=f"look.{name}", fix="give a name")
    return value


def _require_whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{name} is {value!r}", where=f"look.{name}", fix="give a whole number")
    return value


def _require_name(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(f"unknown {field} {value!r}", where=f"look.{field}", fix="use one of " + ", ".join(known))


def _require_index(field: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise DataError(f"{field} is {value}", where=f"look.{field}", fix=f"use 0 to {count - 1}")


def random_look(kind: str, rng: random.Random) -> Look:
    """Returns a look of a kind, every other value drawn from `rng`.

    Raises:
        DataError: The kind is unknown.
    """
    return Look(
        kind=kind,
        palette=rng.randrange(len(PALETTES)),
        rotation=rng.randrange(_ROLES),
        pattern=rng.choice(PATTERNS),
        symbol=rng.choice(SYMBOLS),
        features=tuple(rng.randrange(_FEATURE_SPAN) for _ in range(FEATURE_COUNT)),
    )


def draw_look(look: Look, size: int) -> Image.Image:
    """Draws a look on a clear ground.

    Args:
        look: What to draw.
        size: Width and height in pixels, at least 1.

    Returns:
        An RGBA picture; the same pixels for the same arguments in every process.
    """
    palette = PALETTES[look.palette]
    roles = [palette[(role + look.rotation) % _ROLES] for role in range(_ROLES)]
    pen = Pen((size, size), size / LOOK_SPAN, margin=LOOK_MARGIN)
    brush = Brush(
        pen,
        main=roles[0],
        second=roles[1],
        accent=roles[2],
        light=palette.light,
        ink=palette.ink,
        pattern=look.pattern,
        symbol=look.symbol,
        features=look.features,
    )
    _DRAW[look.kind](brush)
    return pen.finish()


def visible_difference(first: Look, second: Look, size: int = _MEASURED_SIZE) -> float:
    """Returns the share of drawn pixels that differ clearly between two looks, 0..1.

    A pixel counts as drawn when either look covers it by more than half, and as clearly different when any of its
    four channels differs by more than 40 of 255.
    """
    return _changed_share(_channels(first, size), _channels(second, size))


def _channels(look: Look, size: int) -> NDArray[np.int16]:
    return np.asarray(draw_look(look, size)).astype(np.int16)


def _changed_share(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    drawn = (one[..., 3] > 128) | (other[..., 3] > 128)
    changed = (np.abs(one - other).max(axis=2) > _CLEAR_CHANGE) & drawn
    return float(changed.sum() / max(1, drawn.sum()))


def look_alike(look: Look, rng: random.Random) -> Look:
    """Returns a look easily taken for another: same kind and palette, a few things changed, visibly but not wholly.

    Two of five things change: the roles of the colours, the pattern, the symbol, and one or two features. The result
    differs in 7 to 70 % of the drawn pixels (`visible_difference`) at 96 pixels and more.

    Raises:
        DataError: No such look was found, which would be a fault in the recipe of that kind.
    """
    drawn = _channels(look, _MEASURED_SIZE)
    for _ in range(_LOOK_ALIKE_TRIES):
        candidate = _vary(look, rng)
        share = _changed_share(drawn, _channels(candidate, _MEASURED_SIZE))
        if _SEARCH_RANGE[0] <= share <= _SEARCH_RANGE[1]:
            return candidate
    raise DataError(f"no look-alike found for {look}", where="look_alike", fix="use another look")


def _vary(look: Look, rng: random.Random) -> Look:
    changes = rng.sample(("rotation", "pattern", "symbol", "feature", "other feature"), 2)
    features = list(look.features)
    for change in changes:
        if "feature" in change:
            features[rng.randrange(FEATURE_COUNT)] += 1
    varied = replace(look, features=tuple(features))
    if "rotation" in changes:
        varied = replace(varied, rotation=(look.rotation + rng.randrange(1, _ROLES)) % _ROLES)
    if "pattern" in changes:
        varied = replace(varied, pattern=rng.choice([name for name in PATTERNS if name != look.pattern]))
    if "symbol" in changes:
        varied = replace(varied, symbol=rng.choice([name for name in SYMBOLS if name != look.symbol]))
    return varied


def plain_backdrop(look: Look, rng: random.Random) -> Colour:
    """Returns a pale colour to show a look on, clearly apart from every colour of the look's own palette.

    On such a backdrop the look can be cut out again: no pale part of it is taken for backdrop.
    """
    own = PALETTES[look.palette]
    fitting = [
        backdrop
        for backdrop in _BACKDROPS
        if all(max(abs(a - b) for a, b in zip(backdrop, colour, strict=True)) > _BACKDROP_APART for colour in own)
    ]
    return rng.choice(fitting)
