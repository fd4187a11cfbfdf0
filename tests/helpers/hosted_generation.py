"""One image for each seed from a generator behind a service, and what its calls cost."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from knowgen.core.metering import current_meter
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.hosted.base import HostedImages
from knowgen.generators.hosted.openai import OpenAiImages
from tests.helpers.engine_servers import EngineProfile, EngineServer
from tests.helpers.gateway_servers import OPENROUTER
from tests.helpers.image_servers import image_bytes

PROMPT = "A lighthouse of Mirelle, „open“ above the door"


class Meter:
    """A meter without a limit that keeps what was settled."""

    def __init__(self) -> None:
        self.settled: list[float | None] = []

    async def reserve(self, worst_case: float | None, caller: str) -> int:
        return 0

    async def settle(self, number: int, cost: float | None) -> None:
        self.settled.append(cost)


def reference(folder: Path, number: int, kind: str = "PNG") -> ImageRef:
    data = image_bytes("red", kind, size=(20 + number, 20))
    path = folder / f"{number}.{kind.lower()}"
    path.write_bytes(data)
    return ImageRef(sha256=hashlib.sha256(data).hexdigest(), width=20 + number, height=20, format=kind, path=path)


def generate(
    generator: HostedImages,
    *references: ImageRef,
    prompt: str = PROMPT,
    seeds: tuple[int, ...] = (7,),
    meter: Any = None,
) -> list[GeneratedImage]:
    """Return one image for each seed."""

    async def each() -> list[GeneratedImage]:
        current_meter.set(meter)
        try:
            requests = [GenerationRequest(id=str(s), prompt=prompt, seed=s, references=references) for s in seeds]
            return [await generator.generate(request) for request in requests]
        finally:
            await generator.close()

    return asyncio.run(each())


def image(result: GeneratedImage) -> bytes:
    assert result.status is GenerationStatus.OK, result.reason
    assert isinstance(result.image, bytes)
    return result.image


def on(profile: EngineProfile, running: EngineServer, model: str = "any", /, **args: Any) -> OpenAiImages:
    """Return a generator for a server that it has to recognise, but for those that only their address shows."""
    if profile is OPENROUTER:
        args = {"server": "openrouter", **args}
    return OpenAiImages(model, base_url=running.base, **({"key_env": "MY_KEY"} | args))
