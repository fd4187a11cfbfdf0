"""Names for made-up things: pleasant to say, easy to read off a picture, and unique over all shards of a world.

A name is a number written in a system whose digits are syllables, so that two numbers never give the same name. Each
shard owns a block of numbers; a seeded permutation scatters the blocks over all sounds. Names stay distinct after
`fold`, which treats the glyphs that text recognition confuses as one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from knowgen.worlds.content.blocklist import is_blocked

BLOCK = 448
"""Numbers a shard owns; about three quarters of them give names that are fit to use."""

_UNFIT = re.compile(r"rn|ll|ii|li|il|vv|(.)\1\1|[^aeiou]{4}|[aeiou]{3}(?!$)|^(.)(.)\2\3")
"""Letter runs that are hard to read off a picture or dull to say."""


@dataclass(frozen=True)
class SoundFamily:
    """A way for names to sound.

    Attributes:
        onsets: Consonants that open a syllable.
        vowels: Single vowels only, so that a name parses in one way.
        endings: Over all families, no ending is the end of another one.
    """

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    endings: tuple[str, ...]

    def size(self, syllables: int) -> int:
        """Returns how many names have that many opening consonants."""
        return sum(self._size(ending, syllables) for ending in self.endings)

    def spell(self, number: int, syllables: int) -> str:
        """Writes a number in 0 <= number < size(syllables) as a name in lower case."""
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
    """Returns a name as a careless reader sees it: lower case, l and 1 as i, 0 as o."""
    return name.casefold().translate(str.maketrans("l10", "iio"))


def skeleton(name: str) -> str:
    """Returns a name with every run of vowels as one mark: names of a shard differ in more than vowels."""
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
    """Permutes 0 .. size - 1: a four-round Feistel network on the next even power of two, walked until it fits."""
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


def spell(number: int, seed: int) -> str:
    """Returns the name of a number in the world of a seed, capitalised; short names come first.

    Args:
        number: 0 or more; different numbers give different names, also after `fold` where both are fit to use.
        seed: Of the world.
    """
    syllables = 2
    while number >= _capacity(syllables):
        number -= _capacity(syllables)
        syllables += 1
    return _spell(_scatter(number, _capacity(syllables), f"{seed}/{syllables}"), syllables).capitalize()


def is_fit(name: str) -> bool:
    """Tells whether a name may be used: readable, not dull, not the name of something real."""
    low = name.lower()
    return 4 <= len(low) <= 10 and not _UNFIT.search(low) and not is_blocked(low)


def shard_names(seed: int, shard: int) -> Iterator[str]:
    """Yields the names a shard may use: fit, unique over all shards, and within the shard far apart in consonants."""
    seen: set[str] = set()
    for number in range(shard * BLOCK, (shard + 1) * BLOCK):
        name = spell(number, seed)
        if is_fit(name) and skeleton(name) not in seen:
            seen.add(skeleton(name))
            yield name


_GIVEN = (
    "Ansa Bero Cadro Dovan Eruna Fenno Garun Hesko Imra Joruth Kessa Maroth Nevo Orda Petta Quen Rosk Sunna Tavo Umbra "
    "Vesna Wenko Yarra Zeno Ardo Brusk Corva Denna Estro Frode Gwena Hadro Jaska Kord Menka Norra Osko Pravo Ruska "
    "Sorven Tamsa Uska Varro Wystan Zorka Adeno Borka Dareth Ferro Gansu Harva Jendo Kusta Moren Nasko Otha Pernu "
    "Ravena Senka Torvo"
)
GIVEN_NAMES = tuple(_GIVEN.split())
"""Given names; made up as well, and shared by many people."""
