"""A run in a separate process that tests kill and interrupt: `python -m tests.helpers.engine_child JSON`.

The keys of the JSON argument are path, count and url; optional are hang (number of a sample whose generation never
finishes), pause (seconds per generation), grace (seconds that work in flight gets after an interruption) and agent
(whether an agent that asks the server stands before the generator). Prints the outcome as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path

import httpx
from PIL import Image

from benchmarks.setting import noise_image
from knowgen.core.records import AgentAnswer, GenerationRequest
from tests.helpers.agents import FakeAgent, agent_handle
from tests.helpers.engine import Bench, loopback_handle, quick


class SlowGenerator:
    references = True

    def __init__(self, pause: float, hang: str) -> None:
        self.pause, self.hang = pause, hang

    def draw(self, prompt: str, references: object, seed: int) -> Image.Image:
        if self.hang and f"number {self.hang}." in prompt:
            print("hanging", flush=True)
            time.sleep(3600)
        time.sleep(self.pause)
        return noise_image(prompt)


class AskingAgent(FakeAgent):
    """An agent that asks the server for each prompt, as a search engine."""

    def __init__(self, url: str) -> None:
        super().__init__(count=1)
        self.url = url
        self.client = httpx.AsyncClient(timeout=60)

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        await self.client.post(self.url, json={"sample": f"search {request.prompt}"})
        return self.good(request)


def main() -> None:
    arguments = json.loads(sys.argv[1])
    if "grace" in arguments:
        engine = importlib.import_module("knowgen.engine.run")
        vars(engine).update(GRACE_SECONDS=arguments["grace"], INTERRUPT_LIMIT_SECONDS=2 * arguments["grace"])
    outcome = Bench(Path(arguments["path"])).run(
        arguments["count"],
        SlowGenerator(arguments.get("pause", 0.0), arguments.get("hang", "")),
        [loopback_handle(arguments["url"])],
        quick(**arguments.get("options", {})),
        agent=agent_handle(AskingAgent(arguments["url"])) if arguments.get("agent") else None,
    )
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
