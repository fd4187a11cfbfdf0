"""Measure the training of the agent on a CPU: scheduling, batches, images and memory.

    python benchmarks/training.py [schedule] [sft] [padding] [images] [memory]

schedule  Time of the rollouts of a step with their rewards, in virtual time: by the scheduler of trainings, and with
          all trajectories taking each turn together (lock-step), their rewards after the last of them. The times of
          replies, tools, image model and judge are ASSUMED, see `Work`; only ratios on the same work count.
sft       Tokens per second of batches of conversations, and of a step of a tiny model on them, with the collator of
          fine-tuning and with TRL's own one, on the same conversations and images.
padding   Tokens that the gradient's forward passes take, with rows padded to the longest of the step, and trimmed.
          Lengths are those of the work of `schedule`.
images    How often the images of one trajectory are preprocessed and seen by the vision tower, counted on a tiny model
          that samples in this process, beside a policy that prepares its whole conversation again in each turn.
memory    Memory that the images of a waiting trajectory take, as files and as decoded pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.agent import rss
from knowgen.agents.policies.contract import Sampling
from knowgen.agents.policies.hf_engine import HfEngine
from knowgen.agents.records import Message, Trajectory
from knowgen.agents.rendering import Renderer
from knowgen.agents.tokens import TokenSession
from knowgen.core.records import ImageRef, Score, image_ref
from knowgen.generators.contract import GeneratedImage
from knowgen.local_models.vlm import LocalVlm
from tests.helpers import tiny_models
from tests.helpers.episodes import ScriptedAgent, Step, answered, grpo_config, prompt_of, red_image, scoring
from tests.helpers.virtual_time import run as run_in_virtual_time

# ---------------------------------------------------------------------------------------------------- assumed durations

REPLICAS, DECODE, DECODE_PER_ROW, PREFILL = 4, 0.011, 0.00025, 18_000.0
"""Engines; seconds of a decoding step, and of each row in it; tokens per second of prefill."""

TOOLS = {"search": (0.3, 0.3, 0.6, 900), "image_search": (0.5, 1.5, 0.6, 1500), "browse": (0.2, 2.3, 0.7, 700)}
"""Share of the calls, mean and spread of the logarithm of the seconds, tokens of the result, for each tool."""

PROMPTS, GROUP, STEPS = 8, 6, 4
"""Prompts of a step, trajectories of each, and steps that are measured."""

JUDGES, IMAGE_MODELS = 16, (8, 32, 64)
"""Calls at once of the judge, and of the image model in each comparison."""


@dataclass(frozen=True)
class Turn:
    """One reply and the tool after it: tokens of the reply, seconds of the tool, tokens of its result."""

    tokens: int
    seconds: float
    result: int


@dataclass(frozen=True)
class Work:
    """What one trajectory takes: its prompt, its turns, and the seconds of its image and of the judge."""

    prompt: int
    turns: tuple[Turn, ...]
    image: float
    judge: float

    @classmethod
    def drawn(cls, rng: random.Random) -> Work:
        """Return made-up work."""
        turns = []
        for _ in range(rng.choice((3, 4, 4, 5, 5, 6, 7, 8, 9))):
            name = rng.choices(list(TOOLS), [share for share, *_ in TOOLS.values()])[0]
            _, mean, spread, result = TOOLS[name]
            turns.append(Turn(int(rng.lognormvariate(5.7, 0.5)), rng.lognormvariate(mean, spread), result))
        return cls(3500, tuple(turns), rng.lognormvariate(3.3, 0.4), rng.lognormvariate(1.8, 0.4))

    @property
    def length(self) -> int:
        """Tokens of the whole trajectory; no result follows the last reply."""
        return self.prompt + sum(turn.tokens + turn.result for turn in self.turns) - self.turns[-1].result


def work_of(step: int) -> list[Work]:
    """Return the work of a step."""
    rng = random.Random(step)
    return [Work.drawn(rng) for _ in range(PROMPTS * GROUP)]


class Engines:
    """Engines that decode all their rows together, keep prefixes, and prefill one row at a time."""

    def __init__(self) -> None:
        self._rows = [0] * REPLICAS
        self._prefill = [asyncio.Lock() for _ in range(REPLICAS)]
        self._homes: dict[int, int] = {}
        self._known: dict[int, int] = defaultdict(int)

    async def reply(self, row: int, context: int, tokens: int) -> None:
        """Sample a reply of a trajectory whose conversation has `context` tokens."""
        home = self._homes.setdefault(row, min(range(REPLICAS), key=self._rows.__getitem__))
        self._rows[home] += 1
        async with self._prefill[home]:
            await asyncio.sleep((context - self._known[row]) / PREFILL)
        for start in range(0, tokens, 16):
            count = min(16, tokens - start)
            await asyncio.sleep(count * (DECODE + DECODE_PER_ROW * self._rows[home]))
        self._rows[home] -= 1
        self._known[row] = context + tokens


# ------------------------------------------------------------------------------------------------------------- schedule


def scheduled(work: Sequence[Work], image_models: int) -> float:
    """Return the seconds of a step by the scheduler of trainings."""
    engines: list[Engines] = []

    async def trajectory(row: int) -> Trajectory:
        if not engines:
            engines.append(Engines())
        context = work[row].prompt
        for number, turn in enumerate(work[row].turns):
            await engines[0].reply(row, context, turn.tokens)
            context += turn.tokens
            if number < len(work[row].turns) - 1:
                await asyncio.sleep(turn.seconds)
                context += turn.result
        return answered()

    async def image(request: Any) -> GeneratedImage:
        await asyncio.sleep(work[int(request.id.partition("-")[2])].image)
        return await red_image(request)

    async def judge(item: Any) -> Score:
        return await scoring(0.5, "similarity", work[item[2].repeat].judge)(item)

    config = grpo_config(
        reward={"text_weight": 0.0},
        painter={"concurrency": image_models, "timeout": 1e6},
        services={"judge_concurrency": JUDGES},
    )
    prompts = [prompt_of(str(number)) for number in range(PROMPTS) for _ in range(GROUP)]
    step = Step(ScriptedAgent(lambda prompt, call: trajectory(call), seconds=0.0), config, painter=image, image=judge)
    episodes = step.run(prompts)
    assert all(episode.reward.value == 0.5 for episode in episodes)
    return step.loop.time() - 1000.0  # where virtual time begins


def in_lock_step(work: Sequence[Work], image_models: int, *, tools_at_once: bool) -> float:
    """Return the seconds of a step in which all trajectories take each turn together."""

    async def whole() -> float:
        engines, loop = Engines(), asyncio.get_running_loop()
        begun, context, number = loop.time(), [each.prompt for each in work], 0
        while rows := [row for row, each in enumerate(work) if number < len(each.turns)]:
            turns = {row: work[row].turns[number] for row in rows}
            await asyncio.gather(*(engines.reply(row, context[row], turns[row].tokens) for row in rows))
            waits = [turns[row].seconds for row in rows if number < len(work[row].turns) - 1]
            await asyncio.sleep((max if tools_at_once else sum)(waits) if waits else 0.0)
            for row in rows:
                context[row] += turns[row].tokens + turns[row].result
            number += 1
        images, judges = asyncio.Semaphore(image_models), asyncio.Semaphore(JUDGES)

        async def reward(each: Work) -> None:
            async with images:
                await asyncio.sleep(each.image)
            async with judges:
                await asyncio.sleep(each.judge)

        await asyncio.gather(*map(reward, work))
        return loop.time() - begun

    return run_in_virtual_time(whole())


def measure_schedule() -> None:
    """Print the time of a step by each scheduler."""
    print(f"schedule: {PROMPTS * GROUP} trajectories a step, mean of {STEPS} steps; assumed durations, ratios count")
    for places in IMAGE_MODELS:
        own = statistics.mean(scheduled(work_of(step), places) for step in range(STEPS))
        print(f"  image model with {places} places: trajectories on their own, rewards in flight {own:6.0f} s")
        for name, at_once in (("tools at once", True), ("tools one by one", False)):
            seconds = statistics.mean(
                in_lock_step(work_of(step), places, tools_at_once=at_once) for step in range(STEPS)
            )
            print(f"    lock-step, {name:17} {seconds:6.0f} s, ratio {seconds / own:.2f}")


# ------------------------------------------------------------------------------------------------------------------ sft


def processor_of_real_images() -> Any:
    """Return a processor of Qwen3-VL with a small vocabulary, whose images have up to 156 tokens."""
    processor = tiny_models.processor()
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 160_000}
    return processor


def write_conversations(folder: Path, count: int, turns: int = 5) -> Path:
    """Write conversations with a picture in each tool result."""
    rng, rows = random.Random(0), []
    for number in range(count):
        messages = [
            {"role": "system", "content": "You search. " * 200},
            {"role": "user", "content": "Draw the harbour."},
        ]
        for turn in range(turns):
            call = f"<think>\nWhich harbour, number {turn}?\n</think>\n<tool_call>\n{{}}\n</tool_call>"
            messages.append({"role": "assistant", "content": call})
            messages.append({"role": "user", "content": "<image><tool_response>\n" + "A lighthouse. " * 60})
        messages.append({"role": "assistant", "content": "<answer>The harbour of the first image.</answer>"})
        images = [f"{number}-{turn}.png" for turn in range(turns)]
        for name in images:
            pixels = rng.randbytes(480 * 320 * 3)
            Image.frombytes("RGB", (480, 320), pixels).save(folder / name, compress_level=1)
        rows.append({"id": str(number), "row": number + 1, "messages": messages, "images": images})
    path = folder / "conversations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own_batches(path: Path, processor: Any) -> Callable[[Sequence[int]], dict[str, Any]]:
    """Return what makes a batch of the conversations of some numbers, by the collator of fine-tuning."""
    from knowgen.training.conversations import ConversationFile
    from knowgen.training.sft.collator import CUT, NUMBER, ConversationCollator
    from knowgen.training.sft.encoding import ConversationEncoder

    renderer = Renderer(processor.tokenizer)
    encoder = ConversationEncoder(renderer, processor.image_processor, max_tokens=32768, image_pixels=160_000)
    collator = ConversationCollator(ConversationFile(path), processor, renderer, encoder, image_pixels=160_000)

    def batch(numbers: Sequence[int]) -> dict[str, Any]:
        found = collator([{NUMBER: number} for number in numbers])
        return {name: value for name, value in found.items() if name != CUT}

    return batch


def trl_batches(path: Path, processor: Any) -> Callable[[Sequence[int]], dict[str, Any]]:
    """Return what makes the same batch by TRL's own collator."""
    import trl
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from knowgen.training.conversations import ConversationFile

    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_vl_training.jinja").read_text(encoding="utf-8")
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    conversations = ConversationFile(path)

    def row(number: int) -> dict[str, Any]:
        found = conversations[number]
        messages = [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in message.pieces
                ],
            }
            for message in found.messages
        ]
        return {"messages": messages, "images": [Image.open(image).convert("RGB") for image in found.images]}

    return lambda numbers: dict(collator([row(number) for number in numbers]))


