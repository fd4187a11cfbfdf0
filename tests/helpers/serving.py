"""`knowgen serve` in a process of its own, and a client that uses the standard library only."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.processes import wait_until

GENERATORS = '''
import asyncio, hashlib, json, os, time
from pathlib import Path
from PIL import Image
from knowgen.core.errors import TransientError, RefusalError
from knowgen.generators.contract import GeneratedImage


def plain_image(prompt, seed, references=()):
    inputs = [prompt, seed, [list(one.convert("RGB").getpixel((0, 0))) for one in references]]
    return Image.new("RGB", (48, 32), tuple(hashlib.sha256(json.dumps(inputs).encode()).digest()[:3]))


def log(what):
    with open("log.txt", "a") as file:
        file.write(json.dumps(what) + "\\n")


class Synchronous:
    """Generates one image at a time; some prompts make it fail in typical ways."""
    revision = "1"
    references = True

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def draw(self, prompt, references, seed):
        log(prompt)
        time.sleep(self.seconds)
        if "refuse" in prompt:
            raise RefusalError("not this one")
        if "break" in prompt:
            raise ValueError("cannot draw that")
        if "hang" in prompt:
            time.sleep(3600)
        if "later" in prompt:
            raise TransientError("the service behind me is full", retry_after=7)
        if "nothing" in prompt:
            return None
        return plain_image(prompt, seed, references)


class Plain:
    """Takes no reference images."""
    revision = "2"

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def draw(self, prompt, references, seed):
        log(prompt)
        time.sleep(self.seconds)
        return plain_image(prompt, seed)


class Batches:
    """Generates a batch in the time of one image."""
    revision = "1"
    batch_size = 8

    def __init__(self, seconds=0.2):
        self.seconds = seconds

    def generate_batch(self, requests):
        log(len(requests))
        time.sleep(self.seconds)
        if any("die" in one.prompt for one in requests):
            os._exit(9)
        for one in requests:
            image = plain_image(one.prompt, one.seed)
            yield GeneratedImage(image=image, request_id=one.id, settings={"batch": len(requests)})


class Waits:
    """Generates many images concurrently."""
    revision = "1"
    concurrency = 4

    async def generate(self, request):
        await asyncio.sleep(0.1)
        return GeneratedImage(image=plain_image(request.prompt, request.seed), used_prompt=request.prompt.upper())


class Knows:
    """Needs the ground truth."""
    privileged = True
    revision = "1"

    def draw(self, prompt, references, seed):
        return plain_image(prompt, seed)


class Slow:
    """Takes long to build."""
    revision = "1"

    def __init__(self, seconds=3.0):
        time.sleep(seconds)

    def draw(self, prompt, references, seed):
        return plain_image(prompt, seed)


class Unbuildable:
    revision = "1"

    def __init__(self):
        raise RuntimeError("the weights are not there")

    def draw(self, prompt, references, seed):
        return plain_image(prompt, seed)
'''


@dataclass
class Answer:
    """A response: status, headers, and the JSON body or its text."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def pixel(self) -> tuple[int, ...]:
        assert self.body["success"] is True, self.body
        image = Image.open(io.BytesIO(base64.b64decode(self.body["image"], validate=True)))
        assert image.format == "PNG"
        value = image.convert("RGB").getpixel((1, 1))
        assert isinstance(value, tuple)
        return value


@dataclass
class Served:
    """A running `knowgen serve`."""

    url: str
    process: subprocess.Popen[str]
    folder: Path

    def ask(self, path: str, data: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request with urllib; `data` is sent as JSON unless it is bytes."""
        body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        sent = {"Content-Type": "application/json"} | (headers or {})
        call = urllib.request.Request(self.url + path, data=body, headers=sent)
        try:
            with urllib.request.urlopen(call, timeout=60) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())

    def generate(self, prompt: str, seed: int = 0, **fields: Any) -> Answer:
        """Request an image."""
        headers = fields.pop("headers", None)
        return self.ask("/generate", {"prompt": prompt, "seed": seed, "image_urls": None, **fields}, headers)

    def metric(self, name: str) -> float:
        """Return the value of one line of `/metrics`."""
        text = str(self.ask("/metrics").body)
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert match is not None, text
        return float(match[1])

    def log(self) -> list[Any]:
        """Return the lines that the generator wrote to its log."""
        path = self.folder / "log.txt"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self, signum: int = signal.SIGTERM) -> tuple[int, str, str]:
        """End the server; return its exit code and output."""
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def _answer(status: int, headers: Any, data: bytes) -> Answer:
    kind = headers.get("content-type", "")
    body = json.loads(data) if kind.startswith("application/json") else data.decode()
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body)


def start(
    folder: Path, *words: str, environment: dict[str, str] | None = None, limits: dict[str, float] | None = None
) -> subprocess.Popen[str]:
    """Start `knowgen serve` with the generators above in its folder.

    Args:
        folder: Its current folder.
        words: Arguments of the command.
        environment: Further environment variables.
        limits: Constants to replace, such as `protocol.HEADER_SECONDS`.
    """
    (folder / "makers.py").write_text(GENERATORS)
    program = ["-m", "knowgen"]
    if limits:
        modules = sorted({name.partition(".")[0] for name in limits})
        settings = "\n".join(f"{name} = {value}" for name, value in limits.items())
        code = (
            f"from knowgen.serving import {', '.join(modules)}\n{settings}\nfrom knowgen.cli.main import main\nmain()"
        )
        program = ["-c", code]
    return subprocess.Popen(
        [sys.executable, *program, "serve", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def served(
    folder: Path,
    *words: str,
    environment: dict[str, str] | None = None,
    limits: dict[str, float] | None = None,
    state: str = "healthy",
) -> Iterator[Served]:
    """Serve a generator on a free port during the block, which starts when the server is healthy."""
    process = start(folder, *words, "--port", "0", environment=environment, limits=limits)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        if match is None:
            raise AssertionError(f"{line}{process.communicate(timeout=20)}")
        server = Served(match[0], process, folder)
        wait_until(lambda: server.ask("/health").body["status"] == state)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)
