"""Generated names: pronounceable, legible in an image, and unique over all shards of a world.

A name is a number written in a system whose digits are syllables, so different numbers give different names. Each
shard owns a block of numbers; a seeded permutation distributes the blocks over all sounds. Names stay distinct after
`fold`, which merges the glyphs that text recognition confuses.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from knowgen.worlds.content.blocklist import is_blocked
from knowgen.worlds.content.seeds import WorldSeed

BLOCK = 448
"""Size of the block of numbers of a shard; about three quarters of them give usable names."""

_UNFIT = re.compile(r"rn|ll|ii|li|il|vv|(.)\1\1|[^aeiou]{4}|[aeiou]{3}(?!$)|^(.)(.)\2\3")
"""Letter sequences that are hard to read in an image or to pronounce."""


@dataclass(frozen=True)
class SoundFamily:
    """A set of syllables that sound alike.

    Attributes:
        onsets: Initial consonants of a syllable.
        vowels: Single vowels only, so that a name can be split in one way only.
        endings: Final parts; over all families, none is a suffix of another.
    """

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    endings: tuple[str, ...]

    def size(self, syllables: int) -> int:
        """Return the number of names with the given number of initial consonants."""
        return sum(self._size(ending, syllables) for ending in self.endings)

    def spell(self, number: int, syllables: int) -> str:
        """Return the lower-case name of a number, 0 <= number < size(syllables)."""
        for ending in self.endings:
            size = self._size(ending, syllables)
            if number < size:
                return self._stem(number, ending, syllables) + ending
            number -= size
        raise ValueError(f"number too large by {number}")

    def _size(self, ending: str, syllables: int) -> int:
        vowels = syllables - 1 if ending[0] in "aeiou" else syllables
        size: int = len(self.onsets) ** syllables * len(self.vowels) ** vowels
        return size

    def _stem(self, number: int, ending: str, syllables: int) -> str:
        stem = ""
        for position in range(syllables):
            number, onset = divmod(number, len(self.onsets))
            stem += self.onsets[onset]
            if position < syllables - 1 or ending[0] not in "aeiou":
                number, vowel = divmod(number, len(self.vowels))
                stem += self.vowels[vowel]
        return stem


def _family(onsets: str, vowels: str, endings: str) -> SoundFamily:
    return SoundFamily(tuple(onsets.split()), tuple(vowels.split()), tuple(endings.split()))


FAMILIES = (
    _family("b br d dr g gr h k m r t th v", "a o u e", "ar ok und oth"),
    _family("b d f l m n p s v z", "a e i o", "ela ame esa ino"),
    _family("k m n r s sh t h y z", "a i u o e", "kem una zeth ren"),
    _family("d f g m n p r w t b", "e a o", "wyn dale dow wick"),
    _family("j k p r t x z ch", "a e o u", "tec ax ozan uk"),
    _family("b d f g m n r s t v l", "a e o u", "eau ande ac ombe ois"),
    _family("dr k pr st t v z m br gr", "a e o u", "esk ovra azin umov"),
    _family("k l m n r s t h w p", "a e i o u", "aro ola ena ohu"),
)


def fold(name: str) -> str:
    """Return a name with confusable glyphs merged: lower case, l and 1 as i, 0 as o.

    Example:
        >>> fold("Tolan")
        'toian'
    """
    return name.casefold().translate(str.maketrans("l10", "iio"))


def skeleton(name: str) -> str:
    """Return a folded name with every run of vowels as `a`; names of a shard differ in more than vowels."""
    return re.sub(r"[aeiou]+", "a", fold(name))


def _capacity(syllables: int) -> int:
    return sum(family.size(syllables) for family in FAMILIES)


def _spell(number: int, syllables: int) -> str:
    for family in FAMILIES:
        if number < family.size(syllables):
            return family.spell(number, syllables)
        number -= family.size(syllables)
    raise ValueError(f"number too large by {number}")


def _scatter(number: int, size: int, key: str) -> int:
    """Permute 0 .. size - 1: a four-round Feistel network with cycle walking."""
    half = max(1, (size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = number >> half, number & mask
        for turn in range(4):
            mixed = hashlib.blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed, "big") & mask)
        number = left << half | right
        if number < size:
            return number


def spell(number: int, seed: WorldSeed) -> str:
    """Return the capitalised name of a number in a world; small numbers give short names.

    Args:
        number: 0 or more; different numbers give different names, also after `fold` if both are usable.
        seed: World seed.
    """
    syllables = 2
    while number >= _capacity(syllables):
        number -= _capacity(syllables)
        syllables += 1
    return _spell(_scatter(number, _capacity(syllables), f"{seed}/{syllables}"), syllables).capitalize()


def is_usable(name: str) -> bool:
    """Return whether a name is usable: legible, pronounceable, and not the name of something real."""
    low = name.lower()
    return 4 <= len(low) <= 10 and not _UNFIT.search(low) and not is_blocked(low)


def shard_names(seed: WorldSeed, shard: int) -> Iterator[str]:
    """Yield the names of a shard: usable, unique over all shards, and different in consonants within the shard."""
    seen: set[str] = set()
    for number in range(shard * BLOCK, (shard + 1) * BLOCK):
        name = spell(number, seed)
        if is_usable(name) and skeleton(name) not in seen:
            seen.add(skeleton(name))
            yield name


_GIVEN = (
    "Ansa Bero Cadro Dovan Eruna Fenno Garun Hesko Imra Joruth Kessa Maroth Nevo Orda Petta Quen Rosk Sunna Tavo Umbra "
    "Vesna Wenko Yarra Zeno Ardo Brusk Corva Denna Estro Frode Gwena Hadro Jaska Kord Menka Norra Osko Pravo Ruska "
    "Sorven Tamsa Uska Varro Wystan Zorka Adeno Borka Dareth Ferro Gansu Harva Jendo Kusta Moren Nasko Otha Pernu "
    "Ravena Senka Torvo"
)
GIVEN_NAMES = tuple(_GIVEN.split())
"""Given names, also generated; many people share one."""