def measure_sft(count: int = 8, size: int = 4, rounds: int = 3) -> None:
    """Print tokens per second of both collators, alone and with a step of a tiny model; the fastest round counts."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    torch.set_num_threads(1)
    processor = processor_of_real_images()
    model = Qwen3VLForConditionalGeneration(tiny_models.config(processor.tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    fastest: dict[tuple[str, str], float] = {}
    tokens = 0
    with tempfile.TemporaryDirectory() as folder:
        path = write_conversations(Path(folder), count)
        makers = {"own": own_batches(path, processor), "TRL": trl_batches(path, processor)}
        batches = [range(start, start + size) for start in range(0, count, size)]
        for _ in range(rounds):
            seconds: dict[tuple[str, str], float] = defaultdict(float)
            found = {}
            for numbers in batches:
                for name, make in makers.items():
                    started = time.perf_counter()
                    found[name] = make(numbers)
                    made = time.perf_counter()
                    model(**found[name]).loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    seconds[name, "batches alone"] += made - started
                    seconds[name, "with a step on them"] += time.perf_counter() - started
                assert all(
                    torch.equal(found["own"][each], found["TRL"][each]) for each in ("input_ids", "pixel_values")
                )
            fastest = {key: min(value, fastest.get(key, value)) for key, value in seconds.items()}
        tokens = sum(int(makers["own"](numbers)["attention_mask"].sum()) for numbers in batches)
    print(f"sft: {count} conversations of {tokens // count} tokens with 5 images, batches of {size}, one thread")
    for what in ("batches alone", "with a step on them"):
        own, theirs = (tokens / fastest[name, what] for name in ("own", "TRL"))
        print(f"  {what:20} own {own:8.0f} tokens/s, TRL's collator {theirs:8.0f}, ratio {own / theirs:.2f}")


# -------------------------------------------------------------------------------------------------------------- padding


def measure_padding() -> None:
    """Print the tokens of the gradient's forward passes before and after trimming."""
    import torch

    from knowgen.training.grpo.trainer import trimmed

    print("padding: tokens of the forward passes of a step, rows padded to the longest of the step")
    work = work_of(0)
    lengths = [each.length - each.prompt for each in work]
    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    prompts = torch.ones(len(work), work[0].prompt, dtype=torch.long)
    real = int(mask.sum()) + prompts.numel()
    for size in (1, 2, 4):
        padded = taken = 0
        for start in range(0, len(work), size):
            rows = slice(start, start + size)
            batch = {
                "prompt_ids": prompts[rows], "prompt_mask": prompts[rows],
                "completion_ids": mask[rows], "completion_mask": mask[rows],
            }  # fmt: skip
            padded += batch["prompt_ids"].numel() + batch["completion_ids"].numel()
            less = trimmed(batch)
            taken += less["prompt_ids"].numel() + less["completion_ids"].numel()
        print(f"  {size} rows a pass: {padded} padded, {taken} trimmed ({padded / taken:.2f}), {real} without padding")


