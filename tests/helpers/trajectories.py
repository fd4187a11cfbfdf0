"""Answers of an agent with trajectories, stored in a run."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from knowgen.agents.records import SeenImage, Step, ToolCall
from knowgen.core.records import AgentAnswer, AnswerStatus, ImageRef, Sample, Usage, UsagePart
from knowgen.store.run import RunStore

PICTURES = "https://pictures.example"
"""Address of the images that the agent saw, without their number."""


def seen_image(store: RunStore, number: int, words: str = "Teld", address: str = PICTURES) -> SeenImage:
    """Store a small image of one colour, and return it as an agent saw it."""
    buffer = io.BytesIO()
    Image.new("RGB", (40 + number, 30), (20 * number % 256, 90, 160)).save(buffer, "PNG")
    ref = store.put_image(buffer.getvalue(), width=40 + number, height=30, format="PNG")
    image = ImageRef(sha256=ref.sha256, width=40 + number, height=30, format="PNG")
    return SeenImage(id=f"IMG_{number:03d}", image=image, title=words, url=f"{address}/{number}")


def searched_answer(
    store: RunStore, sample: Sample, repeat: int = 0, words: str = "Teld", address: str = PICTURES
) -> AgentAnswer:
    """Return an answer after three rounds: a search, an image search with a blocked leak, and the answer.

    Samples whose number is divisible by 5 end without an answer, after a search that failed.
    """
    search = Step(
        round=1,
        thought=f"What is {words}?",
        reply=f"<think>What is {words}?</think>",
        finish="stop",
        calls=(ToolCall(name="search", arguments={"queries": [words]}),),
        observation=f"{words} was lit in 1898.",
        policy_seconds=0.5,
        tool_seconds=0.25,
        policy_usage=Usage(input_tokens=100, output_tokens=20, cost=0.01),
    )
    policy = UsagePart(part="policy", calls=3, usage=Usage(input_tokens=300, output_tokens=60, cost=0.03), seconds=1.5)
    if int(sample.id.removeprefix("s")) % 5 == 0:
        failed = search.model_copy(update={"error": f"Search failed: {words}", "finish": "length"})
        return AgentAnswer(
            sample_id=sample.id, repeat=repeat, status=AnswerStatus.NONE, ending="no_answer", reason=words,
            trajectory=(failed.model_dump(mode="json"),), usage=(policy,), seconds=1.0,
        )  # fmt: skip
    images = tuple(seen_image(store, number, words, address) for number in (1, 2, 3))
    pictures = Step(
        round=2,
        calls=(ToolCall(name="image_search", arguments={"query": words, "top_k": 3}),) * 2,
        observation=f"IMG_001: {words}",
        images=("IMG_001", "IMG_002"),
        new_images=images,
        blocked=("leak_blocked", "robots_blocked"),
        capped=120,
        tool_seconds=2.0,
    )
    last = Step(round=0, instruction="Answer now.", thought="That is enough.", reply="<answer>", finish="stop")
    chosen = images[1]
    note = {
        "img_id": chosen.id,
        "title": words,
        "note": f"the stripes of {words}",
        "sha256": chosen.image.sha256,
        "url": chosen.url,
    }
    return AgentAnswer(
        sample_id=sample.id,
        repeat=repeat,
        ending="answer",
        prompt=f"A lighthouse, {words}.",
        references=(chosen.image,),
        reference_notes=(note,),
        trajectory=tuple(step.model_dump(mode="json") for step in (search, pictures, last)),
        images=tuple(each.image for each in images),
        usage=(policy, UsagePart(part="search", calls=2, usage=Usage(cost=0.002), seconds=2.25)),
        seconds=3.0,
    )


def answer_in(words: str, address: str = PICTURES) -> Any:
    """Return a function that answers each sample with these words, from images of an address."""
    return lambda store, sample, repeat: searched_answer(store, sample, repeat, words, address)
