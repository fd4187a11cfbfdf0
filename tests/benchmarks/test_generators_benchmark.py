"""The benchmark of generators: what it prints about simulated devices and about padding can be true."""

from __future__ import annotations

import pytest

from benchmarks import prompt_lengths
from benchmarks.generators import spread_over


def test_ten_samples_on_eight_simulated_devices_use_all_eight() -> None:
    devices, seconds = spread_over(8, 10, fixed=0.3, each=0.0)
    passes = list(devices.passes.values())
    assert len(passes) == 8 and sum(map(sum, passes)) == 10 and seconds > 0.3
    assert all(len(sizes) == 1 for sizes in passes), "each device worked once"


def test_padding_is_that_of_the_longest_prompt_of_each_batch() -> None:
    calls = [["a", "aaaa", "aa", "aaa"], ["aaaaa"]]
    assert prompt_lengths.tokens_of(calls, 2, len, alike=False) == 4 * 2 + 3 * 2 + 5
    assert prompt_lengths.tokens_of(calls, 2, len, alike=True) == 4 * 2 + 2 * 2 + 5
    assert prompt_lengths.tokens_of(calls, 16, len, alike=True) == 4 * 4 + 5


@pytest.mark.slow
def test_calls_by_length_have_the_same_prompts_with_less_padding() -> None:
    in_order, by_length = (
        prompt_lengths.calls_of("knowgen_mini", 1, 1, by_length=by_length) for by_length in (False, True)
    )
    prompts = [sorted(prompt for call in calls for prompt in call) for calls in (in_order, by_length)]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 48
    padded = [prompt_lengths.tokens_of(calls, 4, len, alike=True) for calls in (in_order, by_length)]
    assert padded[1] < padded[0]