# --------------------------------------------------------------------------------------------------------------- images


def measure_images(turns: int = 8, each: int = 5) -> None:
    """Print how often the images of a trajectory are preprocessed, and how many the vision tower sees."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    processor = tiny_models.processor()
    model = Qwen3VLForConditionalGeneration(tiny_models.config(processor.tokenizer)).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    seen: list[int] = []
    model.model.visual.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(len(named.get("grid_thw", arguments[-1]))), with_kwargs=True
    )
    engine = HfEngine(lambda: LocalVlm(model, processor, "tiny", "float32"), batch_size=1, where="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        images = stored_images(Path(folder), turns * each, (128, 96))
        asyncio.run(one_trajectory(engine, images, each))
    again = sum(each * turn for turn in range(1, turns + 1)) + turns * each  # each turn, and the pass of the gradient
    print(f"images: a trajectory with {turns} results of {each} images")
    print(f"  preprocessed {engine.pixels.passes} times; {again} when every turn prepares all images so far")
    print(f"  seen {sum(seen)} times by the vision tower of the policy in this process, which keeps no prefix")
    print(f"  a server that keeps prefixes sees each once: {turns * each}")


async def one_trajectory(engine: HfEngine, images: Sequence[ImageRef], each: int) -> None:
    """Have the policy reply after each group of images."""
    session = TokenSession(engine, Sampling(max_new_tokens=4), "one")
    messages = [Message("system", "You search."), Message("user", "Draw the harbour.")]
    for start in range(0, len(images), each):
        messages.append(Message("assistant", (await session.reply(messages)).text))
        messages.append(Message("user", "Results.", tuple(images[start : start + each])))
    await session.reply(messages)
    await session.close()
    await engine.close()


def stored_images(folder: Path, count: int, size: tuple[int, int]) -> list[ImageRef]:
    """Write pictures of noise, and return their records."""
    rng, paths = random.Random(0), [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3)).save(path, compress_level=1)
    return [image_ref(path) for path in paths]


# --------------------------------------------------------------------------------------------------------------- memory


def measure_memory(count: int = 24, turns: int = 8, each: int = 5) -> None:
    """Print the memory that a waiting trajectory's images take."""
    with tempfile.TemporaryDirectory() as folder:
        images = stored_images(Path(folder), turns * each, (480, 333))
        ways: dict[str, Callable[[ImageRef], Any]] = {"as files": ImageRef.model_copy, "decoded": ImageRef.open}
        taken = {}
        for name, keep in ways.items():
            gc.collect()
            before = rss()
            held = [[keep(image) for image in images] for _ in range(count)]
            taken[name] = (rss() - before) / count
            del held
    print(f"memory: images of a waiting trajectory with {turns * each} images of 160,000 pixels")
    print(f"  as files {taken['as files'] / 1000:.0f} kB, decoded {taken['decoded'] / 1000:.0f} kB")


SECTIONS: dict[str, Callable[[], None]] = {
    "schedule": measure_schedule,
    "sft": measure_sft,
    "padding": measure_padding,
    "images": measure_images,
    "memory": measure_memory,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all when none is named")
    names = parser.parse_args().sections or list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    for name in names:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
