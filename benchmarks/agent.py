"""Measure the agent: its waiting for search, how well many rollouts use a policy, and their memory.

    python benchmarks/agent.py [--rollouts 512] [--places 64]

1. A search service on the loopback interface answers after 200 ms, and so does its image server. Prints the time of one
   tool call with four queries and of one image search with its downloads, after a first one, and the time one after
   another.
2. Rollouts with a simulated policy that replies to a number of rollouts at once, in virtual time, through the agent's
   own loop. Prints the share of the places that reply while a rollout waits for one, and the time until all have ended;
   and both when all rollouts take their rounds together (lock-step), with the same times of replies and tools.
3. Memory of a rollout that waits in its last round with 8 long tool results, without its images.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import io
import json
import os
import random
import resource
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from knowgen.agents.gen_searcher import GenSearcher
from knowgen.agents.images import SeenImages
from knowgen.agents.policies.contract import PolicyReply, Sampling
from knowgen.agents.records import Message, Segment
from knowgen.agents.tools.contract import Tool, ToolContext, ToolResult
from knowgen.agents.tools.extraction import PassageReader
from knowgen.agents.tools.image_search import ImageSearch
from knowgen.agents.tools.text_search import TextSearch
from knowgen.core.errors import DataError
from knowgen.search.contract import Hit, ImageHit, Page, SearchBackend
from knowgen.search.load import load_search
from tests.helpers.virtual_time import run as run_in_virtual_time

LATENCY = 0.2
"""Seconds that the search service and the image server take to answer."""

TARGET = 1.3
"""Time of search and downloads that is aimed at, as a multiple of the latency that cannot be avoided."""

RESULTS = 30
"""Results of one page. A server that asks several engines has as many."""

ANSWER = '<answer>{"gen_prompt": "A red boat.", "reference_images": []}</answer>'


# ----------------------------------------------------------------------------------------------- a service with latency


class SearchService(BaseHTTPRequestHandler):
    """A SearXNG server with images of its own; every response takes `LATENCY`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a query, or send an image."""
        time.sleep(LATENCY)
        base = f"http://{self.headers['Host']}"
        if self.path.startswith("/image"):
            self._send(png(self.path), "image/png")
            return
        kind = "images" if "categories=images" in self.path else "general"
        results = [
            {
                "url": f"{base}/page{number}",
                "title": f"result {number}",
                "content": "text",
                "img_src": f"{base}/image{number}?{self.path[-40:]}",
                "template": "images.html" if kind == "images" else "default.html",
                "category": kind,
                "engine": "made up",
            }
            for number in range(RESULTS)
        ]
        self._send(json.dumps({"query": "q", "results": results}).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def png(seed: str) -> bytes:
    """Return an image that depends on a seed."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", (48, 48), random.Random(seed).randbytes(48 * 48 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """The server, for many connections at once."""

    daemon_threads = True
    request_queue_size = 256


async def search_times(url: str) -> dict[str, tuple[float, float]]:
    """Return the time of each kind of call, and that of the same requests one after another, in seconds."""
    backend = load_search(f"searxng:{url}")
    context = ToolContext(backend, SeenImages(), PassageReader())
    await ImageSearch().run({"query": "first use loads libraries and connects"}, context)
    queries = [f"query {number}" for number in range(4)]
    start = time.perf_counter()
    result = await TextSearch().run({"queries": queries}, context)
    texts = time.perf_counter() - start
    assert result.text.count("[result") == 40, result
    start = time.perf_counter()
    for query in queries:
        await backend.search(f"{query} again", 10)
    texts_apart = time.perf_counter() - start
    start = time.perf_counter()
    images = await ImageSearch().run({"query": "boat"}, context)
    together = time.perf_counter() - start
    assert len(images.images) == 5, images
    close = getattr(backend, "close", None)
    if close is not None:
        await close()
    return {"four queries": (texts, texts_apart), "image search": (together, LATENCY * (1 + len(images.images)))}


def measure_search() -> None:
    """Print the times of search."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["KNOWGEN_CACHE"] = cache
        server = Server(("127.0.0.1", 0), SearchService)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            times = asyncio.run(search_times(f"http://127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()
            server.server_close()
    ideal = {"four queries": LATENCY, "image search": 2 * LATENCY}  # images are downloaded after the search
    for name, (together, apart) in times.items():
        share = together / ideal[name]
        print(
            f"{name}: {1000 * together:.0f} ms, {share:.2f} x {1000 * ideal[name]:.0f} ms of latency "
            f"(target {TARGET:g}); one after another {1000 * apart:.0f} ms"
        )


# --------------------------------------------------------------------------------------------- rollouts in virtual time


class Course:
    """The made-up times of one rollout: seconds of each reply, and of the tool after it.

    Args:
        number: Number of the rollout.
    """

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        calls = rng.randint(2, 8)
        self.replies = [min(90.0, rng.lognormvariate(1.8, 0.6)) for _ in range(calls + 1)]
        self.tools = [
            rng.choice((rng.uniform(0.4, 1.5), rng.uniform(1.5, 4.0), rng.uniform(4.0, 25.0))) for _ in range(calls)
        ]


class SimulatedPolicy:
    """A policy that replies to a limited number of rollouts at once.

    Args:
        places: That number.
        courses: Times by the prompt of a rollout.

    Attributes:
        busy_seconds: Time of all replies.
        pressed_seconds: Time during which a rollout waited for a place.
        pressed_busy: Time of replies during that time.
    """

    def __init__(self, places: int, courses: Mapping[str, Course]) -> None:
        self.places, self.courses = places, courses
        self.busy = self.waiting = 0
        self.busy_seconds = self.pressed_seconds = self.pressed_busy = 0.0
        self._slots = asyncio.Semaphore(places)
        self._since = 0.0

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name of the policy."""
        return {"policy": "simulated"}

    def open(self, sampling: Sampling, prompt: str, session: str) -> SimulatedSession:
        """Return a session."""
        return SimulatedSession(self, self.courses[prompt])

    async def close(self) -> None:
        """Do nothing."""

    def count(self) -> None:
        """Add the time since the last change to the sums."""
        now = asyncio.get_running_loop().time()
        passed = now - self._since if self._since else 0.0
        self._since = now
        self.busy_seconds += passed * self.busy
        if self.waiting:
            self.pressed_seconds += passed
            self.pressed_busy += passed * self.busy


class SimulatedSession:
    """A rollout of the simulated policy.

    Args:
        policy: The policy.
        course: Its times.
    """

    segments: Sequence[Segment] = ()

    def __init__(self, policy: SimulatedPolicy, course: Course) -> None:
        self._policy, self._course, self._round = policy, course, 0

    async def reply(self, messages: Sequence[Message]) -> PolicyReply:
        """Wait for a place, reply, and free the place."""
        policy = self._policy
        policy.count()
        policy.waiting += 1
        async with policy._slots:
            policy.count()
            policy.waiting -= 1
            policy.busy += 1
            await asyncio.sleep(self._course.replies[self._round])
            policy.count()
            policy.busy -= 1
        self._round += 1
        if self._round > len(self._course.tools):
            return PolicyReply(ANSWER)
        seconds = self._course.tools[self._round - 1]
        call = json.dumps({"name": "wait", "arguments": {"seconds": seconds, "round": self._round}})
        return PolicyReply(f"<tool_call>{call}</tool_call>")

    async def close(self) -> None:
        """Do nothing."""


class Waiting:
    """A tool that takes some time and returns a text."""

    name = "wait"
    description = "Wait."
    parameters: ClassVar[Mapping[str, Any]] = {"type": "object", "properties": {}}

    def __init__(self, text: str = "done") -> None:
        self._text = text

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Wait."""
        await asyncio.sleep(float(arguments.get("seconds", 0.0)))
        return ToolResult(f"{self._text} {arguments.get('round')}")


class NoSearch:
    """A search backend that finds nothing."""

    version = "none"

    async def search(self, query: str, k: int = 5) -> list[Hit]:
        """Find nothing."""
        return []

    async def image_search(self, query: str, k: int = 5) -> list[ImageHit]:
        """Find nothing."""
        return []

    async def open(self, url: str) -> Page:
        """Fail."""
        raise DataError("no such page", where=url)


def agent_with(policy: Any, tool: Tool) -> GenSearcher:
    """Return the agent with a policy and one tool."""
    search: SearchBackend = NoSearch()
    return GenSearcher(policy, search, tools=[tool], image_pixels=0)


def measure_rollouts(count: int, places: int) -> None:
    """Print how rollouts use the places of a policy."""
    courses = {f"prompt {number}": Course(number) for number in range(count)}

    async def all_rollouts() -> tuple[SimulatedPolicy, float]:
        policy = SimulatedPolicy(places, courses)
        agent = agent_with(policy, Waiting())
        loop = asyncio.get_running_loop()
        start = loop.time()
        trajectories = await asyncio.gather(*(agent.run(prompt, session=prompt) for prompt in courses))
        assert all(each.ending == "answer" for each in trajectories)
        return policy, loop.time() - start

    real = time.perf_counter()
    policy, seconds = run_in_virtual_time(all_rollouts())
    real = time.perf_counter() - real
    whole = policy.busy_seconds / (places * seconds)
    pressed = "no rollout waits for a place"
    if policy.pressed_seconds:
        share = policy.pressed_busy / (places * policy.pressed_seconds)
        pressed = f"{100 * share:.1f} % of the places busy while a rollout waits for one (target 95 %)"
    print(f"{count} rollouts on {places} places: {pressed}")
    print(f"all ended after {seconds:.0f} s, {100 * whole:.0f} % busy over all of it (simulated in {real:.1f} s)")
    steps = lock_step(list(courses.values()), places)
    print(f"lock-step: all ended after {steps:.0f} s, {100 * policy.busy_seconds / (places * steps):.0f} % busy")


def lock_step(courses: Sequence[Course], places: int) -> float:
    """Return the time when all rollouts take each round together: all replies, then all tools at once."""
    total = 0.0
    for number in range(max(len(course.replies) for course in courses)):
        replies = [course.replies[number] for course in courses if number < len(course.replies)]
        free = [0.0] * places
        for seconds in replies:
            heapq.heapreplace(free, free[0] + seconds)
        total += max(free)
        total += max((course.tools[number] for course in courses if number < len(course.tools)), default=0.0)
    return total


# --------------------------------------------------------------------------------------------------------------- memory


def measure_memory(count: int) -> None:
    """Print the memory of rollouts that wait after 8 tool results of 20,000 characters."""
    text = "The harbour of Olm was dredged again in that year. " * 400

    class Stalling:
        identity: ClassVar[Mapping[str, Any]] = {}

        def __init__(self) -> None:
            self.waiting, self.go = 0, asyncio.Event()

        def open(self, sampling: Sampling, prompt: str, session: str) -> StallingSession:
            return StallingSession(self)

        async def close(self) -> None:
            pass

    class StallingSession:
        segments: Sequence[Segment] = ()

        def __init__(self, policy: Stalling) -> None:
            self._policy, self._round = policy, 0

        async def reply(self, messages: Sequence[Message]) -> PolicyReply:
            self._round += 1
            if self._round <= 8:
                call = json.dumps({"name": "wait", "arguments": {"round": f"{self._round} {id(self)}"}})
                return PolicyReply(f"<think>{text[:2000]}{id(self)}</think><tool_call>{call}</tool_call>")
            self._policy.waiting += 1
            await self._policy.go.wait()
            return PolicyReply(ANSWER)

        async def close(self) -> None:
            pass

    async def run() -> None:
        policy = Stalling()
        agent = agent_with(policy, Waiting(text))
        gc.collect()
        before = rss()
        tasks = [asyncio.create_task(agent.run(f"prompt {number}", session=str(number))) for number in range(count)]
        while policy.waiting < count:
            await asyncio.sleep(0.05)
        gc.collect()
        each = (rss() - before) / count
        policy.go.set()
        await asyncio.gather(*tasks)
        results = 8 * len(text) // 1000
        print(f"a waiting rollout with {results} kB of tool results takes {each / 1000:.0f} kB (target 1000)")

    asyncio.run(run())


def rss() -> int:
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=512)
    parser.add_argument("--places", type=int, default=64)
    arguments = parser.parse_args()
    measure_search()
    measure_rollouts(arguments.rollouts, arguments.places)
    measure_memory(arguments.rollouts)


if __name__ == "__main__":
    main()
