"""Generators that break their contract on the sample whose prompt names number 2."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from PIL import Image

from knowgen.core.errors import TransientError, RefusalError
from knowgen.generators.contract import GeneratedImage

HOURS = 3 * 3600


def bad(prompt: str) -> bool:
    """Return whether to break the contract on this prompt."""
    return "number 2." in prompt


def noise(prompt: str, seed: int, mode: str = "RGB") -> Image.Image:
    """Return an image that depends on prompt and seed."""
    dice = random.Random(f"{prompt} {seed}")
    return Image.frombytes("RGB", (48, 32), dice.randbytes(48 * 32 * 3)).convert(mode)


class _Batch:
    batch_size = 4

    def good(self, request) -> GeneratedImage:
        return GeneratedImage(image=noise(request.prompt, request.seed), request_id=request.id)


class OutOfOrder(_Batch):
    """Yields the last first."""

    def generate_batch(self, requests):
        for request in reversed(requests):
            yield self.good(request)


class Twice(_Batch):
    """Yields a second, different image for one request."""

    def generate_batch(self, requests):
        for request in requests:
            yield self.good(request)
            if bad(request.prompt):
                yield GeneratedImage(image=noise("another", 0), request_id=request.id)


class DropsOne(_Batch):
    """Yields no image for one request."""

    def generate_batch(self, requests):
        for request in requests:
            if not bad(request.prompt):
                yield self.good(request)


class UnknownId(_Batch):
    """Yields an image with the id of no request."""

    def generate_batch(self, requests):
        for request in requests:
            result = self.good(request)
            if bad(request.prompt):
                result.request_id = "not requested"
            yield result


class YieldsJunk(_Batch):
    """Yields a string instead of an image."""

    def generate_batch(self, requests):
        for request in requests:
            yield "a string" if bad(request.prompt) else self.good(request)


class ReturnsNothing(_Batch):
    """Returns None instead of an iterator."""

    def generate_batch(self, requests):
        return None


class BreaksBatch(_Batch):
    """Raises in the middle of a batch."""

    def generate_batch(self, requests):
        for request in requests:
            if bad(request.prompt):
                raise ValueError("out of memory, says the model")
            yield self.good(request)


class HangsInBatch(_Batch):
    """Hangs after part of the batch."""

    def generate_batch(self, requests):
        for request in requests:
            if bad(request.prompt):
                time.sleep(HOURS)
            yield self.good(request)


class _Draw:
    def wrong(self, prompt: str, seed: int):
        raise NotImplementedError

    def draw(self, prompt, references, seed):
        return self.wrong(prompt, seed) if bad(prompt) else noise(prompt, seed)


class Transparent(_Draw):
    """Gives RGBA."""

    def draw(self, prompt, references, seed):
        image = noise(prompt, seed, "RGBA")
        image.putpixel((0, 0), (255, 0, 0, 0))
        image.putpixel((1, 0), (255, 0, 0, 255))
        return image


class GivesNone(_Draw):
    """Gives None."""

    def wrong(self, prompt, seed):
        return None


class GivesText(_Draw):
    """Gives a string."""

    def wrong(self, prompt, seed):
        return "/tmp/image.png"


class GivesDot(_Draw):
    """Gives one pixel."""

    def wrong(self, prompt, seed):
        return Image.new("RGB", (1, 1))


class GivesGarbage(_Draw):
    """Gives bytes that are not an image."""

    def wrong(self, prompt, seed):
        return b"GIF89a and then nothing"


class GivesMissingFile(_Draw):
    """Names a file that is not there."""

    def wrong(self, prompt, seed):
        return Path("/nowhere/image.png")


class GivesBomb(_Draw):
    """Gives a small file whose header names a huge size."""

    def wrong(self, prompt, seed):
        import struct
        import zlib

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        body = chunk(b"IDAT", zlib.compress(b"\0" * 100000)) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


class Raises(_Draw):
    """Raises."""

    def wrong(self, prompt, seed):
        raise KeyError("no such layer")


class Refuses(_Draw):
    """Declines."""

    def wrong(self, prompt, seed):
        raise RefusalError("I would rather not draw this")


class Exits(_Draw):
    """Calls sys.exit in its method."""

    def wrong(self, prompt, seed):
        sys.exit("enough")


class Interrupts(_Draw):
    """Raises KeyboardInterrupt itself."""

    def wrong(self, prompt, seed):
        raise KeyboardInterrupt


class Stops(_Draw):
    """Raises StopIteration, which a future cannot carry."""

    def wrong(self, prompt, seed):
        raise StopIteration("over")


class Hangs(_Draw):
    """Hangs."""

    def wrong(self, prompt, seed):
        time.sleep(HOURS)


class HangsAlways(_Draw):
    """Hangs on every prompt."""

    def draw(self, prompt, references, seed):
        time.sleep(HOURS)


class Dies(_Draw):
    """Kills its process."""

    def wrong(self, prompt, seed):
        os.kill(os.getpid(), signal.SIGKILL)


class Prints(_Draw):
    """Writes to its standard streams, where a worker's messages would go."""

    def draw(self, prompt, references, seed):
        print('{"event": "end"}', flush=True)
        os.write(1, b"raw noise\n")
        sys.stdin.read()
        return noise(prompt, seed)


class NotesJunk:
    """Puts an object into its settings."""

    async def generate(self, request):
        settings = {"pipe": object()} if bad(request.prompt) else {"steps": 4}
        return GeneratedImage(image=noise(request.prompt, request.seed), settings=settings)


class Flaky:
    """Fails twice with a transient error."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    async def generate(self, request):
        self.seen[request.id] = self.seen.get(request.id, 0) + 1
        if bad(request.prompt) and self.seen[request.id] < 3:
            raise TransientError("a passing fault")
        return GeneratedImage(image=noise(request.prompt, request.seed))


class ExitsInCoroutine:
    """Calls sys.exit in a coroutine, which would end an event loop."""

    async def generate(self, request):
        if bad(request.prompt):
            sys.exit(1)
        return GeneratedImage(image=noise(request.prompt, request.seed))


class BlocksLoop:
    """Blocks the event loop by sleeping in a coroutine."""

    concurrency = 4

    async def generate(self, request):
        if bad(request.prompt):
            time.sleep(HOURS)
        return GeneratedImage(image=noise(request.prompt, request.seed))


class ExitsWhenBuilt:
    """Calls sys.exit in its constructor."""

    def __init__(self) -> None:
        sys.exit("no licence")

    def draw(self, prompt, references, seed):
        return noise(prompt, seed)
