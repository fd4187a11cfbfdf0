"""Names are distinct by construction, legible, and not those of real things."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from knowgen.worlds.content import names
from knowgen.worlds.content.blocklist import BLOCKED, OFFENSIVE_PARTS
from knowgen.worlds.content.names import BLOCK, FAMILIES, fold, is_usable, shard_names, skeleton, spell

seeds = st.integers(0, 10**6)


def test_numbers_and_names_are_one_to_one_over_the_whole_space_of_short_names() -> None:
    short = names._capacity(2)
    spelled = [spell(number, seed=4) for number in range(short)]
    assert len(set(spelled)) == short
    fit = [name for name in spelled if is_usable(name)]
    assert len({fold(name) for name in fit}) == len(fit)


@given(seeds, st.integers(0, 10**7), st.integers(0, 10**7))
def test_two_numbers_never_give_the_same_name_even_after_folding(seed: int, one: int, other: int) -> None:
    first, second = spell(one, seed), spell(other, seed)
    assert (first == second) == (one == other)
    if one != other and is_usable(first) and is_usable(second):
        assert fold(first) != fold(second)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 2000))
def test_names_of_a_shard_are_readable_and_far_apart(seed: int, shard: int) -> None:
    names_of_shard = list(shard_names(seed, shard))
    assert len(names_of_shard) >= 280, "a shard needs about 250 names"
    assert len({skeleton(name) for name in names_of_shard}) == len(names_of_shard)
    for name in names_of_shard:
        low = name.lower()
        assert name.isalpha() and name.isascii() and name == low.capitalize() and 4 <= len(name) <= 10
        assert not any(run in low for run in ("rn", "ll", "ii", "il", "li"))
        assert low not in BLOCKED and not any(part in low for part in OFFENSIVE_PARTS)


def test_shards_and_only_shards_of_one_world_share_no_name() -> None:
    shards = [set(shard_names(1, shard)) for shard in range(60)]
    everything = set().union(*shards)
    assert len(everything) == sum(map(len, shards)) == len({fold(name) for name in everything})
    assert set(shard_names(2, 0)) != shards[0]


def test_no_ending_is_a_suffix_of_another_so_that_names_split_in_one_way() -> None:
    endings = [fold(ending) for family in FAMILIES for ending in family.endings]
    assert all(not one.endswith(other) for one, other in itertools.permutations(endings, 2))
    for family in FAMILIES:
        assert all(len(vowel) == 1 and vowel in "aeiou" for vowel in family.vowels)
        assert all(not set(onset) & set("aeiou") for onset in family.onsets)


def test_real_names_are_not_usable() -> None:
    for real in ("berlin", "toyota", "mozart", "pokemon", "serena", "panama", "canon"):
        assert not is_usable(real.capitalize()), real
    assert len(BLOCKED) > 600


def test_scatter_is_a_permutation_for_many_sizes() -> None:
    for size in (1, 2, 3, 17, 100, 1023, 1024, 1025):
        assert sorted(names._scatter(number, size, "key") for number in range(size)) == list(range(size))


def test_neighbouring_numbers_give_different_first_syllables() -> None:
    rng = random.Random(0)
    starts = [rng.randrange(BLOCK * 40) for _ in range(200)]
    same = sum(spell(at, 3)[:2] == spell(at + 1, 3)[:2] for at in starts)
    assert same < 20
